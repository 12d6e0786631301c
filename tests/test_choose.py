"""The knee, limits and savings: properties, and hand-made fronts with known answers."""

import itertools
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from nas.choosing.choose import (
    KNEE,
    RESOURCES,
    WORTH,
    FrontRow,
    Limits,
    can_tell_apart,
    knee,
    parse_rows,
    saving_of,
    savings,
    within,
)
from nas.errors import RunError, UsageError

Z_90 = 1.6449


def row(
    identity: str, score: float, cost: float = 1.0, error: float = 0.0, **other: Any
) -> FrontRow:
    """A row whose RAM, Flash and latency are `cost` times those of a small network."""
    values: dict[str, Any] = {
        "id": identity,
        "verified": "host",
        "metric": "accuracy",
        "val_score": score,
        "val_low": score - Z_90 * error,
        "val_high": score + Z_90 * error,
        "test_score": score,
        "test_low": score,
        "test_high": score,
        "test_accuracy": score,
        "arena_bytes": 100,
        "weight_bytes": round(500 * cost),
        "ram_bytes": round(1000 * cost),
        "flash_bytes": round(4000 * cost),
        "latency_ms": cost,
        "energy_uj": 10 * cost,
        "weight_bits": (8, 4, 4),
        "modalities": ("accel", "rssi"),
    }
    return FrontRow(**values | other)


# ---------------------------------------------------------------- reading


def test_rows_are_parsed() -> None:
    wanted = row("c1", 0.1 + 0.2, weight_bits=(8, 2), modalities=("a",))
    text = {name: repr(getattr(wanted, name)).strip("'") for name in FrontRow.__slots__}
    text |= {"weight_bits": "8/2", "modalities": "a", "seeds": "2", "weights_hash": "ab"}
    assert parse_rows([text, text | {"modalities": "a+b"}]) == (
        wanted,
        replace(wanted, modalities=("a", "b")),
    )


@pytest.mark.parametrize("column", ["val_score", "ram_bytes", "weight_bits"])
def test_a_cell_without_a_number_is_named(column: str) -> None:
    wanted = row("c1", 0.5, weight_bits=(8,), modalities=("a",))
    text = {name: repr(getattr(wanted, name)).strip("'") for name in FrontRow.__slots__}
    text |= {"weight_bits": "8", column: "1.5x"}
    with pytest.raises(RunError, match=rf"front.csv: {column} of c1 is '1.5x'"):
        parse_rows([text])


# ---------------------------------------------------------------- the knee


def random_front(seed: int) -> list[FrontRow]:
    """Rows of mixed quality with some noise; many are dominated."""
    rng = random.Random(seed)
    rows = []
    for i in range(rng.randrange(1, 12)):
        cost = 2 ** rng.uniform(0, 6)
        score = min(0.99, 0.5 + 0.07 * math.log2(cost) + rng.uniform(-0.1, 0.1))
        shape = {"ram_bytes": rng.randrange(900, 9000), "latency_ms": cost * rng.uniform(0.5, 2)}
        rows.append(row(f"c{i:02}", score, cost, rng.choice([0, 0.005, 0.03]), **shape))
    return rows


def dominated(one: FrontRow, rows: list[FrontRow]) -> bool:
    def costs(r: FrontRow) -> tuple[float, ...]:
        return (-r.val_score, r.ram_bytes, r.flash_bytes, r.latency_ms)

    return any(
        all(a <= b for a, b in zip(costs(r), costs(one), strict=True)) and costs(r) != costs(one)
        for r in rows
    )


@pytest.mark.parametrize("seed", range(30))
def test_the_knee_does_not_depend_on_order_or_on_beaten_rows(seed: int) -> None:
    rows = random_front(seed)
    chosen = knee(rows)
    assert not dominated(chosen, rows)
    for again in range(3):
        shuffled = random.Random(again).sample(rows, len(rows))
        assert knee(shuffled) == chosen
    assert knee([r for r in rows if not dominated(r, rows)]) == chosen
    # A useless candidate more changes nothing, nor does one less that is not the best.
    assert knee([*rows, row("zz", 0.05, 0.3)]) == chosen
    best = max(rows, key=lambda r: r.val_score).val_score
    for left_out in rows:
        if left_out != chosen and left_out.val_score < best:
            assert knee([r for r in rows if r != left_out]) == chosen


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("units", [{"ram_bytes": 8}, {"flash_bytes": 3}, {"latency_ms": 1000}])
def test_the_knee_does_not_depend_on_units(seed: int, units: dict[str, int]) -> None:
    rows = random_front(seed)
    scaled = [replace(r, **{n: getattr(r, n) * k for n, k in units.items()}) for r in rows]
    assert knee(scaled).id == knee(rows).id


