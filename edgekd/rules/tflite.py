"""The TFLite 8-bit specification, and what keeps a graph in integers, as rules over a file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgekd.config.device import Device
from edgekd.modelfile.tflite_graph import TfliteGraph, TfliteOperator, TfliteTensor
from edgekd.rules.rule import Breach, Rule

_SPECIFICATION = "LiteRT 8-bit quantization specification"
# Custom operators that the runtime registers itself (tensorflow/lite/kernels/register.cc).
_REGISTERED = ("TFLite_Detection_PostProcess", "Mfcc", "AudioSpectrogram", "NumericVerify")
_RUNTIME = "LiteRT guide, operators and full-integer conversion"
_XNNPACK = "XNNPACK delegate, limitations of CONV_2D and DEPTHWISE_CONV_2D"

# Dimension of the filters that has a scale of its own.
_CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0, "FULLY_CONNECTED": 0}
_PER_TENSOR_ALLOWED = ("FULLY_CONNECTED",)
_FILTER = 1
_BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "TRANSPOSE_CONV": 3, "FULLY_CONNECTED": 2}
_DATA = {"TRANSPOSE_CONV": 2}
_SAME_SCALE = frozenset(
    {
        "AVERAGE_POOL_2D",
        "MAX_POOL_2D",
        "CONCATENATION",
        "PAD",
        "PADV2",
        "MIRROR_PAD",
        "RESHAPE",
        "TRANSPOSE",
        "SLICE",
        "STRIDED_SLICE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "GATHER",
        "SPLIT",
        "SPLIT_V",
        "SQUEEZE",
        "EXPAND_DIMS",
        "PACK",
        "UNPACK",
        "TILE",
        "MAXIMUM",
        "MINIMUM",
        "DEPTH_TO_SPACE",
        "SPACE_TO_DEPTH",
        "BATCH_TO_SPACE_ND",
        "SPACE_TO_BATCH_ND",
        "BROADCAST_TO",
        "SELECT",
    }
)
FIXED_OUTPUT = {
    "LOGISTIC": (1 / 256, -128),
    "SOFTMAX": (1 / 256, -128),
    "TANH": (1 / 128, 0),
    "L2_NORMALIZATION": (1 / 128, 0),
    "LOG_SOFTMAX": (16 / 256, 127),
}
"""Scale and zero point that the specification fixes for an operator's output."""
# The product of two float32 scales, rounded once or twice.
_BIAS_SCALE_TOLERANCE = 1e-5


