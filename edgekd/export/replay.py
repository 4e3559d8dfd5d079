"""One integer operator computed exactly: the arithmetic that every runtime approximates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edgekd.errors import ProofError
from edgekd.export.integer_graph import Grid, IntegerOperator

Integers = NDArray[np.int8]
Tensor64 = NDArray[np.float64]


def replay(operator: IntegerOperator, inputs: Sequence[tuple[Integers, Grid]]) -> Integers:
    """Returns the operator's int8 output ``(B, C, H, W)`` or ``(B, C)``.

    Sums are exact (integers in float64); the rescale is exact up to float64 and rounds half to
    even. Runtimes differ from this by their fixed-point multipliers and their rounding of halves.

    Args:
        operator: With the *trained* parameters.
        inputs: What the runtime itself had at the operator's inputs, and the grids it is on.
    """
    reals = [(values.astype(np.float64) - grid.zero_point) * grid.scale for values, grid in inputs]
    if operator.kind in ("conv", "linear"):
        result = _weighted(operator, *inputs[0])
    elif operator.kind == "add":
        result = reals[0] + reals[-1]
    elif operator.kind == "mul":
        result = reals[0] * reals[-1]
    elif operator.kind == "concat":
        result = np.concatenate(reals, axis=1)
    elif operator.kind == "max_pool":
        result = _max_pool(operator, reals[0])
    elif operator.kind == "mean":
        result = reals[0].mean(axis=(2, 3))
    elif operator.kind == "resize":
        result = reals[0].repeat(2, axis=2).repeat(2, axis=3)
    elif operator.kind == "sigmoid":
        result = 1 / (1 + np.exp(-reals[0]))
    else:
        raise ProofError(f"{operator.name}: no exact arithmetic for {operator.kind!r}")
    if operator.relu is not None:
        result = result.clip(0, operator.relu)
    steps = np.rint(result / operator.grid.scale) + operator.grid.zero_point
    return steps.clip(-128, 127).astype(np.int8)


def _weighted(operator: IntegerOperator, values: Integers, grid: Grid) -> Tensor64:
    weight = operator.weight
    if weight is None:
        raise ProofError(f"{operator.name}: {operator.kind} without a weight")
    x = torch.from_numpy(values.astype(np.float64) - grid.zero_point)
    w = torch.from_numpy(weight.values.astype(np.float64))
    if operator.kind == "linear":
        sums = functional.linear(x.flatten(1), w).numpy()
        return np.asarray(sums * (weight.scales * grid.scale) + weight.bias)
    left, right, top, bottom = operator.attributes["padding"]
    sums = functional.conv2d(
        functional.pad(x, (left, right, top, bottom)),
        w,
        stride=operator.attributes["stride"],
        dilation=operator.attributes["dilation"],
        groups=operator.attributes["groups"],
    ).numpy()
    scale = (weight.scales * grid.scale)[:, None, None]
    return np.asarray(sums * scale + weight.bias[:, None, None])


def _max_pool(operator: IntegerOperator, x: Tensor64) -> Tensor64:
    left, right, top, bottom = operator.attributes["padding"]
    padded = functional.pad(torch.from_numpy(x), (left, right, top, bottom), value=-np.inf)
    pooled = functional.max_pool2d(
        padded, operator.attributes["kernel"], operator.attributes["stride"]
    )
    return np.asarray(pooled.numpy())
