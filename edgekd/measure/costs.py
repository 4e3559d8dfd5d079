"""What operators cost: work by kernel class, times a cost a unit that is known with uncertainty.

A network takes t = sum_k c_k w_k milliseconds. The work w_k counts what class k of a runtime's
kernels has to do (multiply-accumulates, bytes, calls), enlarged where shapes do not fill the
kernel's tiles. The costs c_k are positive, and what is known of them is a normal distribution of
their logarithms: before any measurement from a device's peaks, after one by Bayes' rule. Fitting
to published latencies and calibrating with one's own are the same update.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.modelfile.operators import Geometry, Operator, OperatorKind

Array = NDArray[np.float64]

CLASSES = (
    "dense",
    "winograd",
    "convolution",
    "first",
    "depthwise",
    "depthwise-strided",
    "depthwise-large",
    "matrix",
    "vector",
    "transform",
    "traffic",
    "weights",
    "calls",
    "elementwise",
    "activation",
    "pool",
    "move",
    "other-calls",
)
"""Units: millions of multiply-accumulates, up to ``vector``; of values, ``transform``; MB moved,
those with bytes; thousands of calls. A cost is milliseconds a unit."""

DEPTHWISE = ("depthwise", "depthwise-strided", "depthwise-large")
CALLS = ("calls", "other-calls")
_INDEX = {name: index for index, name in enumerate(CLASSES)}
_KIND_CLASS = {
    OperatorKind.ELEMENTWISE: "elementwise",
    OperatorKind.ACTIVATION: "activation",
    OperatorKind.POOL: "pool",
}
_WINOGRAD_TILES = {6: 8, 4: 6, 2: 4}
"""Outputs along a side to values transformed along it: F(6,3), F(4,3) and F(2,3)."""

STEPS, TOLERANCE, LONGEST_STEP = 80, 1e-6, 0.7
OUTLIER = 3.0
"""Standard deviations from which on a published figure counts for less."""


LEAST, MOST = 1e-12, 1e12
"""Of any figure that a prediction is computed from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernels:
    """How a runtime's kernels fill: sizes at which half of a tile's or a loop's work is wasted.

    Attributes:
        depth: Products summed for an output (input channels times kernel).
        outputs: Output channels.
        rows: Output positions.
        depthwise_rows: Output positions of a depthwise convolution.
        winograd: Least channels for which a 3x3 convolution of stride 1 is transformed; None for
            runtimes that never do.
        group_calls: What a further group costs, in calls.
    """

    depth: float = 16.0
    outputs: float = 16.0
    rows: float = 8.0
    depthwise_rows: float = 30.0
    winograd: int | None = None
    group_calls: float = 0.1


def check_figure(name: str, value: float) -> None:
    """Raises ValueError for what no speed, latency or amount of work can be."""
    if not LEAST <= value <= MOST:
        raise ValueError(f"{name}: {value}; legal: {LEAST:g} to {MOST:g}")


def work_of(operator: Operator, kernels: Kernels) -> Array:
    """Returns ``(len(CLASSES),)`` work of one operator."""
    work = np.zeros(len(CLASSES))
    moved = (operator.input_bytes + operator.output_bytes) / 1e6
    if operator.geometry is None and operator.macs:  # Of one or three dimensions.
        work[_INDEX["convolution"]] = operator.macs / 1e6
        work[_INDEX["traffic"]], work[_INDEX["calls"]] = moved, 1e-3
        work[_INDEX["weights"]] = operator.weight_bytes / 1e6
        return work
    if operator.geometry is None:
        name = _KIND_CLASS.get(operator.kind, "move")
        work[_INDEX[name]] = moved
        work[_INDEX["other-calls"]] = 1e-3
        return work
    shape = operator.geometry
    depthwise = operator.kind is OperatorKind.DEPTHWISE_CONV
    if depthwise:
        _depthwise(work, operator, shape, kernels)
    else:
        _product(work, operator, shape, kernels)
    work[_INDEX["traffic"]] = moved
    calls = 1 if depthwise else 1 + kernels.group_calls * (shape.groups - 1)
    work[_INDEX["calls"]] = 1e-3 * calls
    return work


