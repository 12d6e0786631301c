"""Draws the race of the samplers as an SVG: how much hypervolume is still missing, by trainings.

python benchmarks/samplers_picture.py [benchmarks/results/samplers.csv] OUT.svg
"""

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

from front_picture import ACCENT, GREY, INK
from sampler_table import TABLE
from samplers import OURS, SIZES

WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 90, 58, 52
HIGHEST, LOWEST = 0.5, 0.0002  # of the missing share
LEVELS = ((0.5, "50 %"), (0.1, "10 %"), (0.01, "1 %"), (0.001, "0.1 %"))
MEASURE = "kept"


def across(trainings: int) -> float:
    """Where a number of trainings is drawn."""
    share = math.log(trainings / SIZES[0]) / math.log(SIZES[-1] / SIZES[0])
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def down(missing: float) -> float:
    """Where a missing share is drawn."""
    share = math.log(HIGHEST / min(max(missing, LOWEST), HIGHEST)) / math.log(HIGHEST / LOWEST)
    return TOP + share * (HEIGHT - TOP - BOTTOM)


def drawn(name: str, races: Sequence[dict[str, str]]) -> tuple[str, float, float]:
    """Medians of a sampler with the middle half of its races; and where they end."""
    colour, width = (ACCENT, 3.0) if name == OURS else ("#7b8794", 1.4)
    points, parts = [], []
    for size in SIZES:
        column = f"{MEASURE}_{size}"
        missing = [1 - float(race[column]) for race in races if race[column]]
        if not missing:
            continue
        low, middle, high = quantiles(missing, n=4, method="inclusive")
        x, y = across(size), down(middle)
        points.append((x, y))
        parts.append(
            f'<path d="M{x:.1f} {down(low):.1f}V{down(high):.1f}" stroke="{colour}"'
            f' stroke-width="{2 * width}" stroke-opacity="0.25"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{1 + width}" fill="{colour}">'
            f"<title>{name}, {size} trainings: {1 - middle:.4f}</title></circle>"
        )
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
    return "".join(parts), *points[-1]


def labels(ends: Sequence[tuple[str, float, float]]) -> str:
    """Names beside the lines' ends, moved apart where they would lie on each other."""
    parts, last = [], -math.inf
    for name, x, y in sorted(ends, key=lambda end: end[2]):
        at = max(y, last + 15) if x > across(SIZES[-2]) else y
        last = at if x > across(SIZES[-2]) else last
        weight = ' font-weight="600"' if name == OURS else ""
        parts.append(f'<text x="{x + 10:.1f}" y="{at + 4:.1f}"{weight}>{name}</text>')
    return "".join(parts)


def draw(rows: Sequence[dict[str, str]]) -> str:
    """The SVG's text."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' font-family="system-ui, sans-serif" font-size="13" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        '<text x="20" y="24" font-size="15" font-weight="600">What a search still misses of the'
        " best front, by networks trained</text>"
        '<text x="20" y="43" font-size="12">share of hypervolume, scores that no luck has chosen;'
        " medians and middle halves of the races</text>",
    ]
    for level, text in LEVELS:
        parts.append(
            f'<path d="M{LEFT} {down(level):.1f}H{WIDTH - RIGHT}" stroke="{GREY}"'
            f' stroke-width="0.6"/><text x="{LEFT - 8}" y="{down(level) + 4:.1f}"'
            f' text-anchor="end">{text}</text>'
        )
    for size in SIZES:
        parts.append(
            f'<text x="{across(size):.1f}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">'
            f"{size}</text>"
        )
    ends = []
    for name in sorted({row["sampler"] for row in rows}, key=lambda name: name == OURS):
        text, x, y = drawn(name, [row for row in rows if row["sampler"] == name])
        parts.append(text)
        ends.append((name, x, y))
    return "\n".join([*parts, labels(ends), "</svg>"]) + "\n"


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, nargs="?", default=TABLE.with_name("samplers.csv"))
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    with chosen.rows.open(newline="") as file:
        chosen.out.write_text(draw(list(csv.DictReader(file))))


if __name__ == "__main__":
    main()
