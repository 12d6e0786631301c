"""Draws the front of a run as an SVG: test score against weight bytes, with 90 % intervals.

python benchmarks/front_picture.py RUN_DIR OUT.svg
"""

import argparse
import math
from html import escape
from pathlib import Path

from nas.run_folder import read_front, read_json

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 24, 62, 56
INK, ACCENT, GREY = "#1c2733", "#0b6bcb", "#c8d0d9"


def draw(run: Path) -> str:
    """The SVG's text."""
    rows = sorted(read_front(run), key=lambda row: float(row["weight_bytes"]))
    manifest = read_json(run / "run.json")
    sizes = [float(row["weight_bytes"]) for row in rows]
    low = math.floor(min(float(row["test_low"]) for row in rows) * 20) / 20
    x_low, x_high = math.log2(min(sizes) * 0.85), math.log2(max(sizes) * 1.15)

    def x(size: float) -> float:
        share = (math.log2(size) - x_low) / (x_high - x_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(score: float) -> float:
        return TOP + (1 - score) / (1 - low) * (HEIGHT - TOP - BOTTOM)

    title = (
        f"{manifest['data']['name']} on {manifest['profile']['name']}: {len(rows)} candidates from"
        f" {manifest['trials']['trained']} trained in {manifest['elapsed_s'] / 60:.0f} minutes"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' font-family="system-ui, sans-serif" font-size="13" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
    ]
    for step in range(math.ceil(low * 20), 21):
        level = y(step / 20)
        parts.append(
            f'<path d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}" stroke="{GREY}" stroke-width="0.6"/>'
            f'<text x="{LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{step / 20:.2f}</text>'
        )
    power = 2 ** math.ceil(x_low)
    while power <= 2**x_high:
        place = x(power)
        label = f"{power // 1024} KB" if power >= 1024 else f"{power} B"
        parts.append(
            f'<path d="M{place:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{GREY}" stroke-width="0.6"/>'
            f'<text x="{place:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>'
        )
        power *= 2
    for row, size in zip(rows, sizes, strict=True):
        px, score = x(size), float(row["test_score"])
        bottom, top = y(float(row["test_low"])), y(float(row["test_high"]))
        parts.append(
            f'<path d="M{px:.1f} {bottom:.1f}V{top:.1f}" stroke="{ACCENT}" stroke-opacity="0.35"'
            f' stroke-width="2"/><circle cx="{px:.1f}" cy="{y(score):.1f}" r="4.5"'
            f' fill="{ACCENT}"><title>{row["id"]}: {score:.4f}, {size:,.0f} B</title></circle>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">'
        "packed weights, biases, constants and tables (exact)</text>"
        f'<text x="{LEFT}" y="44" font-size="12">test {escape(manifest["metric"])} of the'
        " integer model, 90 % interval</text></svg>"
    )
    return "\n".join(parts) + "\n"


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description="Draws the front of a run as an SVG.")
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    chosen.out.write_text(draw(chosen.run))


if __name__ == "__main__":
    main()
