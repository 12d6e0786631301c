"""The augmentation bank: the training split and several augmented copies of it, made once.

Training then draws one copy of each sample at random, at no cost a step, and a teacher's logits are
stored for every copy. Copies are made from the quantised inputs in normalised units and quantised
again, so that a student never sees a value that its chip could not. Strength 1 means: series
shifted by up to 12 % of their length, 10 % channel gain, noise of 0.05; images and spectrograms
shifted by up to 2 rows (or time frames) and 1 column (or band), an offset of 0.15; vectors 0.1 of
noise and 8 % of the entries set to that entry's minimum (a beacon not heard). Images and
spectrograms are not told apart, so what only one of them bears is left out: cut-outs, masks, gain
and wider shifts made the teacher worse on all three sets of that kind.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.network.numerics import Int8
from nas.space import Sensor

COPIES = 8
Floats = NDArray[np.float32]


def strength_for(sensors: Sequence[Sensor], training_rows: int) -> float:
    """Small sets overfit more, images bear more: 1.4 below 300 rows, 1.0 with images, else 0.7."""
    if training_rows < 300:
        return 1.4
    return 1.0 if any(sensor.kind == "image" for sensor in sensors) else 0.7


def make_bank(
    sensors: Sequence[Sensor],
    inputs: Mapping[str, Int8],
    scales: Mapping[str, float],
    strength: float,
    seed: int,
) -> dict[str, Int8]:
    """modality -> (1 + COPIES, n, height, width, channels); copy 0 is the clean training split.

    Args:
        inputs: modality -> (n, height, width, channels) quantised training inputs.
        scales: modality -> scale of its integers in normalised units.
    """
    bank: dict[str, Int8] = {}
    for index, sensor in enumerate(sensors):
        clean = inputs[sensor.name]
        copies = np.empty((1 + COPIES, *clean.shape), np.int8)
        copies[0] = clean
        real = clean.astype(np.float32) * np.float32(scales[sensor.name])
        for copy in range(1, 1 + COPIES):
            rng = np.random.default_rng([seed, index, copy])
            changed = AUGMENT[sensor.kind](real, strength, rng)
            np.clip(np.round(changed / scales[sensor.name]), -128, 127, out=changed)
            copies[copy] = changed
        bank[sensor.name] = copies
    return bank


def _normal(rng: np.random.Generator, *shape: int) -> Floats:
    return rng.standard_normal(shape, np.float32)


def _shift(x: Floats, axis: int, most: int, rng: np.random.Generator) -> Floats:
    """Each sample moved along `axis` by up to `most`, its edge repeated."""
    if most < 1:
        return x
    n, length = x.shape[0], x.shape[axis]
    moves = rng.integers(-most, most + 1, (n, 1))
    index = np.clip(np.arange(length)[None] + moves, 0, length - 1)
    shape = [n] + [1] * (x.ndim - 1)
    shape[axis] = length
    return np.take_along_axis(x, index.reshape(shape), axis)


def _augment_series(x: Floats, strength: float, rng: np.random.Generator) -> Floats:
    n, _, steps, channels = x.shape
    x = _shift(x, 2, max(1, round(steps * 0.12 * strength)) if steps > 4 else 0, rng)
    x = x * (1 + 0.1 * strength * _normal(rng, n, 1, 1, channels))
    noise = 0.05 * strength * _normal(rng, *x.shape)
    return np.asarray(x + noise, np.float32)


def _augment_image(x: Floats, strength: float, rng: np.random.Generator) -> Floats:
    n, height, width, _ = x.shape
    x = _shift(x, 1, max(1, round(2 * strength)) if height > 8 else 0, rng)
    x = _shift(x, 2, 1 if width > 8 else 0, rng)
    return np.asarray(x + 0.15 * strength * _normal(rng, n, 1, 1, 1), np.float32)


def _augment_vector(x: Floats, strength: float, rng: np.random.Generator) -> Floats:
    lowest = x.min(0, keepdims=True)
    heard = x > lowest + 1e-4
    x = x + np.float32(0.1 * strength) * _normal(rng, *x.shape) * heard
    lost = rng.random(x.shape) < 0.08 * strength
    return np.where(lost, lowest, x).astype(np.float32)


AUGMENT = {"series": _augment_series, "image": _augment_image, "vector": _augment_vector}
