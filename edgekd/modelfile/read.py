"""The one door to an exported file: what it computes, operator by operator, whatever the format."""

from __future__ import annotations

from pathlib import Path

from edgekd.core.errors import ModelError
from edgekd.core.types import Format
from edgekd.modelfile.operators import ModelOperators


def read_operators(path: Path) -> ModelOperators:
    """Returns the operators of an ``.onnx`` or ``.tflite`` file.

    Folded into their neighbours are what every runtime folds: constants, the Q/DQ pairs round an
    int8 operator, and the ReLU, clipping or batch norm behind a convolution. The first dimension
    of an input counts as 1 where the file leaves it open.

    Raises:
        ModelError: The file is missing, truncated, of another format, keeps its weights in another
            file, has no static shapes, or its control flow depends on data.
    """
    suffix = path.suffix.lower()
    # Imported late: each format's library takes a while, and most callers need one of them.
    if suffix == ".onnx":
        from edgekd.modelfile.onnx_operators import onnx_operators

        model_format, operators = Format.ONNX, onnx_operators(path)
    elif suffix == ".tflite":
        from edgekd.modelfile.tflite_operators import tflite_operators

        model_format, operators = Format.TFLITE, tflite_operators(path)
    else:
        raise ModelError(f"{path}: expected a model file ending in .onnx or .tflite")
    return ModelOperators(
        path=path, format=model_format, operators=operators, size_bytes=path.stat().st_size
    )
