"""Trainings that are left halfway, because nothing lifts their network onto the front any more.

A pruner compares all trials by one curve. Here a network is judged at its own cost: by the best
score known among networks that take no more of any objective. Where not even a hopeful gain closes
the gap, the rest of the steps goes to another network. What the second half of a training adds is
known from those that were made. A network that was left becomes no front member; of it the sampler
is told the score that was hoped for, not the mean: those that are left are slow learners, and would
have gained more than those that went on.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.run_folder import CostSummary, TrialRecord
from nas.search.rules import Rules, scored

Floats = NDArray[np.float64]

FEW_GAINS = 20  # trainings that went on before one is left
HOPE = 0.95  # quantile of their gains that a network is given credit for


def hurdle(rules: Rules, cost: CostSummary, records: Sequence[TrialRecord]) -> float | None:
    """The least score halfway with which a training goes on; None where it is not looked at.

    Crosswise no score stands halfway for all rows, so trainings are made whole.
    """
    if rules.crosswise:
        return None
    whole = scored([record for record in records if record.status == "trained"])
    own = np.array(_costs(rules, cost))
    costs = np.array([_costs(rules, other) for other, _ in whole]).reshape(len(whole), len(own))
    return bar(own, costs, np.array([score for _, score in whole]), gains(records))


def bar(own: Floats, costs: Floats, scores: Floats, gained: Floats) -> float:
    """`hurdle` from numbers: 0 while few gains are known, or none has a score at so little cost.

    Args:
        own: (k,) costs of the network.
        costs, scores: (n, k) and (n,) of those that were trained.
        gained: (m,) of their scores from halfway to the end.
    """
    if len(gained) < FEW_GAINS:
        return 0.0
    rivals = scores[(costs <= own).all(1)]
    return max(0.0, float(rivals.max(initial=0.0)) - hope(gained))


def hope(gained: Floats) -> float:
    """The gain that a network is given credit for; 0 where none is known."""
    return max(0.0, float(np.quantile(gained, HOPE))) if len(gained) else 0.0


def gains(records: Sequence[TrialRecord]) -> Floats:
    """What whole trainings gained in their second half."""
    return np.array(
        [
            r.val_score - r.halfway_score
            for r in records
            if r.status == "trained" and r.val_score is not None and r.halfway_score is not None
        ]
    )


def hoped_for(halfway_score: float, records: Sequence[TrialRecord]) -> float:
    """The score of a training that was left, had it gone well."""
    return min(1.0, halfway_score + hope(gains(records)))


def _costs(rules: Rules, cost: CostSummary) -> list[float]:
    values = rules.values(cost, None)
    return [values[name] for name in rules.objectives if name != "error"]
