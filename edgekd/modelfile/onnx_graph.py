"""Reads ONNX files into a graph that can be asked who makes and who reads a tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # No stubs.
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgekd.core.errors import ModelError
from edgekd.core.types import Shape

_CONTROL_FLOW = ("If", "Loop", "Scan")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OnnxGraph:
    """The main graph of an ONNX file, with every question about it answered by name.

    Attributes:
        initializers: Constants by tensor name, those of ``Constant`` nodes included.
        constants: Names of every tensor that follows from constants and static shapes alone.
        producers: The node that makes a tensor.
        consumers: The nodes that read a tensor, in the order of execution.
        shapes: A dimension known only at run time is -1.
        types: Element types, as in ``onnx.TensorProto``, where they are known.
    """

    path: Path
    model: onnx.ModelProto
    initializers: dict[str, TensorProto]
    constants: frozenset[str]
    producers: dict[str, NodeProto]
    consumers: dict[str, list[NodeProto]]
    shapes: dict[str, Shape]
    types: dict[str, int]

    @property
    def nodes(self) -> tuple[NodeProto, ...]:
        """Nodes in the order of execution."""
        return tuple(self.model.graph.node)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what the caller feeds."""
        return tuple(
            item.name for item in self.model.graph.input if item.name not in self.initializers
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the caller gets."""
        return tuple(item.name for item in self.model.graph.output)

    def value(self, name: str) -> NDArray[Any] | None:
        """Returns a stored constant's values, None where the tensor is none."""
        tensor = self.initializers.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def elements(self, name: str) -> int:
        """Returns the number of values; a dimension known only at run time counts as 1."""
        return math.prod(abs(size) for size in self.shapes.get(name, ()))

    def size_bytes(self, name: str) -> int:
        """Returns the bytes of all values."""
        return self.elements(name) * item_bytes(self.types.get(name, TensorProto.FLOAT))


def item_bytes(element_type: int) -> int:
    """Returns the bytes of one value of an ``onnx.TensorProto`` element type."""
    return int(np.dtype(helper.tensor_dtype_to_np_dtype(element_type)).itemsize)


def load_onnx(path: Path) -> onnx.ModelProto:
    """Returns the model as stored; weights in other files are neither read nor looked for.

    Raises:
        ModelError: The file is missing, truncated or no ONNX file.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as unreadable:
        raise ModelError(f"{path}: cannot be read: {unreadable}") from unreadable
    except DecodeError as malformed:
        raise ModelError(f"{path}: truncated, corrupt or not an ONNX file") from malformed
    # An empty file is a valid, empty protocol buffer.
    if not model.graph.node or not model.graph.output or not model.opset_import:
        raise ModelError(f"{path}: not an ONNX file: no nodes, no outputs or no operator set")
    return model


def external_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Returns the names of the tensors whose values lie in other files."""
    return tuple(
        tensor.name
        for tensor in _tensors(model.graph)
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data
    )


def read_onnx(path: Path) -> OnnxGraph:
    """Returns the graph of an ONNX file with every shape inferred.

    Raises:
        ModelError: As ``load_onnx``; or the file is invalid, keeps weights in other files (which
            may lie anywhere on the disk and are never opened), has an input without a static
            shape, or control flow.
    """
    model = load_onnx(path)
    external = external_tensors(model)
    if external:
        raise ModelError(
            f"{path}: the values of {external[0]!r} and {len(external) - 1} other tensors lie in "
            "other files; store them inside the model"
        )
    for node in model.graph.node:
        if node.op_type in _CONTROL_FLOW:
            raise ModelError(
                f"{path}: operator {node.op_type} makes the cost depend on data; "
                "export a graph without control flow"
            )
    _fix_inputs(path, model)
    invalid_model = (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        UnicodeDecodeError,  # The checker's own message quotes a corrupt name.
    )
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except invalid_model as invalid:
        raise ModelError(f"{path}: not a valid ONNX model: {invalid}") from invalid
    return _indexed(path, inferred)


def _fix_inputs(path: Path, model: onnx.ModelProto) -> None:
    """Sets an open batch dimension to 1."""
    initialized = {item.name for item in model.graph.initializer}
    for item in model.graph.input:
        dimensions = item.type.tensor_type.shape.dim
        if item.name in initialized:
            continue
        for index, dimension in enumerate(dimensions):
            if dimension.dim_value > 0:
                continue
            if index > 0:
                raise ModelError(
                    f"{path}: input {item.name!r} has an open dimension {index} "
                    f"({dimension.dim_param or 'unnamed'}); only the batch may be open"
                )
            dimension.Clear()
            dimension.dim_value = 1


def _indexed(path: Path, model: onnx.ModelProto) -> OnnxGraph:
    graph = model.graph
    initializers = {item.name: item for item in graph.initializer}
    producers: dict[str, NodeProto] = {}
    consumers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        producers.update(dict.fromkeys(node.output, node))
        for name in dict.fromkeys(node.input):
            consumers.setdefault(name, []).append(node)
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            initializers[node.output[0]] = node.attribute[0].t
    shapes = {name: tuple(item.dims) for name, item in initializers.items()}
    types = {name: item.data_type for name, item in initializers.items()}
    for item in (*graph.input, *graph.value_info, *graph.output):
        tensor = item.type.tensor_type
        types.setdefault(item.name, tensor.elem_type)
        if tensor.HasField("shape"):
            sizes = tuple(size.dim_value if size.dim_value > 0 else -1 for size in tensor.shape.dim)
            shapes.setdefault(item.name, sizes)
    # Undefined is what shape inference leaves where it knows no better.
    types = {name: kind for name, kind in types.items() if kind != TensorProto.UNDEFINED}
    for name, kind in types.items():
        if kind not in TensorProto.DataType.values():
            raise ModelError(f"{path}: tensor {name!r} has the unknown element type {kind}")
    return OnnxGraph(
        path=path,
        model=model,
        initializers=initializers,
        constants=_constants(graph, initializers, shapes),
        producers=producers,
        consumers=consumers,
        shapes=shapes,
        types=types,
    )


def _constants(
    graph: onnx.GraphProto, initializers: dict[str, TensorProto], shapes: dict[str, Shape]
) -> frozenset[str]:
    constants = set(initializers)
    for node in graph.node:
        # A static shape is a constant, though the tensor that has it is none.
        shape_known = node.op_type in ("Shape", "Size") and -1 not in shapes.get(
            node.input[0], (-1,)
        )
        if shape_known or all(name in constants for name in node.input if name):
            constants.update(node.output)
    return frozenset(constants)


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Yields every tensor stored in a graph, its nodes' attributes and their subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _tensors(subgraph)
