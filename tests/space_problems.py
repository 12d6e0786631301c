"""Trials and problems on which the tests try the search spaces."""

import random
from collections.abc import Sequence
from typing import Any

from nas.space import Problem, Sensor


class Draw:
    """A trial whose genes are `fixed` or, each by itself, drawn from a seed; remembers them."""

    def __init__(self, seed: int, fixed: dict[str, Any] | None = None) -> None:
        self.seed, self.fixed = seed, fixed or {}
        self.values: dict[str, Any] = {}
        self.choices: dict[str, tuple[Any, ...]] = {}

    def suggest_int(self, name: str, low: int, high: int) -> int:
        assert low <= high
        chosen: int = self._take(name, tuple(range(low, high + 1)))
        return chosen

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        chosen: str = self._take(name, tuple(choices))
        return chosen

    def _take(self, name: str, choices: tuple[Any, ...]) -> Any:
        assert name not in self.values, f"{name} is drawn twice"
        value = self.fixed.get(name, random.Random(f"{self.seed} {name}").choice(choices))
        assert value in choices
        self.values[name], self.choices[name] = value, choices
        return value


def series(name: str, length: int, channels: int) -> Sensor:
    return Sensor(name, "series", (1, length, channels))


def image(name: str, height: int, width: int, channels: int) -> Sensor:
    return Sensor(name, "image", (height, width, channels))


def vector(name: str, features: int) -> Sensor:
    return Sensor(name, "vector", (1, 1, features))


def problem(*sensors: Sensor, classes: int = 4) -> Problem:
    return Problem(sensors, classes)


MIXED = problem(series("a", 100, 6), image("b", 24, 20, 1), vector("c", 30))
EXTREMES = [
    problem(series("a", 1, 1), classes=2),
    problem(series("a", 500, 9)),
    problem(series("a", 2, 1), series("b", 3, 9), series("c", 7, 2)),
    problem(image("a", 1, 1, 1)),
    problem(image("a", 64, 64, 3), classes=30),
    problem(image("a", 1, 64, 2), image("b", 64, 1, 2), image("c", 2, 3, 1)),
    problem(vector("a", 1)),
    problem(vector("a", 300), vector("b", 1)),
    problem(*(series(name, 128, 3) for name in "abcde")),
    problem(series("a", 8, 1), image("b", 7, 9, 3), vector("c", 2), image("d", 4, 4, 1)),
]
# The shapes of the data sets that the project is judged on.
DATA_SETS = {
    "rfid": problem(series("accel", 16, 4), series("rssi", 16, 8)),
    "indoor": problem(
        vector("wifi", 96), vector("ble", 32), series("imu", 64, 6), series("mag", 64, 3)
    ),
    "uci": problem(*(series(n, 64, 3) for n in ("body_acc", "total_acc", "gyro")), classes=7),
    "coswara": problem(*(image(n, 64, 40, 1) for n in ("cough", "speech", "breath")), classes=2),
    "fruit": problem(image("rgb", 32, 32, 3), image("depth", 32, 32, 1)),
    "av_digits": problem(image("audio", 32, 32, 1), image("image", 28, 28, 1), classes=10),
}


def random_problem(rng: random.Random) -> Problem:
    sensors = []
    for name in "abcde"[: rng.randint(1, 5)]:
        most = rng.choice((3, 20, 64))
        length, height, width = (rng.randint(1, n) for n in (8 * most, most, most))
        kinds = (
            series(name, length, rng.randint(1, 9)),
            image(name, height, width, rng.choice((1, 3))),
            vector(name, min(length, 300)),
        )
        sensors.append(rng.choice(kinds))
    return problem(*sensors, classes=rng.randint(2, 20))
