"""The tools that compiling for and emulating a Cortex-M4 needs, and where they keep their files."""

import importlib.util
import os
from pathlib import Path

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


def cache_folder() -> Path:
    """Where compilers and the emulator keep their files: $NAS_CACHE_DIR or ~/.cache/nas."""
    return Path(os.environ.get("NAS_CACHE_DIR") or Path.home() / ".cache" / "nas") / "compilers"
