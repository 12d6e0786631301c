"""trained/<id>.npz: the integers of one training, and its answers to the rows held out of it.

One file, so that a killed process leaves both or none. A reader of the model alone does not mind
the answers.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.errors import RunError
from nas.network.integer import IntegerModel

HELD_OUT = "held_out"


def pack(model: IntegerModel, answers: NDArray[np.int64]) -> bytes:
    """The file's content; `answers` are the (n,) classes of the rows that judged it, ascending."""
    buffer, member = io.BytesIO(model.to_bytes()), io.BytesIO()
    np.save(member, answers.astype(np.int16), allow_pickle=False)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{HELD_OUT}.npy", member.getvalue())
    return buffer.getvalue()


def read_answers(path: Path) -> NDArray[np.int64]:
    """The (n,) classes that were given to the held-out rows.

    Raises:
        RunError: the file is missing, torn or of a version that did not keep them.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as held:
            answers: NDArray[np.int64] = held[HELD_OUT].astype(np.int64)
            return answers
    except Exception as error:  # a torn archive raises whatever its damage leads to
        raise RunError(
            f"{path}: no answers to held-out rows ({error}); start a new run with another --out"
        ) from None
