"""How a student of any form is trained in a run: its loss, its teachers' lessons, its views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torch.fx import GraphModule

import edgekd
from edgekd.config.methods import METHODS
from edgekd.config.sections import FitOptions, MethodChoice
from edgekd.core.files import write_atomic
from edgekd.core.serialize import to_mapping
from edgekd.data.loader import Batch, ViewStream
from edgekd.distill.task import DistillationTask
from edgekd.nets.tap import TappedNet
from edgekd.quantize.graph import freezer
from edgekd.run.context import Workshop
from edgekd.run.directory import digest
from edgekd.run.inputs import fingerprint
from edgekd.teacher.cache import KINDS, LessonCache, live_lessons, open_cache
from edgekd.training.loop import Point, fit
from edgekd.training.precision import resolved
from edgekd.training.task_loss import SupervisedTask, TaskLoss, task_loss
from edgekd.training.teacher_output import Lesson

LEARNT = "methods.safetensors"
"""In a training stage's folder: what the distillation methods themselves learnt."""


def fit_student(
    shop: Workshop,
    student: nn.Module,
    choices: Mapping[str, MethodChoice],
    options: FitOptions,
    *,
    folder: Path,
    title: str,
    freeze_ranges_at: int | None = None,
    learnt: Path | None = None,
) -> list[Point]:
    """Trains anything that maps images to ``(outputs, features)``, in place; returns the curve.

    The same task serves a network, its folded graph and its fake-quantized graph, so that what
    distillation teaches QAT teaches too.

    Args:
        shop: Gives data, teachers and augmentation.
        student: In training mode.
        choices: Distillation methods; empty to learn from annotation alone.
        options: The loop.
        folder: Keeps the checkpoint.
        title: Shown beside the progress.
        freeze_ranges_at: Step from which a fake-quantized graph's ranges stand still.
        learnt: What the methods learnt (projectors) in an earlier stage, to go on from. Fresh
            projectors would first pull a trained student's features out of shape.
    """
    stream = _stream(shop, options)
    hook = None
    if freeze_ranges_at is not None and isinstance(student, GraphModule):
        hook = freezer(student, freeze_ranges_at)
    loss = _annotation_loss(shop, shop.recipe.distill.task_weight if choices else 1.0)
    task: SupervisedTask | DistillationTask
    if choices:
        stream, lessons = _lessons(shop, stream, choices, options)
        task = _distillation(shop, student, choices, loss, lessons)
        if learnt:
            task.learnt.load_state_dict(safetensors.torch.load_file(learnt))
    else:
        task = SupervisedTask(student, lambda tapped, batch: loss(tapped[0], batch))  # type: ignore[arg-type, misc]
    curve = fit(
        task,
        stream,
        options,
        folder=folder,
        title=title,
        progress=shop.progress,
        device=shop.torch_device,
        on_step=hook,
    )
    if isinstance(task, DistillationTask):
        write_atomic(folder / LEARNT, safetensors.torch.save(task.learnt.state_dict()))
    return curve


def _annotation_loss(shop: Workshop, weight: float) -> TaskLoss | None:
    """Returns the weighted loss on annotation, None where it is not known or not wanted."""
    if not shop.card.learns_from_annotation or not weight:
        return None
    loss = task_loss(shop.card.task, shop.card.strides)
    if weight == 1:
        return loss
    return lambda outputs, batch: {k: weight * v for k, v in loss(outputs, batch).items()}


def _stream(shop: Workshop, options: FitOptions) -> ViewStream:
    card = shop.card
    return ViewStream(
        dataset=shop.train,
        size=(card.height, card.width),
        channels=card.channels,
        augmentation=shop.recipe.augmentation,
        seed=shop.recipe.seed + options.seed,
    )


def _lessons(
    shop: Workshop,
    stream: ViewStream,
    choices: Mapping[str, MethodChoice],
    options: FitOptions,
) -> tuple[ViewStream, Callable[[Batch], Sequence[Lesson]]]:
    """Returns the views and what maps a batch of them to lessons: live teachers, or their cache."""
    needs = frozenset().union(*(METHODS[name].needs for name in choices))
    kinds = [k for k in KINDS if k in needs or (k == "outputs" and "cells" in needs)]
    stream = replace(stream, magnified=shop.magnified)
    section = shop.recipe.teacher
    if not section.cache_views:
        return stream, lambda batch: live_lessons(shop.teachers, batch, kinds)
    stream = replace(stream, view_seed=0)  # The same for all runs, or they could not share it.
    epochs = -(-options.steps * options.batch_size // len(shop.train.samples))
    root = section.cache or shop.run.path.parent / "teacher-cache"
    cache = open_cache(
        shop.teachers,
        stream,
        kinds,
        [root / _address(shop, stream, teacher.identity) for teacher in shop.teachers],
        views=min(section.cache_views, epochs),
        progress=shop.progress,
        device=shop.torch_device,
        precision=section.precision,
    )
    shop.progress.note(f"teacher cache: {cache.size_bytes / 2**20:.0f} MiB in {root}")
    return _cached(stream, cache, section.cache_views), cache.lessons


def _cached(stream: ViewStream, cache: LessonCache, views: int) -> ViewStream:
    return replace(stream, magnified=None, lessons=cache, views=views)


def _address(shop: Workshop, stream: ViewStream, teacher: str) -> str:
    """Returns a name for everything that a teacher's lessons about the views depend on."""
    return digest(
        {
            "teacher": teacher,
            "data": fingerprint(stream.dataset),
            "size": stream.size,
            "channels": stream.channels,
            "magnified": stream.magnified,
            "augmentation": to_mapping(stream.augmentation),
            "seed": stream.view_seed,
            "norms": "folded",
            "edgekd": edgekd.__version__,
            "precision": resolved(shop.torch_device, shop.recipe.teacher.precision),
        }
    )[:24]


def _distillation(
    shop: Workshop,
    student: nn.Module,
    choices: Mapping[str, MethodChoice],
    loss: TaskLoss | None,
    lessons: Callable[[Batch], Sequence[Lesson]],
) -> DistillationTask:
    task = DistillationTask(
        student=student,
        strides=shop.card.strides,
        channels=_feature_channels(shop),
        teachers=[teacher.form for teacher in shop.teachers],
        lessons=lessons,
        choices=choices,
        loss=loss,
        task=shop.card.task,
        seed=shop.recipe.seed,
    )
    task.model.to(shop.torch_device)
    return task


@torch.no_grad()
def _feature_channels(shop: Workshop) -> tuple[int, ...]:
    """Returns the channels of the student's tapped features."""
    net = shop.blank_student().eval()
    _, features = TappedNet(net, net.taps).eval()(torch.zeros(shop.card.input_shape))
    return tuple(f.shape[1] for f in features)
