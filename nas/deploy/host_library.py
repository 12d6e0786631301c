"""C of ours that runs on this machine: compiled once, kept in the cache."""

import hashlib
import os
import platform
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from nas.deploy.toolchain import compile_host, find_host_compiler

CPU = Path("/proc/cpuinfo")


def library_file(package: str, name: str, cache: Path, options: Sequence[str] = ()) -> Path:
    """Where the library of a package's C file lies, once it is compiled.

    Its name tells content, options and machine apart: what was compiled for the features of one
    processor stops on another that shares the cache.
    """
    code = (resources.files(package) / name).read_bytes()
    machine = f"{platform.platform()} {_features() if '-march=native' in options else ''}"
    key = hashlib.sha256(code + " ".join([machine, *options]).encode()).hexdigest()[:12]
    return cache / f"{name.removesuffix('.c')}-{key}.so"


def _features() -> str:
    """What instructions this machine has, as far as the system tells."""
    if not CPU.exists():
        return platform.processor()
    lines = CPU.read_text().splitlines()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def host_library(package: str, name: str, cache: Path, options: Sequence[str] = ()) -> Path:
    """The compiled C file of a package, from the cache if it was compiled before.

    Raises:
        ToolMissing: it was not, and there is no compiler.
        BuildError: the compiler refuses.
    """
    library = library_file(package, name, cache, options)
    if os.access(library, os.R_OK):
        return library
    with resources.as_file(resources.files(package) / name) as source:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="library-", dir=cache) as folder:
            made = Path(folder) / library.name
            compiler = find_host_compiler()
            # zig would build a C library first, which takes seconds.
            alone = ["-nostdlib"] if compiler.family == "zig" else []
            compile_host(
                compiler, [source], made, cache=cache, shared=True, options=[*alone, *options]
            )
            made.replace(library)
    return library
