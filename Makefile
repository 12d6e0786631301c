# make search   sets up .venv from the pins and runs the demo
# make test     sets up .venv and runs the tests, JOBS files at a time
# make setup    only sets up .venv
# make check    lint and types
# make tflite-runtime   exported files in LiteRT's predecessor, which needs Python 3.11
PYTHON ?= python3
PYTHON_OF_TFLITE_RUNTIME ?= python3.11
VENV ?= .venv
JOBS ?= 2
EXTRAS ?= demo,tflm,emulate,test
READY = $(VENV)/.ready-$(shell (echo $(EXTRAS); cat pyproject.toml constraints.txt) | cksum | cut -d' ' -f1)

.PHONY: setup search test check tflite-runtime clean

search: $(READY)
	$(VENV)/bin/python run_search.py

setup: $(READY)

test: $(READY)
	$(VENV)/bin/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Its environment holds only what its extra names: nothing there may bring numpy 2 or LiteRT.
tflite-runtime: $(READY)
	rm -rf $(VENV)-tflite && mkdir -p $(VENV)-tflite/models
	$(PYTHON_OF_TFLITE_RUNTIME) -m venv $(VENV)-tflite
	$(VENV)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb")) \
		["project"]["optional-dependencies"]["tflite-runtime"], sep="\n")' > $(VENV)-tflite/extra.txt
	$(VENV)-tflite/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement $(VENV)-tflite/extra.txt
	PYTHONPATH=. $(VENV)/bin/python tests/predecessor.py write $(VENV)-tflite/models
	PYTHONPATH=. $(VENV)-tflite/bin/python tests/predecessor.py check $(VENV)-tflite/models

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.12" >&2; exit 1; }
	@echo "making $(VENV) with all that is needed, a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-tflite
