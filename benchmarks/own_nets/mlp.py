"""The two nets of the first distillation experiment (Hinton et al., arXiv 1503.02531, section 3).

A large net and a smaller one, both with two hidden layers of rectified units on MNIST. Input:
``(B, 1, 28, 28)``. The paper's large net also has dropout and bounded weights; ours learns from
images that are bent (``benchmarks/distillation/mnist.py``), which takes their place.
"""

from __future__ import annotations

from torch import nn

PIXELS = 28 * 28
CLASSES = 10


def build() -> nn.Module:
    """Returns the small net, the one to be distilled into."""
    return build_student()


def build_teacher() -> nn.Module:
    """Returns the large net, 784-1200-1200-10: logits ``(B, 10)``."""
    return _net(1200)


def build_student() -> nn.Module:
    """Returns the small net, 784-800-800-10: logits ``(B, 10)``."""
    return _net(800)


def _net(units: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(PIXELS, units),
        nn.ReLU(),
        nn.Linear(units, units),
        nn.ReLU(),
        nn.Linear(units, CLASSES),
    )
