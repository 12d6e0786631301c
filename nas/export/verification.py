"""What the proof of a candidate holds, and what is wrong with it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nas.errors import Mismatch
from nas.export.emulate import Verdict
from nas.export.emulate_steps import StepVerdict
from nas.export.runtimes import REFUSED


@dataclass(frozen=True, slots=True)
class Check:
    """One file in one runtime.

    Attributes:
        compared: outputs that were compared; 0 when the runtime is missing or cannot run the file.
        differing: outputs that differ from the reference in this runtime's rounding.
        largest_difference: of one output, in integer steps.
        argmax_agreement: share of inputs with the same class.
    """

    runtime: str
    compared: int
    differing: int
    largest_difference: int
    argmax_agreement: float
    note: str


@dataclass(frozen=True, slots=True)
class Verification:
    """All checks of one candidate.

    Attributes:
        verified: `host` when every runtime on this machine that must be equal is, `emulated` when
            the C on the emulated chip is, too.
        tflm_arena_bytes: what TFLM's interpreter takes for the same graph; None without TFLM.
        tflite_bytes: size of the file that TFLM would hold in Flash.
        failure: why the C, whole or step by step, could not be linked or run; "" when it could.
    """

    id: str
    inputs: int
    verified: Literal["emulated", "host", "no"]
    runtimes: tuple[Check, ...]
    tflm_arena_bytes: int | None
    tflite_bytes: int
    failure: str

    def to_json(self) -> dict[str, Any]:
        """Plain data, as in verification.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Proof:
    """What verification.json, verdict.json and steps.json of a candidate hold.

    No verdict where the C failed, no steps where that did or there is no stepwise form.
    """

    verification: Verification
    verdict: Verdict | None
    steps: StepVerdict | None = None


def require_equal(results: Sequence[Verification]) -> None:
    """Raises Mismatch when something differs that must not, or when the C could not be run."""
    for result in results:
        if wrong := complaint(result):
            raise Mismatch(wrong)


def complaint(result: Verification) -> str:
    """What keeps a candidate from being proved, but a runtime that is missing; "" if nothing."""
    if result.failure:
        return f"{result.id}: its C was not run on the emulated chip: {result.failure}"
    for check in result.runtimes:
        if REFUSED in check.note:
            return f"{result.id}: {check.note}; report this candidate's folder"
        if check.note.startswith("float kernels") or not check.differing:
            continue
        where = "" if check.note.startswith("must be") else f"; {check.note}"
        return (
            f"{result.id}: {check.differing} of {check.compared} outputs differ in"
            f" {check.runtime} (by up to {check.largest_difference}){where}; they must be"
            " equal: report this candidate's folder"
        )
    return ""
