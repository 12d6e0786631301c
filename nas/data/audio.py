"""Sound to log-mel spectrograms: wav files at any rate, 64 frames of 40 bands.

scipy reads the wav (PCM of 8 to 32 bits, float, extensible headers; the standard library's `wave`
knows integers only) and resamples it (polyphase, with its low-pass filter). It is a dependency
already. The preparation: 8 kHz, loudest sample 1, Hann windows of 512 every 250 samples (31 ms),
power over 512, 40 triangular bands equally wide on the mel scale from 50 to 4,000 Hz, log10.
"""

import math
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile
from scipy.signal import resample_poly

from nas.data.data_rules import one_line
from nas.errors import DataError

Floats = NDArray[np.float64]

RATE_HZ = 8_000
WINDOW, HOP = 512, 250
BANDS, LOWEST_HZ, HIGHEST_HZ = 40, 50.0, 4_000.0
FRAMES = 64  # of a sample, 2 s
FLOOR = 1e-6  # energy below which all is silence
SCALE, OFFSET = 9.0 / 255.0, -6.0  # of the stored uint8: log10 energy from -6 to 3


def read_wav(path: Path) -> Floats:
    """Mono sound (n,) at 8 kHz, loudest sample 1; empty where the file holds only silence.

    Raises:
        DataError: the file is missing, torn, no wav, or recorded below 8 kHz.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", wavfile.WavFileWarning)
            # Chunks of titles and dates beside the sound; all other warnings are of torn files.
            warnings.filterwarnings("ignore", r"Chunk \(non-data\) not understood")
            rate_hz, stored = wavfile.read(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; unpack the data set again") from None
    except Exception as error:  # scipy, struct and numpy each raise their own
        raise DataError(
            f"{path}: is no whole wav file ({one_line(error)}); unpack it again, or remove its"
            " folder to leave the person out"
        ) from None
    if rate_hz < RATE_HZ:
        raise DataError(f"{path}: recorded at {rate_hz} Hz; {RATE_HZ} Hz or more are needed")
    sound: Floats = np.asarray(stored, np.float64)
    if stored.dtype == np.uint8:
        sound = sound - 128.0
    if sound.ndim == 2:
        sound = sound.mean(axis=1)
    if not sound.any():
        return sound[:0]
    common = math.gcd(rate_hz, RATE_HZ)
    resampled: Floats = resample_poly(sound, RATE_HZ // common, rate_hz // common)
    resampled /= np.abs(resampled).max()
    return resampled


def mel_bands() -> Floats:
    """Weights (WINDOW / 2 + 1, BANDS) of the triangular bands, each with its peak at 1."""
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (LOWEST_HZ, HIGHEST_HZ))
    edges_hz = 700.0 * (10.0 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    bins_hz = np.arange(WINDOW // 2 + 1)[:, None] * (RATE_HZ / WINDOW)
    rising = (bins_hz - edges_hz[:-2]) / (edges_hz[1:-1] - edges_hz[:-2])
    falling = (edges_hz[2:] - bins_hz) / (edges_hz[2:] - edges_hz[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


def mel_energies(sound: Floats) -> Floats:
    """Energies (frames, BANDS) of a sound (n,) at 8 kHz; no frames for less than one window."""
    if len(sound) < WINDOW:
        return np.zeros((0, BANDS))
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2 / WINDOW
    energies: Floats = power @ mel_bands()
    return energies


def loudest(energies: Floats, most: int) -> NDArray[np.uint8]:
    """Up to `most` windows (k, FRAMES, BANDS, 1) of stored log energy, loudest first.

    Two windows overlap by half at most. k is 0 where the sound is shorter than a window.
    """
    stored = (np.log10(np.maximum(energies, FLOOR)) - OFFSET) / SCALE
    levels: NDArray[np.uint8] = np.clip(np.round(stored), 0, 255).astype(np.uint8)
    total = np.concatenate([[0.0], np.cumsum(energies.sum(axis=1))])
    loudness = total[FRAMES:] - total[:-FRAMES]
    windows: list[NDArray[np.uint8]] = []
    while len(windows) < most and np.isfinite(loudness).any():
        start = int(np.argmax(loudness))
        windows.append(levels[start : start + FRAMES, :, None])
        loudness[max(0, start - FRAMES // 2 + 1) : start + FRAMES // 2] = -np.inf
    return np.array(windows, np.uint8).reshape(len(windows), FRAMES, BANDS, 1)
