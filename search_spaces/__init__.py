"""The search spaces by name."""

from nas.space import Space
from search_spaces import multimodal

SPACES = {
    "conv": Space(
        "conv",
        "multimodal convolutional: a branch per sensor, a fusion, a head, bits per layer",
        multimodal.sample,
        multimodal.parse,
        multimodal.starts,
    ),
}
