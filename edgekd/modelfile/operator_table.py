"""Every operator that EdgeKD knows, described once: its names, its scale, what it costs as.

The quantizer, the three readers of the proof, the lists of a file's operators and the rules ask
this table. What needs torch or numpy registers itself under an entry's key: exact arithmetic in
`edgekd.proof.arithmetic`, moves of integers in the readers beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edgekd.modelfile.operators import OperatorKind

Scale = Literal["own", "input", "fixed", "fused", "none"]
Part = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorEntry:
    """One operator.

    Attributes:
        name: Key.
        cost: What it counts as in a list of operators.
        torch: Its names in an exported graph, such as ``aten.conv2d.default``.
        onnx: Its types in an ONNX file.
        tflite: Its types in a TFLite file.
        scale: Of its int8 output: its ``own``; that of its ``input``; ``fixed`` by the runtime;
            ``fused`` into the operator before it, whose output it bounds; ``none`` where EdgeKD
            makes no integer operator of it.
        arithmetic: Key of its exact arithmetic; empty where it only moves integers, or has none.
        fixed_output: Its name among the device profile's ``fixed_outputs``.
        weighted: Whether it has a constant weight whose output channels come first.
        splits: Whether it has several outputs.
        parts: The operators that it is rewritten as before anything is quantized: each a result's
            name, an operator and the names that it reads. ``x`` is the input, the last part the
            output.
    """

    name: str
    cost: OperatorKind
    torch: tuple[str, ...] = ()
    onnx: tuple[str, ...] = ()
    tflite: tuple[str, ...] = ()
    scale: Scale = "none"
    arithmetic: str = ""
    fixed_output: str = ""
    weighted: bool = False
    splits: bool = False
    parts: tuple[Part, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether its output holds the input's integers and nothing else."""
        return self.scale == "input" and not self.arithmetic


def _entry(
    name: str,
    cost: OperatorKind,
    torch: str = "",
    onnx: str = "",
    tflite: str = "",
    scale: Scale = "none",
    arithmetic: str = "",
    *,
    fixed_output: str = "",
    weighted: bool = False,
    splits: bool = False,
    parts: tuple[Part, ...] = (),
) -> OperatorEntry:
    return OperatorEntry(
        name=name,
        cost=cost,
        torch=tuple(f"aten.{overload}" for overload in torch.split()),
        onnx=tuple(onnx.split()),
        tflite=tuple(tflite.split()),
        scale=scale,
        arithmetic=arithmetic,
        fixed_output=fixed_output,
        weighted=weighted,
        splits=splits,
        parts=parts,
    )


_K = OperatorKind

