"""What an integer operator reads, and what exact arithmetic makes of it.

Every runtime approximates this arithmetic: by fixed-point multipliers, and in how it rounds halves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch.nn import functional

from edgekd.core.errors import ProofError
from edgekd.proof.integer_graph import (
    OUTSIDE,
    ZERO,
    Addresses,
    IntegerOperator,
    QuantizationParameters,
)

Integers = NDArray[np.int8] | NDArray[np.float64]
"""Values of a tensor: int8, or reals where it is kept in float."""
Tensor64 = NDArray[np.float64]
InputView = Callable[[Addresses], Addresses]
Border = tuple[int, int, int, int]
"""Left, right, top, bottom."""

IMAGE, IMAGE_LAST = (2, 3), (1, 2)
"""Rows and columns of an NCHW and of an NHWC tensor."""


def padded(border: Border, axes: tuple[int, int] = IMAGE) -> InputView:
    """Returns the reading of a convolution: NCHW, with real zeros around it."""

    def read(stored: Addresses) -> Addresses:
        framed = _framed(stored, border, axes, ZERO)
        return framed.transpose(0, 3, 1, 2) if axes == IMAGE_LAST else framed

    return read


def windowed(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    border: Border,
    axes: tuple[int, int] = IMAGE,
    fill: int = OUTSIDE,
) -> InputView:
    """Returns the reading of a pool: one row a window, ``(..., h, w, kH kW)`` or NHWC likewise."""

    def read(stored: Addresses) -> Addresses:
        windows = sliding_window_view(_framed(stored, border, axes, fill), kernel, axes)
        steps = {axis: slice(None, None, step) for axis, step in zip(axes, stride, strict=True)}
        chosen = windows[tuple(steps.get(axis, slice(None)) for axis in range(stored.ndim))]
        return chosen.reshape(*chosen.shape[:-2], -1)

    return read


def reduced(axes: Sequence[int]) -> InputView:
    """Returns the reading of a mean: one row for every place along the other axes."""

    def read(stored: Addresses) -> Addresses:
        moved = np.moveaxis(stored, axes, range(-len(axes), 0))
        return moved.reshape(*moved.shape[: stored.ndim - len(axes)], -1)

    return read


def normalised(axis: int) -> InputView:
    """Returns the reading of a softmax: for every value itself, then all that share its sum."""

    def read(stored: Addresses) -> Addresses:
        others = np.expand_dims(np.moveaxis(stored, axis, -1), axis % stored.ndim)
        rows = np.broadcast_to(others, (*stored.shape, stored.shape[axis]))
        return np.concatenate((stored[..., None], rows), axis=-1)

    return read


def flat(features: int) -> InputView:
    """Returns the reading of a linear operator, ``(N, features)``."""
    return lambda stored: stored.reshape(-1, features)


def _framed(stored: Addresses, border: Border, axes: tuple[int, int], fill: int) -> Addresses:
    left, right, top, bottom = border
    widths = [(0, 0)] * stored.ndim
    widths[axes[0]], widths[axes[1]] = (top, bottom), (left, right)
    return np.pad(stored, widths, constant_values=fill)


def gather(values: Integers, places: Addresses, grid: QuantizationParameters | None) -> Integers:
    """Returns the values at addresses; masked where there is none.

    Args:
        values: Every element of one image, indexed by its address.
        places: Addresses of any shape.
        grid: Of the tensor, whose zero point is what a border of zeros holds; None for floats.
    """
    found = values[places]
    if places.size and places.min() < 0:
        zero = found.dtype.type(grid.zero_point if grid else 0)
        found = np.where(places == ZERO, zero, found)
        if (places == OUTSIDE).any():
            return np.ma.masked_array(found, places == OUTSIDE)
    return found


def replay(
    operator: IntegerOperator,
    inputs: Sequence[tuple[Integers, QuantizationParameters | None]],
    residual: tuple[Integers, QuantizationParameters | None] | None = None,
) -> Integers:
    """Returns the operator's output, int8 or real, shaped as its readings are.

    Sums are exact (integers in float64); the rescale is exact up to float64 and rounds half to
    even.

    Args:
        operator: With the *trained* parameters.
        inputs: What the runtime itself had there, as the operator reads it, and the grids it is on.
        residual: Likewise what a convolution adds to its result, NCHW.
    """
    if operator.weight is not None:
        result = _weighted(operator, *inputs[0])
    else:
        result = _from_rows(operator, [_reals(values, grid) for values, grid in inputs])
    if residual is not None:
        result = result + _reals(*residual)
    if operator.relu is not None:
        result = result.clip(0, operator.relu)
    if operator.grid is None:
        return result
    steps = np.rint(result / operator.grid.scale) + operator.grid.zero_point
    return np.asarray(steps.clip(-128, 127).astype(np.int8))


def _reals(values: Integers, grid: QuantizationParameters | None) -> Tensor64:
    if grid is None:
        return np.asanyarray(values, np.float64)
    return np.asanyarray((values.astype(np.float64) - grid.zero_point) * grid.scale)


def _from_rows(operator: IntegerOperator, reals: Sequence[Tensor64]) -> Tensor64:
    rows = reals[0]
    if operator.kind == "mean":
        return np.asarray(rows.mean(axis=-1))
    if operator.kind == "max_pool":
        return np.asarray(rows.max(axis=-1))
    if operator.kind == "softmax":
        powers = np.exp(rows - rows.max(axis=-1, keepdims=True))
        return np.asarray(powers[..., 0] / powers[..., 1:].sum(axis=-1))
    first, last = rows[..., 0], reals[-1][..., 0]
    if operator.kind == "add":
        return np.asarray(first + last)
    if operator.kind == "mul":
        return np.asarray(first * last)
    if operator.kind == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-first)))
    if operator.kind == "requantize":
        return first
    raise ProofError(f"{operator.name}: no exact arithmetic for {operator.kind!r}")


def _weighted(
    operator: IntegerOperator, values: Integers, grid: QuantizationParameters | None
) -> Tensor64:
    weight = operator.weight
    if weight is None:
        raise ProofError(f"{operator.name}: {operator.kind} without a weight")
    # Whole numbers, so that sums of products of two of them are exact.
    whole, step = (values, 1.0) if grid is None else (values - float(grid.zero_point), grid.scale)
    x = torch.from_numpy(np.asarray(whole, np.float64))
    w = torch.from_numpy(weight.values.astype(np.float64))
    if operator.kind == "linear":
        sums = functional.linear(x, w).numpy()
        return np.asarray(sums * (weight.scales * step) + weight.bias)
    sums = functional.conv2d(
        x,
        w,
        stride=operator.attributes["stride"],
        dilation=operator.attributes["dilation"],
        groups=operator.attributes["groups"],
    ).numpy()
    scale = (weight.scales * step)[:, None, None]
    return np.asarray(sums * scale + weight.bias[:, None, None])
