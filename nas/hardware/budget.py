"""What a candidate may cost on a device, and whether anything in a space can meet it."""

import random
from dataclasses import dataclass

from nas.errors import BudgetError
from nas.hardware.cost import Cost, estimate
from nas.hardware.memory import MemoryPlan, check_plan, plan_memory
from nas.hardware.profile import Profile
from nas.hardware.program import Program, program_of
from nas.network.graph import Graph
from nas.space import Problem, RandomTrial, Space

PROBES = 400  # random architectures tried before a budget is called impossible
DEFAULT_LATENCY_LIMIT_MS = 100.0  # scale of the latency axis when no limit is given


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one run; None is no limit.

    Attributes:
        ram_bytes: the profile's RAM less what the application keeps.
        flash_bytes: the same for Flash.
    """

    ram_bytes: int
    flash_bytes: int
    latency_ms: float | None
    weight_bytes: int | None

    def excess(self, cost: Cost) -> dict[str, float]:
        """Constraint -> use beyond its limit as a share of the limit; 0 or less is feasible."""
        uses = {
            "ram": (cost.ram_bytes, self.ram_bytes),
            "flash": (cost.flash_bytes, self.flash_bytes),
            "latency": (cost.latency_s * 1e3, self.latency_ms),
            "weights": (cost.weight_bytes, self.weight_bytes),
        }
        return {name: use / limit - 1 for name, (use, limit) in uses.items() if limit is not None}

    def refusal(self, cost: Cost) -> str:
        """Why the cost is over the budget, in words; "" when it is not."""
        texts = {
            "ram": f"RAM {cost.ram_bytes:,} of {self.ram_bytes:,} bytes",
            "flash": f"Flash {cost.flash_bytes:,} of {self.flash_bytes:,} bytes",
            "latency": f"latency {cost.latency_s * 1e3:.3g} of {self.latency_ms} ms",
            "weights": f"weights {cost.weight_bytes:,} of {self.weight_bytes} bytes",
        }
        return "; ".join(texts[name] for name, over in self.excess(cost).items() if over > 0)


@dataclass(frozen=True, slots=True)
class Priced:
    """A graph as the program that it would be, and what that costs."""

    program: Program
    cost: Cost

    @property
    def graph(self) -> Graph:
        """The operators."""
        return self.program.graph

    @property
    def plan(self) -> MemoryPlan:
        """Where the tensors lie."""
        return self.program.plan


def price(graph: Graph, profile: Profile) -> Priced:
    """Plans, checks the plan, chooses kernels, and estimates: about a millisecond."""
    plan = plan_memory(graph)
    check_plan(graph, plan)
    program = program_of(graph, plan, profile.flash_wait_states)
    return Priced(program, estimate(program, profile))


def check_possible(space: Space, problem: Problem, profile: Profile, budget: Budget) -> None:
    """Returns at the first architecture inside the budget.

    Raises:
        BudgetError: none of many is; says what the smallest needs.
    """
    rng = random.Random(0)
    costs = []
    for probe in range(PROBES):
        draw = RandomTrial(rng, lowest=probe == 0)
        cost = price(space.sample(draw, problem).lower(), profile).cost
        if not budget.refusal(cost):
            return
        costs.append(cost)
    smallest = min(costs, key=lambda cost: max(budget.excess(cost).values()))
    raise BudgetError(
        f"{profile.name}: no network of the space {space.name!r} fits the budget; the smallest of"
        f" {PROBES} has {budget.refusal(smallest)}; use fewer or smaller modalities, a larger"
        " device, or looser limits"
    )
