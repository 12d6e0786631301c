"""Which candidate of a front to take: its knee, what limits leave, what less of a resource costs.

Pure functions of the rows of front.csv. Only validation scores choose; the test split would stop
being one.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias, get_args

import numpy as np

from nas.errors import RunError, UsageError
from nas.run_folder import shown_bits
from nas.search import pareto
from nas.training.metrics import Z_90

Resource: TypeAlias = Literal["flash", "ram", "latency", "weights"]
RESOURCES: tuple[Resource, ...] = get_args(Resource)

LEAST_ERROR = 1e-3  # below one mistake in a thousand, a difference is none
WORTH = 0.15  # the share of more errors that half the RAM, Flash and latency is worth
KNEE = (
    f"The knee takes half the RAM, Flash and latency to be worth {100 * WORTH:.0f} % more errors,"
    " and a score within one standard error of the best to be as good as the best."
)


@dataclass(frozen=True, slots=True)
class FrontRow:
    """A row of front.csv with its numbers parsed; the names are the file's columns.

    Attributes:
        weight_bits: bits of each layer's weights, in the order of the layers.
        modalities: names of the sensors it uses, in the data file's order.
    """

    id: str
    verified: str
    metric: str
    val_score: float
    val_low: float
    val_high: float
    test_score: float
    test_low: float
    test_high: float
    test_accuracy: float
    arena_bytes: int
    weight_bytes: int
    ram_bytes: int
    flash_bytes: int
    latency_ms: float
    energy_uj: float
    weight_bits: tuple[int, ...]
    modalities: tuple[str, ...]

    @property
    def standard_error(self) -> float:
        """Of the validation score: sample size and seeds, from its 90 % interval."""
        return (self.val_high - self.val_low) / 2 / Z_90

    def amount(self, resource: Resource) -> float:
        """Bytes of `flash`, `ram` or `weights`, or milliseconds of `latency`."""
        amounts: dict[Resource, float] = {
            "flash": self.flash_bytes,
            "ram": self.ram_bytes,
            "latency": self.latency_ms,
            "weights": self.weight_bytes,
        }
        return amounts[resource]


def parse_rows(rows: Iterable[Mapping[str, str]]) -> tuple[FrontRow, ...]:
    """The rows of `run_folder.read_front` with their numbers parsed, in their order.

    Raises:
        RunError: a cell that is no number where one must be.
    """
    return tuple(_parse(row) for row in rows)


_READ: dict[str, Callable[[str], object]] = {
    **{f"{split}_{part}": float for split in ("val", "test") for part in ("score", "low", "high")},
    **{f"{kind}_bytes": int for kind in ("arena", "weight", "ram", "flash")},
    **dict.fromkeys(("test_accuracy", "latency_ms", "energy_uj"), float),
    "weight_bits": lambda text: tuple(int(bits) for bits in text.split("/")),
    "modalities": lambda text: tuple(text.split("+")),
}


def _parse(row: Mapping[str, str]) -> FrontRow:
    values: dict[str, object] = {}
    for column in fields(FrontRow):
        text = row[column.name]
        try:
            values[column.name] = _READ.get(column.name, str)(text)
        except ValueError:
            raise RunError(
                f"front.csv: {column.name} of {row['id']} is {text!r}, which is no number; write"
                " the front again with --resume"
            ) from None
    return FrontRow(**values)  # type: ignore[arg-type]


# ---------------------------------------------------------------- the knee


def knee(rows: Sequence[FrontRow]) -> FrontRow:
    """The candidate after which the front stops paying: more cost buys too little error.

    It has the least error x cost^w, so in a drawing of the front with log scales it is the point
    that a line of slope -w touches first from below.

    - Error is 1 - val_score, but never better than one standard error below the best score. What is
      as good as the best within its noise counts as equally good (Breiman's one-standard-error
      rule): the knee does not pay for luck.
    - Cost is the geometric mean of RAM, Flash and latency: a halving is a halving, whichever
      resource it saves, in whatever unit.
    - w states the exchange openly: half the cost is worth `WORTH` more errors. A rule that scales
      the axes to the ends of the front hides the same exchange in its worst members: one useless
      candidate more and it points elsewhere. Here only the best score and the knee itself matter.

    Rows that another beats in (val_score, RAM, Flash, latency) are left out. Of equals the higher
    score is taken, then the lower id. ValueError without rows.
    """
    if not rows:
        raise ValueError("an empty front has no knee")
    points = np.array([[-r.val_score, r.ram_bytes, r.flash_bytes, r.latency_ms] for r in rows])
    front = [row for row, keep in zip(rows, pareto.front(points), strict=True) if keep]
    best = max(front, key=lambda r: (r.val_score, -r.standard_error))
    least = max(1 - best.val_score + best.standard_error, LEAST_ERROR)

    def price(row: FrontRow) -> float:
        cost = math.log(row.ram_bytes) + math.log(row.flash_bytes) + math.log(row.latency_ms)
        return math.log(max(1 - row.val_score, least)) + math.log2(1 + WORTH) * cost / 3

    # Rounded, so that the order of the sum decides nothing.
    return min(front, key=lambda r: (round(price(r), 9), -r.val_score, r.id))


def can_tell_apart(one: FrontRow, other: FrontRow) -> bool:
    """Whether their validation scores differ by more than the noise of the difference.

    That is a 90 % interval of the difference, made of both intervals as if they were independent.
    Both were scored on the same rows, so the true noise is smaller: a "no" is on the safe side.
    """
    noise = Z_90 * math.hypot(one.standard_error, other.standard_error)
    return abs(one.val_score - other.val_score) > noise


# ---------------------------------------------------------------- limits


@dataclass(frozen=True, slots=True)
class Limits:
    """What a candidate must keep to; None and () ask for nothing.

    Attributes:
        max_bits: no layer's weights may have more bits, the first layers of sensors included.
        sensors: each of these must be used.
        without: none of these may be used.
    """

    min_score: float | None = None
    max_ram_bytes: int | None = None
    max_flash_bytes: int | None = None
    max_latency_ms: float | None = None
    max_weight_bytes: int | None = None
    max_bits: int | None = None
    sensors: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Limit:
    """One limit: as the user wrote it, how far a row is over it (0: kept), what a row has."""

    text: str
    excess: Callable[[FrontRow], float]
    has: Callable[[FrontRow], str]


def within(rows: Sequence[FrontRow], limits: Limits, known: Sequence[str]) -> list[FrontRow]:
    """The rows that keep to every limit, in their order; `known` are the run's sensors.

    Raises:
        UsageError: a sensor that is not known or both asked for and excluded; or nothing is left,
            and the message names the tightest limit and what the nearest candidate has.
    """
    for option, names in (("--sensors", limits.sensors), ("--without", limits.without)):
        for name in names:
            if name not in known:
                raise UsageError(f"{option} {name}: no such sensor; it has {', '.join(known)}")
    if both := set(limits.sensors) & set(limits.without):
        raise UsageError(f"--sensors and --without both name {min(both)}; leave one out")
    active = _active(limits)
    left = [row for row in rows if not any(limit.excess(row) for limit in active)]
    if not left:
        raise UsageError(_nothing_left(rows, active))
    return left


def _nothing_left(rows: Sequence[FrontRow], active: Sequence[_Limit]) -> str:
    if not rows:
        return "the front is empty: no candidate to pick; search longer"

    def broken(row: FrontRow) -> list[_Limit]:
        return [limit for limit in active if limit.excess(row)]

    def meeting(limit: _Limit) -> int:
        return sum(not limit.excess(row) for row in rows)

    nearest = min(rows, key=lambda r: (len(broken(r)), sum(x.excess(r) for x in broken(r))))
    has = ", ".join(limit.has(nearest) for limit in broken(nearest))
    loosen = " and ".join(limit.text.split()[0] for limit in broken(nearest))
    end = f"; the nearest, {nearest.id}, has {has}; loosen {loosen}"
    if len(active) == 1:
        return f"{active[0].text}: no candidate of {len(rows)} keeps to it{end}"
    tightest, *others = [
        f"{limit.text} ({meeting(limit)} of {len(rows)} candidates keep to it)"
        for limit in sorted(active, key=meeting)
    ]
    return f"{tightest} is the tightest limit, and with {', '.join(others)} none is left{end}"


def _active(limits: Limits) -> list[_Limit]:
    active = []
    if limits.min_score is not None:
        active.append(_min_score(limits.min_score))
    for name, unit in (
        ("ram_bytes", "bytes of RAM"),
        ("flash_bytes", "bytes of Flash"),
        ("latency_ms", "ms"),
        ("weight_bytes", "bytes of weights"),
    ):
        most = getattr(limits, f"max_{name}")
        if most is not None:
            active.append(_at_most(name, most, unit))
    if limits.max_bits is not None:
        active.append(_max_bits(limits.max_bits))
    active += [_needs(name) for name in limits.sensors]
    active += [_lacks(name) for name in limits.without]
    return active


def _min_score(least: float) -> _Limit:
    return _Limit(
        f"--min-score {least:g}",
        lambda row: max(0.0, least - row.val_score),
        lambda row: f"a score of {row.val_score:.4f}",
    )


def _at_most(column: str, most: float, unit: str) -> _Limit:
    def has(row: FrontRow) -> str:
        amount = getattr(row, column)
        return f"{amount:,} {unit}" if isinstance(amount, int) else f"{amount:.3g} {unit}"

    return _Limit(
        f"--max-{column.replace('_', '-')} {most:.12g}",
        lambda row: max(0.0, math.log(getattr(row, column) / most)),
        has,
    )


def _max_bits(most: int) -> _Limit:
    def over(row: FrontRow) -> int:
        return sum(bits > most for bits in row.weight_bits)

    def has(row: FrontRow) -> str:
        bits = shown_bits("/".join(map(str, row.weight_bits)))
        return f"{over(row)} of {len(row.weight_bits)} layers above {most} bits ({bits})"

    return _Limit(f"--max-bits {most}", lambda row: over(row) / len(row.weight_bits), has)


def _needs(sensor: str) -> _Limit:
    return _Limit(
        f"--sensors {sensor}",
        lambda row: float(sensor not in row.modalities),
        lambda row: f"only the sensors {', '.join(row.modalities)}",
    )


def _lacks(sensor: str) -> _Limit:
    return _Limit(
        f"--without {sensor}",
        lambda row: float(sensor in row.modalities),
        lambda row: f"the sensors {', '.join(row.modalities)}",
    )


# ---------------------------------------------------------------- what less costs


@dataclass(frozen=True, slots=True)
class Saving:
    """A step down from a chosen candidate.

    Attributes:
        less: bytes, or milliseconds of latency, that `row` needs less than the chosen one.
        lost: validation score lost; negative where `row` scores higher.
        real: whether the scores can be told apart; if not, the loss may be nothing but noise.
    """

    row: FrontRow
    less: float
    lost: float
    real: bool


def savings(rows: Sequence[FrontRow], chosen: FrontRow, by: Resource) -> list[Saving]:
    """The ladder down from `chosen`: each step needs less of the resource than the one before.

    Of the rows below it only those are steps that no other row beats in score without needing more,
    so each step is the best score that its amount buys.
    """
    below = [row for row in rows if row.amount(by) < chosen.amount(by)]
    steps: list[Saving] = []
    best = -math.inf
    for row in sorted(below, key=lambda r: (r.amount(by), -r.val_score, r.id)):
        if row.val_score > best:
            best = row.val_score
            less = chosen.amount(by) - row.amount(by)
            lost = chosen.val_score - row.val_score
            steps.append(Saving(row, less, lost, can_tell_apart(row, chosen)))
    return steps[::-1]


def saving_of(rows: Sequence[FrontRow], chosen: FrontRow, by: Resource, less: float) -> Saving:
    """The best score that can be had with at least `less` bytes or ms less than `chosen`.

    Raises:
        UsageError: no row needs that much less.
    """
    steps = savings(rows, chosen, by)
    enough = [step for step in steps if step.less >= less]
    if enough:
        return enough[0]
    if not steps:
        raise UsageError(
            f"--less {less:g}: no candidate within the limits needs less {by} than {chosen.id}"
        )
    raise UsageError(
        f"--less {less:g}: the most that a candidate within the limits saves is"
        f" {steps[-1].less:.12g}, {steps[-1].row.id}; ask for at most that"
    )
