"""The whole path, and the only file that knows its order.

    data ──► teacher ──► distil ──► quantize ──► export ──► benchmark ──► report ──► bundle

Stages do not know each other. Each writes into its own folder of the run directory and is skipped
when its inputs have not changed; training resumes from its last checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import torch

from edgekd.config.recipe import Recipe
from edgekd.core.progress import Progress
from edgekd.core.results import RunRecord
from edgekd.measure.assessment import Assessment
from edgekd.run.context import SAME, RunContext
from edgekd.run.opening import open_run, open_training, with_smaller_student
from edgekd.run.trained import Trained
from edgekd.stages.benchmark import assess_checkpoint, benchmark
from edgekd.stages.bundle import bundle
from edgekd.stages.distill import distill
from edgekd.stages.export import export
from edgekd.stages.mixed_precision import LayerReport, analysed, mixed_precision
from edgekd.stages.quantize import quantize
from edgekd.stages.report import report
from edgekd.stages.train import train as train_stage


def compress(
    recipe: Recipe,
    folder: Path,
    *,
    progress: Progress,
    torch_device: torch.device,
    until: str = "bundle",
) -> RunRecord | None:
    """Runs the path up to a stage and returns the report's record, None where it ended before.

    Args:
        recipe: Everything about the run.
        folder: The run directory; a finished stage in it is not repeated.
        progress: Shows long work.
        torch_device: Where networks are trained.
        until: Last stage: ``distill``, ``quantize``, ``export``, ``report`` or ``bundle``.

    Raises:
        RecipeError: The combination is impossible.
        DataError: The data set cannot be read.
        ModelError: A checkpoint cannot be used.
        ProofError: An exported file does not compute what was trained.
        GateError: An exported file does not keep to the recipe's gates; there is no bundle.
        RunError: The run directory is in use, or somebody else's.
    """
    with open_run(recipe, folder, progress, torch_device) as context:
        trained = _trained(context, until)
        if trained is None:
            return None
        files = export(context, trained)
        while smaller := with_smaller_student(context, files):
            context, trained = smaller, _quantized(smaller, _student(smaller))
            files = export(context, trained)
        if until == "export":
            return None
        record = report(context, benchmark(context, trained, files))
        if until != "report":
            bundle(context, record, files)
        return record


def train(
    recipe: Recipe, folder: Path, *, progress: Progress, torch_device: torch.device
) -> tuple[Path, Assessment]:
    """Trains the recipe's student on annotation alone; returns its checkpoint and its row."""
    with open_training(recipe, folder, progress, torch_device) as context:
        checkpoint = train_stage(context)
        return checkpoint, assess_checkpoint(context, checkpoint)


def analyse(
    recipe: Recipe, folder: Path, *, progress: Progress, torch_device: torch.device
) -> tuple[LayerReport, ...]:
    """Returns what int8 does at each layer, and what float would cost there.

    Runs the path as far as it has to; raises what `compress` raises.
    """
    with open_run(recipe, folder, progress, torch_device) as context:
        return analysed(context, quantize(context, _student(context)))


def _trained(context: RunContext, until: str) -> Trained | None:
    """Returns what the stages up to export train; None where the path ends before it."""
    student = _student(context)
    if until == "distill":
        return None
    if until == "quantize":
        quantize(context, student)
        return None
    return _quantized(context, student)


def _student(context: RunContext) -> Path:
    """Returns the student's checkpoint, after training it without its teachers where asked."""
    if context.recipe.distill.baseline and context.recipe.student.architecture != SAME:
        train_stage(context, "baseline")
    return distill(context)


def _quantized(context: RunContext, student: Path) -> Trained:
    return mixed_precision(context, quantize(context, student))
