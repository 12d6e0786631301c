# make search   sets up .venv from the pins and runs the demo
# make test     sets up .venv and runs the tests
# make check    lint and types
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= demo,tflm,test
READY = $(VENV)/.ready-$(shell (echo $(EXTRAS); cat pyproject.toml constraints.txt) | cksum | cut -d' ' -f1)

.PHONY: search test check clean

search: $(READY)
	$(VENV)/bin/python run_search.py

test: $(READY)
	$(VENV)/bin/python -m pytest

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV)
