"""report.html from a synthetic run folder; the page in a browser is tested elsewhere."""

import html
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_run import NASTY, PROFILE, front_row, manifest, student, trial, verdict, write_run

from nas.choosing.choose import can_tell_apart, knee, parse_rows, savings
from nas.errors import RunError
from nas.report.data import Run, mean_bits, read_run
from nas.report.drawing import arena_svg, flow_svg
from nas.report.format import script_json
from nas.report.headline import FEW
from nas.report.history import CURVE_POINTS, normalised, refusals, search_curve
from nas.report.page import write_report
from nas.run_folder import (
    CostSummary,
    TrialRecord,
    read_front,
    write_front,
    write_json,
    write_trials,
)
from nas.search.pareto import hypervolume
from nas.space import architecture_id


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


def data(page: str) -> dict[str, Any]:
    """What the scripts of the page are given."""
    held = re.findall(r'id="data">(.*?)</script>', page, flags=re.DOTALL)[0]
    loaded: dict[str, Any] = json.loads(held)
    return loaded


def test_writes_the_page_into_the_folder(run: Path) -> None:
    path = write_report(run)
    assert path == run / "report.html"
    assert not list(run.glob(".*.tmp"))
    first = path.read_bytes()
    assert write_report(run).read_bytes() == first


def test_names_every_candidate_everywhere(loaded: Run, page: str, markup: str) -> None:
    plots = data(page)
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


def test_forty_candidates_make_a_page_that_can_be_mailed(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path / "full", candidates=40, trained=1200))
    assert page.stat().st_size < 9_000_000  # plotly alone takes almost 5


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
        "8 networks</b> in 2 h 14 min, left 2 more halfway, refused",
        "refused 3 by their cost",
        "1 duplicate, and 1 trial failed",
        "5 candidates</b> on the front",
        "28.0 KB of RAM",
        "50 ms an inference",
        "94.0 %</b> validation accuracy",
        "The conv teacher reaches 97.0 % and 96.0 %",
    ):
        assert words in head, words


@pytest.mark.parametrize("trained", [FEW - 1, FEW])
def test_a_trial_run_is_called_one(tmp_path: Path, trained: int) -> None:
    run = write_run(tmp_path / "run", 1)
    write_json(run / "run.json", manifest() | {"trials": {"trained": trained}})
    text = write_report(run).read_text()
    assert ("are a trial run: search for longer" in text) is (trained < FEW)


def test_budgets_are_drawn(page: str) -> None:
    plots = data(page)
    lines = [s for figure in plots["front"] for s in figure["layout"]["shapes"]]
    assert {s["x0"] for s in lines if s["xref"] == "x"} == {
        PROFILE.ram_budget_bytes / 1024,
        PROFILE.flash_budget_bytes / 1024,
        50.0,
    }


def test_refused_trials_by_budget_and_reason(markup: str, loaded: Run) -> None:
    section = markup.split('id="history"')[1].split("</section>")[0].replace("\u00a0", " ")
    assert "<td>RAM</td>" in section and "<td>Flash</td>" not in section
    assert "1.40 to 2.00 times the budget" in section
    assert "ram_bytes … is over the budget of … bytes &lt;i&gt;" in section
    assert "ram_bytes 40000 is over the budget of 28672 bytes" in section
    assert "diverged" in section
    counts = re.findall(
        r"<td>(Trained|Stopped|Duplicate|Refused|Failed)</td><td class=\"n\">(\d+)", section
    )
    assert counts == [
        ("Trained", "8"), ("Stopped", "2"), ("Duplicate", "1"), ("Refused", "3"), ("Failed", "1"),
    ]  # fmt: skip
    over = refusals(loaded.trials, loaded.budgets)
    assert over == {"ram_bytes": [pytest.approx(n / 28672) for n in (40000, 57344, 40002)]}


def test_a_trial_over_two_budgets_counts_in_both(loaded: Run) -> None:
    costs = {**loaded.trials[0].costs, "weight_bytes": 900.0, "latency_ms": 500.0}
    refused = replace(loaded.trials[0], status="infeasible", costs=costs)
    budgets = replace(loaded.budgets, weight_bytes=300.0)
    assert refusals([refused], budgets) == {"latency_ms": [10.0], "weight_bytes": [3.0]}
    assert refusals([refused], replace(budgets, latency_is_limit=False)) == {"weight_bytes": [3.0]}


