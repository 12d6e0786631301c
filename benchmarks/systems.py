"""Tables and figures of the systems from the rows of `seeds.py`.

    python benchmarks/systems.py benchmarks/results/seeds.jsonl --out benchmarks/results \
        [--into README.md]

Prints Markdown, medians over seeds: what was found in each row, and a table a system. Writes a
figure a system: every seed's test score of what was found, of the same architecture in float and at
8, 4 and 2 bits, with the teacher and without, and with each sensor alone.
With --into a figure and a table of each system replace what is between the markers in that file.
"""

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

WIDTH, ROW, LEFT, RIGHT, TOP = 760, 24, 190, 40, 66
INK, ACCENT, SECOND, GREY = "#1c2733", "#0b6bcb", "#c2571a", "#c8d0d9"
STEPS, MOST_LINES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2), 9  # of a score's axis
GOALS = {
    ("audio", "coswara_voice"): 0.82,
    ("depth-thermal", "fruit_rgb_depth_thermal"): 0.76,
    ("transformer", "rfid_accel_rssi"): 0.972,
    ("transformer", "indoor_zone"): 0.775,
    ("mamba", "rfid_accel_rssi"): 0.970,
    ("mamba", "indoor_zone"): 0.77,
    ("all-64k", "rfid_accel_rssi"): 0.972,
    ("all-64k", "indoor_zone"): 0.78,
    ("all-64k", "av_digits_hard"): 0.91,
    ("all-64k", "uci_har"): 0.94,
    ("smallest", "rfid_accel_rssi"): 0.972,
}
"""What each row must reach, from prototypes that were measured before the search was written."""

PAPERS = {
    "audio": "Cough, speech and breathing",
    "depth-thermal": "Depth and thermal images",
    "transformer": "Localisation, Transformer in 64 KB",
    "mamba": "Localisation, Mamba in 32 KB",
    "all-64k": "Any kind of branch in 64 KB",
    "smallest": "3.5 KB of weights",
}
MARKERS = ("<!-- systems -->", "<!-- end of systems -->")

COSTS = {
    "weight bytes": ("weight_bytes", ",.0f"),
    "RAM": ("ram_bytes", ",.0f"),
    "stepwise RAM": ("streamed_ram_bytes", ",.0f"),
    "Flash": ("flash_bytes", ",.0f"),
    "ms": ("latency_ms", ".3g"),
}
"""Columns of a table: where the value is in a row, and how it is written."""

CROSSWISE = ", judged crosswise"  # searches whose candidates were, though validation is large
Row = dict[str, Any]
Place = tuple[str, str]  # system, data


def goal_of(system: str, data: str) -> float:
    """What a row must reach, however its candidates were judged."""
    return GOALS[system, data.removesuffix(CROSSWISE)]


def by_place(rows: Iterable[Row]) -> dict[Place, dict[str, list[Row]]]:
    """(system, data) -> variant -> its rows, one a seed; the teacher is a variant, too."""
    places: dict[Place, dict[str, list[Row]]] = {}
    for row in rows:
        crosswise = row.get("validation") == "cross"
        data = row["data"] + (CROSSWISE if crosswise else "")
        place = places.setdefault((row["row"], data), {})
        place.setdefault(row["variant"], []).append(row)
        if row["variant"] == "found" and "val_score" in row["teacher"]:
            scores = {key: row["teacher"][key] for key in ("val_score", "test_score")}
            place.setdefault("teacher", []).append({"seed": row["seed"], **scores})
    return places


