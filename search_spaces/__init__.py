"""The search spaces by name."""

from functools import partial

from nas.space import Space
from search_spaces import multimodal
from search_spaces.families import FAMILIES

SUMMARIES = {
    "conv": "multimodal convolutional: a branch per sensor, a fusion, a head, bits per layer",
    "transformer": "the same with attention over patches of series and images, and between sensors",
    "mamba": "the same with selective state-space branches; series can run reading by reading",
    "all": "each sensor's branch of any of these kinds",
}
SPACES = {
    name: Space(
        name,
        SUMMARIES[name],
        partial(multimodal.sample, family),
        partial(multimodal.parse, family),
        partial(multimodal.starts, family),
    )
    for name, family in FAMILIES.items()
}