def test_history_runs_over_time_and_over_networks(page: str) -> None:
    best, volume, outcomes = data(page)["history"]
    for figure in (best, volume, outcomes):
        assert [t["x"] for t in figure["data"]] == figure["across"]["time"]
        for trace, across in zip(figure["data"], figure["across"]["trained"], strict=True):
            assert len(across) == len(trace["y"])
    assert best["across"]["trained"] == [list(range(1, 9))] * 2
    assert {t["name"]: t["y"][-1] for t in outcomes["data"]} == {
        "Trained": 8, "Stopped": 2, "Duplicate": 1, "Refused": 3, "Failed": 1,
    }  # fmt: skip


def test_the_better_end_of_parallel_axes(page: str) -> None:
    held = data(page)
    columns = {axis["column"]: axis for axis in held["parallel"]}
    assert list(columns) == ["val_score", "ram_bytes", "flash_bytes", "latency_ms", "weight_bytes",
                             "bits"]  # fmt: skip
    assert [axis["moreIsBetter"] for axis in held["parallel"]] == [True] + [False] * 5
    for column, axis in columns.items():
        values = [c[column] / axis["unit"] for c in held["candidates"]]
        assert (axis["low"], axis["high"]) == pytest.approx((min(values), max(values)))
        assert axis["ticks"] and all(axis["low"] <= t <= axis["high"] for t in axis["ticks"])


def test_one_candidate_still_has_axes(tmp_path: Path) -> None:
    held = data(write_report(write_run(tmp_path / "one", candidates=1)).read_text())
    assert all(axis["low"] < axis["high"] for axis in held["parallel"])


def test_bits_of_a_weight() -> None:
    graph = student(3).lower()
    layers = [(graph.weight_shape(op), getattr(op, "weight_bits", 0)) for op in graph.ops]
    sizes = [(int(np.prod(shape)), bits) for shape, bits in layers if shape]
    assert len({bits for _, bits in sizes}) > 1
    whole = sum(n for n, _ in sizes)
    assert mean_bits(graph) == pytest.approx(sum(n * bits for n, bits in sizes) / whole)


def test_knee_and_what_less_costs(markup: str, loaded: Run) -> None:
    rows = parse_rows(read_front(loaded.folder))
    chosen = knee(rows)
    assert loaded.knee == chosen.id
    section = markup.split('id="choice"')[1].split("</section>")[0].replace("\u00a0", " ")
    at = next(c for c in loaded.candidates if c.id == chosen.id)
    assert f'data-select="{at.index}"><code>{chosen.id}' in section.split("</p>")[0]
    best = max(rows, key=lambda row: row.val_score)
    step = savings(rows, best, "ram")[0]
    ladder = section.split("Less RAM")[1].split("</table>")[0]
    assert step.row.id in ladder
    assert f"{-100 * step.lost:.1f} points".replace("-", "\u2212") in ladder
    assert ("may be chance" in ladder) == any(not s.real for s in savings(rows, best, "ram"))


def test_comparison_holds_every_candidate(page: str, loaded: Run) -> None:
    compare = data(page)["compare"]
    rows = parse_rows(read_front(loaded.folder))
    assert len(compare["cells"]) == len(compare["apart"]) == len(rows)
    for cells, one, apart in zip(compare["cells"], rows, compare["apart"], strict=True):
        shown = {r["label"]: cell for r, cell in zip(compare["rows"], cells, strict=True)}
        assert shown["RAM"][1] == one.ram_bytes and shown["Validation"][1] == one.val_score
        assert shown["Sensors"][0] == " + ".join(one.modalities)
        assert apart == "".join(str(int(can_tell_apart(one, other))) for other in rows)


def test_a_missing_sensor(markup: str) -> None:
    panels = markup.replace("\u00a0", " ").split('<article class="detail"')[1:]
    assert "Not recorded: the run was written by an earlier version" in panels[0]
    assert "stands at its training mean" in panels[1]
    assert '<td>accel</td><td class="n">43.2 %</td><td class="n">\u221246.8 points' in panels[1]


def test_command_that_takes_a_candidate(tmp_path: Path) -> None:
    run = write_run(tmp_path / "my run's", candidates=1)
    text = html.unescape(write_report(run).read_text())
    name = architecture_id(student(0))
    command = next(re.finditer(r"nas pick '[^<]*", text))[0]
    assert shlex.split(command) == ["nas", "pick", str(run), name, "--out", name]


