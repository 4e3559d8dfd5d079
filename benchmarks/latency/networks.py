"""Published networks as lists of operators, for which latencies are published.

Written from the papers' tables: Howard et al., arXiv 1704.04861 (MobileNet v1); Sandler et al.,
arXiv 1801.04381 (v2); Howard et al., arXiv 1905.02244 (v3, and its minimalistic form without
squeeze-and-excitation, 5x5 kernels and hard-swish, of the TensorFlow model garden); Tan and Le,
arXiv 1905.11946 with the scaling of EfficientNet-lite (stem, head, first and last stage unscaled,
no squeeze-and-excitation, ReLU6). `tests/measure` holds their multiply-accumulates against the
published ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edgekd.core.types import Precision
from edgekd.modelfile.operators import Geometry, Operator, OperatorKind

KINDS = {
    "conv": OperatorKind.CONV,
    "depthwise": OperatorKind.DEPTHWISE_CONV,
    "fc": OperatorKind.FULLY_CONNECTED,
    "add": OperatorKind.ELEMENTWISE,
    "multiply": OperatorKind.ELEMENTWISE,
    "activation": OperatorKind.ACTIVATION,
    "pool": OperatorKind.POOL,
    "softmax": OperatorKind.ACTIVATION,
    "matmul": OperatorKind.MATMUL,
    "concat": OperatorKind.CONCAT,
    "resize": OperatorKind.RESIZE,
}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operator, batch 1.

    Attributes:
        kind: ``conv``, ``depthwise``, ``fc``, ``matmul``, ``add``, ``multiply``, ``activation``,
            ``pool``, ``softmax``, ``concat``, ``resize``.
        inputs: Channels read.
        outputs: Channels written.
        size: Height and width of the output; they are equal in all of these networks.
        kernel: Side of the kernel.
        stride: Of the kernel.
        rows: Of a product of two activations, whose ``size`` is 1.
    """

    kind: str
    inputs: int
    outputs: int
    size: int
    kernel: int = 1
    stride: int = 1
    rows: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        if self.kind == "matmul":
            return self.rows * self.inputs * self.outputs
        if self.kind == "depthwise":
            return self.outputs * self.size**2 * self.kernel**2
        if self.kind in ("conv", "fc"):
            return self.inputs * self.outputs * self.size**2 * self.kernel**2
        return 0

    @property
    def weights(self) -> int:
        """Weights and biases."""
        if self.kind == "depthwise":
            return self.outputs * (self.kernel**2 + 1)
        if self.kind in ("conv", "fc"):
            return self.outputs * (self.inputs * self.kernel**2 + 1)
        return 0

    @property
    def read(self) -> int:
        """Values of activations read."""
        if self.kind in ("conv", "depthwise"):
            return self.inputs * (self.size * self.stride) ** 2
        if self.kind == "matmul":
            return self.rows * self.inputs + self.inputs * self.outputs
        if self.kind == "add":
            return 2 * self.inputs * self.size**2
        if self.kind == "pool":
            return self.inputs * self.kernel**2
        return self.inputs * self.size**2

    @property
    def written(self) -> int:
        """Values of activations written."""
        if self.kind == "matmul":
            return self.rows * self.outputs
        return self.outputs * self.size**2

    def operator(self, precision: Precision) -> Operator:
        """Returns the layer as it would stand in a file of that precision."""
        width = {Precision.INT8: 1, Precision.FLOAT16: 2, Precision.FLOAT32: 4}[precision]
        geometry = None
        if self.macs:
            geometry = Geometry(
                inputs=self.inputs,
                outputs=self.outputs,
                height=self.rows if self.kind == "matmul" else self.size,
                width=self.size,
                kernel=(self.kernel, self.kernel),
                stride=self.stride,
                groups=self.inputs if self.kind == "depthwise" else 1,
            )
        return Operator(
            kind=KINDS[self.kind],
            native=self.kind,
            name=self.kind,
            macs=self.macs,
            parameters=self.weights,
            input_bytes=width * self.read,
            weight_bytes=width * self.weights,
            output_bytes=width * self.written,
            precision=precision,
            input_shapes=(),
            output_shapes=(),
            geometry=geometry,
        )


