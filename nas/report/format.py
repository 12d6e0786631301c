"""Small pieces of HTML and the way numbers are written in the report.

Functions take values as they stand in the files of a run, absent ones included, and return HTML in
which nothing from a file can act as markup. A value that is missing shows as a dash.
"""

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DASH = "\u2013"
METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
}
VERIFIED_NAMES = {
    "host": "verified on host",
    "emulated": "verified on emulated chip",
    "no": "not verified",
}


def esc(value: object) -> str:
    """Text of any value as HTML; a dash for None and the empty string."""
    return DASH if value is None or value == "" else html.escape(str(value))


def dig(document: Any, *keys: str) -> Any:
    """`document[key][key]...`, or None where a key or an object is missing."""
    for key in keys:
        if not isinstance(document, Mapping):
            return None
        document = document.get(key)
    return document


def records(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list, and nothing for anything else."""
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []


def names(value: Any) -> list[str]:
    """The texts of a list, and nothing for anything else."""
    return [str(v) for v in value] if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def count(value: Any) -> str:
    """A whole number with commas between thousands."""
    plain = number(value)
    return DASH if plain is None else f"{plain:,.0f}"


def short(value: Any, unit: str = "") -> str:
    """A number with three digits that count."""
    plain = number(value)
    if plain is None:
        return DASH
    digits = count(plain) if abs(plain) >= 999.5 else f"{plain:#.3g}".rstrip(".")
    return f"{digits}\u00a0{unit}" if unit else digits


def percent(value: Any, digits: int = 1) -> str:
    """A share as a percentage."""
    plain = number(value)
    return DASH if plain is None else f"{100 * plain:.{digits}f}\u00a0%"


def kilobytes(value: Any) -> str:
    """Bytes in KB of 1,024, with three digits that count; below one KB as they are."""
    plain = number(value)
    if plain is None:
        return DASH
    if plain < 1024:
        return f"{plain:.0f}\u00a0B"
    kilo = plain / 1024
    return f"{kilo:,.{2 if kilo < 9.995 else 1}f}\u00a0KB"


def change(value: float, base: float) -> str:
    """By how much a value is off its base: `+3.1 %`."""
    if not base:
        return DASH
    text = f"{100 * (value / base - 1):+.1f}\u00a0%".replace("-", "\u2212")
    return text[1:] if text[1:] == "0.0\u00a0%" else text


def interval(low: Any, high: Any, to: str = " to ") -> str:
    """An interval of shares: `94.1 to 96.0 %`."""
    first, last = number(low), number(high)
    if first is None or last is None:
        return DASH
    return f"{100 * first:.1f}{to}{100 * last:.1f}\u00a0%"


def duration(seconds: float | None) -> str:
    """A length of time in the two largest units that it needs."""
    if seconds is None or seconds < 0:
        return DASH
    if seconds < 60:
        return f"{seconds:.0f}\u00a0s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes}\u00a0min"
    return f"{minutes // 60}\u00a0h {minutes % 60}\u00a0min"


def shape(values: Iterable[int]) -> str:
    """`1x128x6` with multiplication signs."""
    return "\u00d7".join(str(v) for v in values)


def plural(n: Any, one: str, many: str | None = None) -> str:
    """`3 candidates`; a dash stands for an unknown number."""
    word = one if number(n) == 1 else many or f"{one}s"
    return f"{count(n)} {word}"


def badge(verified: str, *, short_name: bool = False) -> str:
    """The mark that says whether the emulated chip, or other runtimes, gave the same integers."""
    kind = "no" if verified not in ("host", "emulated") else "yes"
    name = verified if short_name else VERIFIED_NAMES.get(verified, verified)
    return f'<span class="badge {kind}">{esc(name)}</span>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table that scrolls sideways; heads and cells are HTML. A head that starts with `#` marks a
    column of numbers."""
    right = [head.startswith("#") for head in heads]
    head = "".join(
        f'<th scope="col"{_number(n)}>{text.removeprefix("#")}</th>'
        for text, n in zip(heads, right, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{_number(n)}>{cell}</td>" for cell, n in zip(row, right, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _number(right: bool) -> str:
    return ' class="n"' if right else ""


def facts(pairs: Iterable[tuple[str, str]], kind: str = "") -> str:
    """A list of names and values; both are HTML."""
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return f'<dl class="facts {kind}">{rows}</dl>'


def script_json(document: Any) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def section(key: str, title: str, body: str) -> str:
    """A section of the page; all three are HTML."""
    return f'<section id="{key}"><h2>{title}</h2>{body}</section>'


def plots(kind: str, n: int) -> str:
    """Places for the n figures of a kind, which the page's scripts fill."""
    return f'<div class="plots">{f"""<div class="plot" data-kind="{kind}"></div>""" * n}</div>'
