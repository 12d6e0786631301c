"""Several students of one shape trained as one network: other seeds, other bits.

A step of a small student is mostly the bookkeeping of its operations, which a pack does once for
all members. Their batches lie one after the other, and so do their parameters; each member has its
own batch norm, ranges and rows, so that it learns what it would learn alone.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from nas.training import fused
from nas.training.linear_layer import LinearLayer
from nas.training.packable import shape_of
from nas.training.recipe import Recipe
from nas.training.student import Student


def joins(recipe: Recipe, device: torch.device) -> bool:
    """Whether students that are trained by `recipe` on a device are packed, as that is faster."""
    plain = recipe.hint == "none" and not recipe.learned_scales and not recipe.gradual_share
    return plain and (device.type == "cuda" or fused.library() is not None)


def pack(students: Sequence[Student]) -> Student:
    """One network of students of one shape.

    Raises:
        ValueError: their shapes differ.
    """
    if len({shape_of(student.graph) for student in students}) > 1:
        raise ValueError("students of several shapes cannot be packed into one")
    net = copy.deepcopy(students[0])
    for name, layer in net.layers.items():
        members = [linear(student, name) for student in students]
        assert isinstance(layer, LinearLayer)
        for part in layer.parts():
            joined = torch.cat([getattr(member, part).detach() for member in members])
            trained = isinstance(getattr(layer, part), nn.Parameter)
            setattr(layer, part, nn.Parameter(joined) if trained else joined)
        layer.join(tuple(member.bits for member in members))
    net.ranges = {
        group: torch.stack([student.ranges[group] for student in students]) for group in net.ranges
    }
    return net


@torch.no_grad()
def unpack(net: Student, students: Sequence[Student]) -> None:
    """Gives each of the students that `net` was packed of what its part has learned."""
    for number, student in enumerate(students):
        for name in student.layers:
            layer, packed = linear(student, name), linear(net, name)
            for part in layer.parts():
                learned = getattr(packed, part).chunk(len(students))[number]
                getattr(layer, part).copy_(learned)
        for group, peak in student.ranges.items():
            peak.copy_(net.ranges[group][number])
        student.frozen = net.frozen


def linear(student: Student, name: str) -> LinearLayer:
    """A layer of a student that may be packed: it has no others."""
    layer = student.layers[name]
    assert isinstance(layer, LinearLayer)
    return layer
