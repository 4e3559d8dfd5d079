"""A run opened: its directory held, its student chosen, everything that it needs read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from edgekd.config.decoders import require_decoder
from edgekd.config.device import Device, load_device
from edgekd.config.plugins import load_plugins
from edgekd.config.recipe import Recipe, dump_recipe
from edgekd.core.errors import RecipeError
from edgekd.core.files import write_atomic
from edgekd.core.progress import Progress, SilentProgress
from edgekd.distill.method import chosen_methods, registered_sources
from edgekd.run.context import RunContext, open_context
from edgekd.run.directory import RunDirectory, asked_of, exported_files, making
from edgekd.run.inputs import load_split, require_apart, require_feasible, writable
from edgekd.run.student_search import Choice, fastest_ms, fitted_to_budget, keep_choice, kept_choice


@contextmanager
def open_run(
    recipe: Recipe, folder: Path, progress: Progress, torch_device: torch.device
) -> Iterator[RunContext]:
    """Holds the run directory of `edgekd compress`, and yields what the stages share."""
    device = load_device(recipe.target)
    made = writable(recipe, progress.note)
    require_feasible(made, device)
    with _directory("compress", recipe, device, folder, progress) as directory:
        yield _context(made, device, directory, progress, torch_device)


@contextmanager
def open_training(
    recipe: Recipe, folder: Path, progress: Progress, torch_device: torch.device
) -> Iterator[RunContext]:
    """Holds the run directory of `edgekd train`, and yields what its stage needs: no teacher."""
    device = load_device(recipe.target)
    with _directory("train", recipe, device, folder, progress) as directory:
        yield _context(recipe, device, directory, progress, torch_device, with_teacher=False)


def with_smaller_student(context: RunContext, files: Path) -> RunContext | None:
    """Returns the run with a smaller student where the files overrun the budget of this one.

    None where they keep to it, and where nothing smaller is to be had: then the gate says so.
    """
    budget = context.asked.student.budget_ms
    choice = kept_choice(context.directory.path)
    took = fastest_ms(exported_files(files), context.device)
    if budget is None or choice is None or took is None or took <= budget:
        return None
    context.progress.note(
        f"the exported file is predicted to take {took:.2f} ms, over the budget of {budget:g}: "
        "looking for a smaller student"
    )
    # It takes as much longer than its operators were predicted to take as the last one did.
    allowed = choice.chosen.median_ms * budget / took
    try:
        return _context(
            context.asked,
            context.device,
            context.directory,
            context.progress,
            context.torch_device,
            allowed_ms=allowed,
        )
    except RecipeError as nothing:
        context.progress.note(str(nothing))
        return None


def _directory(
    command: str, recipe: Recipe, device: Device, folder: Path, progress: Progress
) -> RunDirectory:
    """Returns the run directory, held, after a word where it goes on from another recipe's.

    Raises:
        RecipeError: A plugin fails, or the recipe names a decoder or a method that is not there.
    """
    plugins = load_plugins(recipe.plugins)
    require_decoder(recipe.network.decoder)
    plugins |= registered_sources(chosen_methods(recipe.distill, ()))
    require_apart(folder, recipe)
    directory = RunDirectory(folder, asked_of(command, recipe, device.id), plugins)
    if not directory.continues:
        progress.note(
            f"{folder}: held a run of another recipe; stages whose inputs have changed are replaced"
        )
    return directory


def _context(
    asked: Recipe,
    device: Device,
    directory: RunDirectory,
    progress: Progress,
    torch_device: torch.device,
    *,
    allowed_ms: float | None = None,
    with_teacher: bool = True,
) -> RunContext:
    """Returns what the stages share, with the student that the latency budget buys, if any.

    ``allowed_ms`` is what its prediction may be at most, where the file of an earlier one took
    longer than predicted; None for what an interrupted run of this recipe had found.
    """
    choice, recipe = None, asked
    if asked.student.budget_ms is not None:
        recipe, choice = _within_budget(asked, device, directory, progress, allowed_ms)
    context = open_context(
        recipe, device, directory, progress, torch_device, asked=asked, with_teacher=with_teacher
    )
    keep_choice(directory.path, choice)
    write_atomic(directory.path / "recipe.yaml", dump_recipe(recipe))
    return context


def _within_budget(
    asked: Recipe,
    device: Device,
    directory: RunDirectory,
    progress: Progress,
    allowed_ms: float | None,
) -> tuple[Recipe, Choice]:
    """Returns the recipe with the student that its latency budget buys, and how it was found."""
    train = load_split(asked, asked.data.train, directory.path, SilentProgress())
    before, name = kept_choice(directory.path), making(asked, with_gates=True)
    if allowed_ms is None and before is not None and before.recipe == name:
        allowed_ms = before.allowed_ms
    recipe, considered, allowed_ms = fitted_to_budget(
        asked, device, train.task, train.classes, progress, allowed_ms
    )
    return recipe, Choice(recipe=name, allowed_ms=allowed_ms, considered=considered)
