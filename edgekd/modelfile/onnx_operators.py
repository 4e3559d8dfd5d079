"""The operators of an ONNX file as a runtime executes them: Q/DQ pairs and activations folded."""

from __future__ import annotations

import math
from pathlib import Path

from onnx import NodeProto, TensorProto, helper

from edgekd.core.errors import ModelError
from edgekd.core.types import Precision
from edgekd.modelfile.onnx_graph import OnnxGraph, item_bytes, read_onnx
from edgekd.modelfile.operator_table import BY_ONNX
from edgekd.modelfile.operators import Geometry, Operator, OperatorKind

_MULTIPLYING = (
    OperatorKind.CONV,
    OperatorKind.DEPTHWISE_CONV,
    OperatorKind.TRANSPOSED_CONV,
    OperatorKind.FULLY_CONNECTED,
    OperatorKind.MATMUL,
)
_WITH_PARAMETERS = (*_MULTIPLYING, OperatorKind.ELEMENTWISE)
_FUSING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add")
_FUSED_BEHIND = ("Relu", "Clip", "LeakyRelu", "BatchNormalization")
_FUSED_BEHIND_ADD = ("Relu", "Clip")
_INTEGER_TYPES = (TensorProto.INT8, TensorProto.UINT8)
# Position of the weights in operators that carry scales and zero points as inputs.
_INTEGER_OPERATORS = {"QLinearConv": 3, "QLinearMatMul": 3, "ConvInteger": 1, "MatMulInteger": 1}


def onnx_operators(path: Path) -> tuple[Operator, ...]:
    """Returns the operators of an ONNX file.

    Raises:
        ModelError: As ``read_onnx``, or a multiplying operator's shape cannot be inferred.
    """
    return _Folding(read_onnx(path)).operators()