def test_the_knee_by_hand() -> None:
    """Half the cost is worth WORTH more errors: just less is taken, just more is not."""
    best = row("best", 0.80, 2.0)
    assert knee([best, row("half", 1 - 0.20 * (1 + WORTH) + 1e-4)]).id == "half"
    assert knee([best, row("half", 1 - 0.20 * (1 + WORTH) - 1e-4)]).id == "best"
    # Only Flash a tenth: as a third of the exponent, 0.1 ** (1/3), is worth 1.167 times the error.
    worth = (1 + WORTH) ** (math.log2(10) / 3)
    small = row("small", 1 - 0.20 * worth + 1e-4, 2.0, flash_bytes=800)
    assert knee([best, small]) == small
    assert knee([best, replace(small, val_score=small.val_score - 2e-4)]) == best


def test_what_lies_within_a_standard_error_of_the_best_counts_as_the_best() -> None:
    best = row("best", 0.95, 1.1, error=0.02)
    assert knee([best, row("near", 0.931)]).id == "near"
    assert knee([best, row("far", 0.90)]).id == "best"
    assert knee([replace(best, val_low=0.95, val_high=0.95), row("near", 0.931)]).id == "best"


def test_perfect_scores_have_a_knee() -> None:
    assert knee([row("a", 1.0, 4.0), row("b", 0.9995, 2.0), row("c", 0.9, 1.0)]).id == "b"


def test_one_candidate_is_the_knee() -> None:
    assert knee([row("only", 0.2)]).id == "only"


def test_equal_candidates_are_told_apart_by_their_ids() -> None:
    rows = [row("b", 0.9), row("a", 0.9), row("c", 0.9)]
    assert {knee(list(order)).id for order in itertools.permutations(rows)} == {"a"}
    # As much RAM as the other has Flash, and a score within the noise: the higher one.
    low = row("a", 0.90, 2.0, error=0.05, ram_bytes=1000)
    high = row("b", 0.91, 2.0, error=0.05, flash_bytes=4000)
    assert knee([low, high]) == high


def test_of_equal_best_scores_the_surer_one_sets_the_noise() -> None:
    near = row("near", 0.931)
    unsure = row("unsure", 0.95, 1.1, error=0.02)
    assert knee([unsure, near]) == near
    sure = row("sure", 0.95, 1.2, ram_bytes=1050)
    assert knee([unsure, sure, near]).val_score == 0.95
    assert knee([unsure, row("beaten", 0.95, 2.0), near]) == near


def test_no_front_no_knee() -> None:
    with pytest.raises(ValueError, match="empty"):
        knee([])


def test_the_knee_is_explained_in_a_sentence_with_its_number() -> None:
    assert f"{round(100 * WORTH)} % more errors" in KNEE


# ---------------------------------------------------------------- noise


def test_telling_apart() -> None:
    one, other = row("a", 0.90, error=0.03), row("b", 0.82, error=0.04)  # noise 1.6449 x 0.05
    assert not can_tell_apart(one, other) and not can_tell_apart(other, one)
    worse = replace(other, val_score=0.81)
    assert can_tell_apart(one, worse) and can_tell_apart(worse, one)


# ---------------------------------------------------------------- limits

KNOWN = ("accel", "gyro", "rssi")
ROWS = [
    row("big", 0.95, 4.0, weight_bits=(8, 8, 4)),
    row("mid", 0.90, 2.0, weight_bits=(4, 4, 4)),
    row("tiny", 0.80, 1.0, weight_bits=(2, 8), modalities=("accel",)),
]


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        (Limits(), ["big", "mid", "tiny"]),
        (Limits(min_score=0.90), ["big", "mid"]),
        (Limits(max_ram_bytes=2000), ["mid", "tiny"]),
        (Limits(max_ram_bytes=1999), ["tiny"]),
        (Limits(max_flash_bytes=8000), ["mid", "tiny"]),
        (Limits(max_latency_ms=2.0), ["mid", "tiny"]),
        (Limits(max_weight_bytes=500), ["tiny"]),
        (Limits(max_bits=4), ["mid"]),
        (Limits(max_bits=8), ["big", "mid", "tiny"]),
        (Limits(sensors=("accel",)), ["big", "mid", "tiny"]),
        (Limits(sensors=("accel", "rssi")), ["big", "mid"]),
        (Limits(without=("rssi",)), ["tiny"]),
        (Limits(without=("gyro",)), ["big", "mid", "tiny"]),
        (Limits(min_score=0.85, max_flash_bytes=9000), ["mid"]),
    ],
)
def test_limits(limits: Limits, left: list[str]) -> None:
    assert [r.id for r in within(ROWS, limits, KNOWN)] == left