def test_energy_with_its_formula(markup: str, loaded: Run) -> None:
    for candidate, panel in zip(loaded.candidates, markup.split('<article class="detail"')[1:],
                                strict=True):  # fmt: skip
        line = re.search(r"<b>([\d.]+)\u00a0µJ</b> an inference = (.*?):", panel)
        assert line is not None
        latency, ampere, volt = (float(x) for x in re.findall(r"([\d.]+)\u00a0\w", line[2]))
        assert latency * ampere * volt == pytest.approx(float(line[1]), rel=0.02)
        assert float(line[1]) == pytest.approx(candidate.values["energy_uj"], rel=0.006)


def panels(markup: str) -> list[str]:
    """The panel of each candidate, its words one space apart."""
    parts = [p.split("</article>")[0] for p in markup.split('<article class="detail"')[1:]]
    return [" ".join(part.split()) for part in parts]


def block(panel: str, title: str) -> str:
    """One block of a panel."""
    return panel.split(f"<h4>{title}</h4>")[1].split("</section>")[0]


def test_what_the_emulated_chip_showed(markup: str, loaded: Run) -> None:
    candidate = loaded.candidates[1]
    held = verdict(1)
    assert candidate.verdict == held
    shown = panels(markup)[1]
    text = block(shown, "On the emulated chip")
    arena, stack = int(candidate.values["arena_bytes"] or 0), held.stack_bytes
    share = f"{100 * held.measured_ram_bytes / PROFILE.ram_budget_bytes:.0f} %"
    latency = candidate.values["latency_ms"] or 0
    assert latency == pytest.approx(held.modelled_cycles / 64e3)
    for part in (
        "compiled by zig &lt;b&gt;",
        "ran on an emulated Cortex-M4 with 64 inputs inside exactly the budget of cortex-m4-32k",
        "all 256 outputs equal the integer reference",
        f"{held.measured_ram_bytes:,} B<small>{share} of {PROFILE.ram_budget_bytes:,}</small>",
        f"<small>{arena:,} arena + 36 working memory + {stack:,} stack</small>",
        f"{held.measured_flash_bytes:,} B<small>",
        "<dd>45,678</dd>",
        f"{held.modelled_cycles:,}<small>{held.core_cycles:,} core + 1,500 Flash misses ",
        f"<small>{0.9 * latency:#.3g} to {1.1 * latency:#.3g} ms with the model's ±10 %</small>",
        "<dd>0<small>of 256, with 64 inputs</small></dd>",
        f'<td class="n">{held.predicted_ram_bytes:,}</td><td class="n">{held.measured_ram_bytes:,}',
        "<td>Cycles</td>",
        "\u22125.0 %</td>",
    ):
        assert part in text, part
    assert shown.count("<small>measured</small>") == 2
    assert shown.count("<small>modelled, ±10 %</small>") == 2
    assert "modelled latency" in block(shown, "Energy")
    assert ">predicted<" not in shown


def test_what_was_not_run_is_called_predicted(markup: str, page: str, loaded: Run) -> None:
    for index, why in ((0, "no compiler &lt;b&gt;"), (-1, "nas verify does it.")):
        assert loaded.candidates[index].verdict is None
        shown = panels(markup)[index]
        text = block(shown, "On the emulated chip")
        assert "Not run on the emulated chip" in text and why in text
        assert shown.count("<small>predicted</small>") == 4
        assert "modelled" not in shown and "measured" not in shown
        assert "predicted latency" in block(shown, "Energy")
    kinds = data(page)["front"][0]["data"][1]["hovertext"]
    wanted = ["predicted" if c.verdict is None else "measured" for c in loaded.candidates]
    assert [w in kind for w, kind in zip(wanted, kinds, strict=True)] == [True] * len(wanted)
    assert all(kind.count("predicted") == (w == "predicted") for w, kind in
               zip(wanted, kinds, strict=True))  # fmt: skip
    rows = re.findall(r'<tr data-index="\d+">.*?</tr>', markup, flags=re.DOTALL)
    assert [r.count("<small>predicted</small>") for r in rows] == [4, 0, 0, 0, 4]
    cells = data(page)["compare"]["cells"]
    assert [sum("(predicted)" in c[0] for c in row) for row in cells] == [4, 0, 0, 0, 4]


