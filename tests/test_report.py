"""report.html from a synthetic run folder; the page in a browser is tested elsewhere."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.cost import Cost, estimate
from nas.errors import RunError
from nas.graph import Graph
from nas.memory import MemoryPlan, check_plan, plan_memory
from nas.pareto import hypervolume
from nas.profile import load_profile
from nas.report.charts import CURVE_POINTS, normalised, search_curve
from nas.report.data import Plan, Run, read_run
from nas.report.drawing import arena_svg, flow_svg, lifetimes
from nas.report.format import script_json
from nas.report.page import write_report
from nas.run_folder import (
    CostSummary,
    TrialRecord,
    summarise,
    write_front,
    write_json,
    write_trials,
)
from nas.space import architecture_id
from search_spaces.convolutional import ConvBranch, ConvLayer, DenseLayer, VectorBranch
from search_spaces.multimodal import MultimodalStudent

NASTY = '<b>&"\'</script><img src="http://x.test/a.png">'
CLASSES = [NASTY, "walk & run", "Ünïcode \u2028", "sit"]
PROFILE = load_profile("cortex-m4-32k")
REASON = "ram_bytes {n} is over the budget of 28672 bytes <i>"


def student(number: int) -> MultimodalStudent:
    """A small architecture that differs with its number: one to three sensors, every fusion."""
    bits = (8, 4, 2)
    wide = ConvLayer(4 + 2 * number, bits[number % 3], 0, True)
    deep = ConvLayer(6 + number, bits[(number + 1) % 3], bits[number % 3], number % 2 == 0)
    series = ConvBranch(
        "accel", (1, 64, 3), 1, 5, "stride", (wide, deep), ("mean", "grid")[number % 2], 8, 8
    )
    image = ConvBranch("view", (12, 10, 1), 1, 3, "max", (wide,), "mean", 8, 4)
    vector = VectorBranch(NASTY, (1, 1, 9), (DenseLayer(8, 4),))
    branches = (series, image, vector)[: 1 + number % 3]
    fusion = "none" if len(branches) == 1 else ("add", "gate", "concat")[number // 3 % 3]
    return MultimodalStudent(
        branches,
        fusion,  # type: ignore[arg-type]
        4 if fusion == "gate" else 0,
        8,
        4,
        8,
        len(CLASSES),
    )


def costed(number: int) -> tuple[Graph, MemoryPlan, Cost]:
    graph = student(number).lower()
    plan = plan_memory(graph)
    return graph, plan, estimate(graph, plan, PROFILE)


def architecture(number: int) -> dict[str, Any]:
    """architecture.json of a candidate."""
    graph, plan, cost = costed(number)
    inputs = {
        source.name: {
            "kind": "series",
            "shape": list(source.shape),
            "mean": [0.1] * source.shape[2],
            "std": 1.5,
            "scale": 0.03,
            "zero_point": -3,
        }
        for source in graph.inputs
    }
    plain = student(number)
    return {
        "id": architecture_id(plain),
        "space": "conv",
        "architecture": plain.to_json(),
        "graph": graph.to_json(),
        "inputs": inputs,
        "classes": CLASSES,
        "cost": cost.to_json(),
        "plan": plan.to_json(),
        "training": {"seeds": 2, "steps": 900, "val_scores": [0.91, 0.92], "weights_hash": "ab12"},
        "groups": {"worst": {"group": NASTY, "score": 0.613, "rows": 31}} if number else None,
        "confusion": (np.eye(4, dtype=int) * 40 + 3).tolist(),
    }


def front_row(number: int, score: float, verified: str) -> dict[str, Any]:
    graph, _, cost = costed(number)
    summary = summarise(graph, cost)
    return {
        "id": architecture_id(student(number)),
        "verified": verified,
        "metric": "accuracy",
        "val_score": score,
        "val_low": score - 0.02,
        "val_high": score + 0.02,
        "test_score": score - 0.01,
        "test_low": score - 0.03,
        "test_high": score + 0.01,
        "test_accuracy": score - 0.01,
        **{name: getattr(summary, name) for name in CostSummary.__slots__},
        "seeds": 2,
        "steps": 900,
        "trial": number,
        "weights_hash": "ab12",
    }


def trial(number: int, status: str, score: float | None, reason: str = "") -> TrialRecord:
    plain = student(number)
    graph, _, cost = costed(number)
    return TrialRecord(
        number,
        architecture_id(plain),
        status,  # type: ignore[arg-type]
        score,
        summarise(graph, cost),
        3.0,
        20.0 * number,
        reason,
        plain.to_json(),
    )


def manifest() -> dict[str, Any]:
    """run.json."""
    return {
        "format": 1,
        "command": ["run_search.py", "--data", NASTY],
        "started": "2026-03-01T20:00:00+00:00",
        "ended": "2026-03-01T22:14:00+00:00",
        "versions": {"python": "3.11", "torch": "2.6"},
        "seed": 0,
        "data": {
            "name": f"my {NASTY}",
            "path": None,
            "hash": "d" * 16,
            "modalities": ["accel", "view", NASTY],
            "classes": CLASSES,
            "rows": {"train": 700, "val": 150, "test": 150},
            "ignored_keys": ["note"],
        },
        "profile": {**PROFILE.to_dict()},
        "budgets": {
            "ram_bytes": PROFILE.ram_budget_bytes,
            "flash_bytes": PROFILE.flash_budget_bytes,
            "latency_ms": 50.0,
            "latency_is_limit": True,
            "weight_bytes": None,
        },
        "space": "conv",
        "sampler": "ehvi",
        "objectives": ["error", "ram", "flash", "latency"],
        "metric": "accuracy",
        "teacher": {"kind": "ensemble", "hash": "e" * 16, "val_score": 0.97, "test_score": None,
                    "parameters": 123456},
        "distil": True,
        "trials": {"trained": 8, "duplicate": 1, "infeasible": 3, "failed": 1},
        "hypervolume": 0.5,
        "hypervolume_reference": {"error": 1.0, "ram": 1.0, "flash": 1.0, "latency": 1.0},
        "seed_deviation": 0.004,
        "notes": [f"A note about {NASTY}"],
    }  # fmt: skip


def proof(number: int) -> dict[str, Any]:
    """verification.json."""
    runtime = {
        "runtime": "onnxruntime model_integer.onnx",
        "compared": 600,
        "differing": 0,
        "largest_difference": 0,
        "argmax_agreement": 1.0,
        "note": NASTY,
    }
    return {
        "id": architecture_id(student(number)),
        "inputs": 150,
        "verified": "host",
        "runtimes": [runtime],
    }


def write_run(run: Path, candidates: int = 5, trained: int = 8) -> Path:
    """A run folder whose last candidate has no verification.json."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "run.json", manifest())
    last = candidates - 1
    rows = [front_row(i, 0.9 + 0.01 * i, "no" if i == last else "host") for i in range(candidates)]
    write_front(run, rows)
    records = [trial(i, "trained", 0.9 + 0.01 * (i % 6)) for i in range(trained)]
    records.append(trial(2, "duplicate", 0.92))
    records += [trial(20 + i, "infeasible", None, REASON.format(n=40000 + i)) for i in range(3)]
    records.append(trial(23, "failed", None, "diverged"))
    write_trials(run, records)
    for i, row in enumerate(rows):
        home = run / "candidates" / row["id"]
        write_json(home / "architecture.json", architecture(i))
        (home / "model & more.onnx").write_bytes(b"onnx")
        if i != last:
            write_json(home / "verification.json", proof(i))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("results") / "demo")


