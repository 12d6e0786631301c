"""How good and how fast the memory planner is: `python benchmarks/planner.py [--json FILE]`.

Three questions: is the arena of small graphs the smallest that brute force finds, how often does
the arena of a multimodal network meet the liveness bound, how long do a plan and its check take.
"""

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from brute_memory import Brute  # noqa: E402
from random_graphs import random_graph, random_multimodal  # noqa: E402

from nas.hardware.memory import check_plan, plan_memory  # noqa: E402
from nas.network.graph import Graph  # noqa: E402


def optimality(count: int) -> dict[str, float]:
    """Plans of graphs of up to 8 operators against brute force."""
    optimal = at_bound = 0
    for seed in range(count):
        graph = random_graph(random.Random(seed), 8, extent=3, dead_ends=seed % 3 == 0)
        plan = plan_memory(graph)
        optimal += plan.arena_bytes == 4 * Brute(graph, 4).smallest_arena()
        at_bound += plan.arena_bytes == plan.lower_bound_bytes
    return {"graphs": count, "optimal": optimal / count, "at_bound": at_bound / count}


def multimodal(count: int, residual: float) -> dict[str, float]:
    """Share of networks at the liveness bound, worst ratio to it, and milliseconds a graph."""
    graphs: list[Graph] = [
        random_multimodal(random.Random(seed), residual=residual) for seed in range(count)
    ]
    ratios, plan_ms, check_ms = [], [], []
    for graph in graphs:
        start = time.perf_counter()
        plan = plan_memory(graph)
        planned = time.perf_counter()
        check_plan(graph, plan)
        check_ms.append(1e3 * (time.perf_counter() - planned))
        plan_ms.append(1e3 * (planned - start))
        ratios.append(plan.arena_bytes / plan.lower_bound_bytes)
    return {
        "graphs": count,
        "operators": statistics.mean(len(graph.ops) for graph in graphs),
        "at_bound": sum(ratio == 1 for ratio in ratios) / count,
        "worst_ratio": max(ratios),
        "plan_ms_median": statistics.median(plan_ms),
        "plan_ms_95": statistics.quantiles(plan_ms, n=20)[-1],
        "check_ms_median": statistics.median(check_ms),
        "check_ms_95": statistics.quantiles(check_ms, n=20)[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--small", type=int, default=1000, help="graphs against brute force")
    parser.add_argument("--large", type=int, default=1000, help="multimodal graphs of each kind")
    options = parser.parse_args()
    results = {
        "up to 8 operators, brute force": optimality(options.small),
        "multimodal trees": multimodal(options.large, 0.0),
        "multimodal with skips and gates": multimodal(options.large, 0.25),
    }
    for title, numbers in results.items():
        print(title)
        for key, value in numbers.items():
            print(f"  {key:<16} {value:>10.4g}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
