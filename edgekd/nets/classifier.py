"""edgecls: a classifier on edgedet's backbone. Raw logits; softmax is outside the graph."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from edgekd.nets.backbone import Backbone, Scale, initialise
from edgekd.nets.blocks import ConvNormAct, round_channels


class EdgeCls(nn.Module):
    """Classifier with global average pooling.

    Args:
        scale: Of the family member.
        classes: Number of logits.
        channels: Of the image.
        small: For images of few pixels, which a stride of 32 would shrink to a point.

    Attributes:
        strides: Empty; a classifier has no levels.
    """

    strides: tuple[int, ...] = ()

    def __init__(
        self, *, scale: Scale, classes: int, channels: int = 3, small: bool = False
    ) -> None:
        super().__init__()
        self.backbone = Backbone(channels, scale, small=small)
        hidden = round_channels(self.backbone.channels[-1] * 2)
        self.features = ConvNormAct(self.backbone.channels[-1], hidden)
        # A 1x1 convolution rather than a linear layer: no reshape with a symbolic batch in between.
        self.classify = nn.Conv2d(hidden, classes, 1)
        initialise(self)

    @property
    def taps(self) -> tuple[str, ...]:
        """Module paths for feature distillation: the last feature map."""
        return ("features",)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns ``((B, classes) logits,)`` for ``x`` of ``(B, C, H, W)``."""
        features = self.features(self.backbone(x)[-1])
        pooled = functional.avg_pool2d(features, features.shape[2:])
        return (self.classify(pooled).squeeze(3).squeeze(2),)