@pytest.fixture(scope="module")
def loaded(run: Path) -> Run:
    return read_run(run)


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(run).read_text()


@pytest.fixture(scope="module")
def markup(page: str) -> str:
    """The page without its scripts and style."""
    return re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)


def test_writes_the_page_into_the_folder(run: Path) -> None:
    path = write_report(run)
    assert path == run / "report.html"
    assert not list(run.glob(".*.tmp"))
    first = path.read_bytes()
    assert write_report(run).read_bytes() == first


def test_names_every_candidate_everywhere(loaded: Run, page: str, markup: str) -> None:
    plots = json.loads(re.findall(r'id="plots">(.*?)</script>', page, flags=re.DOTALL)[0])
    assert [c["id"] for c in plots["candidates"]] == [c.id for c in loaded.candidates]
    assert len(plots["front"]) == 6
    for candidate in loaded.candidates:
        assert f'id="candidate-{candidate.index}"' in markup
        assert f'<tr data-index="{candidate.index}">' in markup
        assert markup.count(candidate.id) >= 3
        assert f'href="candidates/{candidate.id}/model%20%26%20more.onnx"' in markup
        for figure in plots["front"]:
            hover = figure["data"][1]["hovertext"][candidate.index]
            assert candidate.id in hover
            assert "budget" in hover