def _middle(rows: Sequence[Row], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return median(values) if values else None


def table(panels: dict[str, dict[str, list[Row]]]) -> str:
    """Markdown of one system: a column of test scores for each data set, costs in the same order.

    Figures of found candidates are measured on the emulated chip, others predicted.
    """
    tests = [f"test, {data}: median (seeds)" for data in panels]
    columns = ["network", *tests, "validation", *COSTS]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for variant in _ordered({name for variants in panels.values() for name in variants}):
        each = [sorted(v.get(variant, []), key=lambda row: row["seed"]) for v in panels.values()]
        cells = [variant, *(_with_seeds(rows) for rows in each)]
        cells.append(_joined([_middle(rows, "val_score") for rows in each], ".3f"))
        for key, form in COSTS.values():
            cells.append(_joined([_middle(rows, key) for rows in each], form))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def overview(places: dict[Place, dict[str, list[Row]]]) -> str:
    """Markdown: what was found in each row, against its goal."""
    columns = ["row", "data", "test: median (seeds)", "goal", *COSTS, "minutes", "networks trained"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for (system, data), variants in places.items():
        rows = sorted(variants.get("found", []), key=lambda row: row["seed"])
        costs = [_joined([_middle(rows, key)], form) for key, form in COSTS.values()]
        trained = " ".join(str(row["trained"]) for row in rows)
        minutes = " ".join(f"{row['minutes']:.0f}" for row in rows)
        goal = f"{goal_of(system, data):.3f}"
        cells = [system, data, _with_seeds(rows), goal, *costs, minutes, trained]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_seeds(rows: Sequence[Row]) -> str:
    """The median test score, and in brackets that of each seed."""
    if not rows:
        return ""
    seeds = " ".join(f"{row['test_score']:.3f}" for row in rows)
    return f"{_middle(rows, 'test_score'):.3f} ({seeds})"


def _joined(values: Sequence[float | None], form: str) -> str:
    """The values of all data sets in a cell; nothing where none has one."""
    if all(value is None for value in values):
        return ""
    return " / ".join("-" if value is None else format(value, form) for value in values)


def _ordered(variants: Iterable[str]) -> list[str]:
    order = ["teacher", "found"]
    order += [f"{bits} {how}" for bits in ("float", 8, 4, 2) for how in ("distilled", "plain")]
    known = [name for name in order if name in variants]
    return known + sorted(set(variants) - set(known))


def figure(system: str, places: dict[Place, dict[str, list[Row]]]) -> str:
    """The SVG of one system: a strip of seeds for each variant, a panel for each data set."""
    panels = {data: variants for (name, data), variants in places.items() if name == system}
    height = TOP + sum(ROW * len(v) + 64 for v in panels.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' font-family="system-ui, sans-serif" font-size="13" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="26" font-size="15" font-weight="600">{escape(system)}: test score of'
        " each seed, bar at the median</text>",
        f'<circle cx="22" cy="43" r="4.5" fill="{ACCENT}"/><text x="32" y="47" font-size="12">'
        f'distilled</text><circle cx="102" cy="43" r="4.5" fill="{SECOND}"/><text x="112" y="47"'
        ' font-size="12">without a teacher; dashed: the goal of the row</text>',
    ]
    top = TOP
    for data, variants in panels.items():
        parts += _panel(data, variants, goal_of(system, data), top)
        top += ROW * len(variants) + 64
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(data: str, variants: dict[str, list[Row]], goal: float, top: int) -> list[str]:
    marks = [goal, *(row["test_score"] for rows in variants.values() for row in rows)]
    low, high = min(marks) - 0.01, max(marks) + 0.01
    names = _ordered(variants)
    bottom = top + 22 + ROW * len(names)

    def x(score: float) -> float:
        share = (score - low) / (high - low)
        return LEFT + float(share) * (WIDTH - LEFT - RIGHT)

    parts = [f'<text x="16" y="{top + 12}" font-weight="600">{escape(data)}</text>']
    step = next(s for s in STEPS if (high - low) / s <= MOST_LINES)
    for i in range(math.ceil(low / step), math.floor(high / step) + 1):
        place = x(i * step)
        parts.append(
            f'<path d="M{place:.1f} {top + 18}V{bottom}" stroke="{GREY}" stroke-width="0.6"/>'
            f'<text x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">{i * step:.3f}</text>'
        )
    parts.append(
        f'<path d="M{x(goal):.1f} {top + 18}V{bottom}" stroke="{INK}" stroke-dasharray="5 4"/>'
    )
    for i, name in enumerate(names):
        level = top + 18 + ROW * (i + 0.5)
        values = [row["test_score"] for row in variants[name]]
        colour = SECOND if name.endswith("plain") else ACCENT
        middle = x(median(values))
        parts.append(
            f'<text x="{LEFT - 12}" y="{level + 4:.1f}" text-anchor="end">{escape(name)}</text>'
            f'<path d="M{middle:.1f} {level - 8:.1f}V{level + 8:.1f}" stroke="{colour}"'
            ' stroke-width="3"/>'
        )
        parts += [
            f'<circle cx="{x(value):.1f}" cy="{level:.1f}" r="4.5" fill="{colour}"'
            ' fill-opacity="0.6"/>'
            for value in values
        ]
    return parts


def put_into(file: Path, places: dict[Place, dict[str, list[Row]]], figures: str) -> None:
    """Replaces what is between the markers: a figure and, folded, a table of each system."""
    blocks = []
    for system, title in PAPERS.items():
        panels = {data: v for (name, data), v in places.items() if name == system}
        blocks.append(
            f"**{title}** (`{system}`)\n\n"
            f"![{title}: test scores]({figures}/system_{system}.svg)\n\n"
            f"<details><summary>the numbers</summary>\n\n{table(panels)}\n\n</details>"
        )
    before, _, rest = file.read_text().partition(MARKERS[0])
    _, found, after = rest.partition(MARKERS[1])
    assert found, f"{file}: no {MARKERS[0]} … {MARKERS[1]}"
    file.write_text("\n\n".join([before + MARKERS[0], *blocks, MARKERS[1] + after]))


def main() -> None:
    """Prints the tables and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--into", type=Path)
    chosen = parser.parse_args()
    places = by_place(map(json.loads, chosen.rows.read_text().splitlines()))
    print(f"{overview(places)}\n")
    for system in dict.fromkeys(name for name, _ in places):
        panels = {data: v for (name, data), v in places.items() if name == system}
        print(f"### {system}\n\n{table(panels)}\n")
        for data, variants in panels.items():
            goal = goal_of(system, data)
            best = _middle(variants.get("found", []), "test_score")
            if best is not None:
                reached = "reached" if best >= goal else "MISSED"
                print(f"{data}: {best:.4f}, goal {goal:.3f}: {reached}\n")
        (chosen.out / f"system_{system}.svg").write_text(figure(system, places))
    if chosen.into is not None:
        put_into(chosen.into, places, str(chosen.out))


if __name__ == "__main__":
    main()