@dataclass
class Network:
    """Layers in order of execution, built one upon the other."""

    name: str
    size: int
    channels: int = 3
    layers: list[Layer] = field(default_factory=list)

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(layer.macs for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Weights and biases, batch norm folded."""
        return sum(layer.weights for layer in self.layers)

    def conv(self, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        """Adds a convolution with what is fused into it."""
        self.size = math.ceil(self.size / stride)
        self._add("conv", outputs, kernel, stride)

    def depthwise(self, kernel: int, stride: int = 1) -> None:
        """Adds a depthwise convolution."""
        self.size = math.ceil(self.size / stride)
        self._add("depthwise", self.channels, kernel, stride)

    def add(self, kind: str) -> None:
        """Adds an operator on every value: ``add``, ``activation``, ``multiply``."""
        self._add(kind, self.channels)

    def pool(self) -> None:
        """Adds the mean over all positions."""
        kernel, self.size = self.size, 1
        self._add("pool", self.channels, kernel)

    def excite(self, reduced: int) -> None:
        """Adds squeeze-and-excitation: mean, two 1x1 convolutions, hard sigmoid, product."""
        channels, size = self.channels, self.size
        self.pool()
        self.conv(reduced)
        self.conv(channels)
        self.add("activation")
        self.size = size
        self.add("multiply")

    def classify(self, classes: int = 1001, head: int | None = None) -> None:
        """Adds mean, the classifier and softmax."""
        self.pool()
        if head:
            self.conv(head)
        self._add("fc", classes)
        self._add("softmax", classes)

    def _add(self, kind: str, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        layer = Layer(
            kind=kind,
            inputs=self.channels,
            outputs=outputs,
            size=self.size,
            kernel=kernel,
            stride=stride,
        )
        self.layers.append(layer)
        self.channels = outputs


def rounded(channels: float, divisor: int = 8) -> int:
    """Returns the nearest multiple that is not more than a tenth smaller."""
    value = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return value + divisor if value < 0.9 * channels else value


def mobilenet_v1(width: float, size: int) -> Network:
    """Returns MobileNet v1 of a width multiplier."""
    net = Network(f"mobilenet-v1-{width:g}-{size}", size)
    net.conv(rounded(32 * width), 3, 2)
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    for outputs, stride in [*plan, *[(512, 1)] * 5, (1024, 2), (1024, 1)]:
        net.depthwise(3, stride)
        net.conv(rounded(outputs * width))
    net.classify()
    return net


def mobilenet_v2(width: float, size: int) -> Network:
    """Returns MobileNet v2 of a width multiplier."""
    net = Network(f"mobilenet-v2-{width:g}-{size}", size)
    net.conv(rounded(32 * width), 3, 2)
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
            (6, 160, 3, 2), (6, 320, 1, 1)]  # fmt: skip
    for expansion, outputs, repeats, stride in plan:
        for index in range(repeats):
            _inverted(net, expansion, rounded(outputs * width), 3, stride if index == 0 else 1)
    net.conv(rounded(1280 * max(1.0, width)))
    net.classify()
    return net


def efficientnet_lite(version: int) -> Network:
    """Returns EfficientNet-lite 0 to 4."""
    width, depth, size = [
        (1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 280), (1.4, 1.8, 300),
    ][version]  # fmt: skip
    net = Network(f"efficientnet-lite{version}", size)
    net.conv(32, 3, 2)
    plan = [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
            (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)]  # fmt: skip
    for stage, (expansion, kernel, stride, outputs, repeats) in enumerate(plan):
        scaled = repeats if stage in (0, len(plan) - 1) else math.ceil(repeats * depth)
        for index in range(scaled):
            first = stride if index == 0 else 1
            _inverted(net, expansion, rounded(outputs * width), kernel, first)
    net.conv(1280)
    net.classify(1000)
    return net


def mobilenet_v3(kind: str, width: float, size: int, *, minimalistic: bool = False) -> Network:
    """Returns MobileNet v3, ``large`` or ``small``."""
    suffix = "-minimalistic" if minimalistic else ""
    net = Network(f"mobilenet-v3-{kind}{suffix}-{width:g}-{size}", size)
    plan, last, head = _V3[kind]
    hard = not minimalistic
    net.conv(rounded(16 * width), 3, 2)
    if hard:
        net.add("activation")
    unscaled = 16
    for kernel, expanded, outputs, excited, swish, stride in plan:
        before = net.channels
        if expanded != unscaled:
            # The factor is kept, not the number: narrow nets round their inputs up.
            net.conv(rounded(before * expanded / unscaled))
            if swish and hard:
                net.add("activation")
        net.depthwise(3 if minimalistic else kernel, stride)
        if swish and hard:
            net.add("activation")
        if excited and hard:
            net.excite(rounded(net.channels / 4))
        net.conv(rounded(outputs * width))
        unscaled = outputs
        if stride == 1 and net.channels == before:
            net.add("add")
    net.conv(rounded(last * width))
    if hard:
        net.add("activation")
    net.pool()
    net.conv(rounded(head * max(1.0, width)))
    if hard:
        net.add("activation")
    net.layers.append(Layer(kind="fc", inputs=net.channels, outputs=1001, size=1))
    net.layers.append(Layer(kind="softmax", inputs=1001, outputs=1001, size=1))
    return net


# Kernel, expansion, output, squeeze-and-excitation, hard-swish, stride: tables 1 and 2.
_V3 = {
    "large": (
        [(3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
         (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
         (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
         (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
         (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1)],
        960, 1280,
    ),
    "small": (
        [(3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
         (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
         (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2),
         (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1)],
        576, 1024,
    ),
}  # fmt: skip


def _inverted(net: Network, expansion: int, outputs: int, kernel: int, stride: int) -> None:
    before = net.channels
    if expansion != 1:
        net.conv(before * expansion)
    net.depthwise(kernel, stride)
    net.conv(outputs)
    if stride == 1 and before == outputs:
        net.add("add")
