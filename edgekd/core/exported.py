"""The files that a run exports, defined once: what each is called, holds, and is for.

A row of the report goes by a file's key; everything else that has to know which files ship, which
compare and which are timed asks here.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.core.types import Form, Format, Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedFile:
    """One kind of exported file.

    Attributes:
        name: Of the file.
        key: Of its row in a report.
        title: Of its row, for people.
        form: ``board`` ships to the target; ``host`` is for an x86 computer, and ships to a target
            that is one; ``peer`` is another tool's, and never ships.
    """

    name: str
    key: str
    title: str
    format: Format
    precision: Precision
    form: Form


def _onnx(name: str, key: str, title: str, precision: Precision, form: Form) -> ExportedFile:
    return ExportedFile(
        name=name, key=key, title=title, format=Format.ONNX, precision=precision, form=form
    )


def _tflite(name: str, key: str, title: str, precision: Precision) -> ExportedFile:
    return ExportedFile(
        name=name, key=key, title=title, format=Format.TFLITE, precision=precision, form="board"
    )


FLOAT_ONNX = _onnx("float.onnx", "float-onnx", "float32 ONNX", Precision.FLOAT32, "board")
FLOAT16_ONNX = _onnx("float16.onnx", "float16-onnx", "float16 ONNX", Precision.FLOAT16, "board")
INT8_ONNX = _onnx("int8.onnx", "int8-onnx", "int8 ONNX", Precision.INT8, "board")
INT8_HOST_ONNX = _onnx(
    "int8-host.onnx", "int8-onnx-host", "int8 ONNX (host form)", Precision.INT8, "host"
)
PEER_ONNX = _onnx(
    "int8-nc.onnx", "int8-onnx-nc", "int8 ONNX by neural-compressor", Precision.INT8, "peer"
)
FLOAT_TFLITE = _tflite("float.tflite", "float-tflite", "float32 TFLite", Precision.FLOAT32)
INT8_TFLITE = _tflite("int8.tflite", "int8-tflite", "int8 TFLite", Precision.INT8)

EXPORTED = (
    FLOAT_ONNX, FLOAT16_ONNX, INT8_ONNX, INT8_HOST_ONNX, PEER_ONNX, FLOAT_TFLITE, INT8_TFLITE,
)  # fmt: skip
EXPORTED_BY_NAME = {file.name: file for file in EXPORTED}
_BY_KEY = {file.key: file for file in EXPORTED}


def form_of(key: str) -> Form:
    """Returns the form of the file that a row is of; rows of networks count as ``board``."""
    file = _BY_KEY.get(key)
    return file.form if file else "board"
