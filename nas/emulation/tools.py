"""The tools that emulating a Cortex-M4 needs."""

import importlib.util

from nas.deploy.toolchain import INSTALL
from nas.errors import ToolMissing

PACKAGES = {"unicorn": "emulator", "capstone": "disassembler", "elftools": "reader of ELF files"}


def check_tools() -> None:
    """Raises ToolMissing for the first package that is missing; compilers are not looked for."""
    for package, role in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise ToolMissing(
                f"{package}: not installed, and needed as the {role} that runs candidates' C:"
                f" {INSTALL}"
            )
