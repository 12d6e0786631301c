"""Everything this project raises on purpose. The command line prints the message as one line.

    NasError
    ├── UsageError        options that contradict each other
    ├── DataError         a data file or task that breaks the data contract
    ├── ProfileError      a hardware profile with missing, unknown or mistyped keys
    ├── SpaceError        a search space or an architecture that cannot be read
    ├── GraphError        an operator that does not fit its inputs
    ├── UnsupportedOp     an operator or bit-width that a cost table or an exporter has no row for
    ├── PlanError         a memory plan in which live buffers overlap
    ├── BudgetError       a device budget that no candidate can meet
    ├── RunError          a run folder that is missing, torn, or of another run
    ├── ToolMissing       a runtime that is not installed; the message holds the install line
    ├── Refusal           a runtime that is installed and cannot run an exported file
    ├── BuildError        C that a compiler refuses, or a program that its device does not hold
    ├── MachineFault      a program that faults in the emulated device, or never ends
    └── Mismatch          two executions of one model that must be equal and are not

A message says what, which value, which rule, and what to do about it, in that order, on one line.
"""


class NasError(Exception):
    """Base of all errors that are reported to the user as one line."""


class UsageError(NasError):
    """Options that contradict each other."""


class DataError(NasError):
    """A data file or task that breaks the data contract."""


class ProfileError(NasError):
    """A hardware profile that is not complete, not known or not well typed."""


class SpaceError(NasError):
    """A search space or an architecture document that cannot be read."""


class GraphError(NasError):
    """An operator that does not fit its inputs."""


class UnsupportedOp(NasError):
    """An operator or bit-width without a row in a cost table or an exporter."""


class PlanError(NasError):
    """A memory plan that breaks its own rules."""


class BudgetError(NasError):
    """A device budget that no candidate can meet."""


class RunError(NasError):
    """A run folder that cannot be used for what was asked."""


class ToolMissing(NasError):
    """A runtime that is not installed."""


class Refusal(NasError):
    """A runtime that cannot run an exported file."""


class BuildError(NasError):
    """C that a compiler refuses, or a program that its device does not hold."""


class MachineFault(NasError):
    """A program that faults in the emulated device, or does not end."""


class CalibrationError(NasError):
    """Measurements from which no costs can be made."""


class Mismatch(NasError):
    """Two executions of the same model that differ."""
