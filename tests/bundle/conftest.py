"""One tiny detector and one classifier as real ONNX and TFLite files, and bundles of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from edgekd.bundle.write import BundleSource, write_bundle
from edgekd.core.files import sha256_of
from edgekd.core.serialize import to_mapping
from edgekd.core.types import (
    Artifact,
    Dataset,
    Detections,
    Format,
    InputContract,
    OutputContract,
    Precision,
    Sample,
    Task,
)
from edgekd.data.image import to_input
from edgekd.modelfile.contract import KEY, Contract, Decoding, dump_contract
from edgekd.modelfile.runner import open_runner
from edgekd.standalone import decoder

SIZE, CELL = 16, 8
CLASSES = ("car", "van")
STEP = 1 / 128
IMAGES = np.random.default_rng(5).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)


@dataclass(frozen=True)
class Head:
    """One linear layer on the image: kernel ``(O, C, K, K)``, with K the cell or the image."""

    output: OutputContract
    weight: np.ndarray
    bias: np.ndarray

    @property
    def weight_scale(self) -> float:
        return float(np.abs(self.weight).max() / 127)

    @property
    def integer_weight(self) -> np.ndarray:
        return np.rint(self.weight / self.weight_scale).astype(np.int8)

    @property
    def integer_bias(self) -> np.ndarray:
        return np.rint(self.bias / (STEP * self.weight_scale)).astype(np.int32)


def _head(role: str, channels: int, spread: float, step: float, cell: int) -> Head:
    rng = np.random.default_rng(channels)
    cells = SIZE // cell
    shape = (1, channels, cells, cells) if cell == CELL else (1, channels)
    output = OutputContract(
        name=f"{role}_{cell}" if cell == CELL else role, role=role,
        stride=cell if cell == CELL else 0, shape=shape,
        layout="NCHW" if cell == CELL else "NC", dtype="float32", scale=step, zero_point=0,
    )  # fmt: skip
    weight = rng.normal(0, spread, (channels, 3, cell, cell)).astype(np.float32)
    return Head(output, weight, rng.normal(0, 0.3, channels).astype(np.float32))


DETECTOR = (_head("scores", 2, 0.25, 8 / 127, CELL), _head("boxes", 4, 0.03, 1 / 64, CELL))
CLASSIFIER = (_head("logits", 2, 0.1, 8 / 127, SIZE),)


def _contract(heads: tuple[Head, ...], name: str) -> Contract:
    integer, planar = name.startswith("int8"), name.endswith("onnx")
    graded = integer and not planar
    detects = len(heads) == 2
    image = InputContract(
        height=SIZE, width=SIZE, channels=3, layout="NCHW" if planar else "NHWC",
        dtype="int8" if graded else "float32",
        scale=STEP if graded else None, zero_point=0 if graded else None,
    )  # fmt: skip
    outputs = []
    for head in heads:
        spec = head.output
        shape = spec.shape
        if not planar and detects:
            shape = (shape[0], *shape[2:], shape[1])
            spec = replace(spec, layout="NHWC")
        if graded:
            spec = replace(spec, shape=shape, dtype="int8", scale=float(np.float32(spec.scale)))
        else:
            spec = replace(spec, shape=shape, scale=None, zero_point=None)
        outputs.append(spec)
    return Contract(
        task=Task.DETECTION if detects else Task.CLASSIFICATION, target="raspberry-pi",
        precision=Precision.INT8 if integer else Precision.FLOAT32, form="board", classes=CLASSES,
        input=image, outputs=tuple(outputs), recipe="0" * 64, edgekd="0.1.0",
        decoding=Decoding(decoder="edgedet" if detects else "none"),
    )  # fmt: skip


def onnx_blob(heads: tuple[Head, ...], contract: Contract) -> bytes:
    """Returns an ONNX file; an int8 one has Q/DQ pairs."""
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def pair(tensor: str, scale: float, result: str) -> str:
        grid = [constant(f"{result}/scale", np.array(scale, np.float32)),
                constant(f"{result}/zero", np.array(0, np.int8))]  # fmt: skip
        nodes.append(helper.make_node("QuantizeLinear", [tensor, *grid], [f"{result}/q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{result}/q", *grid], [result]))
        return result

    integer = contract.precision is Precision.INT8
    image = pair("images", STEP, "image") if integer else "images"
    for head in heads:
        name, cell = head.output.name, head.weight.shape[-1]
        weight = constant(f"{name}/w", head.integer_weight if integer else head.weight)
        bias = constant(f"{name}/b", head.bias)
        if integer:
            scale = constant(f"{name}/ws", np.array(head.weight_scale, np.float32))
            zero = constant(f"{name}/wz", np.array(0, np.int8))
            weight, stored = f"{name}/wd", weight
            nodes.append(helper.make_node("DequantizeLinear", [stored, scale, zero], [weight]))
        nodes.append(
            helper.make_node("Conv", [image, weight, bias], [f"{name}/c"], strides=[cell, cell])
        )
        last = f"{name}/c"
        if head.output.layout == "NC":
            nodes.append(helper.make_node("Flatten", [last], [f"{name}/f"]))
            last = f"{name}/f"
        if integer:
            pair(last, head.output.scale, name)
        else:
            nodes.append(helper.make_node("Identity", [last], [name]))
    given = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])]
    made = [
        helper.make_tensor_value_info(h.output.name, TensorProto.FLOAT, h.output.shape)
        for h in heads
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "net", given, made, constants),
        opset_imports=[helper.make_opsetid("", 20)], ir_version=10,
    )  # fmt: skip
    helper.set_model_props(model, {KEY: dump_contract(contract)})
    return model.SerializeToString()


def tflite_blob(heads: tuple[Head, ...], contract: Contract) -> bytes:
    """Returns a TFLite file of convolutions, or of one fully connected operator."""
    integer = contract.precision is Precision.INT8
    buffers, tensors = [schema.BufferT()], []

    def tensor(name: str, shape: Any, kind: int, scale: float, data: np.ndarray | None) -> int:
        item = schema.TensorT()
        item.name, item.shape, item.type = name, list(shape), kind
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = list(data.tobytes())
            buffers.append(buffer)
            item.buffer = len(buffers) - 1
        if integer:
            item.quantization = schema.QuantizationParametersT()
            item.quantization.scale, item.quantization.zeroPoint = [scale], [0]
        tensors.append(item)
        return len(tensors) - 1

    kinds = schema.TensorType
    real = kinds.INT8 if integer else kinds.FLOAT32
    image = tensor("images", (1, SIZE, SIZE, 3), real, STEP, None)
    operators, made = [], []
    dense = heads[0].output.layout == "NC"
    for head, spec in zip(heads, contract.outputs, strict=True):
        weight = (head.integer_weight if integer else head.weight).transpose(0, 2, 3, 1)
        if dense:
            weight = weight.reshape(len(weight), -1)
        bias = head.integer_bias if integer else head.bias
        inputs = [
            image,
            tensor(f"{spec.name}/w", weight.shape, real, head.weight_scale, weight),
            tensor(f"{spec.name}/b", bias.shape, kinds.INT32 if integer else real,
                   STEP * head.weight_scale, bias),
        ]  # fmt: skip
        made.append(tensor(spec.name, spec.shape, real, spec.scale or 0.0, None))
        operator = schema.OperatorT()
        operator.inputs, operator.outputs = inputs, [made[-1]]
        options = schema.FullyConnectedOptionsT() if dense else schema.Conv2DOptionsT()
        kind = schema.BuiltinOptions
        operator.builtinOptionsType = kind.FullyConnectedOptions if dense else kind.Conv2DOptions
        if not dense:
            options.padding = schema.Padding.VALID
            options.strideH = options.strideW = CELL
            options.dilationHFactor = options.dilationWFactor = 1
        operator.builtinOptions = options
        operators.append(operator)
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs = tensors, [image], made
    graph.operators = operators
    code = schema.OperatorCodeT()
    known = schema.BuiltinOperator
    code.builtinCode = known.FULLY_CONNECTED if dense else known.CONV_2D
    code.deprecatedBuiltinCode, code.version = code.builtinCode, 4 if dense else 3
    text, entry = schema.BufferT(), schema.MetadataT()
    text.data = list(dump_contract(contract).encode())
    buffers.append(text)
    entry.name, entry.buffer = KEY, len(buffers) - 1
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers, model.metadata = buffers, [entry]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def artifact(path: Path, contract: Contract) -> Artifact:
    return Artifact(
        path=path, format=Format(path.suffix[1:]), precision=contract.precision, form=contract.form,
        task=contract.task, target=contract.target, classes=contract.classes, input=contract.input,
        outputs=contract.outputs, sha256=sha256_of(path), size_bytes=path.stat().st_size,
        parameters=1, macs=1,
    )  # fmt: skip


def export(
    folder: Path, heads: tuple[Head, ...], change: Callable[[Contract], Contract] = lambda c: c
) -> tuple[Artifact, ...]:
    """Writes four files, as an export does, and returns them."""
    folder.mkdir(parents=True)
    files = []
    for name in ("float.onnx", "int8.onnx", "float.tflite", "int8.tflite"):
        contract = change(_contract(heads, name))
        make = onnx_blob if name.endswith("onnx") else tflite_blob
        (folder / name).write_bytes(make(heads, contract))
        files.append(artifact(folder / name, contract))
    return tuple(files)


def dataset(task: Task, found: dict[int, Detections]) -> Dataset:
    """Returns a split in which every other detection is right."""
    empty = np.zeros((0, 4), np.float32)
    samples = []
    for image_id in range(1, len(IMAGES) + 1):
        boxes, labels = empty, np.zeros(1, np.int64)
        if task is Task.DETECTION:
            boxes, labels = found[image_id].boxes[::2], found[image_id].labels[::2]
        sample = Sample(
            image_id=image_id, path=Path(f"{image_id}.png"), width=SIZE, height=SIZE,
            boxes=boxes, labels=labels, areas=np.ones(len(boxes), np.float32),
            ignore=empty, ignore_labels=np.zeros(0, np.int64),
        )  # fmt: skip
        samples.append(sample)
    return Dataset(
        name="tiny", task=task, split="val", format="coco", root=Path(), classes=CLASSES,
        samples=tuple(samples),
    )  # fmt: skip


def detections_of(file: Artifact) -> dict[int, Detections]:
    runner = open_runner(file.path)
    found = {}
    for index, image in enumerate(IMAGES, 1):
        outputs = runner.run(to_input(image, file.input))
        boxes, scores, labels = decoder.detect(outputs, to_mapping(file), min_score=0.2)
        found[index] = Detections(boxes=boxes, scores=scores, labels=labels)
    return found


def source(artifacts: tuple[Artifact, ...]) -> BundleSource:
    task = artifacts[0].task
    found = detections_of(artifacts[-1]) if task is Task.DETECTION else {}
    return BundleSource(
        name="tiny", artifacts=artifacts, images=IMAGES[:3], dataset=dataset(task, found),
        predictions=found if task is Task.DETECTION else None,
        licences={"data": "CC BY 4.0"}, rows=(),
    )  # fmt: skip


@pytest.fixture(scope="session")
def detector_source(tmp_path_factory: pytest.TempPathFactory) -> BundleSource:
    return source(export(tmp_path_factory.mktemp("detector") / "export", DETECTOR))


@pytest.fixture(scope="session")
def classifier_source(tmp_path_factory: pytest.TempPathFactory) -> BundleSource:
    return source(export(tmp_path_factory.mktemp("classifier") / "export", CLASSIFIER))


@pytest.fixture(scope="session")
def written(detector_source: BundleSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(detector_source, tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    """A bundle of the detector that a test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "bundle"))


@pytest.fixture
def edit() -> Callable[..., None]:
    """Returns a function that changes a JSON file in place."""

    def change(path: Path, how: Callable[[Any], None]) -> None:
        document = json.loads(path.read_text())
        how(document)
        path.write_text(json.dumps(document))

    return change
