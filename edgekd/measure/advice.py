"""What an operator costs, and what would cost less in its place: predicted, not measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from edgekd.core.results import OperatorCost
from edgekd.core.types import Precision
from edgekd.measure.predict import LatencyModel
from edgekd.modelfile.operators import Geometry, Operator, OperatorKind

WORTH = 0.2
"""Share of an operator's time from which on saving it is worth a word."""


def operator_costs(operators: tuple[Operator, ...], known: LatencyModel) -> list[OperatorCost]:
    """Returns what every operator is predicted to take, dearest first."""
    times = known.by_operator(operators)
    found = [
        OperatorCost(
            name=operator.name,
            native=operator.native,
            precision=known.precision(operator),
            output=operator.output_shapes[0] if operator.output_shapes else (),
            ms=float(ms),
            share=float(ms / times.sum()),
            cheaper=_cheaper(operator, float(ms), known),
        )
        for operator, ms in zip(operators, times, strict=True)
    ]
    return sorted(found, key=lambda cost: -cost.ms)


def _cheaper(operator: Operator, ms: float, known: LatencyModel) -> str:
    best, most = "", WORTH * ms
    for name, instead in _alternatives(operator, known):
        saved = ms - float(known.by_operator(instead).sum())
        if saved > most:
            best, most = f"{name} saves {saved:.3f} ms", saved
    return best


def _alternatives(
    operator: Operator, known: LatencyModel
) -> Iterator[tuple[str, tuple[Operator, ...]]]:
    """Yields simple changes of a network with the operators that would run instead."""
    shape, kind = operator.geometry, operator.kind
    converts = kind in (OperatorKind.QUANTIZE, OperatorKind.DEQUANTIZE)
    real = known.precision(operator) is not Precision.INT8
    if Precision.INT8 in known.costs and real and not converts:
        yield "int8", (_integer(operator),)
    if kind is OperatorKind.ACTIVATION:
        yield "ReLU, which runs inside the convolution,", ()
    if kind is OperatorKind.DEPTHWISE_CONV and shape and min(shape.kernel) > 3:
        yield "a 3x3 kernel", (_with_kernel(operator, shape, (3, 3)),)
    wide = shape is not None and shape.inputs > 4 and math.prod(shape.kernel) > 1
    if kind is OperatorKind.CONV and shape and shape.groups == 1 and wide:
        yield "a depthwise and a 1x1 convolution", _separable(operator, shape)


def _integer(operator: Operator) -> Operator:
    width = 4 if operator.precision is Precision.FLOAT32 else 2
    return replace(
        operator,
        precision=Precision.INT8,
        input_bytes=operator.input_bytes // width,
        weight_bytes=operator.weight_bytes // width,
        output_bytes=operator.output_bytes // width,
    )


def _with_kernel(operator: Operator, shape: Geometry, kernel: tuple[int, int]) -> Operator:
    share = math.prod(kernel) / math.prod(shape.kernel)
    return replace(
        operator,
        macs=round(operator.macs * share),
        weight_bytes=round(operator.weight_bytes * share),
        geometry=replace(shape, kernel=kernel),
    )


def _separable(operator: Operator, shape: Geometry) -> tuple[Operator, Operator]:
    cells, taps = shape.height * shape.width, math.prod(shape.kernel)
    between = operator.output_bytes * shape.inputs // shape.outputs
    spatial = replace(
        operator,
        kind=OperatorKind.DEPTHWISE_CONV,
        macs=cells * shape.inputs * taps,
        weight_bytes=operator.weight_bytes // shape.outputs,
        output_bytes=between,
        geometry=replace(shape, outputs=shape.inputs, groups=shape.inputs),
    )
    pointwise = replace(
        operator,
        macs=cells * shape.inputs * shape.outputs,
        weight_bytes=operator.weight_bytes // taps,
        input_bytes=between,
        geometry=replace(shape, kernel=(1, 1), stride=1),
    )
    return spatial, pointwise