def work_of_all(operators: Sequence[Operator], kernels: Kernels) -> Array:
    """Returns ``(N, len(CLASSES))`` work of every operator."""
    return np.array([work_of(operator, kernels) for operator in operators])


def _depthwise(work: Array, operator: Operator, shape: Geometry, kernels: Kernels) -> None:
    positions = shape.height * shape.width
    name = "depthwise"
    if max(shape.kernel) > 3:
        name = "depthwise-large"
    elif shape.stride > 1:
        name = "depthwise-strided"
    work[_INDEX[name]] = operator.macs / 1e6 * _filled(positions, kernels.depthwise_rows)
    work[_INDEX["weights"]] = operator.weight_bytes / 1e6


def _product(work: Array, operator: Operator, shape: Geometry, kernels: Kernels) -> None:
    rows = shape.height * shape.width
    inputs, outputs = shape.inputs / shape.groups, shape.outputs / shape.groups
    depth = inputs * math.prod(shape.kernel)
    macs, weights = float(operator.macs), float(operator.weight_bytes)
    name = _product_class(operator.kind, shape, kernels)
    if name == "winograd":
        macs, transformed, larger = _transformed(shape, inputs, outputs)
        work[_INDEX["transform"]] = transformed / 1e6
        weights *= larger
        depth = inputs
    elif name in ("convolution", "first"):
        work[_INDEX["transform"]] = rows * depth * shape.groups / 1e6  # Rows of patches.
    waste = 1.0
    if name != "vector":
        waste = _filled(depth, kernels.depth) * _filled(outputs, kernels.outputs)
        waste *= _filled(rows, kernels.rows)
    work[_INDEX[name]] = macs / 1e6 * waste
    work[_INDEX["weights"]] = weights / 1e6


def _product_class(kind: OperatorKind, shape: Geometry, kernels: Kernels) -> str:
    if kind in (OperatorKind.FULLY_CONNECTED, OperatorKind.MATMUL):
        return "matrix" if shape.height > 1 else "vector"
    if shape.inputs <= 4:
        return "first"
    if shape.kernel == (1, 1):
        return "dense"
    channels = min(shape.inputs, shape.outputs) / shape.groups
    if (
        kernels.winograd is not None
        and shape.kernel == (3, 3)
        and shape.stride == 1
        and channels >= kernels.winograd
    ):
        return "winograd"
    return "convolution"


def _transformed(shape: Geometry, inputs: float, outputs: float) -> tuple[float, float, float]:
    """Returns products, transformed values and growth of the weights of the cheapest tile."""
    best: tuple[float, float, float] | None = None
    for outer, inner in _WINOGRAD_TILES.items():
        tiles = math.ceil(shape.height / outer) * math.ceil(shape.width / outer) * inner**2
        products = tiles * inputs * outputs * shape.groups
        values = tiles * (shape.inputs + shape.outputs)
        if best is None or products + 4 * values < best[0] + 4 * best[1]:
            best = products, values, inner**2 / 9
    assert best is not None  # noqa: S101 - there are three tiles
    return best


