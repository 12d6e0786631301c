"""The C kernels' portable path, compiled for this machine and called with numpy arrays."""

import ctypes
import functools
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RUNTIME = Path(__file__).parents[1] / "nas" / "runtime"
STRICT = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror")
SANITISED = ("-fsanitize=undefined", "-fno-sanitize-recover=all")
GUARD = 32  # bytes around a buffer that must stay as they are


@functools.cache
def library(*sources: str) -> ctypes.CDLL:
    """`sources` of nas/runtime, built once a session; kernels are called test_<name>."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    assert compiler is not None, "no C compiler: install gcc or clang, or name one by CC"
    files = [str(RUNTIME / source) for source in sources]
    with tempfile.TemporaryDirectory(prefix="nas-kernels-") as folder:
        Path(folder, "names.h").write_text("#define NAS(name) test_##name\n")
        target = str(Path(folder, "kernels.so"))
        command = [compiler, *STRICT, *SANITISED, "-shared", "-fPIC", f"-I{folder}", f"-I{RUNTIME}"]
        subprocess.run([*command, *files, "-o", target], check=True)
        return ctypes.CDLL(target)  # once mapped, it outlives its file


class Buffer:
    """Memory with guards around it."""

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._memory = ctypes.create_string_buffer(self.size + 2 * GUARD)
        self._memory.raw = b"\xa5" * GUARD + content + b"\xa5" * GUARD

    @property
    def address(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(ctypes.addressof(self._memory) + GUARD)

    def int8(self) -> NDArray[np.int8]:
        """The content; the guards must be whole."""
        raw = self._memory.raw
        assert raw[:GUARD] == raw[-GUARD:] == b"\xa5" * GUARD, "written outside"
        return np.frombuffer(raw[GUARD:-GUARD], np.int8)


def structure(pointers: list[Buffer], layout: str, *fields: int) -> Buffer:
    """A C structure: pointers first, then `fields` as struct's `layout` has them."""
    addresses = [p.address.value for p in pointers]
    body = struct.pack(f"{len(addresses)}P", *addresses) + struct.pack("=" + layout, *fields)
    return Buffer(body + bytes(-len(body) % 8))
