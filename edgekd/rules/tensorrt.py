"""What TensorRT asks of an ONNX file, as rules over its graph. Nothing here has run on TensorRT.

Sources: the operator lists and restrictions are those of ``docs/operators.md`` of onnx-tensorrt, in
the branches 8.5-GA and 10.15; placement is NVIDIA's guide to explicit quantization; what version 11
removed is NVIDIA's guide to migrating from version 10.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from edgekd.config.device import Device
from edgekd.modelfile.onnx_graph import OnnxGraph
from edgekd.rules.onnx_queries import (
    CONVERSIONS,
    WEIGHTED,
    activation_conversions,
    attribute,
    behind_pair,
    unlisted,
)
from edgekd.rules.rule import Breach, Rule

_PLACEMENT = "TensorRT developer guide, explicit quantization"
_OPERATORS = "onnx-tensorrt, docs/operators.md"
_MIGRATION = "TensorRT 10.x to 11.x migration guide, strong typing"

_ACTIVATIONS = ("Relu", "LeakyRelu", "Clip")

# Operators with int8 kernels, and those that move integers without looking at them.
_WITH_KERNELS = """
    Conv ConvTranspose Gemm MatMul Add Mul MaxPool AveragePool GlobalAveragePool ReduceMean Concat
    Resize Relu LeakyRelu Clip Reshape Transpose Slice Split Flatten Squeeze Unsqueeze Pad Gather
    DepthToSpace SpaceToDepth Expand Tile Identity QuantizeLinear
    """
_INTEGER = frozenset(_WITH_KERNELS.split())

# The parser of version 8.5 knows these; later versions know the second list too.
_PARSED_8 = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast
    Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace
    DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather
    GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
    GreaterOrEqual GridSample HardSigmoid HardSwish Identity If ImageScaler InstanceNormalization
    IsNaN LRN LSTM LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max
    MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or
    PRelu Pad ParametricSoftplus Pow QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
    RoiAlign Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign
    Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
    """
_PARSED_10 = """
    Attention BlackmanWindow CastLike DeformConv Gelu GroupNormalization HammingWindow HannWindow
    Hardmax IsInf LayerNormalization Mish RMSNormalization RotaryEmbedding STFT TensorScatter
    """
_PARSED = {8: frozenset(_PARSED_8.split()), 10: frozenset((_PARSED_8 + _PARSED_10).split())}

