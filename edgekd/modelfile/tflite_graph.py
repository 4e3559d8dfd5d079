"""Reads TFLite files into plain records."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import ModelError
from edgekd.core.types import Shape

Generated: TypeAlias = Any  # Objects of the flatbuffer schema's generated module, which is untyped.

_NUMPY_TYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
INTEGER_TYPES = ("INT8", "UINT8")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TfliteTensor:
    """One tensor of a TFLite file.

    Attributes:
        index: Number by which an interpreter knows it.
        dtype: Name in the schema: ``INT8``, ``FLOAT32``.
        scales: ``(1,)`` per tensor, ``(shape[axis],)`` per axis, empty where not quantized.
        zero_points: As many as scales.
        data: The constant's values, None for an activation. Raw bytes where numpy has no such type.
    """

    index: int
    name: str
    dtype: str
    shape: Shape
    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    axis: int
    data: NDArray[Any] | None

    @property
    def elements(self) -> int:
        """Number of values; a dimension known only at run time counts as 1."""
        return math.prod(abs(size) for size in self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of all values."""
        return self.elements * np.dtype(_NUMPY_TYPES.get(self.dtype, np.uint8)).itemsize

    @property
    def is_integer(self) -> bool:
        """Whether it is an 8-bit quantized tensor."""
        return self.dtype in INTEGER_TYPES and self.scales.size > 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TfliteOperator:
    """One operator: its name in the schema, such as ``CONV_2D``, and what it reads and writes.

    Attributes:
        options: The schema's own record (``Conv2DOptionsT``), None where the operator has none.
        custom: Name of a ``CUSTOM`` operator, empty for every other.
    """

    native: str
    options: Generated
    inputs: tuple[TfliteTensor, ...]
    outputs: tuple[TfliteTensor, ...]
    custom: str = ""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TfliteGraph:
    """The main subgraph of a TFLite file, in the order of execution."""

    path: Path
    inputs: tuple[TfliteTensor, ...]
    outputs: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]


def read_tflite(path: Path) -> TfliteGraph:
    """Returns the main subgraph of a TFLite file.

    Raises:
        ModelError: The file is missing, truncated or no TFLite file.
    """
    try:
        content = path.read_bytes()
    except OSError as unreadable:
        raise ModelError(f"{path}: cannot be read: {unreadable}") from unreadable
    if content[4:8] != b"TFL3":
        raise ModelError(f"{path}: not a TFLite file: bytes 4 to 8 are not 'TFL3'")
    # What the flatbuffer reader and numpy raise where an offset or a size leads out of the file.
    malformed = (struct.error, LookupError, ValueError, TypeError, AttributeError, OverflowError)
    try:
        return _graph(path, content)
    except malformed as error:
        raise ModelError(f"{path}: truncated or corrupt TFLite file: {error}") from error


def _graph(path: Path, content: bytes) -> TfliteGraph:
    schema = _schema(path)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    natives = _names(schema.BuiltinOperator)
    dtypes = _names(schema.TensorType)
    main = model.subgraphs[0]
    tensors = [
        _tensor(index, item, model.buffers, dtypes) for index, item in enumerate(main.tensors)
    ]
    codes = [
        natives[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes
    ]
    operators = tuple(
        TfliteOperator(
            native=codes[item.opcodeIndex],
            options=item.builtinOptions,
            inputs=_pick(tensors, item.inputs),
            outputs=_pick(tensors, item.outputs),
            custom=(model.operatorCodes[item.opcodeIndex].customCode or b"").decode(
                "utf-8", "replace"
            ),
        )
        for item in main.operators
    )
    inputs, outputs = _pick(tensors, main.inputs), _pick(tensors, main.outputs)
    if not (inputs and outputs and operators):
        raise ValueError("the main subgraph has no inputs, outputs or operators")
    return TfliteGraph(path=path, inputs=inputs, outputs=outputs, operators=operators)


def _schema(path: Path) -> Generated:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as missing:
        raise ModelError(
            f"{path}: reading TFLite files needs ai-edge-litert: pip install ai-edge-litert"
        ) from missing
    return schema_py_generated


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _pick(tensors: list[TfliteTensor], indices: Iterable[int]) -> tuple[TfliteTensor, ...]:
    """Returns the tensors by index; an optional input that is left out has index -1."""
    return tuple(tensors[index] for index in indices if index >= 0)


def _tensor(
    index: int, item: Generated, buffers: list[Generated], dtypes: dict[int, str]
) -> TfliteTensor:
    shape = tuple(int(size) for size in item.shape) if item.shape is not None else ()
    dtype = dtypes[item.type]
    quantization = item.quantization
    scales = None if quantization is None else quantization.scale
    zero_points = None if quantization is None else quantization.zeroPoint
    stored = buffers[item.buffer].data
    data: NDArray[Any] | None = None
    if stored is not None and len(stored):
        data = np.asarray(stored, np.uint8)
        if dtype in _NUMPY_TYPES:
            data = data.view(_NUMPY_TYPES[dtype]).reshape(shape)
    return TfliteTensor(
        index=index,
        name=item.name.decode("utf-8", "replace"),
        dtype=dtype,
        shape=shape,
        scales=np.asarray([] if scales is None else scales, np.float32),
        zero_points=np.asarray([] if zero_points is None else zero_points, np.int64),
        axis=0 if quantization is None else int(quantization.quantizedDimension),
        data=data,
    )
