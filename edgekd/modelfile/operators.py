"""The operators of a model file after the fusions that every runtime makes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgekd.core.types import Format, Precision, Shape


class OperatorKind(StrEnum):
    """What an operator does, under one name for both formats."""

    CONV = "conv"
    DEPTHWISE_CONV = "depthwise-conv"
    TRANSPOSED_CONV = "transposed-conv"
    FULLY_CONNECTED = "fully-connected"
    MATMUL = "matmul"
    ELEMENTWISE = "elementwise"
    ACTIVATION = "activation"
    POOL = "pool"
    RESIZE = "resize"
    CONCAT = "concat"
    MOVE = "move"
    QUANTIZE = "quantize"
    DEQUANTIZE = "dequantize"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """The shape of a multiplication, which decides how well a kernel does it.

    Attributes:
        inputs: Channels read, over all groups.
        outputs: Channels written, over all groups.
        height: Of the output; rows of a matrix product. Of the input where it is transposed.
        width: Of the same; 1 for a matrix product.
        kernel: Height and width.
        stride: Along the height.
        groups: Convolutions that share nothing; as many as channels where it is depthwise.
    """

    inputs: int
    outputs: int
    height: int
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    groups: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Operator:
    """One operator as the runtime executes it.

    Attributes:
        native: Operator type in the file: ``Conv``, ``CONV_2D``.
        name: Of the node; for TFLite of its first output tensor.
        macs: Multiply-accumulates; 0 for all but convolutions and matrix products.
        parameters: Constant weights and biases, each counted at the first operator that reads it.
        input_bytes: Activations read, as stored: one byte a value where they are int8.
        weight_bytes: Constant weights and biases read.
        output_bytes: Activations written.
        precision: What it computes in. An operator with weights is int8 where both its input and
            its weights are; any other where its inputs and its output are.
        input_shapes: Of the activations. A dimension known only at run time is -1 and counts as 1.
        output_shapes: Likewise.
        geometry: Of convolutions over an image and of matrix products; None for all others.
    """

    kind: OperatorKind
    native: str
    name: str
    macs: int
    parameters: int
    input_bytes: int
    weight_bytes: int
    output_bytes: int
    precision: Precision
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    geometry: Geometry | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOperators:
    """What a model file computes for one image, in the order of execution."""

    path: Path
    format: Format
    operators: tuple[Operator, ...]
    size_bytes: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return sum(operator.macs for operator in self.operators)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(operator.parameters for operator in self.operators)

    @property
    def integer_mac_share(self) -> float:
        """Share of the multiply-accumulates that the file asks for in int8, in [0, 1]."""
        integer = sum(item.macs for item in self.operators if item.precision is Precision.INT8)
        return integer / self.macs if self.macs else 0.0

    @property
    def precision(self) -> Precision:
        """The precision that most multiply-accumulates compute in."""
        macs = dict.fromkeys(Precision, 0)
        for operator in self.operators:
            macs[operator.precision] += operator.macs
        return max(macs, key=lambda precision: macs[precision])