_RESIZE: dict[str, tuple[str, tuple[str, ...]]] = {
    "mode": ("nearest", ("nearest", "linear")),
    "coordinate_transformation_mode": (
        "half_pixel",
        (
            "half_pixel",
            "pytorch_half_pixel",
            "tf_half_pixel_for_nn",
            "asymmetric",
            "align_corners",
        ),
    ),
    "nearest_mode": (
        "round_prefer_floor",
        ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
    ),
    "keep_aspect_ratio_policy": ("stretch", ("stretch",)),
    "antialias": ("0", ("0",)),
}
"""Attributes of Resize: what ONNX takes where there is none, and what the parser takes."""

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_INT8 = {TensorProto.INT8, TensorProto.UINT8}
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd", "ReduceL2")
# What reads two tensors that must be of one type.
_SAME_TYPE = ("Conv", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Max", "Min", "Concat")


def parsed(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields operators that the parser does not know."""
    known = _PARSED[8 if device.runtime.version.startswith("8") else 10]
    for node in unlisted(graph, known):
        message = f"{node.op_type} is not parsed by TensorRT {device.runtime.version}"
        yield Breach(where=node.name, message=message)


def integer_arithmetic(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields operators that compute on 8-bit integers themselves; int8 exists between Q and DQ."""
    for node in graph.nodes:
        computes = node.op_type not in CONVERSIONS and node.output[0] not in graph.constants
        integers = [name for name in node.input if graph.types.get(name) in _INT8]
        if computes and integers:
            yield Breach(
                where=node.name,
                message=f"{node.op_type} reads the integers of {integers[0]!r}; write it in float "
                "between DequantizeLinear and QuantizeLinear",
            )


def pooling(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields pools with dilation, and maximum pools whose indices are asked for."""
    for node in graph.nodes:
        if node.op_type not in ("MaxPool", "AveragePool", "LpPool"):
            continue
        if any(step != 1 for step in attribute(node, "dilations", [])):
            yield Breach(where=node.name, message=f"{node.op_type} with dilations")
        if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1]:
            yield Breach(where=node.name, message="MaxPool whose indices are an output")


def resizing(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields resizes of a kind that the parser refuses."""
    for node in graph.nodes:
        if node.op_type != "Resize":
            continue
        for name, (usual, legal) in _RESIZE.items():
            found = str(attribute(node, name, usual))
            if found not in legal:
                yield Breach(where=node.name, message=f"{name} {found}; parsed: {', '.join(legal)}")


def reduction_axes(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields reductions over axes that are computed."""
    for node in graph.nodes:
        computed = node.op_type in _REDUCTIONS and len(node.input) > 1 and node.input[1]
        if computed and node.input[1] not in graph.constants:
            yield Breach(where=node.name, message=f"the axes of {node.op_type} are not constant")


def one_type(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields operators that read floats of two widths, which a strongly typed network refuses."""
    for node in graph.nodes:
        if node.op_type not in _SAME_TYPE:
            continue
        kinds = {graph.types[name] for name in node.input if name in graph.types} & _FLOATS
        if len(kinds) > 1:
            names = sorted(TensorProto.DataType.Name(kind).lower() for kind in kinds)
            yield Breach(where=node.name, message=f"{node.op_type} reads {' and '.join(names)}")


def double(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields tensors of 64-bit floats, which TensorRT narrows to 32 bits."""
    for node in graph.nodes:
        for name in node.output:
            if graph.types.get(name) == TensorProto.DOUBLE:
                yield Breach(where=name, message="64-bit floats are narrowed to 32 bits")


def concat_scales(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields concatenations whose inputs are on scales of their own, each of which is rescaled."""
    for node in graph.nodes:
        if node.op_type != "Concat":
            continue
        makers = [graph.producers.get(name) for name in node.input]
        scales = [graph.value(m.input[1]) for m in makers if m and m.op_type == "DequantizeLinear"]
        values = {float(scale) for scale in scales if scale is not None and scale.size == 1}
        if len(values) > 1:
            yield Breach(where=node.name, message=f"joins {len(values)} scales; share one")


def quantized_bias(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields biases behind a DequantizeLinear; TensorRT wants them in float."""
    for node in graph.nodes:
        if node.op_type in WEIGHTED and len(node.input) > 2:
            producer = graph.producers.get(node.input[2])
            if producer is not None and producer.op_type == "DequantizeLinear":
                yield Breach(where=node.input[2], message=f"bias of {node.name!r} is quantized")


def operator_support(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields operators behind a DequantizeLinear that TensorRT has no int8 kernel for."""
    for node in activation_conversions(graph):
        for reader in graph.consumers.get(node.output[0], []):
            unsupported = reader.op_type not in _INTEGER
            if node.op_type == "DequantizeLinear" and unsupported:
                yield Breach(
                    where=reader.name,
                    message=f"{reader.op_type} has no int8 kernel; leave off Q/DQ",
                )


def activation_fusion(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields activations cut off from their convolution by a Q/DQ pair."""
    for node in graph.nodes:
        source = behind_pair(graph, node.input[0]) if node.op_type in _ACTIVATIONS else None
        if source is not None and source.op_type in WEIGHTED:
            yield Breach(
                where=node.name, message=f"Q/DQ between {source.name!r} and its {node.op_type}"
            )


def residual_fusion(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields additions that fuse with no convolution, since every branch carries a Q/DQ pair."""
    for node in graph.nodes:
        if node.op_type != "Add":
            continue
        makers = [graph.producers.get(name) for name in node.input]
        sources = [behind_pair(graph, name) for name in node.input]
        convolutions = [item for item in sources if item is not None and item.op_type == "Conv"]
        if convolutions and all(item and item.op_type == "DequantizeLinear" for item in makers):
            yield Breach(
                where=node.name,
                message=f"drop the Q/DQ between {convolutions[0].name!r} and this Add to fuse them",
            )


TENSORRT_RULES: tuple[Rule[OnnxGraph], ...] = (
    Rule(id="tensorrt/parsed", source=_OPERATORS, check=parsed),
    Rule(id="tensorrt/integer-arithmetic", source=_OPERATORS, check=integer_arithmetic),
    Rule(id="tensorrt/pooling", source=_OPERATORS, check=pooling),
    Rule(id="tensorrt/resize", source=_OPERATORS, check=resizing),
    Rule(id="tensorrt/reduction-axes", source=_OPERATORS, check=reduction_axes),
    Rule(id="tensorrt/one-type", source=_MIGRATION, check=one_type),
    Rule(id="tensorrt/bias", source=_PLACEMENT, check=quantized_bias),
    Rule(id="tensorrt/operators", source=_PLACEMENT, check=operator_support, level="advice"),
    Rule(
        id="tensorrt/activation-fusion", source=_PLACEMENT, check=activation_fusion, level="advice"
    ),
    Rule(id="tensorrt/residual-fusion", source=_PLACEMENT, check=residual_fusion, level="advice"),
    Rule(id="tensorrt/concat-scales", source=_PLACEMENT, check=concat_scales, level="advice"),
    Rule(id="tensorrt/double", source=_OPERATORS, check=double, level="advice"),
)
