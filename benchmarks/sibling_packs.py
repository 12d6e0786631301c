"""Should a search train several bit-widths of one shape at once? A race on a table of networks.

    OPENBLAS_NUM_THREADS=1 python benchmarks/sibling_packs.py \
        [--seeds 20] [--workers 2] [--csv FILE]

A pack trains several students of one shape in less time than one after the other
(`throughput.py`), but they must differ in bits only. Here the sampler `exact` proposes a network as
ever, and beside it those of its shape whose training is then expected to enlarge the hypervolume
the most. What counts is time, in trainings of one: `alone` proposes one at a time, `pack` up to
`MEMBERS` at what a pack takes on a CPU, and `free` the same as if it took no longer than one, which
no device can beat. The table is that of `sampler_table.py`; `seen` and `kept` are as in
`samplers.py`, after so much time.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rows import Rows
from sampler_table import TABLE, rules
from samplers import table_of
from scipy.stats import mannwhitneyu

from nas.network.graph import Graph
from nas.search.exact_cost import RANDOM_EVERY, RANDOM_FIRST, Candidate, ExactCostSampler, _points
from nas.search.genes import draw_gene
from nas.space import FixedTrial, Genes
from nas.training.packable import shape_of

TIMES = (15, 20, 25, 30, 40, 50, 75, 100)
FIGURES = tuple(f"{measure}_{time}" for measure in ("seen", "kept") for time in TIMES)
COLUMNS = ("way", "seed", *FIGURES, "trainings")
MEMBERS = 4
PACK_TIME = {1: 1.0, 2: 1.25, 3: 1.45, 4: 1.68}  # `conv` on this data set
WAYS = {"alone": (1, PACK_TIME), "pack": (MEMBERS, PACK_TIME), "free": (MEMBERS, {})}
DRAWS = 24  # of bit-widths for a shape


class Siblings(ExactCostSampler):
    """Proposes packs; a stand-alone loop asks it, without a study."""

    def propose(self, members: int) -> list[Candidate]:
        """Networks of one shape, the first as the sampler chooses it."""
        self._asked += 1
        self._grow(())
        pack = [self._pool.pop(self._choose([]))]
        if len(self._trained) < RANDOM_FIRST or self._asked % RANDOM_EVERY == 0:
            return pack
        others, model = self._others(pack[0]), self._model()
        while len(pack) < members and others:
            model.believe(_points(pack[-1:]))
            pack.append(others.pop(self._most_promising(model, list(others.values()), pack)))
        return pack

    def _others(self, first: Candidate) -> dict[str, Candidate]:
        """Networks that differ from one in bits only and were not trained."""
        shape, found = self._shape(first.genes), {}
        for _ in range(DRAWS):
            genes = {
                name: draw_gene(self._random, self._choices[name])
                if name.endswith("bits") and self._random.random() < 0.5
                else value
                for name, value in first.genes.items()
            }
            other = self._candidate(genes)
            if other is None or other.id in self._trained or self._shape(genes) != shape:
                continue
            found[other.id] = other
        found.pop(first.id, None)
        return found

    def _shape(self, genes: Genes) -> Graph:
        space, problem = self._rules.space, self._rules.problem
        return shape_of(space.sample(FixedTrial(genes), problem).lower())

    def tell(self, candidate: Candidate, score: float) -> None:
        """A training has ended."""
        self._admit(replace(candidate, error=1 - score))


def race(way: str, seed: int) -> dict[str, Any]:
    """One search until the last of `TIMES`."""
    table, whole = table_of(seed)
    members, prices = WAYS[way]
    sampler, trained = Siblings(rules(), seed), list[str]()
    time, row = 0.0, {"way": way, "seed": seed} | dict.fromkeys(FIGURES, 0.0)
    while time < TIMES[-1]:
        pack = sampler.propose(members)
        time += prices.get(len(pack), 1.0)
        for candidate in pack:
            sampler.tell(candidate, table.seen[candidate.id])
            trained.append(candidate.id)
        for measure, got, top in zip(("seen", "kept"), table.volumes(trained), whole, strict=True):
            share = round(got / top, 5)
            row |= {f"{measure}_{limit}": share for limit in TIMES if time <= limit}
    return row | {"trainings": len(trained)}


def main() -> None:
    """Makes the races that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, default=TABLE.with_name("sibling_packs.csv"))
    chosen = parser.parse_args()
    rows = Rows(chosen.csv, COLUMNS, ("way", "seed"))
    for way in WAYS:
        wanted = [seed for seed in range(chosen.seeds) if not rows.has(way, seed)]
        rows.fill(partial(race, way), wanted, chosen.workers)
    for figure in FIGURES:
        of = {way: [float(row[figure]) for row in rows if row["way"] == way] for way in WAYS}
        text = "  ".join(
            f"{way} {median(values):.4f} (p {mannwhitneyu(of['alone'], values).pvalue:.3f})"
            for way, values in of.items()
        )
        print(f"{figure}  {text}")


if __name__ == "__main__":
    main()