# name, cost, in torch, in ONNX, in TFLite, scale, arithmetic
_WEIGHTED = (
    _entry(
        "conv", _K.CONV, "conv2d.default", "Conv", "CONV_2D", "own", "conv", weighted=True
    ),
    _entry(
        "depthwise-conv", _K.DEPTHWISE_CONV, "", "", "DEPTHWISE_CONV_2D", "own", "conv",
        weighted=True,
    ),
    _entry(
        "linear", _K.FULLY_CONNECTED, "linear.default", "Gemm", "FULLY_CONNECTED", "own", "linear",
        weighted=True,
    ),
    _entry("matmul", _K.MATMUL, "", "MatMul", "", "none", "linear"),
    _entry("batch-matmul", _K.MATMUL, "", "", "BATCH_MATMUL"),
    _entry("integer-conv", _K.CONV, "", "QLinearConv ConvInteger", "CONV_3D"),
    _entry("integer-matmul", _K.MATMUL, "", "QLinearMatMul MatMulInteger"),
    _entry("transposed-conv", _K.TRANSPOSED_CONV, "", "ConvTranspose", "TRANSPOSE_CONV"),
)  # fmt: skip
_ELEMENTWISE = (
    _entry("add", _K.ELEMENTWISE, "add.Tensor add_.Tensor", "Add", "ADD", "own", "add"),
    _entry("mul", _K.ELEMENTWISE, "mul.Tensor", "Mul", "MUL", "own", "mul"),
    _entry("sub", _K.ELEMENTWISE, "", "Sub", "SUB"),
    _entry("div", _K.ELEMENTWISE, "", "Div", "DIV"),
    _entry("maximum", _K.ELEMENTWISE, "", "Max", "MAXIMUM", "none"),
    _entry("minimum", _K.ELEMENTWISE, "", "Min", "MINIMUM", "none"),
    _entry("power", _K.ELEMENTWISE, "", "Pow", "POW SQUARE SQUARED_DIFFERENCE"),
    _entry("root", _K.ELEMENTWISE, "", "Sqrt", "SQRT RSQRT"),
    _entry("exponential", _K.ELEMENTWISE, "", "Exp Log", "EXP LOG"),
    _entry("sign", _K.ELEMENTWISE, "", "Neg Abs", "NEG ABS"),
    _entry("round", _K.ELEMENTWISE, "", "", "FLOOR ROUND"),
    _entry("sum-of-tensors", _K.ELEMENTWISE, "", "Sum"),
    _entry("batch-norm", _K.ELEMENTWISE, "", "BatchNormalization"),
)
_ACTIVATIONS = (
    _entry("relu", _K.ACTIVATION, "relu.default relu_.default", "Relu", "RELU", "fused"),
    _entry("relu6", _K.ACTIVATION, "relu6.default", "Clip", "RELU6", "fused"),
    _entry("hardtanh", _K.ACTIVATION, "hardtanh.default hardtanh_.default", scale="fused"),
    _entry(
        "sigmoid", _K.ACTIVATION, "sigmoid.default", "Sigmoid", "LOGISTIC", "fixed", "sigmoid",
        fixed_output="logistic",
    ),
    _entry(
        "softmax", _K.ACTIVATION, "softmax.int", "Softmax", "SOFTMAX", "fixed", "softmax",
        fixed_output="softmax",
    ),
    _entry(
        "silu", _K.ACTIVATION, "silu.default silu_.default", "Swish",
        parts=(("gate", "sigmoid", "x"), ("gated", "mul", "x", "gate")),
    ),
    _entry("tanh", _K.ACTIVATION, "", "Tanh", "TANH", fixed_output="tanh"),
    _entry(
        "log-softmax", _K.ACTIVATION, "", "LogSoftmax", "LOG_SOFTMAX", fixed_output="log_softmax"
    ),
    _entry("l2-norm", _K.ACTIVATION, "", "", "L2_NORMALIZATION", fixed_output="l2_norm"),
    _entry("hard-swish", _K.ACTIVATION, "hardswish.default", "HardSwish", "HARD_SWISH"),
    _entry("hard-sigmoid", _K.ACTIVATION, "", "HardSigmoid"),
    _entry("leaky-relu", _K.ACTIVATION, "", "LeakyRelu PRelu", "LEAKY_RELU PRELU RELU_N1_TO_1"),
    _entry("elu", _K.ACTIVATION, "", "Elu Softplus Mish", "ELU"),
    _entry("gelu", _K.ACTIVATION, "", "Gelu", "GELU"),
)  # fmt: skip
_POOLS = (
    _entry(
        "max-pool", _K.POOL, "max_pool2d.default max_pool2d_with_indices.default", "MaxPool",
        "MAX_POOL_2D", "input", "max_pool",
    ),
    _entry(
        "average-pool", _K.POOL, "avg_pool2d.default adaptive_avg_pool2d.default",
        "AveragePool GlobalAveragePool", "AVERAGE_POOL_2D", "input", "mean",
    ),
    _entry("mean", _K.POOL, "mean.dim", "ReduceMean", "MEAN", "input", "mean"),
    _entry("global-max-pool", _K.POOL, "", "GlobalMaxPool ReduceMax", "REDUCE_MAX REDUCE_MIN"),
    _entry("sum", _K.POOL, "", "ReduceSum", "SUM"),
)  # fmt: skip
_MOVES = (
    _entry("concat", _K.CONCAT, "cat.default", "Concat", "CONCATENATION PACK", "input"),
    _entry(
        "nearest-resize", _K.RESIZE, "upsample_nearest2d.vec upsample_nearest2d.default",
        "Resize Upsample", "RESIZE_NEAREST_NEIGHBOR", "input",
    ),
    _entry("bilinear-resize", _K.RESIZE, "", "", "RESIZE_BILINEAR"),
    _entry(
        "split", _K.MOVE, "chunk.default split.Tensor split_with_sizes.default", "Split",
        "SPLIT SPLIT_V UNPACK", "input", splits=True,
    ),
    _entry("pad", _K.MOVE, "pad.default constant_pad_nd.default", "Pad", "PAD PADV2", "input"),
    _entry(
        "reshape", _K.MOVE,
        "flatten.using_ints reshape.default view.default squeeze.dim unsqueeze.default",
        "Flatten Reshape Squeeze Unsqueeze", "RESHAPE SQUEEZE EXPAND_DIMS", "input",
    ),
    _entry(
        "transpose", _K.MOVE, "permute.default transpose.int", "Transpose", "TRANSPOSE", "input"
    ),
    _entry(
        "slice", _K.MOVE, "select.int slice.Tensor", "Slice Gather",
        "SLICE STRIDED_SLICE GATHER", "input",
    ),
    _entry(
        "identity", _K.MOVE, "clone.default contiguous.default dropout.default", "Identity", "",
        "input",
    ),
    _entry("expand", _K.MOVE, "", "Expand Tile", "BROADCAST_TO TILE", "input"),
    _entry(
        "depth-to-space", _K.MOVE, "", "DepthToSpace SpaceToDepth",
        "DEPTH_TO_SPACE SPACE_TO_DEPTH BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND", "input",
    ),
    _entry("mirror-pad", _K.MOVE, "", "", "MIRROR_PAD REVERSE_V2"),
    _entry("cast", _K.MOVE, "", "Cast", "CAST"),
)  # fmt: skip
_ROUNDING = (
    _entry("quantize", _K.QUANTIZE, "", "QuantizeLinear", "QUANTIZE", "none", "requantize"),
    _entry("dequantize", _K.DEQUANTIZE, "", "DequantizeLinear", "DEQUANTIZE"),
)

OPERATORS: tuple[OperatorEntry, ...] = (
    *_WEIGHTED,
    *_ELEMENTWISE,
    *_ACTIVATIONS,
    *_POOLS,
    *_MOVES,
    *_ROUNDING,
)
"""The table."""


def _by(names: Iterable[tuple[OperatorEntry, tuple[str, ...]]]) -> dict[str, OperatorEntry]:
    return {name: entry for entry, known in names for name in known}


OPERATOR = {entry.name: entry for entry in OPERATORS}
"""By key."""

BY_TORCH = _by((entry, entry.torch) for entry in OPERATORS)
"""By the name of an operator of an exported graph."""

BY_ONNX = _by((entry, entry.onnx) for entry in OPERATORS)
"""By the type of a node."""

BY_TFLITE = _by((entry, entry.tflite) for entry in OPERATORS)
"""By the type of an operator."""
