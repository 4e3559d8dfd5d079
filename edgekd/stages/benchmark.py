"""Every network and file measured on the validation split: rows, comparisons, regressions."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import edgekd
from edgekd.core.errors import RunError
from edgekd.core.exported import INT8_HOST_ONNX, INT8_ONNX, INT8_TFLITE
from edgekd.core.files import sha256_of, write_atomic
from edgekd.core.results import Check, Regression, RunRecord, SampleVisualisation
from edgekd.core.serialize import from_mapping, to_mapping
from edgekd.core.types import Artifact, Format, Task
from edgekd.measure.assessment import TRAINED, Assessment, compared
from edgekd.nets import cost
from edgekd.nets.card import Card, readable
from edgekd.nets.outputs import network_outputs
from edgekd.nets.tap import Tapped
from edgekd.report.record import from_json, to_json
from edgekd.run.context import RunContext
from edgekd.run.directory import exported_files, making
from edgekd.run.fit import CHECKPOINT
from edgekd.run.inputs import fingerprint
from edgekd.run.student import load_graph
from edgekd.run.trained import Trained, integer_graph
from edgekd.teacher.frozen import NetTeacher, Teacher
from edgekd.training.inference import Forward, network_predictions


def benchmark(context: RunContext, trained: Trained, files: Path) -> RunRecord:
    """Returns what the report is drawn from; ``files`` is the folder of the exported files."""
    folder = context.directory.complete(Benchmark(context, trained, files))
    return from_json((folder / "record.json").read_text(encoding="utf-8"))


def assess_checkpoint(context: RunContext, checkpoint: Path) -> Assessment:
    """Returns the measurement of one trained student and nothing else."""
    assessment = Assessment(context.val, context.recipe.benchmark, context.device)
    _Networks(context, assessment).checkpoint("student", context.card.architecture, checkpoint)
    return assessment


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The record of a run before it is judged."""

    context: RunContext
    trained: Trained
    files: Path
    name: str = "benchmark"

    def inputs(self) -> dict[str, Any]:
        """Returns what the record depends on."""
        context, trained, recipe = self.context, self.trained, self.context.recipe
        return {
            "files": {a.path.name: a.sha256 for a in exported_files(self.files)},
            "student": sha256_of(trained.student),
            "floating": sha256_of(trained.floating),
            "integer": sha256_of(trained.integer) if trained.integer else None,
            "kept": trained.float_layers,
            "val": fingerprint(context.val),
            "baseline": recipe.distill.baseline,
            "sections": [to_mapping(recipe.benchmark), to_mapping(recipe.report)],
            "edgekd": edgekd.__version__,
        }

    def work(self, folder: Path) -> None:
        """Writes the record."""
        context = self.context
        assessment = _assess(context, self.trained, exported_files(self.files))
        record = RunRecord(
            name=context.directory.path.name,
            target=context.device.id,
            task=context.card.task,
            dataset=context.val.name,
            rows=tuple(assessment.rows),
            comparisons=compared(assessment),
            checks=(*_checks(self.files), *assessment.agreements()),
            curves=_curves(context),
            visualisations=_visualisations(context, assessment),
            provenance=_provenance(context, self.trained),
            regressions=_regressions(context, assessment),
        )
        write_atomic(folder / "record.json", to_json(record))


def _assess(context: RunContext, trained: Trained, artifacts: tuple[Artifact, ...]) -> Assessment:
    """Returns rows and predictions of every network and every file."""
    assessment = Assessment(context.val, context.recipe.benchmark, context.device)
    networks = _Networks(context, assessment)
    for index, teacher in enumerate(context.teachers):
        networks.teacher(index, teacher)
    name = context.card.architecture
    if context.recipe.distill.baseline:
        baseline = context.directory.path / "baseline" / CHECKPOINT
        networks.checkpoint("student-no-kd", f"{name} without KD", baseline)
    networks.checkpoint("student", name, trained.student)
    if context.recipe.quantize.mode == "qat" and context.recipe.quantize.float_control:
        networks.float_control(f"{name}, as long as QAT", trained)
    for artifact in artifacts:
        if not artifact.has_tail:  # Proven to find the same as its twin.
            assessment.add_file(artifact, context.progress)
    if trained.integer is not None and readable(context.card):
        networks.integer(trained)
    return assessment