def test_asks_for_nothing_from_outside(page: str, markup: str) -> None:
    assert "default-src 'none'" in markup
    assert not re.search(r"<(script|link|img|iframe|source|object|embed)\b[^>]*\s(src|href)=", page)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", markup)
    assert "@import" not in page
    assert len(page.encode()) < 15_000_000


def test_nothing_from_a_file_acts_as_markup(page: str, markup: str) -> None:
    assert NASTY not in page
    assert "<img" not in markup
    assert "&lt;b&gt;&amp;&quot;" in markup
    assert page.count("<script") == page.count("</script>") == 3


def test_json_cannot_end_its_script() -> None:
    values = {"a": NASTY, "b": "<!-- \u2028"}
    text = script_json(values)
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == values
    with pytest.raises(ValueError, match="JSON"):
        script_json({"a": float("nan")})


def test_headline_counts_and_budgets(markup: str) -> None:
    head = markup.split("</header>")[0].replace("\u00a0", " ")
    for words in (
        "8 networks</b> in 2 h 14 min",
        "refused 3 by their cost",
        "1 duplicate, and 1 trial failed",
        "5 candidates</b> stand on the front",
        "28.0 KB of RAM",
        "50 ms an inference",
        "94.0 %</b> validation accuracy",
        "The ensemble teacher reaches 97.0 %",
    ):
        assert words in head, words


def test_budgets_are_drawn(page: str) -> None:
    plots = json.loads(re.findall(r'id="plots">(.*?)</script>', page, flags=re.DOTALL)[0])
    lines = [s for figure in plots["front"] for s in figure["layout"]["shapes"]]
    assert {s["x0"] for s in lines if s["xref"] == "x"} == {
        PROFILE.ram_budget_bytes / 1024,
        PROFILE.flash_budget_bytes / 1024,
        50.0,
    }


def test_refused_trials_are_grouped_by_reason(markup: str) -> None:
    table = markup.split('id="refused"')[1].split("</section>")[0]
    assert "ram_bytes … is over the budget of … bytes &lt;i&gt;" in table
    assert "ram_bytes 40000 is over the budget of 28672 bytes" in table
    assert ">3<" in table
    assert "diverged" in table


def test_detail_tells_what_is_absent(markup: str, loaded: Run) -> None:
    panels = markup.split('<article class="detail"')[1:]
    assert len(panels) == len(loaded.candidates)
    assert "no verification.json" in panels[-1]
    assert "no verification.json" not in panels[0]
    assert "onnxruntime model_integer.onnx" in panels[0]
    assert "The data has no groups" in panels[0]
    assert "61.3\u00a0%" in panels[1]
    for op in loaded.candidates[0].per_op:
        assert op.kernel in panels[0]


def test_many_classes_become_confusions(run: Path, tmp_path: Path) -> None:
    copy = write_run(tmp_path / "many", candidates=1)
    path = next((copy / "candidates").iterdir()) / "architecture.json"
    document = json.loads(path.read_text())
    matrix = np.eye(30, dtype=int) * 9
    matrix[7, 3] = 5
    write_json(path, {**document, "confusion": matrix.tolist(), "classes": []})
    text = write_report(copy).read_text()
    assert "30 classes; the most frequent confusions" in text
    assert "<td>class 7</td><td>class 3</td>" in text


def test_drawings_hold_every_tensor(loaded: Run) -> None:
    for candidate in loaded.candidates:
        graph = candidate.graph
        assert arena_svg(graph, candidate.plan).count("<rect") == len(graph.shapes)
        assert flow_svg(graph).count("<rect") == len(graph.shapes)


def test_lifetimes_agree_with_the_check_of_the_planner() -> None:
    for number in range(9):
        graph, plan, _ = costed(number)
        check_plan(graph, plan)
        drawn = Plan(plan.order, plan.offsets, plan.in_place, plan.arena_bytes, None)
        spans = lifetimes(graph, drawn)
        for moment in np.arange(0.25, len(plan.order) + 1, 0.5):
            live = sorted(
                (plan.offsets[name], int(np.prod(graph.shapes[name])))
                for name, (start, end) in spans.items()
                if start <= moment < end
            )
            ends = [offset + length for offset, length in live]
            assert all(e <= offset for e, (offset, _) in zip(ends, live[1:], strict=False))
            assert max(ends) <= plan.arena_bytes