@pytest.mark.parametrize(
    ("limits", "parts"),
    [
        (Limits(sensors=("acel",)), ["--sensors acel: no such sensor", "accel, gyro, rssi"]),
        (Limits(without=("x",)), ["--without x: no such sensor", "accel, gyro, rssi"]),
        (Limits(sensors=("rssi",), without=("rssi",)), ["both name rssi"]),
        (
            Limits(max_ram_bytes=999),
            [
                "--max-ram-bytes 999: no candidate of 3 keeps to it",
                "nearest, tiny, has 1,000 bytes of RAM; loosen --max-ram-bytes",
            ],
        ),
        (Limits(min_score=0.96), ["--min-score 0.96", "big, has a score of 0.9500"]),
        (Limits(max_latency_ms=0.5), ["--max-latency-ms 0.5", "tiny, has 1 ms"]),
        (Limits(max_bits=3), ["tiny, has 1 of 2 layers above 3 bits (2/8)"]),
        (Limits(sensors=("gyro",)), ["big, has only the sensors accel, rssi"]),
        (Limits(without=("accel",)), ["--without accel", "has the sensors accel"]),
        # Two limits that can each be kept: the tighter one first, then what stands in the way.
        (
            Limits(min_score=0.85, max_flash_bytes=4000),
            [
                "--max-flash-bytes 4000 (1 of 3 candidates keep to it) is the tightest limit,"
                " and with --min-score 0.85 (2 of 3 candidates keep to it) none is left",
                "nearest, tiny, has a score of 0.8000; loosen --min-score",
            ],
        ),
    ],
)
def test_refused_limits(limits: Limits, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        within(ROWS, limits, KNOWN)
    for part in parts:
        assert part in str(caught.value)


def test_the_nearest_breaks_the_fewest_limits() -> None:
    rows = [row("two", 0.79, 1.01), row("one", 0.60, 1.0), row("far", 0.50, 1.0)]
    with pytest.raises(
        UsageError, match=r"nearest, one, has a score of 0\.6000; loosen --min-score$"
    ):
        within(rows, Limits(min_score=0.8, max_ram_bytes=1000), KNOWN)


def test_a_near_miss_of_a_high_score_is_a_miss() -> None:
    with pytest.raises(UsageError, match=r"0\.9996"):
        within([row("a", 0.9996)], Limits(min_score=0.9999), KNOWN)


def test_an_empty_front_is_said() -> None:
    with pytest.raises(UsageError, match="front is empty"):
        within([], Limits(), KNOWN)


# ---------------------------------------------------------------- what less costs


def test_savings() -> None:
    rows = [
        row("chosen", 0.95, 4.0, error=0.01),
        row("step", 0.94, 2.0, error=0.01),
        row("beaten", 0.93, 3.0),
        row("far", 0.80, 1.0, error=0.01),
        row("dearer", 0.99, 5.0),
    ]
    steps = savings(rows, rows[0], "flash")
    assert [(s.row.id, s.less, s.real) for s in steps] == [
        ("step", 8000, False),
        ("far", 12000, True),
    ]
    assert [round(s.lost, 9) for s in steps] == [0.01, 0.15]
    for by, less in zip(RESOURCES, (8000, 2000, 2.0, 1000), strict=True):
        assert savings(rows, rows[0], by)[0].less == less
    assert savings(rows, rows[3], "flash") == []


def test_a_step_down_may_score_higher() -> None:
    better = row("better", 0.9, 4.0, ram_bytes=1000)
    (step,) = savings([better, row("worse", 0.8, 2.0), row("w2", 0.7)], row("c", 0.85, 3.0), "ram")
    assert step.row == better and round(step.lost, 9) == -0.05


def test_a_saving_of_so_many_bytes() -> None:
    rows = [row("chosen", 0.95, 4.0), row("step", 0.94, 2.0), row("far", 0.80, 1.0)]
    assert saving_of(rows, rows[0], "flash", 8000).row.id == "step"
    assert saving_of(rows, rows[0], "flash", 8001).row.id == "far"
    with pytest.raises(UsageError, match="within the limits saves is 12000, far; ask"):
        saving_of(rows, rows[0], "flash", 12001)
    with pytest.raises(
        UsageError, match="no candidate within the limits needs less flash than far"
    ):
        saving_of(rows, rows[2], "flash", 1)
