"""What a student reads of a teacher's file: answers to every training copy, and its features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError

Distil: TypeAlias = Literal["logits", "features", "walk"]


@dataclass(frozen=True)
class Lessons:
    """One teacher's lessons, in parts as in `teacher.Answers`.

    Attributes:
        bank: (parts, copies, n, classes) log-probabilities.
        features: (parts, copies, n, width) fused features, float16, or None where they are not
            wanted.
    """

    bank: NDArray[np.float32]
    features: NDArray[np.float16] | None = None

    def part(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float16] | None]:
        """What one part teaches; a teacher of one part, such as the user's own, teaches all."""
        held = number if len(self.bank) > 1 else 0
        return self.bank[held], None if self.features is None else self.features[held]


def read_lessons(file: Path, features: bool) -> Lessons:
    """Raises DataError where features are asked for of a teacher that has answers only."""
    with np.load(file, allow_pickle=False) as held:
        if not features:
            return Lessons(held["bank"])
        if "features" not in held:
            raise DataError(
                f"{file.name}: this teacher gives answers and no features; use --distil logits"
            )
        return Lessons(held["bank"], held["features"])
