"""Time of one cost (lower + plan + check + estimate) over random samples of the search space.

    python benchmarks/cost.py [--samples 1000] [--json FILE]

The problems are those of the data sets that the project is evaluated on. Also counts how many plans
meet the liveness lower bound, the worst ratio to it, and how many samples a 32 KB device refuses.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path

from nas.hardware.budget import Budget
from nas.hardware.cost import estimate
from nas.hardware.memory import check_plan, plan_memory
from nas.hardware.profile import load_profile
from nas.hardware.program import program_of
from nas.space import Problem, RandomTrial, Sensor
from search_spaces import SPACES

PROBLEMS = {
    "rfid_accel_rssi": Problem(
        (Sensor("accel", "series", (1, 16, 4)), Sensor("rssi", "series", (1, 16, 8))), 4
    ),
    "watch": Problem(
        (Sensor("accel", "series", (1, 200, 3)), Sensor("gyro", "series", (1, 200, 3))), 7
    ),
    "uci_har": Problem(
        tuple(Sensor(n, "series", (1, 64, 3)) for n in ("body_acc", "total_acc", "gyro")), 7
    ),
    "av_digits_hard": Problem(
        (Sensor("audio", "image", (32, 32, 1)), Sensor("image", "image", (28, 28, 1))), 10
    ),
    "indoor_zone": Problem(
        (
            Sensor("wifi", "vector", (1, 1, 96)),
            Sensor("ble", "vector", (1, 1, 32)),
            Sensor("imu", "series", (1, 64, 6)),
            Sensor("mag", "series", (1, 64, 3)),
        ),
        20,
    ),
    "fruit_rgb_depth_thermal": Problem(
        (
            Sensor("rgb", "image", (32, 32, 3)),
            Sensor("depth", "image", (32, 32, 1)),
            Sensor("thermal", "image", (32, 32, 1)),
        ),
        4,
    ),
}


def measure(problem: Problem, samples: int) -> dict[str, float]:
    """Milliseconds of one cost, and what the plans are like."""
    rng, space, profile = random.Random(0), SPACES["conv"], load_profile("cortex-m4-32k")
    budget = Budget(profile.ram_budget_bytes, profile.flash_budget_bytes, None, None)
    seconds, ratios, refused, operators = [], [], 0, []
    for _ in range(samples):
        architecture = space.sample(RandomTrial(rng), problem)
        start = time.perf_counter()
        graph = architecture.lower()
        plan = plan_memory(graph)
        check_plan(graph, plan)
        cost = estimate(program_of(graph, plan, profile.flash_wait_states), profile)
        seconds.append(time.perf_counter() - start)
        ratios.append(plan.arena_bytes / plan.lower_bound_bytes)
        refused += bool(budget.refusal(cost))
        operators.append(len(graph.ops))
    return {
        "median_ms": statistics.median(seconds) * 1e3,
        "p95_ms": statistics.quantiles(seconds, n=20)[-1] * 1e3,
        "operators": statistics.median(operators),
        "at_lower_bound": sum(r == 1 for r in ratios) / samples,
        "worst_ratio": max(ratios),
        "refused_32k": refused / samples,
    }


def main() -> None:
    """Prints a row a problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = {name: measure(problem, chosen.samples) for name, problem in PROBLEMS.items()}
    for name, row in rows.items():
        print(f"{name:24} " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