def test_outputs_that_differ_are_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", candidates=3)
    path = next(run.rglob("verdict.json"))
    first = {"operator": NASTY, "input": 3, "index": 9, "c": -7, "reference": 5}
    write_json(path, json.loads(path.read_text()) | {"outputs_differing": 12, "difference": first})
    text = html.unescape(write_report(run).read_text())
    assert "12 of 256 outputs differ" in text
    assert f"input 3: {NASTY}, element 9: the C gives -7, the reference 5" in text


def test_a_verdict_on_another_program_does_not_count(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", candidates=3)
    rows = read_front(run)
    write_front(run, [row | {"flash_bytes": int(row["flash_bytes"]) + 1} for row in rows])
    assert [c.verdict for c in read_run(run).candidates] == [None] * 3


def test_tflm_stands_beside_and_is_not_mixed_in(markup: str) -> None:
    texts = [block(panel, "The same network under TFLM") for panel in panels(markup)]
    assert "<dd>4,752 B</dd>" in texts[0] and "<dd>7,536 B</dd>" in texts[0]
    assert "not a part of the figures above" in texts[0] and "about 100 KB" in texts[0]
    assert "was not verified" in texts[-1]


def test_what_the_bits_save(markup: str, loaded: Run) -> None:
    candidate = loaded.candidates[3]
    plain = candidate.document["at_8_bits"]
    before = {op["name"]: op for op in plain["per_op"]}
    text = block(panels(markup)[3], "What the bits save")
    seen = 0
    for op in candidate.per_op:
        bits = getattr(next(o for o in candidate.graph.ops if o.name == op.name), "weight_bits", 0)
        if not bits:
            assert f"<td>{html.escape(op.name)}<" not in text
            assert before[op.name]["weight_bytes"] == op.weight_bytes
            continue
        seen += bits < 8
        saved = before[op.name]["weight_bytes"] - op.weight_bytes
        assert (saved > 0) == (bits < 8)
        line = text.split(f"<td>{html.escape(op.name)}<small>{bits} bits</small>")[1]
        line = line.split("</tr>")[0]
        assert f"{op.weight_bytes:,.0f}<small>{before[op.name]['weight_bytes']:,} at" in line
        assert f"<b>{saved:,.0f}</b>" in line
        assert f"{op.cycles:,.0f}<small>{before[op.name]['cycles']:,.0f} at" in line
    assert seen > 1
    whole = text.split("Whole network")[1]
    assert f"<b>{plain['weight_bytes'] - candidate.values['weight_bytes']:,.0f}</b>" in whole
    assert f"{sum(op['cycles'] for op in plain['per_op']):,.0f} at 8" in whole
    flash = candidate.document["cost"]["flash_bytes"] - plain["flash_bytes"]
    told = f"{abs(flash):,} bytes of Flash {'more' if flash > 0 else 'less'} than with 8 bits"
    assert flash and told in text


def test_bits_that_save_nothing_or_are_not_recorded(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", candidates=1)
    path = next(run.rglob("architecture.json"))
    document = json.loads(path.read_text())
    for op in document["graph"]["ops"]:
        if "weight_bits" in op:
            op["weight_bits"] = 8
    write_json(path, document)
    assert "Every layer has 8 bits" in write_report(run).read_text()
    del document["at_8_bits"]
    write_json(path, document)
    assert "Every layer has 8 bits" not in write_report(run).read_text()


def test_kinds_of_numbers_are_those_of_the_run(tmp_path: Path, markup: str) -> None:
    text = markup.split('id="meaning"')[1].replace("\u00a0", " ")
    assert "<td>RAM</td><td><b>measured</b></td>" in text
    assert "RAM, Flash, latency, energy of the rest</td><td><b>predicted</b>" in text
    assert "On the 3 candidates of this run that ran on the emulated chip, predictions" in text
    assert "cycles by 5.0 % in the mean" in text and "estimated" not in text
    alone = write_report(write_run(tmp_path / "run", candidates=1)).read_text()
    assert "<td>RAM</td>" not in alone.split('id="meaning"')[1]
    assert "How far predictions are off is not known for this run" in alone


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


@pytest.mark.parametrize(
    "validation, text",
    [
        ("split", "Only validation chose"),
        ("cross", "each third was answered by a network that had not"),
    ],
)
def test_what_judged_is_said(tmp_path: Path, validation: str, text: str) -> None:
    run = write_run(tmp_path / "run", candidates=1)
    write_json(run / "run.json", manifest() | {"validation": validation})
    page = write_report(run).read_text()
    assert text in page
    assert ("% cross-validated accuracy" in page.replace("</b>", "")) is (validation == "cross")


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