def test_curve_never_falls_and_ends_at_the_hypervolume(tmp_path: Path) -> None:
    run = write_run(tmp_path / "long", candidates=1)
    rng = np.random.default_rng(0)
    records = []
    for i in range(200):
        record = trial(i % 9, "trained", float(rng.uniform(0.3, 0.99)))
        summary = {name: getattr(record.cost, name) for name in CostSummary.__slots__}
        for name in ("ram_bytes", "flash_bytes"):
            summary[name] = int(summary[name] * rng.uniform(0.5, 3))
        plain = record.to_json() | {"id": f"c{i:012x}", "number": i, "finished_s": 5.0 * i}
        records.append(TrialRecord.from_json(plain | {"cost": summary}))
    write_trials(run, records)
    loaded = read_run(run)
    curve = search_curve(loaded.trials, loaded.budgets)
    assert len(curve) <= CURVE_POINTS
    assert curve[-1].trained == 200
    volumes = [point.volume or 0.0 for point in curve]
    assert all(np.diff(volumes) >= 0)
    assert all(np.diff([point.best for point in curve]) >= 0)
    points = [normalised(t, loaded.budgets) for t in loaded.trials]
    whole = hypervolume(np.array([p for p in points if p is not None]), np.ones(4))
    assert volumes[-1] == pytest.approx(whole, abs=1e-12)


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    run = tmp_path / "empty"
    run.mkdir()
    write_json(run / "run.json", {"format": 1, "data": {}, "profile": {}})
    write_front(run, [])
    write_trials(run, [])
    text = write_report(run).read_text()
    assert "the front is empty" in text
    assert "Nothing was trained yet" in text
    assert "No trial was refused" in text


@pytest.mark.parametrize("name", ["run.json", "trials.csv", "front.csv", "architecture.json"])
@pytest.mark.parametrize("harm", ["missing", "torn", "emptied"])
def test_a_missing_or_torn_file_is_an_error(tmp_path: Path, name: str, harm: str) -> None:
    run = write_run(tmp_path / "run", candidates=2)
    path = next(run.rglob(name))
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-30] if harm == "torn" else b"")
    with pytest.raises(RunError, match=re.escape(name)):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_torn_verification_is_an_error(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", candidates=2)
    path = next(run.rglob("verification.json"))
    path.write_text(path.read_text()[:-9])
    with pytest.raises(RunError, match=r"verification\.json"):
        write_report(run)


@pytest.mark.parametrize(
    "change",
    [
        {"graph": {"inputs": [], "ops": [], "output": "x"}},
        {"graph": []},
        {"cost": {"per_op": [{"name": "a"}]}},
        {"plan": {"order": ["a"], "offsets": {}, "in_place": {}, "arena_bytes": 4}},
        {"plan": None},
    ],
)
def test_a_wrong_architecture_is_an_error(tmp_path: Path, change: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", candidates=1)
    path = next(run.rglob("architecture.json"))
    write_json(path, json.loads(path.read_text()) | change)
    with pytest.raises(RunError, match=r"architecture\.json"):
        write_report(run)


@pytest.mark.parametrize("name", ["../outside", "", ".."])
def test_a_candidate_outside_the_folder_is_an_error(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run", candidates=1)
    write_front(run, [front_row(0, 0.9, "no") | {"id": name}])
    with pytest.raises(RunError, match="plain name"):
        write_report(run)


def test_unknown_values_show_as_dashes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", candidates=1)
    names = ("val_low", "val_high", "test_score", "test_low", "test_high", "energy_uj")
    write_front(run, [front_row(0, 0.9, "no") | dict.fromkeys(names, "")])
    path = next(run.rglob("architecture.json"))
    document = json.loads(path.read_text())
    kept = {key: document[key] for key in ("graph", "cost", "plan")}
    write_json(path, kept)
    assert "\u2013" in write_report(run).read_text()


def test_another_format_is_an_error(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", candidates=1)
    write_json(run / "run.json", manifest() | {"format": 2})
    with pytest.raises(RunError, match="format 2"):
        write_report(run)
