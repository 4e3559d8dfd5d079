"""Class names in the slots that each format's own tools read them from.

The contract in every file says all this and more; these are for viewers and for consumers that know
nothing of EdgeKD.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from edgekd.core.types import InputContract, OutputContract

LABELS_FILE = "labels.txt"
METADATA_NAME = "TFLITE_METADATA"
METADATA_IDENTIFIER = b"M001"

# Members of enumerations and unions in version 1.0.0 of the TFLite metadata schema.
_TENSOR_AXIS_LABELS = 2
_RGB, _GRAYSCALE = 1, 2
_IMAGE_PROPERTIES = 1 + 1  # The second member of ContentProperties; 0 stands for none.
_NORMALIZATION = 0 + 1  # The first member of ProcessUnitOptions.
_PARSER_VERSION = "1.0.0"


ONNX_LABELS = "names"
"""Property of an ONNX file that holds its class names."""


def labels_text(classes: Sequence[str]) -> str:
    """Returns the class names, one a line, in the order of their labels."""
    return "".join(f"{name}\n" for name in classes)


def onnx_labels(classes: Sequence[str]) -> str:
    """Returns the JSON text for the ``names`` property of an ONNX file: ``{"0": "person"}``.

    Readers parse it as JSON or as a Python literal, so it holds nothing that means one thing in
    one and another in the other.
    """
    return json.dumps({str(label): name for label, name in enumerate(classes)}, ensure_ascii=False)


def tflite_metadata(
    blob: bytes, classes: Sequence[str], image: InputContract, outputs: Sequence[OutputContract]
) -> bytes:
    """Returns the TFLite model with the standard metadata, and ``labels.txt`` zipped behind it.

    The metadata names the normalisation of the input and the labels on the last axis of every
    output of scores. Operators, tensors and weights stay as they are. To be called last: whoever
    rewrites the model afterwards drops the archive.

    Args:
        blob: A TFLite file.
        classes: Names, indexed by label.
        image: What the file's only input holds.
        outputs: One for each output of the file, in its order.
    """
    labelled = _with_metadata(blob, _model_metadata(image, outputs))
    archive = io.BytesIO(labelled)
    with zipfile.ZipFile(archive, "a") as files:
        # A ZipInfo of its own, because its date is fixed; the same labels give the same bytes.
        files.writestr(zipfile.ZipInfo(LABELS_FILE), labels_text(classes))
    return archive.getvalue()


def _with_metadata(blob: bytes, metadata: bytes) -> bytes:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(blob, 0))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(metadata)
    model.buffers.append(buffer)
    entry.name, entry.buffer = METADATA_NAME, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(blob))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@dataclass(frozen=True, slots=True)
class _Table:
    """A flatbuffer table: its fields in the order of the schema, None where a field is not set."""

    fields: tuple[_Field, ...]


_Field: TypeAlias = "int | str | NDArray[np.float32] | _Table | list[_Table] | None"


def _model_metadata(image: InputContract, outputs: Sequence[OutputContract]) -> bytes:
    graph = _Table((None, None, [_input(image)], [_output(item) for item in outputs]))
    model = _Table((None, None, None, [graph], None, None, None, _PARSER_VERSION))
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, model), METADATA_IDENTIFIER)
    return bytes(builder.Output())


def _input(image: InputContract) -> _Table:
    pixels = _Table((_GRAYSCALE if image.channels == 1 else _RGB,))
    mean, std = (np.array([value], np.float32) for value in (image.mean, image.std))
    normalization = _Table((_NORMALIZATION, _Table((mean, std))))
    description = f"{image.height} x {image.width} pixels, {image.resize}"
    return _tensor("images", description, _Table((_IMAGE_PROPERTIES, pixels)), [normalization])


def _output(output: OutputContract) -> _Table:
    if output.role not in ("scores", "logits"):
        return _tensor(output.name, f"raw {output.role}")
    labels = _Table((LABELS_FILE, "class names", _TENSOR_AXIS_LABELS))
    return _tensor(output.name, f"raw {output.role}, classes on the last axis", files=[labels])


def _tensor(
    name: str,
    description: str,
    content: _Table | None = None,
    process_units: list[_Table] | None = None,
    files: list[_Table] | None = None,
) -> _Table:
    return _Table((name, description, None, content, process_units, None, files))


def _write(builder: Any, table: _Table) -> int:  # noqa: ANN401 - flatbuffers is untyped
    """Returns the offset of a table, written after everything that it refers to."""
    written = [_write_field(builder, field) for field in table.fields]
    builder.StartObject(len(written))
    for slot, (field, value) in enumerate(zip(table.fields, written, strict=True)):
        if isinstance(field, int):
            builder.PrependUint8Slot(slot, value, 0)
        elif field is not None:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return int(builder.EndObject())


def _write_field(builder: Any, field: _Field) -> int:  # noqa: ANN401 - as above
    """Returns the offset of what a field refers to; a number lies in the table itself."""
    if field is None or isinstance(field, int):
        return field or 0
    if isinstance(field, str):
        return int(builder.CreateString(field))
    if isinstance(field, _Table):
        return _write(builder, field)
    if isinstance(field, list):
        offsets = [_write(builder, item) for item in field]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())
    return int(builder.CreateNumpyVector(field))
