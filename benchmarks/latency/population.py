"""What boards have in common: efficiencies of a runtime's kernels, learnt from several of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from published import Run

from edgekd.core.types import Precision
from edgekd.measure.costs import CLASSES, Efficiencies

SCATTER = {"ruy": 0.08, "xnnpack": 0.08, "onnxruntime": 0.12, "tensorrt": 0.12, "ncnn": 0.15}
"""Standard deviation of the logarithm of what the classes do not see of a network."""

COMMON = 0.3
"""Of what a board is faster or slower at everything than its peaks say."""

GUESSED_BOARDS = 2.0
"""How many boards the first guess counts for."""

ROUNDS = 6

# Shares of a speed, and the standard deviation of their logarithms: guessed before any fit.
_FLOAT = {
    "dense": (0.7, 0.4), "winograd": (0.7, 0.4), "convolution": (0.5, 0.5), "first": (0.12, 0.5),
    "depthwise": (0.06, 0.4), "depthwise-strided": (0.055, 0.4), "depthwise-large": (0.1, 0.4),
    "matrix": (0.5, 0.5), "vector": (0.3, 0.6), "transform": (0.5, 0.6), "traffic": (4.0, 0.5),
    "weights": (1.2, 0.5), "calls": (0.35, 0.7), "elementwise": (1.0, 0.5),
    "activation": (0.6, 0.6), "pool": (0.6, 0.7), "move": (0.6, 0.7), "other-calls": (0.7, 0.8),
}  # fmt: skip
_INTEGER = _FLOAT | {
    "dense": (0.8, 0.4), "first": (0.75, 0.4), "depthwise": (0.1, 0.4),
    "depthwise-strided": (0.055, 0.4), "depthwise-large": (0.07, 0.6), "weights": (0.6, 0.5),
    "elementwise": (0.22, 0.5), "activation": (0.25, 0.6), "pool": (0.2, 0.7), "move": (0.3, 0.7),
}  # fmt: skip
# XNNPACK multiplies without a copy of patches and walks depthwise rows in registers.
_INDIRECT = {
    "first": (0.4, 0.5), "convolution": (0.6, 0.5), "dense": (0.8, 0.4), "depthwise": (0.15, 0.4),
    "depthwise-strided": (0.12, 0.4), "depthwise-large": (0.2, 0.4),
}  # fmt: skip
_INDIRECT_INTEGER = {
    "first": (0.5, 0.5), "dense": (0.7, 0.4), "depthwise": (0.1, 0.4),
    "depthwise-large": (0.07, 0.5),
}  # fmt: skip
# A GPU's share of its peaks at batch 1; traffic of the theoretical bandwidth, calls of 15 us/GHz.
_TENSOR = {
    "dense": (0.35, 0.5), "winograd": (0.35, 0.5), "convolution": (0.35, 0.5), "first": (0.05, 0.7),
    "depthwise": (0.12, 0.6), "depthwise-strided": (0.12, 0.6), "depthwise-large": (0.12, 0.6),
    "matrix": (0.3, 0.6), "vector": (0.05, 0.7), "transform": (2.0, 0.8), "traffic": (0.6, 0.5),
    "weights": (0.6, 0.5), "calls": (2.0, 0.5), "elementwise": (0.6, 0.5),
    "activation": (0.6, 0.5), "pool": (0.6, 0.5), "move": (0.6, 0.5), "other-calls": (2.0, 0.5),
}  # fmt: skip
_NCNN = {
    "dense": (0.8, 0.4), "winograd": (0.65, 0.4), "convolution": (0.5, 0.4), "first": (0.6, 0.5),
    "depthwise": (0.12, 0.5), "depthwise-strided": (0.1, 0.5), "depthwise-large": (0.14, 0.5),
    "matrix": (0.25, 0.5), "vector": (0.5, 0.7), "transform": (0.3, 0.6), "traffic": (2.0, 0.6),
    "weights": (1.0, 0.5), "calls": (1.5, 0.8), "elementwise": (1.0, 0.6), "activation": (0.6, 0.6),
    "pool": (0.5, 0.6), "move": (0.4, 0.7), "other-calls": (1.5, 0.8),
}  # fmt: skip
GUESSES = {
    ("ncnn", Precision.FLOAT32): _NCNN,
    ("ncnn", Precision.FLOAT16): _NCNN,
    ("ruy", Precision.FLOAT32): _FLOAT,
    ("ruy", Precision.INT8): _INTEGER,
    ("xnnpack", Precision.FLOAT32): _FLOAT | _INDIRECT,
    ("xnnpack", Precision.INT8): _INTEGER | _INDIRECT_INTEGER,
    ("onnxruntime", Precision.FLOAT32): _FLOAT | {"dense": (0.55, 0.5), "depthwise": (0.05, 0.6)},
    ("onnxruntime", Precision.INT8): _INTEGER
    | {"dense": (0.5, 0.6), "first": (0.4, 0.7), "depthwise": (0.05, 0.7)},
    ("tensorrt", Precision.FLOAT32): _TENSOR
    | {"dense": (0.8, 0.4), "convolution": (0.8, 0.4), "first": (0.4, 0.6)},
    ("tensorrt", Precision.FLOAT16): _TENSOR,
    ("tensorrt", Precision.INT8): _TENSOR,
}


def guessed(kernels: str, precision: Precision) -> Efficiencies:
    """Returns what is assumed of kernels before any board was measured."""
    guess = GUESSES[kernels, precision]
    own = np.diag([guess[name][1] ** 2 for name in CLASSES])
    return Efficiencies(
        mean=-np.log([guess[name][0] for name in CLASSES]),
        covariance=own + COMMON**2,
        scatter=SCATTER[kernels],
    )


def population(runs: Sequence[Run], guess: Efficiencies) -> Efficiencies:
    """Returns mean and spread of the efficiencies over boards, by expectation maximization.

    The mean's prior counts for one board, that of the spread for `GUESSED_BOARDS`.
    """
    mean, spread = guess.mean, guess.covariance
    start = np.linalg.inv(guess.covariance)
    for _ in range(ROUNDS if runs else 0):
        now = Efficiencies(mean=mean, covariance=spread, scatter=guess.scatter)
        found = [run.teach(now) for run in runs]
        inverse = np.linalg.inv(spread)
        told = start @ guess.mean + inverse @ np.sum([one.mean for one in found], axis=0)
        mean = np.linalg.solve(start + len(runs) * inverse, told)
        apart = [one.covariance + np.outer(one.mean - mean, one.mean - mean) for one in found]
        spread = GUESSED_BOARDS * guess.covariance + np.sum(apart, axis=0)
        spread = spread / (GUESSED_BOARDS + len(runs))
    return Efficiencies(mean=mean, covariance=spread, scatter=guess.scatter)
