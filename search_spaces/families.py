"""The families of multimodal students: one row a search space."""

from search_spaces.branches import Start
from search_spaces.convolutional import CONV, EITHER_CONV
from search_spaces.mamba import MAMBA
from search_spaces.multimodal import Family
from search_spaces.transformer import TRANSFORMER
from search_spaces.vector import VECTOR

FUSIONS = ("concat", "add", "gate")
ALL_FUSIONS = (*FUSIONS, "attention")

# A small and a middling network at 4 bits, the same with strides, a large one, both ends of the
# bits.
CONV_STARTS = tuple(
    ("conv", start)
    for start in (
        Start(8, 4),
        Start(4, 4, hidden=16),
        Start(8, 4, downsample="stride"),
        Start(12, 4, "grid"),
        Start(8, 8),
        Start(6, 2),
        Start(4, 2, downsample="stride", hidden=16),
    )
)
# Where the label is that of the newest reading, the last step is worth more than the mean, and the
# smallest network is enough.
TRANSFORMER_STARTS = tuple(
    ("transformer", start)
    for start in (
        Start(8, 4, "last", hidden=16),
        Start(16, 4),
        Start(8, 4, hidden=16),
        Start(16, 4, "last"),
        Start(28, 4, "last"),
        Start(28, 4),
        Start(16, 8),
        Start(8, 2, hidden=16),
    )
)
MAMBA_STARTS = tuple(
    ("mamba", start)
    for start in (
        Start(16, 4, "last"),
        Start(16, 4, expansion=2),
        Start(8, 4, "last", hidden=16),
        Start(16, 4),
        Start(40, 4, "last"),
        Start(24, 4, expansion=2),
        Start(16, 8),
        Start(8, 2, expansion=2, hidden=16),
    )
)
# The best of each kind in turn.
ALL_STARTS = tuple(
    start
    for group in zip(CONV_STARTS[:4], TRANSFORMER_STARTS[:4], MAMBA_STARTS[:4], strict=True)
    for start in group
)

FAMILIES = {
    family.name: family
    for family in (
        Family(
            "conv",
            {"series": {"conv": CONV}, "image": {"conv": CONV}, "vector": {"vector": VECTOR}},
            FUSIONS,
            CONV_STARTS,
        ),
        Family(
            "transformer",
            {
                "series": {"transformer": TRANSFORMER},
                "image": {"transformer": TRANSFORMER},
                "vector": {"vector": VECTOR},
            },
            ALL_FUSIONS,
            TRANSFORMER_STARTS,
        ),
        Family(
            "mamba",
            {"series": {"mamba": MAMBA}, "image": {"mamba": MAMBA}, "vector": {"vector": VECTOR}},
            ALL_FUSIONS,
            MAMBA_STARTS,
        ),
        Family(
            "all",
            {
                "series": {"conv": EITHER_CONV, "transformer": TRANSFORMER, "mamba": MAMBA},
                "image": {"conv": CONV, "transformer": TRANSFORMER, "mamba": MAMBA},
                "vector": {"vector": VECTOR},
            },
            ALL_FUSIONS,
            ALL_STARTS,
        ),
    )
}
