"""Should a search train several bit-widths of one shape at once? A race on a table of networks.

    OPENBLAS_NUM_THREADS=1 python benchmarks/sibling_packs.py \
        [--members 1,4] [--seeds 10] [--workers 2] [--csv FILE]

A pack trains several students of one shape in less time than one after the other
(`throughput.py`), but they must differ in bits only. Here the sampler `exact` proposes a network as
ever, and beside it those of its shape whose training is then expected to enlarge the hypervolume
the most. What counts is time: a pack takes `PACK_TIME` trainings. The table is that of
`sampler_table.py`; `seen` is as in `samplers.py`, after so much time.
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
COLUMNS = ("members", "seed", *(f"seen_{time}" for time in TIMES), "trainings")
PACK_TIME = {1: 1.0, 2: 1.25, 3: 1.45, 4: 1.68}  # `conv` on this data set, in trainings of one
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


def race(members: int, seed: int) -> dict[str, Any]:
    """One search until the last of `TIMES`."""
    table, whole = table_of(seed)
    sampler, trained = Siblings(rules(), seed), list[str]()
    time, row = 0.0, {"members": members, "seed": seed} | dict.fromkeys(COLUMNS[2:], 0.0)
    while True:
        pack = sampler.propose(members)
        time += PACK_TIME[len(pack)]
        for candidate in pack:
            sampler.tell(candidate, table.seen[candidate.id])
            trained.append(candidate.id)
        seen = round(table.volumes(trained)[0] / whole[0], 5)
        row |= {f"seen_{limit}": seen for limit in TIMES if time <= limit}
        if time >= TIMES[-1]:
            return row | {"trainings": len(trained)}


def main() -> None:
    """Makes the races that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", default="1,4")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, default=TABLE.with_name("sibling_packs.csv"))
    chosen = parser.parse_args()
    rows = Rows(chosen.csv, COLUMNS, ("members", "seed"))
    sizes = [int(members) for members in chosen.members.split(",")]
    for members in sizes:
        wanted = [seed for seed in range(chosen.seeds) if not rows.has(members, seed)]
        rows.fill(partial(race, members), wanted, chosen.workers)
    for time in TIMES:
        of = {m: [float(r[f"seen_{time}"]) for r in rows if int(r["members"]) == m] for m in sizes}
        text = "  ".join(f"{members}: {median(values):.4f}" for members, values in of.items())
        p = mannwhitneyu(of[sizes[0]], of[sizes[-1]]).pvalue
        print(f"after {time} trainings' time  {text}  p {p:.3f}")


if __name__ == "__main__":
    main()
