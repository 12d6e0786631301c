"""Coefficients from measured calls: non-negative least squares of relative errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CALL = "call"  # the quantity that every call has once


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured call of a kernel, and what it had to do."""

    function: str
    quantities: Mapping[str, float]
    flash_parts: float
    cycles: int
    data_misses: int
    code_misses: int


@dataclass(frozen=True, slots=True)
class Fit:
    """A kernel's coefficients; errors are those of calls that the fit has not seen.

    Attributes:
        cycles: quantity -> cycles at 0 wait states.
        code_misses: quantity -> misses of the instruction cache.
        data_misses: (a call, an 8-byte part of weights) -> misses of the data cache.
        error_mean: mean relative error of the cycles.
        error_p95: its 95th percentile.
    """

    cycles: Mapping[str, float]
    code_misses: Mapping[str, float]
    data_misses: tuple[float, float]
    samples: int
    error_mean: float
    error_p95: float


def fit_function(samples: Sequence[Sample]) -> Fit:
    """Fits one kernel's coefficients to its samples; the error is found by leaving a third out."""
    names = [CALL, *sorted({n for s in samples for n, v in s.quantities.items() if v})]
    matrix = np.array([[1.0, *(s.quantities.get(n, 0.0) for n in names[1:])] for s in samples])
    cycles = np.array([s.cycles for s in samples], float)
    errors = []
    for part in range(3):
        left_out = np.arange(len(samples)) % 3 == part
        if left_out.any() and not left_out.all():
            held = _solve(matrix[~left_out], cycles[~left_out], cycles[~left_out])
            errors += list(np.abs(matrix[left_out] @ held / cycles[left_out] - 1))
    data = np.array([[1.0, s.flash_parts] for s in samples])
    misses = np.array([s.data_misses for s in samples], float)
    code = np.array([s.code_misses for s in samples], float)
    per_data = _solve(data, misses, cycles)
    return Fit(
        _named(names, _solve(matrix, cycles, cycles)),
        _named(names, _solve(matrix, code, cycles)),
        (float(per_data[0]), float(per_data[1])),
        len(samples),
        float(np.mean(errors)) if errors else 0.0,
        float(np.quantile(errors, 0.95)) if errors else 0.0,
    )


def _solve(
    matrix: NDArray[np.float64], values: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Non-negative coefficients: matrix @ coefficients nearest to values, rows over `weights`."""
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-12)
    found: NDArray[np.float64] = (
        non_negative(matrix / scale / weights[:, None], values / weights) / scale
    )
    return found


def non_negative(matrix: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The non-negative x (columns,) for which matrix @ x is nearest to values (rows,)."""
    from scipy.optimize import nnls

    found: NDArray[np.float64] = nnls(matrix, values, maxiter=10_000)[0]
    return found


def _named(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    return {n: float(f"{v:.5g}") for n, v in zip(names, values, strict=True) if v > 0}
