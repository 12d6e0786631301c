"""A student as the teacher of smaller ones: what its integers answer to every training copy."""

import io

import numpy as np

from nas.network import reference
from nas.network.integer import IntegerModel
from nas.training.evaluate import Bench
from nas.training.lessons import Lessons
from nas.training.teacher import log_softmax


def lessons_of(bench: Bench, model: IntegerModel) -> Lessons:
    """The lessons of a trained model, in one part: (1, copies, n, classes) and no features.

    Where rows are judged crosswise it must not teach what is judged: it was trained on every row.
    """
    used = [source.name for source in model.graph.inputs]
    inputs = bench.training.inputs
    bank = {name: inputs[name].permute(0, 1, 3, 4, 2).cpu().numpy() for name in used}
    scale = np.float32(model.scales[model.graph.output].scale)  # the zero point falls out
    answers = [
        log_softmax(reference.run(model, {k: v[copy] for k, v in bank.items()}) * scale)
        for copy in range(len(bank[used[0]]))
    ]
    return Lessons(np.stack(answers)[None].astype(np.float32))


def to_bytes(lessons: Lessons) -> bytes:
    """A file's content for `lessons.read_lessons`."""
    buffer = io.BytesIO()
    np.savez(buffer, bank=lessons.bank)
    return buffer.getvalue()
