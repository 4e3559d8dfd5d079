"""The export stage: graphs in, proven files out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from onnx import ModelProto
from torch import nn
from torch.fx import GraphModule

import edgekd
from edgekd.config.decoders import decoder_files
from edgekd.config.device import Device
from edgekd.config.sections import ExportSection
from edgekd.core.exported import (
    FLOAT16_ONNX,
    FLOAT_ONNX,
    FLOAT_TFLITE,
    INT8_HOST_ONNX,
    INT8_ONNX,
    INT8_TFLITE,
    PEER_ONNX,
    ExportedFile,
)
from edgekd.core.files import sha256_of, write_atomic
from edgekd.core.types import Artifact, Format, InputContract, OutputContract, Precision
from edgekd.export import onnx_file, tflite_file
from edgekd.export.detection_tail import TAIL_OUTPUTS, with_detection_tail
from edgekd.modelfile.contract import Contract, Decoding, dump_contract
from edgekd.modelfile.labels import onnx_labels, tflite_metadata
from edgekd.modelfile.read import read_operators
from edgekd.modelfile.tflite_graph import read_tflite
from edgekd.nets.card import Card
from edgekd.standalone.decoder import IN_THE_FILE


@dataclass(frozen=True, slots=True)
class Graphs:
    """What is exported.

    Attributes:
        floating: Folded float graph that returns the raw outputs alone.
        integer: Converted, weights folded to int8, rounding where the target rounds (for its ONNX
            file and for the proof). None, as are the next two, in a run without int8.
        complete: The same, rounding every tensor (for the host's ONNX file and for the proof);
            the very same where the target rounds every tensor.
        unfolded: Like ``complete``, weights behind a quantize operator (for the TFLite converter).
        outputs: What the graphs return.
        kept: Layers of the integer graphs that stay in float.
        peer: Converted by another tool, None where that is not wanted.
    """

    floating: GraphModule
    integer: GraphModule | None
    complete: GraphModule | None
    unfolded: GraphModule | None
    outputs: tuple[OutputContract, ...]
    kept: tuple[str, ...] = ()
    peer: GraphModule | None = None


def export_files(
    graphs: Graphs,
    card: Card,
    device: Device,
    section: ExportSection,
    *,
    folder: Path,
    recipe_sha256: str,
    note: Callable[[str], None] = lambda _line: None,
) -> tuple[Artifact, ...]:
    """Writes float and int8 files, all from the same scales, and returns what was written.

    A format that the device does not execute in float32 is left out, and so is TFLite where it is
    not the device's own and fixes a scale that the device's scheme does not give; float16 is
    written where it computes in that. An ``int8-host.onnx`` holds the scales of ``int8.onnx`` as
    uint8 activations, which is the form that is fast on an x86 workstation; where the device *is*
    such a host, it is the only one.

    Raises:
        ExportError: A converter refuses the network.
    """
    writer = _Writer(card, device, section, folder, recipe_sha256, graphs.outputs, graphs.kept)
    artifacts: list[Artifact] = []
    for model_format, write in ((Format.ONNX, writer.onnx), (Format.TFLITE, writer.tflite)):
        if model_format not in section.formats:
            continue
        unfit = None
        if model_format is Format.TFLITE and device.primary is not Format.TFLITE and artifacts:
            unfit = graphs.unfolded and tflite_file.unfit_scale(graphs.unfolded)
        if unfit:
            note(f"no TFLite files: {unfit}")
        elif device.allows(model_format, Precision.FLOAT32):
            note(f"exporting {model_format.value}")
            artifacts += write(graphs)
        else:
            note(f"no {model_format.value}: {device.id} does not execute it")
    for name, source in decoder_files(card.decoder).items():
        write_atomic(folder / name, source.read_bytes())
    return tuple(artifacts)


@dataclass(frozen=True, slots=True)
class _Writer:
    card: Card
    device: Device
    section: ExportSection
    folder: Path
    recipe: str
    outputs: tuple[OutputContract, ...]
    kept: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [output.name for output in self.outputs]

    @property
    def labels(self) -> str:
        return onnx_labels(self.card.classes)

    def onnx(self, graphs: Graphs) -> list[Artifact]:
        models = [(FLOAT_ONNX, self._model(graphs.floating))]
        if self.device.allows(Format.ONNX, Precision.FLOAT16):
            half = self._model(onnx_file.half_precision(graphs.floating))
            models.append((FLOAT16_ONNX, half))
        artifacts = []
        for file, model in (*models, *self._integer_onnx(graphs)):
            contract = self._contract(file)
            blob = onnx_file.with_contract(model, dump_contract(contract), self.labels)
            artifacts.append(self._write(file.name, blob, contract))
            tailed = self.section.detection_tail and file.form != "peer"
            if tailed and contract.decoding.decoder == "edgedet":
                artifacts.append(self._with_tail(file.name, model, contract))
        return artifacts

    def _model(self, graph: nn.Module) -> ModelProto:
        example, opset = torch.zeros(self.card.input_shape), self.device.quantization.opset
        return onnx_file.onnx_model(graph, example, self.names, opset)

    def _integer_onnx(self, graphs: Graphs) -> list[tuple[ExportedFile, ModelProto]]:
        """Returns the int8 files with their models."""
        models: list[tuple[ExportedFile, ModelProto]] = []
        if graphs.peer is not None:
            models.append((PEER_ONNX, self._model(graphs.peer)))
        if graphs.integer is None or graphs.complete is None:
            return models
        integer = complete = self._model(graphs.integer)
        if graphs.complete is not graphs.integer:
            complete = self._model(graphs.complete)
        if self.device.quantization.activation_dtype_onnx == "int8":
            models.append((INT8_ONNX, integer))
        models.append((INT8_HOST_ONNX, onnx_file.as_uint8(complete)))
        return models

    def _with_tail(self, name: str, model: ModelProto, contract: Contract) -> Artifact:
        """Writes the twin of an ONNX file that ends in detections."""
        tailed = with_detection_tail(model, self.outputs, min_score=self.section.tail_score)
        decoding = Decoding(decoder=IN_THE_FILE, min_score=self.section.tail_score)
        contract = replace(contract, outputs=TAIL_OUTPUTS, decoding=decoding)
        blob = onnx_file.with_contract(tailed, dump_contract(contract), self.labels)
        return self._write(name.replace(".onnx", "-detect.onnx"), blob, contract)

    def tflite(self, graphs: Graphs) -> list[Artifact]:
        names, shape = self.names, self.card.input_shape
        spatial = [i for i, output in enumerate(self.outputs) if output.layout == "NCHW"]
        artifacts = []
        for file, graph in ((FLOAT_TFLITE, graphs.floating), (INT8_TFLITE, graphs.unfolded)):
            if graph is None:
                continue
            integer = file.precision is Precision.INT8
            blob = tflite_file.tflite_model(graph, shape, names, spatial, integer=integer)
            bare = self.folder / file.name
            write_atomic(bare, blob)
            contract = _with_grids(self._contract(file), bare)
            labelled = tflite_file.with_contract(blob, dump_contract(contract))
            labelled = tflite_metadata(labelled, contract.classes, contract.input, contract.outputs)
            artifacts.append(self._write(file.name, labelled, contract))
        return artifacts

    def _contract(self, file: ExportedFile) -> Contract:
        """Returns the contract of an ONNX file: float at its border, NCHW."""
        card = self.card
        rounded = file.precision is Precision.INT8 and file.form != "peer"
        return Contract(
            task=card.task,
            target=self.device.id,
            precision=file.precision,
            form=file.form,
            classes=card.classes,
            input=InputContract(
                height=card.height,
                width=card.width,
                channels=card.channels,
                layout="NCHW",
                dtype="float32",
                mean=card.mean,
                std=card.std,
                resize=card.own.resize if card.own else "letterbox",
            ),
            outputs=self.outputs,
            decoding=Decoding(decoder=card.decoder, priors=card.own.priors if card.own else None),
            recipe=self.recipe,
            edgekd=edgekd.__version__,
            float_layers=self.kept if rounded else (),
        )

    def _write(self, name: str, blob: bytes, contract: Contract) -> Artifact:
        path = self.folder / name
        write_atomic(path, blob)
        write_atomic(path.with_name(f"{name}.contract.json"), dump_contract(contract))
        operators = read_operators(path)
        return Artifact(
            path=path,
            format=Format(path.suffix[1:]),
            precision=contract.precision,
            form=contract.form,
            task=contract.task,
            target=contract.target,
            classes=contract.classes,
            input=contract.input,
            outputs=contract.outputs,
            sha256=sha256_of(path),
            size_bytes=len(blob),
            parameters=operators.parameters,
            macs=operators.macs,
        )


def _with_grids(contract: Contract, path: Path) -> Contract:
    """Returns the contract of a TFLite file: its own layout, types, scales and zero points."""
    graph = read_tflite(path)
    entry = graph.inputs[0]
    integer = entry.is_integer
    image = replace(
        contract.input,
        layout="NHWC",
        dtype="int8" if integer else "float32",
        scale=float(entry.scales[0]) if integer else None,
        zero_point=int(entry.zero_points[0]) if integer else None,
    )
    outputs = []
    for spec, tensor in zip(contract.outputs, graph.outputs, strict=True):
        outputs.append(
            replace(
                spec,
                shape=tuple(int(n) for n in tensor.shape),
                layout="NHWC" if spec.layout == "NCHW" else spec.layout,
                dtype="int8" if tensor.is_integer else "float32",
                scale=float(tensor.scales[0]) if tensor.is_integer else None,
                zero_point=int(tensor.zero_points[0]) if tensor.is_integer else None,
            )
        )
    return replace(contract, input=image, outputs=tuple(outputs))
