"""The student made integer, and its float twin, trained as long: what int8 is compared with."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd.config.learning import FitOptions
from edgekd.core.files import sha256_of, write_atomic
from edgekd.core.serialize import to_mapping
from edgekd.quantize import graph as graphs
from edgekd.run.context import RunContext
from edgekd.run.fit import LEARNT, fit_student
from edgekd.run.images import calibration_batches
from edgekd.run.student import save_graph
from edgekd.run.trained import Trained

STATE = "graph.safetensors"


def quantize(context: RunContext, student: Path) -> Trained:
    """Returns the student's folded float graph and, unless the recipe wants none, its integer one.

    The float graph is trained for the same extra steps with the same teacher, but without
    fake-quantization: what int8 costs is measured against that.
    """
    floating = context.directory.complete(FloatControl(context, student)) / STATE
    integer = None
    if context.recipe.quantize.mode != "none":
        integer = context.directory.complete(Quantize(context, student)) / STATE
    return Trained(student=student, floating=floating, integer=integer)


@dataclass(frozen=True, slots=True)
class FloatControl:
    """The folded graph, trained on in float for as long as QAT takes."""

    context: RunContext
    student: Path
    name: str = "float"

    def inputs(self) -> dict[str, Any]:
        """Returns what the graph's state depends on."""
        return _inputs(self.context, self.student)

    def work(self, folder: Path) -> None:
        """Writes the graph's state and, where it was trained, the curve."""
        context, section = self.context, self.context.recipe.quantize
        graph = context.student.folded(self.student)
        if section.mode == "qat" and section.float_control:
            graphs.training_mode(graph)
            curve = fit_student(
                context,
                graph,
                context.methods,
                _options(context),
                folder=folder,
                title="float",
                learnt=_learnt(context, self.student),
            )
            write_atomic(folder / "curve.json", json.dumps(curve))
        save_graph(folder / STATE, graph)


@dataclass(frozen=True, slots=True)
class Quantize:
    """The fake-quantized graph, calibrated and, in mode ``qat``, trained as the device rounds."""

    context: RunContext
    student: Path
    name: str = "quantize"

    def inputs(self) -> dict[str, Any]:
        """Returns what the graph's state depends on."""
        scheme = to_mapping(self.context.device.quantization)
        return _inputs(self.context, self.student) | {"scheme": scheme}

    def work(self, folder: Path) -> None:
        """Writes the graph's state and, where it was trained, the curve."""
        context, section = self.context, self.context.recipe.quantize
        folded = context.student.folded(self.student)
        graph = graphs.prepared(folded, context.device.quantization)
        graphs.calibrate(graph, calibration_batches(context))
        if section.mode == "qat":
            graphs.training_mode(graph)
            options = _options(context)
            curve = fit_student(
                context,
                graph,
                context.methods,
                options,
                folder=folder,
                title="QAT",
                freeze_ranges_at=round(section.freeze_ranges * options.steps),
                learnt=_learnt(context, self.student),
            )
            write_atomic(folder / "curve.json", json.dumps(curve))
        save_graph(folder / STATE, graph)


def _inputs(context: RunContext, student: Path) -> dict[str, Any]:
    learnt = _learnt(context, student)
    return {
        **context.identity(context.recipe.quantize),
        "student": sha256_of(student),
        "learnt": sha256_of(learnt) if learnt else None,
        "teaching": context.teaching_identity(),
        "source": context.student.source_hash,
    }


def _options(context: RunContext) -> FitOptions:
    return replace(context.recipe.quantize.training, precision="float32")


def _learnt(context: RunContext, student: Path) -> Path | None:
    """Returns what the methods learnt beside the student.

    None of one that learnt from annotation alone, or that is the teacher itself.
    """
    return next(iter(student.parent.glob(LEARNT)), None) if context.methods else None
