"""The student and the teachers that a recipe names: found, read, and checked against each other."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from edgekd.config.recipe import Recipe
from edgekd.core.errors import RecipeError
from edgekd.core.files import sha256_of
from edgekd.core.types import Dataset, Task
from edgekd.data.augment import magnification
from edgekd.nets.card import Card, CustomCard, load_card
from edgekd.nets.custom import CustomModel, custom_network, file_of, is_custom, load_state
from edgekd.run.directory import digest
from edgekd.teacher.boxes import BoxTeacher
from edgekd.teacher.frozen import NetTeacher, Teacher, load_teacher, require_same_classes


def student_card(recipe: Recipe, dataset: Dataset, chosen: str) -> Card:
    """Returns the card of the student.

    Args:
        recipe: Gives the input and, for an own network, what has to be said about it.
        dataset: Gives the task and the classes.
        chosen: Architecture, ``my_model.py:function``, or the checkpoint that is to be the student.

    Raises:
        RecipeError: The student does not do what the data set is annotated for.
        ModelError: The checkpoint cannot be used.
    """
    if chosen.endswith(".safetensors"):
        card = load_card(Path(chosen))
        _require_classes(card, dataset)
        return card
    if is_custom(chosen):
        return custom_card(recipe, dataset.task, dataset.classes, chosen)
    detects = dataset.task is Task.DETECTION
    card = Card(
        architecture=chosen,
        classes=dataset.classes,
        height=recipe.input.height,
        width=recipe.input.width,
        channels=recipe.input.channels,
        strides=recipe.student.strides if detects else (),
    )
    if card.task is not dataset.task:
        family = dataset.task.family
        raise RecipeError(
            f"student.architecture {card.architecture!r} does {card.task}, but {dataset.root} is a "
            f"{dataset.task} set; use {family}-n, {family}-s, {family}-m or {family}-l"
        )
    return card


def custom_card(recipe: Recipe, task: Task, classes: tuple[str, ...], source: str) -> Card:
    """Returns the card of a network of the user's own."""
    section = recipe.network
    _, colon, function = source.rpartition(":") if ".py:" in source else (source, "", "")
    return Card(
        architecture=f"{file_of(source).name}{colon}{function}",
        classes=classes,
        height=recipe.input.height,
        width=recipe.input.width,
        channels=recipe.input.channels,
        strides=(),
        own=CustomCard(
            task=task,
            decoder=section.decoder or "none",
            mean=section.mean,
            std=section.std,
            colour=section.colour,
            resize=section.resize,
            priors=section.priors,
        ),
    )


def open_teachers(
    sources: Sequence[str], recipe: Recipe, student: Card, torch_device: torch.device
) -> tuple[Teacher, ...]:
    """Returns the teachers that the sources name, on a device; raises what `open_teacher` does."""
    teachers = tuple(open_teacher(source, recipe, student) for source in sources)
    for teacher in teachers:
        teacher.to(torch_device)
    return teachers


def open_teacher(source: str, recipe: Recipe, student: Card) -> Teacher:
    """Returns the teacher that a source names.

    Raises:
        ModelError: It cannot be used, or names other classes than the student.
        RecipeError: The source is of no known form.
    """
    if is_custom(source):
        card = custom_card(recipe, student.task, student.classes, source)
        net = custom_network(source)
        if recipe.teacher.weights:
            load_state(net, recipe.teacher.weights)
        own = CustomModel(net, card.own, card.channels)  # type: ignore[arg-type]
        return NetTeacher(
            card, lambda: copy.deepcopy(own), own, _custom_identity(own, card, source)
        )
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        return BoxTeacher(path, student.classes)
    if path.suffix in (".onnx", ".tflite"):
        raise RecipeError(
            f"{source}: a model file does not say how its outputs become boxes; write a card "
            f"beside it (model, decoder, classes) and name that .yaml"
        )
    teacher = load_teacher(path)
    require_same_classes(teacher.card, student)
    return teacher


def _require_classes(card: Card, dataset: Dataset) -> None:
    if card.classes != dataset.classes:
        raise RecipeError(
            f"the network's classes {list(card.classes)} are not those of {dataset.root}, "
            f"{list(dataset.classes)}"
        )


def _custom_identity(net: nn.Module, card: Card, source: str) -> str:
    """Returns the hash of a network's weights, of the file that defines it, and of its card."""
    state = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    weights = hashlib.sha256(safetensors.torch.save(state)).hexdigest()
    return digest([weights, sha256_of(file_of(source)), asdict(card)])


def at_own_resolution(
    teachers: tuple[Teacher, ...], recipe: Recipe, student: Card
) -> tuple[tuple[Teacher, ...], tuple[int, int] | None]:
    """Returns the teachers as they see a view, and its height and width.

    That is the input of the first that has one of its own; None, where they see the student's view.
    """
    own = next((teacher.size for teacher in teachers if teacher.size is not None), None)
    seen = (student.height, student.width)
    if recipe.teacher.resolution == "student" or own is None or own == seen:
        return teachers, None
    scale = magnification(seen, own)
    return tuple(t.at_scale(scale) if isinstance(t, NetTeacher) else t for t in teachers), own
