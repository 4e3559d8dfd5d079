"""Runs: the whole path, and the training of a teacher."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.api.callbacks import Callback, CalledProgress, require_callbacks
from edgekd.api.common import Metrics, Section, Source, chosen_progress
from edgekd.api.objects import GivenNetworks
from edgekd.config.device import load_device
from edgekd.config.recipe import Recipe
from edgekd.core.errors import RecipeError
from edgekd.core.progress import Progress
from edgekd.core.results import RunRecord
from edgekd.run.asked import asked_recipe, resolved_source, training_device
from edgekd.run.directory import exported_files
from edgekd.run.inputs import require_feasible

if TYPE_CHECKING:
    from torch import nn

SAME = "same"
"""Student that is the teacher itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run directory and what lies in it.

    Attributes:
        folder: The run directory.
        report: What was measured; None where the run ended before its report.
        files: Exported model files by name, such as ``int8.tflite``.
        bundle: Folder that firmware takes over; None where the run ended before it.
    """

    folder: Path
    report: RunRecord | None
    files: Mapping[str, Path]
    bundle: Path | None

    def _repr_html_(self) -> str:
        """Returns the run's table for a notebook."""
        if self.report is None:
            return f"<p>{escape(str(self.folder))}: no report yet</p>"
        import rich.console

        from edgekd.report.terminal import print_report

        console = rich.console.Console(record=True, width=100, file=io.StringIO())
        print_report(self.report, console)
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    """A network trained on annotation alone.

    Attributes:
        checkpoint: Its file, as ``teacher`` of `compress` takes it.
        metrics: On the validation split; None where its outputs are not read.
    """

    checkpoint: Path
    metrics: Metrics | None


def compress(
    recipe: Source | None = None,
    *,
    data: Source | Section | None = None,
    model: Source | nn.Module | None = None,
    teacher: Source | nn.Module | tuple[Source | nn.Module, ...] | Section | None = None,
    student: str | nn.Module | Section | None = None,
    target: str | None = None,
    out: Source | None = None,
    until: str = "bundle",
    progress: Progress | bool = True,
    callbacks: Sequence[Callback] = (),
    torch_device: str = "auto",
    **keys: Any,  # noqa: ANN401 - recipe keys
) -> Run:
    """Runs the whole path: distil, quantize, export, prove, measure, report, bundle.

    Args:
        recipe: A recipe file to start from; without it one is fitted to the data set.
        data: The data set; None for the recipe's own, or for the built-in demo.
        model: Your trained network, which is to become integer itself where ``student`` is None or
            ``same``, and is the teacher of another student.
        teacher: A checkpoint, the card of a detector's file, ``my_model.py:function`` or a network;
            several are averaged. None for the one that EdgeKD ships for these classes.
        student: An architecture, ``same`` to make the teacher itself integer,
            ``my_model.py:function`` or a network. It may, as ``data`` and ``teacher``, be the
            recipe's section as a mapping instead: ``student={"strides": [8, 16]}``.
        target: Id of a device profile (`list_devices`) or a path of one.
        out: Run directory; None for one named after data and target. A finished stage in it is not
            repeated, and interrupted work goes on.
        until: Last stage: ``distill``, ``quantize``, ``export``, ``report`` or ``bundle``.
        progress: Whether to show long work, or what shows it.
        callbacks: Told of every step: `TensorBoardLogger`, `MLflowLogger` or your own `Callback`.
        torch_device: ``cpu``, ``cuda`` or ``auto``.
        keys: Any other recipe key: a section as a mapping,
            ``distill={"training": {"steps": 500}}``, a top-level key as it is, ``seed=1``.

    A network that is given as an object (``torch.nn.Module``) is exported as it computes in
    ``eval`` mode; its operators and weights are kept in the run directory, so that the command
    line can go on with the run. Say its normalisation with ``network={"mean": ..., "std": ...}``
    and what reads a detector's outputs with ``network={"decoder": ...}``.

    Returns:
        The run; its report's rows hold accuracy, size and latency of every network and file.

    Raises:
        EdgeKDError: As the command line ends with exit code 2, 3 or 4.
    """
    if model is not None:
        if teacher is not None:
            raise RecipeError("compress takes model or teacher, of which model is short for both")
        teacher, student = model, SAME if student is None else student
    given = GivenNetworks()
    made = _recipe(given, recipe, data, teacher, student, target, keys, size=None)
    device = load_device(made.target)
    require_feasible(made, device)
    made, folder = given.kept(made, "compress", device.id, Path(out) if out is not None else None)
    shown, on = _followed(progress, callbacks), training_device(torch_device)
    from edgekd.pipeline import compress as run_path  # What it loads complains until then.

    record = run_path(made, folder, progress=shown, torch_device=on, until=until)
    return _run(folder, record)


