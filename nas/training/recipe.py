"""How networks are trained: the numbers, without the loop.

The recipe was measured on four multimodal data sets before it was written down: AdamW with a
one-cycle schedule, weight decay on weights only, small batches, quantisation from the first step,
the weights of the last step. Learning rate and decay were flat within seed noise over a factor of
two.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from nas.training.metrics import Metric

SEARCH_STEPS = 700  # the accuracy of longer trainings was equal within seed noise on four data sets
SEARCH_EPOCHS = 40  # small sets overfit before they reach SEARCH_STEPS
TEACHER_STEPS = 1200
TEACHER_EPOCHS = 60
PEAK_RATE, ATTENTION_RATE = 6e-3, 4e-3
HALFWAY = 0.5  # share of the steps after which a search may leave a training
FINAL_FACTOR = 2  # a front member is retrained for twice the steps of the search,
FINAL_SEEDS = 3  # with up to so many seeds
Hint: TypeAlias = Literal["none", "projection", "relation"]
TrainOn: TypeAlias = Literal["cpu", "cuda"]
HINT: Hint = "relation"  # it needs no map; neither way was seen to do better


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one network is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: samples a step.
        distil_weight: share of the teacher's divergence in the loss, 0 without a teacher.
        temperature: of the softmax on both sides of the distillation.
        hint: how the teacher's features teach, if at all; see `hints.py`.
        hint_weight: factor of that term, which is added to the loss.
        learned_scales: train the scale of 2-bit weights instead of taking 1.5 mean|w|.
        gradual_share: share of the steps in which bits come down, 8 -> 4 -> 2; 0 trains at the
            bits of the graph from the first step.
        class_weighting: weight the loss by inverse class frequency (for balanced metrics).
        dropout: probability on the fused features.
        label_smoothing: of the cross-entropy on labels.
    """

    steps: int
    batch_size: int
    distil_weight: float = 0.0
    temperature: float = 4.0
    class_weighting: bool = False
    dropout: float = 0.0
    label_smoothing: float = 0.0
    peak_rate: float = PEAK_RATE
    weight_decay: float = 1e-2
    warmup_share: float = 0.3
    frozen_share: float = 0.2
    hint: Hint = "none"
    hint_weight: float = 1.0
    learned_scales: bool = False
    gradual_share: float = 0.0


def batch_size_for(rows: int) -> int:
    """Small batches generalise better here; large ones are no gain on a CPU."""
    return 64 if rows >= 1000 else 32


def student_steps(rows: int) -> int:
    """Optimiser steps of a training in the search, on `rows` samples."""
    return max(100, min(SEARCH_STEPS, SEARCH_EPOCHS * rows // batch_size_for(rows)))


def student_recipe(
    rows: int, vectors: bool, metric: Metric, distil: bool, final: bool, features: bool = False
) -> Recipe:
    """How a student is trained on `rows` samples.

    Args:
        vectors: whether a feature vector is used.
        distil: whether a teacher teaches, by its `features` too.
    """
    return Recipe(
        steps=student_steps(rows) * (FINAL_FACTOR if final else 1),
        batch_size=batch_size_for(rows),
        distil_weight=0.7 if distil else 0.0,
        class_weighting=metric != "accuracy",
        dropout=0.3 if vectors or rows < 500 else 0.0,
        hint=HINT if distil and features else "none",
    )


def teacher_recipe(rows: int, metric: Metric, attention: bool) -> Recipe:
    """How a member of the teacher is trained: it should generalise, not memorise `rows` samples."""
    batch_size = batch_size_for(rows)
    return Recipe(
        steps=max(200, min(TEACHER_STEPS, TEACHER_EPOCHS * rows // batch_size)),
        batch_size=batch_size,
        class_weighting=metric != "accuracy",
        dropout=0.3,
        label_smoothing=0.05,
        peak_rate=ATTENTION_RATE if attention else PEAK_RATE,
    )
