"""The classes that an integer model gives to samples; what every score is made of."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nas import reference
from nas.integer import IntegerModel
from nas.numerics import Int8
from nas.task import SplitName, Task


def classify(model: IntegerModel, inputs: Mapping[str, Int8]) -> NDArray[np.int64]:
    """(n,) classes of (n, height, width, channels) inputs; ties go to the lower class."""
    used = {source.name: inputs[source.name] for source in model.graph.inputs}
    classes: NDArray[np.int64] = reference.run(model, used).argmax(1).astype(np.int64)
    return classes


def classify_split(task: Task, model: IntegerModel, split: SplitName) -> NDArray[np.int64]:
    """`classify` on a split of a task; quantises only what the model uses."""
    modalities = {m.name: m for m in task.modalities}
    rows = task.rows(split)
    return classify(model, {s.name: modalities[s.name].quantised(rows) for s in model.graph.inputs})