@dataclass(frozen=True, slots=True)
class _Networks:
    """Runs networks in torch over the validation split and adds their rows."""

    context: RunContext
    assessment: Assessment

    def teacher(self, index: int, teacher: Teacher) -> None:
        """Adds a teacher at its own input; a model file has no row: `edgekd eval` scores those."""
        if not isinstance(teacher, NetTeacher):
            return
        key = "teacher" if index == 0 else f"teacher-{index + 1}"
        name = f"teacher {teacher.card.architecture}"
        if self.context.teacher_resolution:
            name += f" at {teacher.card.height}x{teacher.card.width}"
        forward = _outputs_of(lambda images: teacher.tapped(teacher.renormalise(images)))
        self._add(key, name, teacher.card, forward, teacher.network())

    def checkpoint(self, key: str, name: str, checkpoint: Path) -> None:
        """Adds a trained student."""
        net = self.context.student.load(checkpoint).to(self.context.torch_device)
        self._add(key, name, self.context.card, net, net)

    def float_control(self, name: str, trained: Trained) -> None:
        """Adds the float graph that was trained as long as the integer one."""
        student = self.context.student
        graph = load_graph(trained.floating, student.folded(trained.student))
        net = student.load(trained.student)
        self._add("student-float", name, self.context.card, _outputs_of(graph), net)

    def integer(self, trained: Trained) -> None:
        """Adds the predictions of the fake-quantized graph, which has no row of its own."""
        context = self.context
        graph = integer_graph(context.student, trained, context.device.quantization)
        net = context.student.load(trained.student)
        self.assessment.predictions[TRAINED] = self._predictions(
            TRAINED, context.card, _outputs_of(graph), net
        )

    def _add(self, key: str, name: str, card: Card, forward: Forward, net: nn.Module) -> None:
        predictions = self._predictions(key, card, forward, net) if readable(card) else None
        self.assessment.add_network(
            key,
            name,
            predictions,
            parameters=cost.parameters(net),
            macs=cost.macs(net, card.input_shape),
        )

    def _predictions(
        self, key: str, card: Card, forward: Forward, net: nn.Module
    ) -> dict[int, Any]:
        return network_predictions(
            forward,
            card,
            network_outputs(net, card),
            self.context.val,
            progress=self.context.progress,
            title=f"accuracy {key}",
            device=self.context.torch_device,
        )


def _outputs_of(tapped: Callable[[Tensor], Tapped]) -> Forward:
    """Returns what maps images to raw outputs alone, without features."""
    return lambda images: tapped(images)[0]


def _checks(files: Path) -> list[Check]:
    text = (files / "checks.json").read_text(encoding="utf-8")
    return [from_mapping(Check, c, str(files), RunError) for c in json.loads(text)]


def _curves(context: RunContext) -> dict[str, list[dict[str, float]]]:
    """Returns the curves of what this run trained: a folder may hold stages of earlier ones."""
    recipe = context.recipe
    names = ["baseline"] if recipe.distill.baseline else []
    names += ["distill", "float"]
    names += ["quantize"] if recipe.quantize.mode == "qat" else []
    found = {name: context.directory.path / name / "curve.json" for name in names}
    return {n: json.loads(p.read_text(encoding="utf-8")) for n, p in found.items() if p.exists()}


def _visualisations(context: RunContext, assessment: Assessment) -> tuple[SampleVisualisation, ...]:
    """Returns validation images with many objects, and what the models saw in them."""
    if context.card.task is Task.CLASSIFICATION:
        return ()
    keys = [
        k
        for k in ("teacher", "student-float", INT8_TFLITE.key, INT8_HOST_ONNX.key)
        if k in assessment.predictions
    ][:3]
    if not keys:
        return ()
    wanted = context.recipe.report.visualisations
    crowded = sorted(context.val.samples, key=lambda s: (-len(s.boxes), s.image_id))
    step = max(1, len(crowded) // max(1, 2 * wanted))
    return tuple(assessment.visualisation(sample, keys) for sample in crowded[::step][:wanted])


def _regressions(context: RunContext, assessment: Assessment) -> tuple[Regression, ...]:
    """Returns the images that int8 made worse against the float student trained as long."""
    files = (INT8_TFLITE.key, INT8_ONNX.key)
    of = next((key for key in files if key in assessment.predictions), "")
    return assessment.regressions(of, assessment.reference, context.recipe.report.regressions)


def _provenance(context: RunContext, trained: Trained) -> dict[str, str]:
    packages = ["torch", "torchao", "onnx", "onnxruntime", "ai-edge-litert"]
    if Format.TFLITE in context.recipe.export.formats:
        packages.append("litert-torch")
    train, val = context.train, context.val
    kept = ", ".join(trained.float_layers)
    return {
        "recipe": making(context.recipe),
        "edgekd": edgekd.__version__,
        **{name: version(name) for name in packages},
        **({"layers in float": kept} if kept else {}),
        "python": platform.python_version(),
        "host": f"{platform.machine()}, {torch.get_num_threads()} training threads",
        "data": f"{len(train.samples)} training and {len(val.samples)} validation "
        f"images, {len(train.problems)} and {len(val.problems)} problems",
        "seconds": ", ".join(f"{k} {v:.0f}" for k, v in context.directory.seconds.items()),
    }
