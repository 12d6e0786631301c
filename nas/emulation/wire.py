"""Messages between this program and the emulator's process: a JSON object and some bytes each."""

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO


def send(stream: BinaryIO, header: dict[str, object], blobs: Sequence[bytes] = ()) -> None:
    """Write one message."""
    text = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}).encode()
    stream.write(struct.pack("<I", len(text)) + text)
    for blob in blobs:
        stream.write(blob)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]]:
    """Read one message.

    Raises:
        EOFError: the other side is gone.
    """
    (size,) = struct.unpack("<I", _exactly(stream, 4))
    header = json.loads(_exactly(stream, size))
    return header, [_exactly(stream, length) for length in header["blobs"]]


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("the other side is gone")
    return data
