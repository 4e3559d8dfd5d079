"""The two nets of the first distillation experiment (Hinton et al., arXiv 1503.02531, section 3).

A large regularised net and a smaller one without regularisation, both with two hidden layers of
rectified units on MNIST. Input: ``(B, 1, 28, 28)``. The paper also bounds the norm of the large
net's weights and jitters its images; both belong to training, not to the net.
"""

from __future__ import annotations

from torch import nn

PIXELS = 28 * 28
CLASSES = 10


def build() -> nn.Module:
    """Returns the small net, the one to be distilled into."""
    return build_student()


def build_teacher() -> nn.Module:
    """Returns the large net, 784-1200-1200-10: logits ``(B, 10)``.

    Drops a fifth of the hidden units while training.
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(PIXELS, 1200),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(1200, 1200),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(1200, CLASSES),
    )


def build_student() -> nn.Module:
    """Returns the small net, 784-800-800-10: logits ``(B, 10)``."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(PIXELS, 800),
        nn.ReLU(),
        nn.Linear(800, 800),
        nn.ReLU(),
        nn.Linear(800, CLASSES),
    )
