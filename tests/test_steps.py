"""What a brief and a report say of a network that runs step by step."""

import json
from pathlib import Path

from nas.choosing.steps import Steps, c_steps, steps_in_words, steps_of

HELD = {
    "step_readings": 2,
    "window_steps": 8,
    "state_bytes": 40,
    "memory_bytes": 312,
    "ram_bytes": 600,
    "flash_bytes": 7000,
    "step_cycles": 6400.0,
    "last_step_cycles": 12800.0,
}
SEEN = {
    "measured_ram_bytes": 590,
    "step_cycles": 6000,
    "last_step_cycles": 12000,
    "windows": 16,
    "outputs_differing": 0,
}


def test_predicted_without_a_proof_and_measured_with_one(tmp_path: Path) -> None:
    assert steps_of(tmp_path, {}) is None
    assert steps_of(tmp_path, {"stepwise": None}) is None
    predicted = steps_of(tmp_path, {"stepwise": HELD})
    assert predicted == Steps(2, 8, 312, 600, 6400.0, 12800.0, 0, 0)
    assert predicted.kinds == ("predicted", "predicted")
    (tmp_path / "steps.json").write_text(json.dumps(SEEN))
    measured = steps_of(tmp_path, {"stepwise": HELD})
    assert measured == Steps(2, 8, 312, 590, 6000, 12000, 16, 0)
    assert measured.kinds == ("measured", "modelled")


def test_words_say_what_is_known_and_how() -> None:
    words = steps_in_words(Steps(2, 8, 312, 590, 6000, 12000, 16, 0), 2400, 64e6)
    assert "2 new readings of each series" in words
    assert "590 bytes of RAM (measured) instead of 2,400" in words
    assert "6,000 cycles or 0.0938 ms a step" in words
    assert "last of a window's 8 (modelled)" in words
    assert "all outputs equal those of 16 whole windows" in words
    wrong = steps_in_words(Steps(1, 8, 312, 590, 6000, 12000, 16, 3), 2400, 64e6)
    assert "a new reading of each series" in wrong and "3 outputs differ from those" in wrong
    unproved = steps_in_words(Steps(1, 8, 312, 590, 6000, 12000, 0, 0), 2400, 64e6)
    assert "(predicted)" in unproved and "not run on the emulated chip" in unproved


def test_how_its_c_is_used() -> None:
    text = c_steps(Steps(1, 16, 312, 590, 1, 2, 0, 0), "gait", {"accel x": "accel_x"})
    for line in (
        '#include "gait.h"',
        "static uint32_t state[GAIT_STATE_BYTES / 4]; /* 312 bytes, kept between the steps */",
        "gait_quantise_accel_x(state, accel_x);",
        "if (gait_step(state)) { /* the last of a window's 16 steps */",
    ):
        assert line in text