def _filled(size: float, half: float) -> float:
    """Returns how many times longer a loop of this size takes than its share."""
    return (size + half) / max(size, 1e-9)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What is known of the costs of a runtime's kernels on a device.

    Attributes:
        mean: ``(len(CLASSES),)`` logarithms of milliseconds a unit.
        covariance: Of those logarithms.
        scatter: Standard deviation of the logarithm of one network's latency, costs known: what
            the classes do not see.
    """

    mean: Array
    covariance: Array
    scatter: float

    def milliseconds(self, work: Array) -> float:
        """Returns the latency of operators ``(N, len(CLASSES))`` together."""
        return float(work.sum(0) @ np.exp(self.mean))

    def by_operator(self, work: Array) -> Array:
        """Returns ``(N,)`` milliseconds."""
        parts: Array = work @ np.exp(self.mean)
        return parts

    def deviation(self, work: Array) -> float:
        """Returns the standard deviation of the logarithm of the latency."""
        slopes = _shares(work.sum(0)[None], self.mean)[0]
        return float(np.sqrt(slopes @ self.covariance @ slopes + self.scatter**2))

    def updated(self, work: Array, measured_ms: Array, error: float) -> Costs:
        """Returns what is known after latencies were measured.

        The posterior's mode by Gauss-Newton, and its curvature there. Latencies far from what the
        others say count for less (Cauchy), as published ones are of uneven quality.

        Args:
            work: ``(M, len(CLASSES))`` of the networks.
            measured_ms: ``(M,)``.
            error: Standard deviation of the logarithm of one of them.
        """
        inverse = np.linalg.inv(self.covariance)
        target, mean = np.log(measured_ms), self.mean.copy()
        curvature = inverse
        for _ in range(STEPS):
            residual = np.log(work @ np.exp(mean)) - target
            slopes = _shares(work, mean)
            weight = 1 / (1 + (residual / (OUTLIER * error)) ** 2) / error**2
            curvature = (slopes * weight[:, None]).T @ slopes + inverse
            gradient = slopes.T @ (weight * residual) + inverse @ (mean - self.mean)
            step = np.linalg.solve(curvature, gradient)
            mean = mean - np.clip(step, -LONGEST_STEP, LONGEST_STEP)
            if np.abs(step).max() < TOLERANCE:
                break
        return Costs(mean=mean, covariance=np.linalg.inv(curvature), scatter=self.scatter)


def _shares(work: Array, mean: Array) -> Array:
    """Returns ``(M, len(CLASSES))`` shares of a latency, which are its logarithm's slopes."""
    parts = work * np.exp(mean)
    shares: Array = parts / parts.sum(1, keepdims=True)
    return shares


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """What an engine does at the very best.

    Attributes:
        gmacs: 10^9 multiply-accumulates a second.
        depthwise_gmacs: The same where no products are summed over channels, so that dot-product
            instructions and tensor cores do not help.
        gb_s: Bytes moved, 10^9 a second.
        call_us: Microseconds to start an operator, of which runtimes need more or fewer.
    """

    gmacs: float
    depthwise_gmacs: float
    gb_s: float
    call_us: float

    def __post_init__(self) -> None:
        for name in ("gmacs", "depthwise_gmacs", "gb_s", "call_us"):
            check_figure(name, getattr(self, name))

    def costs(self) -> Array:
        """Returns ``(len(CLASSES),)`` logarithms of milliseconds a unit at that speed."""
        per_unit = np.full(len(CLASSES), 1 / self.gb_s)
        per_unit[: _INDEX["vector"] + 1] = 1 / self.gmacs
        per_unit[[_INDEX[name] for name in DEPTHWISE]] = 1 / self.depthwise_gmacs
        per_unit[[_INDEX[name] for name in CALLS]] = self.call_us
        logarithms: Array = np.log(per_unit)
        return logarithms


@dataclass(frozen=True, kw_only=True)
class Efficiencies:
    """What is known of a runtime's kernels apart from any device: the share of a speed they reach.

    Attributes:
        mean: ``(len(CLASSES),)`` logarithms of how many times longer a unit takes.
        covariance: Of those logarithms, between devices.
        scatter: As in `Costs`.
    """

    mean: Array
    covariance: Array
    scatter: float

    def at(self, speed: Speed) -> Costs:
        """Returns what that says of the costs on a device of that speed."""
        return Costs(
            mean=self.mean + speed.costs(), covariance=self.covariance, scatter=self.scatter
        )

    def learnt(self, speed: Speed, work: Array, measured_ms: Array, error: float) -> Efficiencies:
        """Returns what is known after latencies were measured on a device; see `Costs.updated`."""
        after = self.at(speed).updated(work, measured_ms, error)
        mean = after.mean - speed.costs()
        return Efficiencies(mean=mean, covariance=after.covariance, scatter=self.scatter)

    def loosened(self, spread: float) -> Efficiencies:
        """Returns the same, known less well, as for a sister of the device that it is known of.

        Args:
            spread: Standard deviation of the logarithm by which each class may differ.
        """
        looser = self.covariance + spread**2 * np.eye(len(CLASSES))
        return Efficiencies(mean=self.mean, covariance=looser, scatter=self.scatter)
