"""Networks for which TensorRT latencies are published, as lists of operators.

Written from their descriptions: Krizhevsky, arXiv 1404.5997 (AlexNet of one column); Simonyan and
Zisserman, arXiv 1409.1556 (VGG); He et al., arXiv 1512.03385 (ResNet); Huang et al., arXiv
1608.06993 (DenseNet); Iandola et al., arXiv 1602.07360 (SqueezeNet); Ma et al., arXiv 1807.11164
(ShuffleNet v2); Tan et al., arXiv 1807.11626 (MnasNet); the published description of YOLO11 (blocks
C3k2, SPPF, C2PSA; widths and depths of n to x). `tests/measure` holds their multiply-accumulates
and parameters against the published ones.
"""

from __future__ import annotations

from networks import Layer, Network


class Net(Network):
    """A network whose layers are added with their channels, so that it may branch."""

    def cv(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        activation: bool = False,
        depthwise: bool = False,
    ) -> int:
        """Adds a convolution at the present size, with an activation of its own where asked."""
        self.size = -(-self.size // stride)
        kind = "depthwise" if depthwise else "conv"
        self._put(kind, inputs, outputs, kernel, stride)
        if activation:
            self._put("activation", outputs, outputs)
        return outputs

    def join(self, kind: str, channels: int) -> int:
        """Adds an operator on every value: ``add``, ``concat``, ``pool``, ``resize``."""
        self._put(kind, channels, channels)
        return channels

    def matmul(self, rows: int, depth: int, columns: int) -> None:
        """Adds a product of two matrices that both are activations."""
        self.layers.append(Layer(kind="matmul", inputs=depth, outputs=columns, size=1, rows=rows))

    def fc(self, inputs: int, outputs: int) -> int:
        """Adds a fully connected layer."""
        self.layers.append(Layer(kind="fc", inputs=inputs, outputs=outputs, size=1))
        return outputs

    def mean(self, channels: int) -> None:
        """Adds the mean over all positions."""
        kernel, self.size = self.size, 1
        self._put("pool", channels, channels, kernel)

    def halve(self, channels: int, kernel: int = 3) -> None:
        """Adds pooling of stride 2."""
        self.size = -(-self.size // 2)
        self._put("pool", channels, channels, kernel, 2)

    def _put(self, kind: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        layer = Layer(
            kind=kind, inputs=inputs, outputs=outputs, size=self.size, kernel=kernel, stride=stride
        )
        self.layers.append(layer)


def alexnet() -> Net:
    """Returns AlexNet of one column."""
    net = Net("alexnet", 224)
    net.size = 220  # The first kernel has no room at the edge: 55 positions.
    net.cv(3, 64, 11, 4)
    net.size = 27
    net.join("pool", 64)
    net.cv(64, 192, 5)
    net.size = 13
    net.join("pool", 192)
    for inputs, outputs in ((192, 384), (384, 256), (256, 256)):
        net.cv(inputs, outputs, 3)
    net.size = 6
    net.join("pool", 256)
    net.fc(net.fc(net.fc(256 * 36, 4096), 4096), 1000)
    return net


def vgg(depth: int) -> Net:
    """Returns VGG with 11, 13, 16 or 19 layers."""
    repeats = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
    net, channels = Net(f"vgg{depth}", 224), 3
    for outputs, count in zip((64, 128, 256, 512, 512), repeats[depth], strict=True):
        for _ in range(count):
            channels = net.cv(channels, outputs, 3)
        net.halve(channels, 2)
    net.fc(net.fc(net.fc(512 * 49, 4096), 4096), 1000)
    return net


def resnet(depth: int, size: int = 224) -> Net:
    """Returns ResNet with 18, 34, 50, 101 or 152 layers."""
    repeats = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3),
               152: (3, 8, 36, 3)}[depth]  # fmt: skip
    wide = 4 if depth >= 50 else 1
    net, channels = Net(f"resnet{depth}-{size}", size), 64
    net.cv(3, 64, 7, 2)
    net.halve(64)
    for stage, count in enumerate(repeats):
        for index in range(count):
            stride = 2 if stage and index == 0 else 1
            inner, outputs = 64 << stage, (64 << stage) * wide
            if wide > 1:
                net.cv(channels, inner)
                net.cv(inner, inner, 3, stride)
                net.cv(inner, outputs)
            else:
                net.cv(channels, inner, 3, stride)
                net.cv(inner, outputs, 3)
            if channels != outputs or stride > 1:
                _shortcut(net, channels, outputs, stride)
            channels = net.join("add", outputs)
    net.mean(channels)
    net.fc(channels, 1000)
    return net


def _shortcut(net: Net, inputs: int, outputs: int, stride: int) -> None:
    net.size *= stride
    net.cv(inputs, outputs, 1, stride)


def densenet(depth: int) -> Net:
    """Returns DenseNet with 121, 161, 169 or 201 layers."""
    growth, channels, repeats = {
        121: (32, 64, (6, 12, 24, 16)), 161: (48, 96, (6, 12, 36, 24)),
        169: (32, 64, (6, 12, 32, 32)), 201: (32, 64, (6, 12, 48, 32)),
    }[depth]  # fmt: skip
    net = Net(f"densenet{depth}", 224)
    net.cv(3, channels, 7, 2)
    net.halve(channels)
    for stage, count in enumerate(repeats):
        for _ in range(count):
            net.join("activation", channels)  # Batch norm stands before the convolution.
            net.cv(channels, 4 * growth)
            net.cv(4 * growth, growth, 3)
            net.join("concat", growth)
            channels += growth
        net.join("activation", channels)
        if stage < len(repeats) - 1:
            channels = net.cv(channels, channels // 2)
            net.halve(channels, 2)
    net.mean(channels)
    net.fc(channels, 1000)
    return net


def squeezenet(minor: int) -> Net:
    """Returns SqueezeNet 1.0 or 1.1."""
    net = Net(f"squeezenet1_{minor}", 224)
    first, kernel = (96, 7) if minor == 0 else (64, 3)
    net.size = 218 if minor == 0 else 222
    net.cv(3, first, kernel, 2)
    plan = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    pooled = {0: (0, 3, 7), 1: (0, 2, 4)}[minor]
    channels = first
    for index, (squeezed, expanded) in enumerate(plan):
        if index in pooled:
            net.size = (net.size - 2 + 1) // 2 if net.size % 2 else net.size // 2
            net.join("pool", channels)
        net.cv(channels, squeezed)
        net.cv(squeezed, expanded)
        net.cv(squeezed, expanded, 3)
        channels = net.join("concat", 2 * expanded)
    net.cv(channels, 1000)
    net.mean(1000)
    return net


def shufflenet_v2(width: str) -> Net:
    """Returns ShuffleNet v2 of width ``0_5``, ``1_0``, ``1_5`` or ``2_0``."""
    plan = {"0_5": (48, 96, 192, 1024), "1_0": (116, 232, 464, 1024), "1_5": (176, 352, 704, 1024),
            "2_0": (244, 488, 976, 2048)}[width]  # fmt: skip
    net, channels = Net(f"shufflenet_v2_x{width}", 224), 24
    net.cv(3, 24, 3, 2)
    net.halve(24)
    for outputs, repeats in zip(plan[:3], (4, 8, 4), strict=True):
        half = outputs // 2
        for index in range(repeats):
            stride = 2 if index == 0 else 1
            inputs = channels if index == 0 else half
            if index == 0:
                net.cv(inputs, inputs, 3, 2, depthwise=True)
                net.cv(inputs, half)
                net.size *= 2
            net.cv(inputs, half)
            net.cv(half, half, 3, stride, depthwise=True)
            net.cv(half, half)
            net.join("concat", outputs)
            net.join("concat", outputs)  # The shuffle moves every value once more.
        channels = outputs
    net.cv(channels, plan[3])
    net.mean(plan[3])
    net.fc(plan[3], 1000)
    return net


def mnasnet(width: float) -> Net:
    """Returns MnasNet B1 of a width multiplier."""

    def scaled(channels: int) -> int:
        value = max(8, int(channels * width + 4) // 8 * 8)
        return value if value >= 0.9 * channels * width else value + 8

    net = Net(f"mnasnet{width:g}", 224)
    first, channels = scaled(32), scaled(16)
    net.cv(3, first, 3, 2)
    net.cv(first, first, 3, depthwise=True)
    net.cv(first, channels)
    plan = [(24, 3, 2, 3, 3), (40, 5, 2, 3, 3), (80, 5, 2, 6, 3), (96, 3, 1, 6, 2),
            (192, 5, 2, 6, 4), (320, 3, 1, 6, 1)]  # fmt: skip
    for outputs, kernel, stride, expansion, repeats in plan:
        wanted = scaled(outputs)
        for index in range(repeats):
            inner = channels * expansion
            net.cv(channels, inner)
            net.cv(inner, inner, kernel, stride if index == 0 else 1, depthwise=True)
            net.cv(inner, wanted)
            if index:
                net.join("add", wanted)
            channels = wanted
    net.cv(channels, 1280)
    net.mean(1280)
    net.fc(1280, 1000)
    return net


def yolo11(letter: str, size: int = 640) -> Net:
    """Returns YOLO11 n, s, m, l or x with 80 classes, without what follows its outputs."""
    depth, width, most = {
        "n": (0.5, 0.25, 1024), "s": (0.5, 0.5, 1024), "m": (0.5, 1.0, 512), "l": (1.0, 1.0, 512),
        "x": (1.0, 1.5, 512),
    }[letter]  # fmt: skip
    deep = letter in "mlx"
    repeats = max(1, round(2 * depth))

    def ch(channels: int) -> int:
        return -(-int(min(channels, most) * width) // 8) * 8

    net = Net(f"yolo11{letter}-{size}", size)
    x = net.cv(3, ch(64), 3, 2, activation=True)
    x = net.cv(x, ch(128), 3, 2, activation=True)
    x = _c3k2(net, x, ch(256), repeats, deep, 0.25)
    x = net.cv(x, ch(256), 3, 2, activation=True)
    p3 = x = _c3k2(net, x, ch(512), repeats, deep, 0.25)
    x = net.cv(x, ch(512), 3, 2, activation=True)
    p4 = x = _c3k2(net, x, ch(512), repeats, True)
    x = net.cv(x, ch(1024), 3, 2, activation=True)
    x = _c3k2(net, x, ch(1024), repeats, True)
    x = _sppf(net, x)
    p5 = x = _c2psa(net, x, repeats)
    net.size *= 2
    net.join("resize", x)
    x = _c3k2(net, net.join("concat", x + p4), ch(512), repeats, deep)
    middle = x
    net.size *= 2
    net.join("resize", x)
    x = _c3k2(net, net.join("concat", x + p3), ch(256), repeats, deep)
    levels = [(x, net.size)]
    x = net.cv(x, ch(256), 3, 2, activation=True)
    x = _c3k2(net, net.join("concat", x + middle), ch(512), repeats, deep)
    levels.append((x, net.size))
    x = net.cv(x, ch(512), 3, 2, activation=True)
    x = _c3k2(net, net.join("concat", x + p5), ch(1024), repeats, True)
    levels.append((x, net.size))
    _detect(net, levels)
    return net


def _bottleneck(net: Net, channels: int, inner: int) -> None:
    net.cv(channels, inner, 3, activation=True)
    net.cv(inner, channels, 3, activation=True)
    net.join("add", channels)


def _c3k2(net: Net, inputs: int, outputs: int, repeats: int, deep: bool, share: float = 0.5) -> int:
    inner = int(outputs * share)
    net.cv(inputs, 2 * inner, activation=True)
    for _ in range(repeats):
        if deep:
            half = inner // 2
            net.cv(inner, half, activation=True)
            net.cv(inner, half, activation=True)
            for _ in range(2):
                _bottleneck(net, half, half)
            net.join("concat", 2 * half)
            net.cv(2 * half, inner, activation=True)
        else:
            _bottleneck(net, inner, inner // 2)
    net.join("concat", (2 + repeats) * inner)
    return net.cv((2 + repeats) * inner, outputs, activation=True)


def _sppf(net: Net, channels: int) -> int:
    half = net.cv(channels, channels // 2, activation=True)
    for _ in range(3):
        net.join("pool", half)
    net.join("concat", 4 * half)
    return net.cv(4 * half, channels, activation=True)


def _c2psa(net: Net, channels: int, repeats: int) -> int:
    half, cells = channels // 2, net.size**2
    net.cv(channels, 2 * half, activation=True)
    for _ in range(repeats):
        heads = half // 64
        net.cv(half, 2 * half)
        net.matmul(heads * cells, 32, cells)
        net.layers.append(Layer(kind="softmax", inputs=heads * cells, outputs=heads * cells,
                                size=net.size))  # fmt: skip
        net.matmul(heads * cells, cells, 64)
        net.cv(half, half, 3, depthwise=True)
        net.join("add", half)
        net.cv(half, half)
        net.join("add", half)
        net.cv(half, 2 * half, activation=True)
        net.cv(2 * half, half)
        net.join("add", half)
    net.join("concat", 2 * half)
    return net.cv(2 * half, channels, activation=True)


def _detect(net: Net, levels: list[tuple[int, int]]) -> None:
    first = levels[0][0]
    boxes, classes = max(16, first // 4, 64), max(first, 80)
    for channels, size in levels:
        net.size = size
        net.cv(channels, boxes, 3, activation=True)
        net.cv(boxes, boxes, 3, activation=True)
        net.cv(boxes, 64)
        net.cv(channels, channels, 3, activation=True, depthwise=True)
        net.cv(channels, classes, activation=True)
        net.cv(classes, classes, 3, activation=True, depthwise=True)
        net.cv(classes, classes, activation=True)
        net.cv(classes, 80)
        net.join("concat", 144)
