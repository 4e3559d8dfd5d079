"""The formats' own slots for labels, read back without the code that wrote them."""

from __future__ import annotations

import ast
import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgekd.bundle.write import BundleSource
from edgekd.modelfile.contract import read_contract
from edgekd.modelfile.labels import onnx_labels, tflite_metadata
from edgekd.modelfile.runner import TfliteRunner

NAMES = ("car", "Straße 🚗", 'the "best" \\ worst')


class Table:
    """A flatbuffer table, read from its bytes by the format's own rules."""

    def __init__(self, blob: bytes, place: int) -> None:
        self.blob, self.place = blob, place

    @classmethod
    def root(cls, blob: bytes) -> Table:
        return cls(blob, struct.unpack_from("<I", blob, 0)[0])

    def _slot(self, index: int) -> int | None:
        virtual = self.place - struct.unpack_from("<i", self.blob, self.place)[0]
        size = struct.unpack_from("<H", self.blob, virtual)[0]
        entry = 4 + 2 * index
        offset = struct.unpack_from("<H", self.blob, virtual + entry)[0] if entry < size else 0
        return self.place + offset if offset else None

    def byte(self, index: int) -> int:
        place = self._slot(index)
        return 0 if place is None else self.blob[place]

    def _target(self, index: int) -> int:
        place = self._slot(index)
        assert place is not None, f"field {index} is not set"
        return int(place + struct.unpack_from("<I", self.blob, place)[0])

    def text(self, index: int) -> str:
        place = self._target(index)
        length = struct.unpack_from("<I", self.blob, place)[0]
        return self.blob[place + 4 : place + 4 + length].decode()

    def table(self, index: int) -> Table:
        return Table(self.blob, self._target(index))

    def tables(self, index: int) -> list[Table]:
        place = self._target(index)
        count = struct.unpack_from("<I", self.blob, place)[0]
        entries = range(place + 4, place + 4 + 4 * count, 4)
        return [Table(self.blob, e + struct.unpack_from("<I", self.blob, e)[0]) for e in entries]

    def floats(self, index: int) -> list[float]:
        place = self._target(index)
        count = struct.unpack_from("<I", self.blob, place)[0]
        return list(struct.unpack_from(f"<{count}f", self.blob, place + 4))

    def has(self, index: int) -> bool:
        return self._slot(index) is not None


def labelled(source: BundleSource, name: str) -> tuple[bytes, bytes]:
    """Returns an exported file before and after."""
    (file,) = [item for item in source.artifacts if item.path.name == name]
    before = file.path.read_bytes()
    return before, tflite_metadata(before, NAMES, file.input, file.outputs)


def metadata(blob: bytes) -> bytes:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(blob, 0))
    (entry,) = [item for item in model.metadata if item.name == b"TFLITE_METADATA"]
    return bytes(model.buffers[entry.buffer].data)


def test_labels_lie_zipped_behind_the_model(detector_source: BundleSource) -> None:
    _, after = labelled(detector_source, "int8.tflite")
    with zipfile.ZipFile(io.BytesIO(after)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode().splitlines() == list(NAMES)
        # Readers that map the file into memory take the bytes as they lie there.
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED


def test_the_metadata_says_how_pixels_are_normalised(detector_source: BundleSource) -> None:
    _, after = labelled(detector_source, "int8.tflite")
    blob = metadata(after)
    assert blob[4:8] == b"M001"
    model = Table.root(blob)
    assert model.text(7) == "1.0.0"
    (graph,) = model.tables(3)
    (image,) = graph.tables(2)
    assert image.text(0) == "images"
    content = image.table(3)
    assert content.byte(0) == 2  # ContentProperties.ImageProperties
    assert content.table(1).byte(0) == 1  # ColorSpaceType.RGB
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1  # ProcessUnitOptions.NormalizationOptions
    options = unit.table(1)
    assert (options.floats(0), options.floats(1)) == ([128.0], [128.0])


def test_the_metadata_ties_the_labels_to_the_scores(detector_source: BundleSource) -> None:
    _, after = labelled(detector_source, "float.tflite")
    (graph,) = Table.root(metadata(after)).tables(3)
    scores, boxes = graph.tables(3)
    assert (scores.text(0), boxes.text(0)) == ("scores_8", "boxes_8")
    (file,) = scores.tables(6)
    assert (file.text(0), file.byte(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    assert not boxes.has(6)


def test_a_classifiers_logits_have_the_labels(classifier_source: BundleSource) -> None:
    _, after = labelled(classifier_source, "int8.tflite")
    (graph,) = Table.root(metadata(after)).tables(3)
    (logits,) = graph.tables(3)
    assert logits.tables(6)[0].text(0) == "labels.txt"


@pytest.mark.parametrize("name", ["float.tflite", "int8.tflite"])
def test_the_model_computes_and_says_what_it_did_before(
    detector_source: BundleSource, tmp_path: Path, name: str
) -> None:
    before, after = labelled(detector_source, name)
    paths = [tmp_path / "before.tflite", tmp_path / "after.tflite"]
    for path, blob in zip(paths, (before, after), strict=True):
        path.write_bytes(blob)
    runners = [TfliteRunner(path) for path in paths]
    assert runners[0].outputs == runners[1].outputs
    tensor = np.random.default_rng(0).integers(-100, 100, (1, 16, 16, 3))
    outputs = [runner.run(tensor.astype(runner.input.dtype)) for runner in runners]
    for first, second in zip(*outputs, strict=True):
        np.testing.assert_array_equal(first, second)
    assert read_contract(paths[1]) == read_contract(paths[0])
    old, new = [_buffers(blob) for blob in (before, after)]
    assert new[: len(old)] == old
    assert len(new) == len(old) + 1


def _buffers(blob: bytes) -> list[bytes]:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(blob, 0))
    return [bytes(np.asarray(buffer.data if buffer.data is not None else [], np.uint8))
            for buffer in model.buffers]  # fmt: skip


def test_the_bytes_do_not_depend_on_the_hour(detector_source: BundleSource) -> None:
    _, after = labelled(detector_source, "int8.tflite")
    with zipfile.ZipFile(io.BytesIO(after)) as archive:
        assert archive.getinfo("labels.txt").date_time == (1980, 1, 1, 0, 0, 0)
    assert labelled(detector_source, "int8.tflite")[1] == after


@pytest.mark.parametrize("parse", [json.loads, ast.literal_eval])
def test_onnx_labels_are_one_thing_as_json_and_as_python(parse: Any) -> None:
    names = parse(onnx_labels(NAMES))
    assert {int(label): name for label, name in names.items()} == dict(enumerate(NAMES))
