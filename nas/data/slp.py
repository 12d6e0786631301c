"""SLP: people lying in bed, seen by a depth and a thermal camera; which way they lie.

Published on signed request (https://web.northeastern.edu/ostadabbas/2019/06/27/
multimodal-in-bed-pose-estimation/; arXiv 2008.08735); the layout is that of the data set's README
and of its reader (github ostadabbas/SLP-Dataset-and-Code, data/SLP_RD.py):

    danaLab/<subject 00001..00102>/<modality>/<uncover|cover1|cover2>/<frame 000001..000045>.npy
    depthRaw  distance in mm, 424 x 512        IRraw  temperature, 120 x 160

Frames 1-15 are supine, 16-30 on the left side, 31-45 on the right side. Subjects 91-102 are the
published test; of 1-90 every sixth validates (our choice). Each picture becomes 32 x 32 means of
equal areas, unaligned; depth that was not measured (0) becomes the median of its picture. The
format of IRraw is taken to be that of depthRaw and its unit is left as it is. That TinyM2Net-V3
used SLP is a guess, and its picture size is unknown.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.data_rules import listed
from nas.data.originals import Original, Show, folders, open_folder, read_array
from nas.errors import DataError

POSES = ("supine", "left side", "right side")
FRAMES = 45  # of a subject and cover, the poses one after the other
COVERS = ("uncover", "cover1", "cover2")
FOLDERS = {"depth": "depthRaw", "thermal": "IRraw"}
FIRST_TEST = 91
VALIDATE_EVERY = 6
SIZE = 32  # pixels, both ways


def read_slp(path: Path, show: Show) -> Original:
    """Reads danaLab, or the folder that holds it; all covers that the first subject has.

    Raises:
        DataError: a frame that is missing or no picture, or subjects that fill no three splits.
    """
    root = open_folder(path, "danaLab")
    homes = [home for home in folders(root) if home.name.isdigit()]
    if not homes:
        raise DataError(
            f"{root}: no folder of a subject, such as 00001; give danaLab of the SLP data set"
        )
    covers = _covers(homes[0])
    pictures: dict[str, list[NDArray[np.float32]]] = {name: [] for name in FOLDERS}
    for number, home in enumerate(homes, 1):
        show(f"reading  {number} of {len(homes)} subjects")
        for cover in covers:
            for name, folder in FOLDERS.items():
                for frame in range(1, FRAMES + 1):
                    file = home / folder / cover / f"{frame:06d}.npy"
                    pictures[name].append(_picture(home, file, name == "depth"))
    subjects = np.array([int(home.name) for home in homes])
    arrays: dict[str, NDArray[Any]] = {
        f"modality_{name}": np.stack(taken)[..., None] for name, taken in pictures.items()
    }
    pose = np.repeat(np.arange(len(POSES)), FRAMES // len(POSES))
    arrays["y"] = np.tile(pose, len(homes) * len(covers))
    arrays["split"] = np.repeat(_split(root, subjects), FRAMES * len(covers))
    arrays["group"] = np.repeat(subjects, FRAMES * len(covers))
    arrays["class_names"] = np.array(POSES)
    absent = [cover for cover in COVERS if cover not in covers]
    return Original(arrays, tuple(f"left out: {cover}, as the folder lacks it" for cover in absent))


def _covers(home: Path) -> list[str]:
    """The covers that a subject was seen with, by the depth camera."""
    if not (home / FOLDERS["depth"]).is_dir():
        raise DataError(
            f"{home}: no folder depthRaw; unpack depthRaw and IRraw (the 8-bit pictures in depth"
            " and IR are not read)"
        )
    covers = [cover for cover in COVERS if (home / FOLDERS["depth"] / cover).is_dir()]
    if not covers:
        raise DataError(f"{home / FOLDERS['depth']}: holds none of {listed(COVERS)}")
    return covers


def _picture(home: Path, file: Path, depth: bool) -> NDArray[np.float32]:
    if not file.parent.is_dir():
        raise DataError(
            f"{home}: no folder {file.parent.relative_to(home)}; unpack the subject again, or"
            " remove the folder to leave the subject out"
        )
    taken = read_array(file)
    if taken.ndim != 2 or taken.dtype.kind not in "iuf" or min(taken.shape) < SIZE:
        raise DataError(
            f"{file}: has shape {taken.shape} of {taken.dtype}; one picture of numbers, at least"
            f" {SIZE} x {SIZE}, is wanted"
        )
    picture = taken.astype(np.float32)
    if depth:
        seen = picture > 0
        if not seen.any():
            raise DataError(f"{file}: all distances are 0; the frame is damaged, unpack it again")
        picture[~seen] = np.median(picture[seen])
    return area_means(picture, SIZE)


def area_means(picture: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Means (size, size) over equal areas of a picture (H, W); pixels are divided where needed."""
    rows, columns = (_shares(length, size) for length in picture.shape)
    return (rows @ picture @ columns.T).astype(np.float32)


def _shares(length: int, parts: int) -> NDArray[np.float64]:
    """Weights (parts, length) with which pixels enter each mean; each row sums to 1."""
    edges = np.linspace(0.0, length, parts + 1)
    pixels = np.arange(length)
    begin = np.maximum(edges[:-1, None], pixels)
    end = np.minimum(edges[1:, None], pixels + 1)
    weights: NDArray[np.float64] = np.maximum(0.0, end - begin) * (parts / length)
    return weights


def _split(root: Path, subjects: NDArray[np.int64]) -> NDArray[np.int8]:
    """Split of each subject: the published test, and every sixth of the others to validate."""
    split = np.where(subjects % VALIDATE_EVERY == 0, 1, 0).astype(np.int8)
    split[subjects >= FIRST_TEST] = 2
    _require(root, split, subjects)
    return split


def _require(root: Path, split: NDArray[np.int8], subjects: Sequence[int] | Any) -> None:
    ways = ("1-90 for training", "6, 12, ... 90 for validation", "91-102 for the test")
    for code, way in enumerate(ways):
        if not (split == code).any():
            raise DataError(
                f"{root}: {len(subjects)} subjects, none of {way}; add subjects of each"
            )
