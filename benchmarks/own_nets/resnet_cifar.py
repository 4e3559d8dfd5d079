"""ResNet-20 and ResNet-56 for CIFAR-10 (He et al., arXiv 1512.03385, section 4.2), defined anew.

Option A shortcuts: no parameters. Input: ``(B, 3, 32, 32)``, RGB in [0, 1], normalised with `MEAN`
and `STD`. Modules are named as in the state dicts that akamaster published (BSD-2-Clause), which
load with ``strict=True`` once the ``module.`` before each key is cut off.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""What the published weights were trained with, for pixels in [0, 1]."""


def build() -> nn.Module:
    """Returns ResNet-20, the smaller of the two."""
    return build_resnet20()


def build_resnet20() -> nn.Module:
    """Returns ResNet-20: logits ``(B, 10)``, 0.27 M parameters."""
    return ResNet(blocks=3)


def build_resnet56() -> nn.Module:
    """Returns ResNet-56: logits ``(B, 10)``, 0.85 M parameters."""
    return ResNet(blocks=9)


class ResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels, then the mean over the image.

    Args:
        blocks: Residual blocks a stage; the net has 6 x blocks + 2 layers with weights.
    """

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, 1, blocks)
        self.layer2 = _stage(16, 32, 2, blocks)
        self.layer3 = _stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits ``(B, classes)``."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = nn.Identity() if stride == 1 else Subsample(outputs - inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, outputs, H / stride, W / stride)``."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y: Tensor = self.relu(residual + self.shortcut(x))
        return y


class Subsample(nn.Module):
    """Every second pixel of every second row, among channels of zeros.

    Args:
        added: Channels of zeros, half before and half after those of the input, where the
            published weights expect them.
    """

    def __init__(self, added: int) -> None:
        super().__init__()
        self.before, self.after = added // 2, added - added // 2

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, C + added, H / 2, W / 2)``."""
        return pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def build_resnet8() -> nn.Module:
    """Returns ResNet-8, one block a stage: 78 k parameters, a student for ResNet-56."""
    return ResNet(1)
