"""`nas calibrate`: measures every kernel on the emulated chip and writes the table of costs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from nas.calibration.table import CoreTable, calibrate_core, to_toml
from nas.deploy.toolchain import cache_folder, find_compiler
from nas.emulation.tools import check_tools
from nas.hardware.profile import Profile, load_profile
from nas.run_folder import write_atomic

CORES = {"fpu": "cortex-m4f", "no_fpu": "cortex-m4"}


def calibrate(
    out: Path, cc: str | None, programs: int, seed: int, progress: Callable[[str], None]
) -> dict[str, CoreTable]:
    """Calibrates both kinds of core and writes `out`.

    Raises:
        ToolMissing: compiler or emulator is not installed.
        CalibrationError: a kernel that no drawn operator calls.
    """
    check_tools()
    compiler = find_compiler(cc)
    profile = load_profile("cortex-m4-64k")
    profiles = [replace(profile, core=core) for core in CORES.values()]

    def one(core: Profile) -> CoreTable:
        return calibrate_core(core, compiler, cache_folder(), programs, seed, progress)

    # Compiler and emulator are processes of their own: threads do for what waits for them.
    with ThreadPoolExecutor(len(profiles)) as threads:
        tables = dict(zip(CORES, threads.map(one, profiles), strict=True))
    header = {
        "source": "made by `nas calibrate`: measured on the emulated Cortex-M4, fitted by kernel",
        "compiler": compiler.version,
        "programs": programs,
        "seed": seed,
    }
    write_atomic(out, to_toml(header, tables).encode())
    return tables
