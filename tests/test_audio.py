"""Sound to spectrograms: what a wav file may hold, where a tone lands, which windows are kept."""

from pathlib import Path

import numpy as np
import pytest
from published import write_tones
from scipy.io import wavfile

from nas.data.audio import (
    BANDS,
    FRAMES,
    HOP,
    OFFSET,
    SCALE,
    WINDOW,
    loudest,
    mel_bands,
    mel_energies,
    read_wav,
)
from nas.errors import DataError


def tone(hz: float, seconds: float, rate_hz: int = 8_000) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz)


@pytest.mark.parametrize("rate_hz", (8_000, 16_000, 44_100, 48_000))
@pytest.mark.parametrize("kind", ("uint8", "int16", "int32", "float32", "stereo"))
def test_every_kind_of_wav_gives_the_same_sound(tmp_path: Path, rate_hz: int, kind: str) -> None:
    sound = 0.5 * tone(440, 1.0, rate_hz)
    stored = {
        "uint8": lambda: np.round(128 + 127 * sound).astype(np.uint8),
        "int16": lambda: np.round(32_767 * sound).astype(np.int16),
        "int32": lambda: np.round(2_147_483_647 * sound).astype(np.int32),
        "float32": lambda: sound.astype(np.float32),
        "stereo": lambda: np.stack([sound, sound], axis=1).astype(np.float32),
    }[kind]()
    wavfile.write(tmp_path / "a.wav", rate_hz, stored)
    read = read_wav(tmp_path / "a.wav")
    assert len(read) == 8_000 and np.abs(read).max() == 1.0
    inside = slice(100, -100)  # the filter of the resampling rings at both ends
    error = np.abs(read - tone(440, 1.0) * np.abs(read[inside]).max())[inside].max()
    assert error < (0.03 if kind == "uint8" else 0.01)


def test_what_8_khz_cannot_hold_does_not_fold_back(tmp_path: Path) -> None:
    sound = tone(1_000, 1.0, 48_000) + tone(6_000, 1.0, 48_000)  # 6 kHz would fold to 2 kHz
    wavfile.write(tmp_path / "a.wav", 48_000, sound.astype(np.float32))
    power = np.abs(np.fft.rfft(read_wav(tmp_path / "a.wav"))) ** 2
    assert power[1_000] > 1e4 * power[2_000]


def test_silence_is_empty(tmp_path: Path) -> None:
    for name, stored in (("zeros", np.zeros(900, np.int16)), ("header", np.zeros(0, np.int16))):
        wavfile.write(tmp_path / f"{name}.wav", 8_000, stored)
        assert len(read_wav(tmp_path / f"{name}.wav")) == 0
    assert mel_energies(np.zeros(0)).shape == (0, BANDS)


def test_torn_and_odd_files(tmp_path: Path) -> None:
    whole = tmp_path / "whole.wav"
    write_tones(whole, 440)
    content = whole.read_bytes()
    for name, torn in (
        ("half", content[: len(content) // 2]),
        ("header", content[:30]),
        ("empty", b""),
        ("text", b"<html>not found</html>"),
    ):
        file = tmp_path / f"{name}.wav"
        file.write_bytes(torn)
        with pytest.raises(DataError, match=f"{name}.wav: is no whole wav file .* unpack it again"):
            read_wav(file)
    with pytest.raises(DataError, match=r"none\.wav: no such file"):
        read_wav(tmp_path / "none.wav")
    write_tones(tmp_path / "slow.wav", 440, rate_hz=4_000)
    with pytest.raises(DataError, match=r"slow\.wav: recorded at 4000 Hz; 8000 Hz or more"):
        read_wav(tmp_path / "slow.wav")


def test_a_chunk_beside_the_sound_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    write_tones(file, 440)
    before = read_wav(file)
    content = file.read_bytes() + b"note" + (4).to_bytes(4, "little") + b"abcd"
    file.write_bytes(content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:])
    np.testing.assert_array_equal(read_wav(file), before)


def test_bands_peak_in_order_between_50_hz_and_4_khz() -> None:
    bands = mel_bands()
    assert bands.shape == (WINDOW // 2 + 1, BANDS) and (bands >= 0).all() and bands.max() <= 1
    assert (bands.sum(axis=0) > 0).all() and not bands[:4].any()  # bins up to 47 Hz
    centres = (bands * np.arange(len(bands))[:, None]).sum(axis=0) / bands.sum(axis=0)
    assert (np.diff(centres) > 0).all() and (np.diff(centres, n=2)[5:] > -0.3).all()


@pytest.mark.parametrize("hz", (250.0, 1_000.0, 3_000.0))
def test_a_tone_lands_in_its_band_with_its_power(hz: float) -> None:
    energies = mel_energies(tone(hz, 2.5))
    assert len(energies) == 1 + (20_000 - WINDOW) // HOP
    centre = np.argmax(mel_bands()[round(hz * WINDOW / 8_000)])
    assert (np.argmax(energies, axis=1) == centre).all()
    # Parseval of a Hann window: amplitude 1 gives (WINDOW / 4)^2 at the peak, over WINDOW.
    assert 0.2 * WINDOW / 16 < energies[:, centre].min() < 2 * WINDOW / 16


def test_the_loudest_windows_first_and_at_most_half_alike() -> None:
    energies = np.full((400, BANDS), 1e-3)
    energies[300:364] = 10.0
    energies[100:164] = 1.0
    kept = loudest(energies, 4)
    assert kept.shape == (4, FRAMES, BANDS, 1) and kept.dtype == np.uint8
    # The loudest; half of it on either side, louder in all than what comes last.
    logs = kept * SCALE + OFFSET
    np.testing.assert_allclose(logs.mean(axis=(1, 2, 3)), (1, -1, -1, 0), atol=0.02)
    assert ((logs[1:3] > 0).sum(axis=(1, 2, 3)) == FRAMES // 2 * BANDS).all()


@pytest.mark.parametrize(
    ("frames", "count"), ((0, 0), (FRAMES - 1, 0), (FRAMES, 1), (FRAMES + FRAMES // 2, 2))
)
def test_how_many_windows_a_short_sound_has(frames: int, count: int) -> None:
    energies = np.linspace(1, 2, frames)[:, None] * np.ones(BANDS)
    assert loudest(energies, 6).shape == (count, FRAMES, BANDS, 1)
    assert len(loudest(np.ones((1_000, BANDS)), 6)) == 6
