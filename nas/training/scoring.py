"""The classes that an integer model gives to samples; what every score is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.data.task import SplitName, Task
from nas.network import reference
from nas.network.integer import IntegerModel
from nas.network.numerics import Int8
from nas.training import metrics
from nas.training.metrics import Metric


def classify(model: IntegerModel, inputs: Mapping[str, Int8]) -> NDArray[np.int64]:
    """(n,) classes of (n, height, width, channels) inputs; ties go to the lower class."""
    used = {source.name: inputs[source.name] for source in model.graph.inputs}
    classes: NDArray[np.int64] = reference.run(model, used).argmax(1).astype(np.int64)
    return classes


def classify_split(task: Task, model: IntegerModel, split: SplitName) -> NDArray[np.int64]:
    """`classify` on a split of a task; quantises only what the model uses."""
    return classify(model, _inputs(task, model, split))


@dataclass(frozen=True)
class Examined:
    """A model on the test split.

    Attributes:
        predicted: (n,) classes of its rows.
        without: sensor -> score with that sensor missing.
    """

    predicted: NDArray[np.int64]
    without: Mapping[str, float]


def examine(task: Task, model: IntegerModel, metric: Metric) -> Examined:
    """All that a front says of a model on test; the one place in a run where that split is used."""
    return Examined(classify_split(task, model, "test"), scores_without(task, model, metric))


def scores_without(task: Task, model: IntegerModel, metric: Metric) -> dict[str, float]:
    """Sensor -> score on the test split with that sensor at its training mean all the time.

    The mean is real zero after normalisation, that is the input's zero point: what a program may
    feed in when the sensor is broken or switched off. The network is not trained for it.
    """
    inputs = _inputs(task, model, "test")
    labels = task.y[task.rows("test")]
    scores = {}
    for modality in task.modalities:
        if modality.name in inputs:
            constant = np.full_like(inputs[modality.name], modality.zero_point)
            predicted = classify(model, inputs | {modality.name: constant})
            scores[modality.name] = metrics.score(metric, labels, predicted, task.classes)
    return scores


def _inputs(task: Task, model: IntegerModel, split: SplitName) -> dict[str, Int8]:
    modalities = {m.name: m for m in task.modalities}
    rows = task.rows(split)
    return {s.name: modalities[s.name].quantised(rows) for s in model.graph.inputs}
