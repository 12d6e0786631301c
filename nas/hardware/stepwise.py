"""What a network costs that runs step by step: memory that does not grow with the window."""

from dataclasses import dataclass

from nas.hardware.cost import estimate
from nas.hardware.memory import check_plan, plan_memory
from nas.hardware.profile import Profile
from nas.hardware.program import Program, program_of
from nas.network.graph import Graph
from nas.network.streaming import NotCausal, Stepping, stepping

COUNTER_BYTES = 4  # of the steps of a window so far, behind the program's memory


@dataclass(frozen=True, slots=True)
class Stepwise:
    """The stepwise form of a network, planned, and its predicted cost.

    Attributes:
        memory_bytes: all that the caller holds for it.
        ram_bytes: the same with the stack.
        flash_bytes: of the linked program.
        step_cycles: of any step of a window but the last.
        last_step_cycles: of the last, with readouts' and head's.
    """

    made: Stepping
    program: Program
    ram_bytes: int
    flash_bytes: int
    step_cycles: float
    last_step_cycles: float

    @property
    def memory_bytes(self) -> int:
        """All that the caller holds: tensors, scratch, states, the counter."""
        return step_memory_bytes(self.program)


def step_memory_bytes(program: Program) -> int:
    """All that the caller holds for a program that runs step by step."""
    return program.memory_bytes + COUNTER_BYTES


def stepwise(graph: Graph, profile: Profile) -> Stepwise | None:
    """The stepwise form of a windowed graph.

    None where it has none, or one that the budget of the profile does not hold.
    """
    try:
        made = stepping(graph)
    except NotCausal:
        return None
    plan = plan_memory(made.graph)
    check_plan(made.graph, plan)
    program = program_of(made.graph, plan, profile.flash_wait_states)
    cost = estimate(program, profile)
    ram_bytes = cost.ram_bytes + COUNTER_BYTES
    if ram_bytes > profile.ram_budget_bytes or cost.flash_bytes > profile.flash_budget_bytes:
        return None
    always = sum(op.cycles for op in cost.per_op if op.name not in made.last_only)
    return Stepwise(made, program, ram_bytes, cost.flash_bytes, always, cost.cycles)
