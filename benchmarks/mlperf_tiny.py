"""The four MLPerf Tiny topologies with random weights, on an emulated Cortex-M4 with slow Flash.

    python benchmarks/mlperf_tiny.py [--json FILE]

Cycles are modelled (core, unaligned words, data and instruction misses of the Flash's caches at 5
wait states); bytes are measured on the linked program. Beside them stand figures that others
published for an STM32L4R5 at 120 MHz, measured on silicon.
"""

from nas.network.graph import Graph, Input
from nas.network.ops import Add, Conv2d, DepthwiseConv2d, Op, Pair, Pool, Reshape

ONE: Pair = (1, 1)
TWO: Pair = (2, 2)


class Layers:
    """Appends operators one after another; `last` is the newest tensor."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.inputs = (Input("x", shape),)
        self.ops: list[Op] = []
        self.last = "x"

    def put(self, op: Op) -> str:
        """Appends `op`."""
        self.ops.append(op)
        self.last = op.name
        return op.name

    def conv(
        self,
        channels: int,
        kernel: Pair = ONE,
        stride: Pair = ONE,
        relu: bool = True,
        source: str | None = None,
    ) -> str:
        """A dense convolution at 8 bits."""
        name = f"conv{len(self.ops)}"
        read = (source or self.last,)
        return self.put(Conv2d(name, read, channels, kernel, stride, "same", 8, relu))

    def depthwise(self, stride: Pair = ONE) -> str:
        """A depthwise 3x3 at 8 bits."""
        name = f"depthwise{len(self.ops)}"
        return self.put(DepthwiseConv2d(name, (self.last,), (3, 3), stride, "same", 8, True))

    def average(self) -> str:
        """A global average pool."""
        height, width, _ = self.graph().shapes[self.last]
        window = (height, width)
        return self.put(Pool(f"pool{len(self.ops)}", (self.last,), "average", window, window))

    def graph(self) -> Graph:
        """What has been put so far."""
        return Graph(self.inputs, tuple(self.ops), self.last)

    def classes(self, count: int) -> Graph:
        """Ends in `count` logits."""
        self.conv(count, relu=False)
        self.put(Reshape("logits", (self.last,), (count,)))
        return self.graph()


def anomaly_detection() -> Graph:
    """An autoencoder of fully connected layers: 640, 4 x 128, 8, 4 x 128, 640."""
    layers = Layers((1, 1, 640))
    for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        layers.conv(units)
    return layers.classes(640)


def image_classification() -> Graph:
    """ResNet-8 on 32 x 32 x 3."""
    layers = Layers((32, 32, 3))
    before = layers.conv(16, (3, 3))
    for channels, stride in ((16, ONE), (32, TWO), (64, TWO)):
        layers.conv(channels, (3, 3), stride)
        after = layers.conv(channels, (3, 3), relu=False)
        if stride == TWO:
            before = layers.conv(channels, ONE, TWO, relu=False, source=before)
        before = layers.put(Add(f"add{len(layers.ops)}", (before, after), True))
    layers.average()
    return layers.classes(10)


def keyword_spotting() -> Graph:
    """DS-CNN on 49 x 10 mel coefficients."""
    layers = Layers((49, 10, 1))
    layers.conv(64, (10, 4), TWO)
    for _ in range(4):
        layers.depthwise()
        layers.conv(64)
    layers.average()
    return layers.classes(12)


def visual_wake_words() -> Graph:
    """MobileNet v1, a quarter as wide, on 96 x 96 x 3."""
    layers = Layers((96, 96, 3))
    layers.conv(8, (3, 3), TWO)
    widths = ((16, ONE), (32, TWO), (32, ONE), (64, TWO), (64, ONE), (128, TWO))
    for channels, stride in (*widths, *((128, ONE),) * 5, (256, TWO), (256, ONE)):
        layers.depthwise(stride)
        layers.conv(channels)
    layers.average()
    return layers.classes(2)


NETWORKS = {
    "ad": anomaly_detection,
    "ic": image_classification,
    "kws": keyword_spotting,
    "vww": visual_wake_words,
}
