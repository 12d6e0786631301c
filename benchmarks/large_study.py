"""A study of ten thousand trials: how long opening, a proposal and the report take.

    OPENBLAS_NUM_THREADS=1 python benchmarks/large_study.py [--trials 10000] \
        [--samplers exact,tpe,nsga2,random] [--json FILE]

The trials are random networks with made-up scores. They are kept in SQLite, as a run does. A
proposal is `ask` and the drawing of all genes; what is proposed is told a score before the next, so
that a sampler learns from it. Times are the mean, median and longest of forty after the first.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cost import PROBLEMS
from made_up_rules import rules_for
from made_up_run import write_run

from nas.hardware.budget import price
from nas.report.page import write_report
from nas.run_folder import TrialRecord, summarise, write_trials
from nas.search.genes import choices_of, draw_genes
from nas.search.rules import OBJECTIVES, Rules
from nas.search.samplers import SAMPLERS, sampler_of
from nas.search.study import default_storage, open_study
from nas.search.trial_record import RECORD
from nas.space import FixedTrial, Genes, architecture_id

ASKS = 40


def made_up(rules: Rules, genes: Genes, number: int, rng: random.Random) -> TrialRecord:
    """A network with a score, if it fits."""
    architecture = rules.space.sample(FixedTrial(genes), rules.problem)
    priced = price(architecture.lower(), rules.profile)
    fits = not rules.budget.refusal(priced.cost)
    cost = summarise(priced.graph, priced.cost)
    score = 0.98 - 20 / (40 + cost.weight_bytes**0.6) - 0.01 * rng.random() if fits else None
    return TrialRecord(
        number, architecture_id(architecture), "trained" if fits else "infeasible", score, cost,
        5.0, 5.0 * number, "" if fits else "Flash", architecture.to_json(),
    )  # fmt: skip


def fill(run: Path, rules: Rules, count: int) -> list[TrialRecord]:
    """Writes the study; its records."""
    rng, records, trials = random.Random(0), [], []
    choices = choices_of(rules.space, rules.problem)
    while len(records) < count:
        genes = draw_genes(rng, choices)
        record = made_up(rules, genes, len(records), rng)
        records.append(record)
        values = rules.values(record.cost, record.val_score)
        trials.append(
            create_trial(
                state=TrialState.COMPLETE,
                params=dict(genes),
                distributions=dict(choices),
                values=[values[name] for name in rules.objectives],
                user_attrs={RECORD: json.dumps(record.to_json())},
            )
        )
    held = open_study(default_storage(run), rules.objectives, sampler_of("random", rules), 0, False)
    for done, trial in enumerate(trials, 1):
        held._study.add_trial(trial)
        print(f"{done} of {count} written", end="\r", flush=True)
    held.close()
    return records


def proposals(run: Path, rules: Rules, name: str) -> dict[str, float]:
    """Seconds of opening, of the first proposal, and of those after that."""
    rng = random.Random(1)
    began = time.monotonic()
    held = open_study(default_storage(run), rules.objectives, sampler_of(name, rules), 0, True)
    opened_s = time.monotonic() - began
    seconds = []
    for _ in range(ASKS + 1):
        began = time.monotonic()
        trial = held.ask()
        rules.space.sample(trial, rules.problem)
        seconds.append(time.monotonic() - began)
        record = made_up(rules, trial.params, trial.number, rng)
        values = rules.values(record.cost, record.val_score)
        held.finish(trial, record, {}, {name: values[name] for name in rules.objectives})
    held.close()
    return {
        "open_s": opened_s,
        "first_ask_s": seconds[0],
        "ask_s": mean(seconds[1:]),
        "median_ask_s": median(seconds[1:]),
        "longest_ask_s": max(seconds[1:]),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--samplers", default="exact,tpe,nsga2,random", help=", ".join(SAMPLERS))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rules = rules_for(
        *OBJECTIVES, problem=PROBLEMS["rfid_accel_rssi"], ram_bytes=28_672, flash_bytes=20_000
    )
    with tempfile.TemporaryDirectory(prefix="nas-") as place:
        run = write_run(Path(place))
        records = fill(run, rules, chosen.trials)
        found: dict[str, Any] = {"trials": chosen.trials}
        found["study_bytes"] = (run / "study.db").stat().st_size
        for name in chosen.samplers.split(","):
            found[name] = proposals(run, rules, name)
        began = time.monotonic()
        write_trials(run, records)
        found["trials_csv_s"] = time.monotonic() - began
        began = time.monotonic()
        report = write_report(run)
        found["report_s"] = time.monotonic() - began
        found["report_bytes"] = report.stat().st_size
    found["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = json.dumps(found, indent=2)
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