def train(
    recipe: Source | None = None,
    *,
    data: Source | Section | None = None,
    student: str | nn.Module | Section | None = None,
    steps: int | None = None,
    out: Source | None = None,
    progress: Progress | bool = True,
    callbacks: Sequence[Callback] = (),
    torch_device: str = "auto",
    **keys: Any,  # noqa: ANN401 - recipe keys
) -> TrainedModel:
    """Trains a network on annotation alone: a teacher, or a student to compare with.

    Args:
        recipe: As for `compress`.
        data: As for `compress`.
        student: An architecture, ``my_model.py:function`` or a network; None for the family's
            ``m``.
        steps: Optimizer steps; None for the recipe's.
        out: As for `compress`.
        progress: As for `compress`.
        callbacks: As for `compress`.
        torch_device: As for `compress`.
        keys: As for `compress`.

    Raises:
        EdgeKDError: As the command line ends with exit code 2.
    """
    if steps is not None:
        keys["distill.training.steps"] = steps
    given = GivenNetworks()
    made = _recipe(given, recipe, data, None, student, None, keys, size="m")
    place = Path(out) if out is not None else None
    made, folder = given.kept(made, "train", load_device(made.target).id, place)
    shown, on = _followed(progress, callbacks), training_device(torch_device)
    from edgekd.pipeline import train as run_training

    checkpoint, assessment = run_training(made, folder, progress=shown, torch_device=on)
    return TrainedModel(checkpoint=checkpoint, metrics=assessment.rows[0].metrics)


def _recipe(
    given: GivenNetworks,
    recipe: Source | None,
    data: Source | Section | None,
    teacher: Any,  # noqa: ANN401 - as `compress` takes it
    student: Any,  # noqa: ANN401
    target: str | None,
    keys: Mapping[str, Any],
    *,
    size: str | None,
) -> Recipe:
    """Returns the recipe that a call asks for."""
    sections = {"data": data, "teacher": teacher, "student": student}
    # A recipe's section of that name may be given in place of what it is about.
    mappings = {name: value for name, value in sections.items() if isinstance(value, Mapping)}
    data, teacher, student = (None if n in mappings else v for n, v in sections.items())
    changes = dict(_dotted({**keys, **mappings}))
    if student is not None:
        changes["student.architecture"] = resolved_source(str(given.named(student)))
    if target is not None:
        changes["target"] = target
    teachers = () if teacher is None else teacher if isinstance(teacher, tuple) else (teacher,)
    return asked_recipe(
        recipe=Path(recipe) if recipe is not None else None,
        data=Path(data) if data is not None else None,
        teachers=tuple(str(given.named(one)) for one in teachers),
        size=size,
        changes=changes,
    )


def _followed(progress: Progress | bool, callbacks: Sequence[Callback]) -> Progress:
    shown = chosen_progress(progress)
    return CalledProgress(shown, require_callbacks(callbacks)) if callbacks else shown


def _dotted(keys: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Returns nested mappings as dotted keys; what is no section stays a value."""
    found: list[tuple[str, Any]] = []
    for name, value in keys.items():
        dotted = f"{above}{name}"
        # Methods are a value: naming some replaces the usual ones.
        if isinstance(value, Mapping) and dotted != "distill.methods":
            found += _dotted(value, f"{dotted}.")
        else:
            found.append((dotted, str(value) if isinstance(value, Path) else value))
    return found


def _run(folder: Path, record: RunRecord | None) -> Run:
    exported = folder / "export"
    listed = exported_files(exported) if (exported / "artifacts.json").exists() else ()
    bundles = sorted(folder.glob("bundle/*/manifest.json")) if record else []
    return Run(
        folder=folder,
        report=record,
        files={artifact.path.name: artifact.path for artifact in listed},
        bundle=bundles[0].parent if bundles else None,
    )
