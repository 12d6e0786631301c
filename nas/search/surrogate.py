"""A Gaussian process for the error of networks that were not trained.

It models the logarithm of the error, as 2 and 4 % are further apart than 42 and 44 %, by two
distances: that of the architectures and that of their costs (Matern 5/2 of their weighted sum). Its
three hyperparameters, the two weights and the share of noise between seeds, are those of the
highest marginal likelihood on a grid; the amplitude follows from them (Rasmussen and Williams,
Gaussian Processes for Machine Learning, 2006, sections 2.3 and 5.4).
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.linalg import solve_triangular

from nas.search.features import Floats

ERROR_FLOOR = 0.005  # added to errors: below it a difference is luck on any validation split
LEAST_VARIANCE = 1e-6  # where all scores are equal, a new one may still differ
WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # of a distance, where the mean distance is 1
NOISES = (0.03, 0.1, 0.3, 1.0, 3.0)  # variance between seeds over that between networks
Place: TypeAlias = tuple[int, int, int]
START: Place = (3, 3, 2)  # places in these grids from which the first search for the best goes


@dataclass(frozen=True)
class Points:
    """Networks as vectors.

    Attributes:
        genes: (n, columns) of `features.Encoder`.
        costs: (n, 4) of `features.cost_features`.
    """

    genes: Floats
    costs: Floats

    def __len__(self) -> int:
        return len(self.genes)

    def __add__(self, other: "Points") -> "Points":
        return Points(np.r_[self.genes, other.genes], np.r_[self.costs, other.costs])


class Surrogate:
    """The posterior after some trained networks.

    Args:
        points: n networks.
        errors: (n,) 1 - validation score.
        start: `place` of an earlier fit, near which the best is looked for, or taken as it is
            without `climb`.
    """

    def __init__(
        self, points: Points, errors: Floats, start: Place = START, climb: bool = True
    ) -> None:
        self._points = points
        y = np.log(errors + ERROR_FLOOR)
        self._mean, self._y = float(y.mean()), y - y.mean()
        genes, costs = _distances(points, points)
        self._units = (_mean_or_1(genes), _mean_or_1(costs))
        self.place = start
        if climb:
            self.place = self._climb(genes / self._units[0], costs / self._units[1], start)
        self._condition(self._points, self._y)

    def _climb(self, genes: Floats, costs: Floats, start: Place) -> Place:
        """The best place on the grid that steps along one axis at a time lead to."""
        tops = (len(WEIGHTS), len(WEIGHTS), len(NOISES))
        known = {start: self._evidence(genes, costs, start)}
        best = start
        while True:
            a, b, noise = best
            steps = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
            for x, y, z in steps:
                place = (a + x, b + y, noise + z)
                inside = all(0 <= i < top for i, top in zip(place, tops, strict=True))
                if inside and place not in known:
                    known[place] = self._evidence(genes, costs, place)
            top = max(known, key=lambda place: known[place])
            if top == best:
                return best
            best = top

    def _evidence(self, genes: Floats, costs: Floats, place: Place) -> float:
        """Logarithm of the marginal likelihood, at the best amplitude, up to a constant."""
        a, b, noise = WEIGHTS[place[0]], WEIGHTS[place[1]], NOISES[place[2]]
        kernel = _matern(a * genes + b * costs)
        kernel[np.diag_indices_from(kernel)] += noise
        factor = np.linalg.cholesky(kernel)
        white = solve_triangular(factor, self._y, lower=True)
        size = len(self._y)
        return float(
            -0.5 * size * np.log(white @ white / size + 1e-12) - np.log(np.diag(factor)).sum()
        )

    def _condition(self, points: Points, y: Floats) -> None:
        """Takes over what is known of `points`."""
        self._points, self._y = points, y
        kernel = self._kernel(points, points)
        kernel[np.diag_indices_from(kernel)] += NOISES[self.place[2]]
        self._factor = np.linalg.cholesky(kernel)
        self._white = solve_triangular(self._factor, y, lower=True)

    def _kernel(self, a: Points, b: Points) -> Floats:
        genes, costs = _distances(a, b)
        weights = WEIGHTS[self.place[0]] / self._units[0], WEIGHTS[self.place[1]] / self._units[1]
        return _matern(weights[0] * genes + weights[1] * costs)

    def predict(self, points: Points) -> tuple[Floats, Floats]:
        """Mean and standard deviation of log(error + ERROR_FLOOR), both (n,), without noise."""
        across = solve_triangular(self._factor, self._kernel(self._points, points), lower=True)
        amplitude = max(float(self._white @ self._white) / len(self._white), LEAST_VARIANCE)
        variance = amplitude * np.maximum(1.0 - (across * across).sum(0), 1e-9)
        return self._mean + across.T @ self._white, np.sqrt(variance)

    def believe(self, points: Points) -> None:
        """Takes what is predicted of networks in training for seen, so that others are asked for.

        (The kriging believer of Ginsbourger et al., 2010.)
        """
        if len(points):
            mean, _ = self.predict(points)
            self._condition(self._points + points, np.r_[self._y, mean - self._mean])


def _distances(a: Points, b: Points) -> tuple[Floats, Floats]:
    """Squared distances of architectures and of costs, (len(a), len(b)) each."""
    return _squared(a.genes, b.genes), _squared(a.costs, b.costs)


def _squared(a: Floats, b: Floats) -> Floats:
    square = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.asarray(np.maximum(square, 0.0))


def _mean_or_1(distances: Floats) -> float:
    return float(distances.mean()) or 1.0


def _matern(squared: Floats) -> Floats:
    """Matern 5/2 of squared distances."""
    root = np.sqrt(5.0 * squared)
    return np.asarray((1.0 + root + 5.0 / 3.0 * squared) * np.exp(-root))