def activation_type(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields quantized activations that are not int8."""
    for tensor in _activations(graph):
        if tensor.dtype == "UINT8" and tensor.scales.size:
            yield Breach(where=tensor.name, message="activation is uint8; the rules are for int8")


def one_scale(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields int8 activations with more than one scale."""
    for tensor in _activations(graph):
        if tensor.is_integer and tensor.scales.size > 1:
            yield Breach(where=tensor.name, message=f"activation has {tensor.scales.size} scales")


def zero_point_range(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields int8 tensors whose zero point is no int8."""
    for tensor in _tensors(graph):
        outside = tensor.zero_points[(tensor.zero_points < -128) | (tensor.zero_points > 127)]
        if tensor.dtype == "INT8" and outside.size:
            yield Breach(where=tensor.name, message=f"zero point {outside[0]} is no int8")


def builtin(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields operators that are not built into the runtime: custom ones, and TensorFlow's own."""
    for operator in graph.operators:
        if operator.native == "CUSTOM" and operator.custom not in _REGISTERED:
            yield Breach(
                where=operator.outputs[0].name if operator.outputs else operator.custom,
                message=f"custom operator {operator.custom!r}; the board's runtime has no kernel",
            )


def integer_border(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields float inputs and outputs of an integer network, converted on the board each time."""
    for operator in graph.operators:
        if operator.native not in ("QUANTIZE", "DEQUANTIZE"):
            continue
        entry, end = operator.inputs[0], operator.outputs[0]
        if entry in graph.inputs and entry.dtype.startswith("FLOAT"):
            yield Breach(where=entry.name, message="input is float; int8 needs no conversion")
        if end in graph.outputs and end.dtype.startswith("FLOAT"):
            yield Breach(where=end.name, message="output is float; int8 needs no conversion")


def positive_scale(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields tensors with a scale that is zero, negative or not finite."""
    for tensor in _tensors(graph):
        bad = ~(np.isfinite(tensor.scales) & (tensor.scales > 0))
        if bad.any():
            yield Breach(
                where=tensor.name, message=f"scale {tensor.scales[bad][0]} is not positive"
            )


def weight_range(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields int8 weights below the scheme's lowest integer."""
    low = device.quantization.weight.low
    for _, weights in _weighted(graph):
        if weights.data is not None and weights.data.min() < low:
            count = int((weights.data < low).sum())
            yield Breach(where=weights.name, message=f"{count} weights are below {low}")


def weight_zero_point(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields int8 weights with a zero point other than 0."""
    for _, weights in _weighted(graph):
        if weights.zero_points.any():
            found = weights.zero_points[weights.zero_points != 0][0]
            yield Breach(where=weights.name, message=f"weights have the zero point {found}, not 0")


def weight_axis(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields int8 weights whose scales do not run along the output channels."""
    for operator, weights in _weighted(graph):
        axis = _CHANNEL_AXIS[operator.native]
        channels = weights.shape[axis]
        if weights.scales.size == 1 and (channels == 1 or operator.native in _PER_TENSOR_ALLOWED):
            continue
        if weights.scales.size != channels or weights.axis != axis:
            yield Breach(
                where=weights.name,
                message=f"{weights.scales.size} scales along dimension {weights.axis}, expected "
                f"{channels} along dimension {axis}",
            )


def bias_form(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields biases of int8 operators that are not int32 at the product of the other scales."""
    for operator, weights in _weighted(graph):
        data = operator.inputs[_DATA.get(operator.native, 0)]
        place = _BIAS[operator.native]
        if len(operator.inputs) <= place or not data.is_integer:
            continue
        bias = operator.inputs[place]
        expected = data.scales * weights.scales
        if bias.dtype != "INT32" or bias.zero_points.any():
            yield Breach(where=bias.name, message=f"bias is {bias.dtype}, not int32 around 0")
        elif bias.scales.shape != expected.shape or not np.allclose(
            bias.scales, expected, rtol=_BIAS_SCALE_TOLERANCE, atol=0
        ):
            yield Breach(
                where=bias.name, message="bias scale is not input scale times weight scale"
            )


def bias_present(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields convolutions without a bias, which XNNPACK leaves to slower kernels."""
    for operator, _ in _weighted(graph):
        convolution = operator.native in ("CONV_2D", "DEPTHWISE_CONV_2D")
        if convolution and len(operator.inputs) <= _BIAS[operator.native]:
            yield Breach(where=operator.outputs[0].name, message=f"{operator.native} has no bias")


def same_scale(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields operators that only move values but change their scale."""
    for operator in graph.operators:
        if operator.native not in _SAME_SCALE:
            continue
        values = [item for item in (*operator.outputs, *operator.inputs) if item.is_integer]
        for other in values[1:]:
            if not _same_scheme(values[0], other):
                yield Breach(
                    where=values[0].name,
                    message=f"{operator.native} changes the scale of {other.name!r} from "
                    f"{_scheme(other)} to {_scheme(values[0])}",
                )


def fixed_output(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields operators whose output scale the specification fixes, with another scale."""
    for operator in graph.operators:
        if operator.native not in FIXED_OUTPUT or not operator.outputs[0].is_integer:
            continue
        output = operator.outputs[0]
        scale, zero_point = FIXED_OUTPUT[operator.native]
        if (
            not np.isclose(output.scales[0], scale, rtol=1e-6)
            or output.zero_points[0] != zero_point
        ):
            yield Breach(
                where=output.name,
                message=f"{operator.native} gives {_scheme(output)}, must be {scale:g} around "
                f"{zero_point}",
            )


def float_between(graph: TfliteGraph, device: Device) -> Iterator[Breach]:
    """Yields operators that give float between integer ones, and the conversions round them."""
    behind, before = _behind_integers(graph), _before_integers(graph)
    for operator in graph.operators:
        for tensor in operator.outputs:
            between = id(tensor) in behind and id(tensor) in before
            if (
                tensor.dtype.startswith("FLOAT")
                and between
                and not _wanted(graph, operator, device)
            ):
                yield Breach(where=tensor.name, message=f"{operator.native} gives float inside")


def _wanted(graph: TfliteGraph, operator: TfliteOperator, device: Device) -> bool:
    """Returns whether an operator is, or serves only, what the profile leaves in float."""
    islands = device.quantization.float_islands
    if operator.native != "DEQUANTIZE":
        return operator.native.lower() in islands
    given = operator.outputs[0]
    readers = [item for item in graph.operators if any(given is one for one in item.inputs)]
    return all(reader.native.lower() in islands for reader in readers)


def _behind_integers(graph: TfliteGraph) -> set[int]:
    """Returns the activations that depend on an integer operator's output."""
    reached: set[int] = set()
    for operator in graph.operators:
        computes = operator.native != "QUANTIZE" and any(
            item.is_integer for item in operator.inputs
        )
        if computes or any(id(item) in reached for item in operator.inputs):
            reached.update(map(id, operator.outputs))
    return reached


def _before_integers(graph: TfliteGraph) -> set[int]:
    """Returns the activations that an integer operator depends on."""
    reached: set[int] = set()
    for operator in reversed(graph.operators):
        computes = operator.native != "DEQUANTIZE" and any(
            item.is_integer for item in operator.outputs
        )
        if computes or any(id(item) in reached for item in operator.outputs):
            reached.update(id(item) for item in operator.inputs if item.data is None)
    return reached


def _tensors(graph: TfliteGraph) -> list[TfliteTensor]:
    every = [item for operator in graph.operators for item in (*operator.inputs, *operator.outputs)]
    return list({id(item): item for item in every}.values())


def _activations(graph: TfliteGraph) -> list[TfliteTensor]:
    return [item for item in _tensors(graph) if item.data is None]


def _weighted(graph: TfliteGraph) -> Iterator[tuple[TfliteOperator, TfliteTensor]]:
    """Yields the operators with int8 weights, and those weights."""
    for operator in graph.operators:
        if operator.native in _CHANNEL_AXIS and operator.inputs[_FILTER].dtype == "INT8":
            yield operator, operator.inputs[_FILTER]


def _same_scheme(one: TfliteTensor, other: TfliteTensor) -> bool:
    return bool(one.scales[0] == other.scales[0] and one.zero_points[0] == other.zero_points[0])


def _scheme(tensor: TfliteTensor) -> str:
    return f"{tensor.scales[0]:g} around {tensor.zero_points[0]}"


TFLITE_RULES: tuple[Rule[TfliteGraph], ...] = (
    Rule(id="tflite/activation-type", source=_SPECIFICATION, check=activation_type),
    Rule(id="tflite/one-scale", source=_SPECIFICATION, check=one_scale),
    Rule(id="tflite/zero-point-range", source=_SPECIFICATION, check=zero_point_range),
    Rule(id="tflite/builtin", source=_RUNTIME, check=builtin),
    Rule(id="tflite/integer-border", source=_RUNTIME, check=integer_border, level="advice"),
    Rule(id="tflite/positive-scale", source=_SPECIFICATION, check=positive_scale),
    Rule(id="tflite/weight-range", source=_SPECIFICATION, check=weight_range),
    Rule(id="tflite/weight-zero-point", source=_SPECIFICATION, check=weight_zero_point),
    Rule(id="tflite/weight-axis", source=_SPECIFICATION, check=weight_axis),
    Rule(id="tflite/bias", source=_SPECIFICATION, check=bias_form),
    Rule(id="tflite/same-scale", source=_SPECIFICATION, check=same_scale),
    Rule(id="tflite/fixed-output", source=_SPECIFICATION, check=fixed_output),
    Rule(id="tflite/float-between", source=_SPECIFICATION, check=float_between),
    Rule(id="xnnpack/bias", source=_XNNPACK, check=bias_present, level="advice"),
)
