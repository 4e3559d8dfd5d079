"""What the stages of one run share: recipe, data, student, teachers and the run directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from edgekd.config.device import Device
from edgekd.config.learning import FitOptions, MethodConfig, QuantizeSection, StudentSection
from edgekd.config.recipe import Recipe
from edgekd.core.errors import DataError, RecipeError
from edgekd.core.progress import Progress
from edgekd.core.serialize import to_mapping
from edgekd.core.types import Dataset, Task
from edgekd.data.dataset import with_classes
from edgekd.distill.method import known_method
from edgekd.nets.card import Card
from edgekd.nets.custom import is_custom
from edgekd.run.compatibility import matched_methods, require_like_outputs
from edgekd.run.directory import RunDirectory
from edgekd.run.inputs import fingerprint, load_split, shipped_start, teacher_sources
from edgekd.run.models import at_own_resolution, open_teachers, student_card
from edgekd.run.student import Student
from edgekd.teacher.frozen import Teacher
from edgekd.training.loop import shaping

SAME = "same"
"""Architecture of a student that is the teacher itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """One run's recipe, data, networks and directory.

    Attributes:
        asked: The recipe as the user gave it, before a latency budget chose the student.
        teachers: Empty where the student learns from annotation alone.
        methods: Distillation methods by name; empty without a teacher.
        teacher_resolution: Height and width at which the teachers see a view, None for the
            student's own.
    """

    recipe: Recipe
    asked: Recipe
    device: Device
    train: Dataset
    val: Dataset
    student: Student
    teachers: tuple[Teacher, ...]
    methods: dict[str, MethodConfig]
    teacher_resolution: tuple[int, int] | None
    directory: RunDirectory
    progress: Progress
    torch_device: torch.device

    @property
    def card(self) -> Card:
        """The student's."""
        return self.student.card

    def identity(self, section: FitOptions | QuantizeSection) -> dict[str, Any]:
        """Returns what every training stage depends on, and one section of the recipe."""
        return {
            "card": asdict(self.card),
            "data": fingerprint(self.train),
            "seed": self.recipe.seed,
            "augmentation": to_mapping(self.recipe.augmentation),
            "section": _shaping(section),
        }

    def teaching_identity(self) -> dict[str, Any] | None:
        """Returns what a training stage with teachers depends on beside that; None without."""
        section = self.recipe.teacher
        if not self.methods:
            return None
        return {
            "methods": {name: to_mapping(choice) for name, choice in self.methods.items()},
            "teachers": [teacher.identity for teacher in self.teachers],
            "magnified": self.teacher_resolution,
            "task_weight": self.recipe.distill.task_weight,
            "views": section.cache_views,
            "precision": section.precision if section.cache_views else None,
        }


def open_context(
    recipe: Recipe,
    device: Device,
    directory: RunDirectory,
    progress: Progress,
    torch_device: torch.device,
    *,
    asked: Recipe | None = None,
    with_teacher: bool = True,
) -> RunContext:
    """Reads the data and the teachers; everything that can be wrong with them is found here.

    Raises:
        DataError: The data set cannot be read.
        ModelError: A teacher cannot be used.
        RecipeError: Student, teachers and data set do not fit each other.
    """
    train, val = _splits(recipe, directory, progress)
    sources: Sequence[str] = ()
    if with_teacher and recipe.distill.methods != {}:
        sources = teacher_sources(recipe, train)
    chosen = _student_source(recipe, sources)
    card = student_card(recipe, train, chosen)
    teachers, resolution = at_own_resolution(
        open_teachers(sources, recipe, card, torch_device), recipe, card
    )
    methods = matched_methods(recipe.distill, card, teachers) if teachers else {}
    _require_a_loss(recipe, card, chosen, methods)
    student = Student(
        card=card,
        source=chosen if is_custom(chosen) else None,
        start=_start(recipe.student, card),
        seed=recipe.seed,
        torch_device=torch_device,
    )
    if any("outputs" in known_method(name).needs for name in methods):
        require_like_outputs([o.shape for o in student.outputs()], teachers)
    return RunContext(
        recipe=recipe,
        asked=asked or recipe,
        device=device,
        train=train,
        val=val,
        student=student,
        teachers=teachers,
        methods=methods,
        teacher_resolution=resolution,
        directory=directory,
        progress=progress,
        torch_device=torch_device,
    )


def _splits(recipe: Recipe, directory: RunDirectory, progress: Progress) -> tuple[Dataset, Dataset]:
    """Returns training and validation split; the second has objects to judge by."""
    train = load_split(recipe, recipe.data.train, directory.path, progress)
    val = load_split(recipe, recipe.data.val, directory.path, progress)
    val = with_classes(val, train.classes)
    if val.task is Task.DETECTION and not any(len(sample.boxes) for sample in val.samples):
        raise DataError(
            f"{val.root}: no object is annotated in the {len(val.samples)} images of split "
            f"{val.split!r} ({val.format}), so that nothing could be judged by them"
        )
    return train, val


def _start(section: StudentSection, card: Card) -> Path | None:
    """Returns the checkpoint that the student's first weights come from, None for random ones."""
    if section.checkpoint is not None or not section.pretrained or card.own:
        return section.checkpoint
    return shipped_start(card.architecture)


def _student_source(recipe: Recipe, sources: Sequence[str]) -> str:
    """Returns the student's architecture, function or checkpoint: of the teacher, where it is."""
    architecture = recipe.student.architecture
    if architecture != SAME:
        return architecture
    if not sources:
        raise RecipeError("student.architecture 'same' is the teacher: name one with --teacher")
    return sources[0]


def _require_a_loss(
    recipe: Recipe, card: Card, chosen: str, methods: dict[str, MethodConfig]
) -> None:
    """Raises `RecipeError` where a stage would train without a loss that EdgeKD knows."""
    with_baseline = recipe.distill.baseline and recipe.student.architecture != SAME
    if (not methods or with_baseline) and not card.learns_from_annotation:
        raise RecipeError(
            f"{chosen}: EdgeKD has no loss for the annotation of a detector of your own, so that "
            "it learns from a teacher alone: --teacher, without --baseline and with a method"
        )


def _shaping(section: FitOptions | QuantizeSection) -> dict[str, Any]:
    """Returns what shapes a training's result: not its speed, nor what comes after it."""
    if isinstance(section, FitOptions):
        return shaping(section)
    plain = to_mapping(section) | {"training": shaping(section.training)}
    return {k: v for k, v in plain.items() if k not in ("tune", "tuning_images", "keep_float")}