class _Folding:
    """Decides, in the order of execution, which nodes stand for an operator of their own."""

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph
        self._integer: set[str] = set()  # Outputs of int8 operators, behind what is fused.
        self._absorbed: set[str] = set()  # Outputs of nodes that run inside another operator.
        self._ends: dict[str, str] = {}  # First output of an operator to the one it ends at.
        self._counted: set[str] = set()

    def operators(self) -> tuple[Operator, ...]:
        """Returns one record for each operator that is left."""
        for node in self._graph.nodes:
            if not self._is_constant(node) and node.output[0] not in self._absorbed:
                self._classify(node)
        return tuple(
            self._operator(node)
            for node in self._graph.nodes
            if not self._is_constant(node)
            and node.output[0] not in self._absorbed
            and not self._is_folded(node)
        )

    def _is_constant(self, node: NodeProto) -> bool:
        return all(name in self._graph.constants for name in node.output if name)

    def _classify(self, node: NodeProto) -> None:
        kind = _kind(self._graph, node)
        if kind in (OperatorKind.QUANTIZE, OperatorKind.DEQUANTIZE):
            return
        fused = _FUSED_BEHIND if kind in _MULTIPLYING else _FUSED_BEHIND_ADD
        end = self._absorb(node.output[0], fused if node.op_type in _FUSING else ())
        self._ends[node.output[0]] = end
        if self._is_integer(node, kind, end):
            self._integer.update((node.output[0], end))

    def _absorb(self, name: str, fused: tuple[str, ...]) -> str:
        """Returns the output behind the nodes that run inside the one that makes ``name``."""
        while True:
            readers = self._graph.consumers.get(name, [])
            if len(readers) != 1 or name in self._graph.outputs or readers[0].op_type not in fused:
                return name
            name = readers[0].output[0]
            self._absorbed.add(name)

    def _is_integer(self, node: NodeProto, kind: OperatorKind, end: str) -> bool:
        activations = self._activations(node)
        if node.op_type in _INTEGER_OPERATORS or all(
            self._graph.types.get(name) in _INTEGER_TYPES for name in activations
        ):
            return True
        if not all(self._dequantized(name) for name in activations):
            return False
        if kind in _MULTIPLYING:
            return self._dequantized(node.input[1])
        readers = self._graph.consumers.get(end, [])
        return bool(readers) and all(item.op_type == "QuantizeLinear" for item in readers)

    def _dequantized(self, name: str) -> bool:
        """Returns whether a tensor is an 8-bit tensor behind a DequantizeLinear."""
        node = self._graph.producers.get(name)
        return (
            node is not None
            and node.op_type == "DequantizeLinear"
            and self._graph.types.get(node.input[0]) in _INTEGER_TYPES
        )

    def _is_folded(self, node: NodeProto) -> bool:
        """Returns whether a Q or DQ node runs inside the int8 operator beside it."""
        if node.op_type == "QuantizeLinear":
            return node.input[0] in self._integer
        if node.op_type == "DequantizeLinear":
            readers = self._graph.consumers.get(node.output[0], [])
            return node.output[0] not in self._graph.outputs and all(
                reader.output[0] in self._integer for reader in readers
            )
        return False

    def _activations(self, node: NodeProto) -> list[str]:
        return [name for name in node.input if name and name not in self._graph.constants]

    def _weights(self, node: NodeProto, kind: OperatorKind) -> list[str]:
        if kind not in _WITH_PARAMETERS:
            return []
        names = [name for name in node.input if name in self._graph.constants]
        if node.op_type in _INTEGER_OPERATORS:  # Without the scales and zero points.
            places = (_INTEGER_OPERATORS[node.op_type], 8)
            names = [
                name for index, name in enumerate(node.input) if index in places and name in names
            ]
        return names

    def _stored_bytes(self, name: str) -> int:
        """Returns the bytes of a tensor, as int8 where a folded Q or DQ stands at it."""
        producer = self._graph.producers.get(name)
        if producer is not None and producer.op_type == "DequantizeLinear":
            source = producer.input[0]
            stored = self._graph.types.get(source, TensorProto.FLOAT)
            if stored != TensorProto.FLOAT:
                return self._graph.elements(name) * item_bytes(stored)
        readers = self._graph.consumers.get(name, [])
        quantized = readers and all(reader.op_type == "QuantizeLinear" for reader in readers)
        if name in self._integer and quantized:
            return self._graph.elements(name)
        return self._graph.size_bytes(name)

    def _operator(self, node: NodeProto) -> Operator:
        graph, kind = self._graph, _kind(self._graph, node)
        end = self._ends.get(node.output[0], node.output[0])
        activations, weights = self._activations(node), self._weights(node, kind)
        fresh = [name for name in weights if name not in self._counted]
        self._counted.update(fresh)
        outputs = [end, *(name for name in node.output[1:] if name)]
        return Operator(
            kind=kind,
            native=node.op_type,
            name=node.name or node.output[0],
            macs=self._macs(node, kind),
            parameters=sum(map(graph.elements, fresh)),
            input_bytes=sum(map(self._stored_bytes, activations)),
            weight_bytes=sum(map(self._stored_bytes, weights)),
            output_bytes=sum(map(self._stored_bytes, outputs)),
            precision=self._precision(node),
            input_shapes=tuple(graph.shapes.get(name, ()) for name in activations),
            output_shapes=tuple(graph.shapes.get(name, ()) for name in outputs),
            geometry=self._geometry(node, kind),
        )

    def _precision(self, node: NodeProto) -> Precision:
        if node.output[0] in self._integer:
            return Precision.INT8
        half = self._graph.types.get(node.output[0]) == TensorProto.FLOAT16
        return Precision.FLOAT16 if half else Precision.FLOAT32

    def _macs(self, node: NodeProto, kind: OperatorKind) -> int:
        if kind not in _MULTIPLYING:
            return 0
        data = self._shape(node, node.input[0])
        outputs = math.prod(self._shape(node, node.output[0]))
        if kind is OperatorKind.MATMUL:
            return outputs * data[-1]
        weights = self._shape(node, node.input[_INTEGER_OPERATORS.get(node.op_type, 1)])
        if kind is OperatorKind.FULLY_CONNECTED:
            return outputs * weights[1 if _attribute(node, "transB", 0) else 0]
        if kind is OperatorKind.TRANSPOSED_CONV:
            return math.prod(data) * math.prod(weights[1:])
        return outputs * math.prod(weights[1:])

    def _geometry(self, node: NodeProto, kind: OperatorKind) -> Geometry | None:
        """Returns the shape of a multiplication; images are stored channels, height, width."""
        if kind not in _MULTIPLYING:
            return None
        source, target = self._shape(node, node.input[0]), self._shape(node, node.output[0])
        if kind in (OperatorKind.FULLY_CONNECTED, OperatorKind.MATMUL):
            outputs = target[-1] if target else 1
            rows = math.prod(target) // max(1, outputs)
            depth = self._macs(node, kind) // max(1, math.prod(target))
            return Geometry(inputs=depth, outputs=outputs, height=rows, width=1)
        weights = self._shape(node, node.input[_INTEGER_OPERATORS.get(node.op_type, 1)])
        if not len(source) == len(target) == len(weights) == 4:
            return None
        small = source if kind is OperatorKind.TRANSPOSED_CONV else target
        return Geometry(
            inputs=source[1],
            outputs=target[1],
            height=small[2],
            width=small[3],
            kernel=(weights[2], weights[3]),
            stride=_first_stride(node),
            groups=_attribute(node, "group", 1),
        )

    def _shape(self, node: NodeProto, name: str) -> tuple[int, ...]:
        shape = self._graph.shapes.get(name, (-1,))
        if -1 in shape:
            raise ModelError(
                f"{self._graph.path}: the shape of {name!r} at {node.op_type} {node.name!r} is not "
                "static, so its cost is unknown"
            )
        return shape


def _kind(graph: OnnxGraph, node: NodeProto) -> OperatorKind:
    entry = BY_ONNX.get(node.op_type)
    kind = entry.cost if entry else OperatorKind.OTHER
    if kind is OperatorKind.CONV and _attribute(node, "group", 1) > 1:
        weights = graph.shapes.get(node.input[_INTEGER_OPERATORS.get(node.op_type, 1)], ())
        if weights[1:2] == (1,):
            return OperatorKind.DEPTHWISE_CONV
    return kind


def _first_stride(node: NodeProto) -> int:
    strides = next((list(item.ints) for item in node.attribute if item.name == "strides"), [])
    return max(1, strides[0]) if strides else 1


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next(
        (int(helper.get_attribute_value(item)) for item in node.attribute if item.name == name),
        default,
    )
