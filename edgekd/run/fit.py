"""How a student of any form is trained in a run: its loss, its teachers' outputs, its views."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.fx import GraphModule

import edgekd
from edgekd.config.learning import FitOptions, MethodConfig
from edgekd.core.files import sha256_of, write_atomic
from edgekd.core.serialize import to_mapping
from edgekd.data.loader import Batch, ViewStream
from edgekd.distill.method import known_method
from edgekd.distill.task import DistillationTask
from edgekd.nets.card import save_net
from edgekd.nets.tap import TappedNet
from edgekd.quantize.graph import freezer
from edgekd.run.context import RunContext
from edgekd.run.directory import digest
from edgekd.run.inputs import fingerprint
from edgekd.teacher.cache import KINDS, TeacherCache, live_outputs, open_cache
from edgekd.training.loop import Point, fit
from edgekd.training.precision import resolved
from edgekd.training.task_loss import SupervisedTask, TaskLoss, task_loss
from edgekd.training.teacher_output import TeacherOutput

LEARNT = "methods.safetensors"
"""In a training stage's folder: what the distillation methods themselves learnt."""


CHECKPOINT = "student.safetensors"
"""In a training stage's folder: the trained student."""


def training_inputs(
    context: RunContext, options: FitOptions, methods: Mapping[str, MethodConfig]
) -> dict[str, Any]:
    """Returns what a student that is trained from its start depends on."""
    start = context.student.start
    return {
        **context.identity(options),
        "teaching": context.teaching_identity() if methods else None,
        "start": sha256_of(start) if start else None,
        "source": context.student.source_hash,
    }


def train_student(
    context: RunContext,
    options: FitOptions,
    methods: Mapping[str, MethodConfig],
    *,
    folder: Path,
    title: str,
) -> None:
    """Trains a fresh student and writes its checkpoint and its curve into a stage's folder."""
    net = context.student.fresh(context.progress.note)
    tapped = TappedNet(net, net.taps).train()  # type: ignore[arg-type]
    curve = fit_student(context, tapped, methods, options, folder=folder, title=title)
    save_net(folder / CHECKPOINT, net.cpu().eval(), context.card)
    write_atomic(folder / "curve.json", json.dumps(curve))


def fit_student(
    context: RunContext,
    student: nn.Module,
    methods: Mapping[str, MethodConfig],
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
        context: Gives data, teachers and augmentation.
        student: In training mode.
        methods: Distillation methods; empty to learn from annotation alone.
        options: The loop.
        folder: Keeps the checkpoint.
        title: Shown beside the progress.
        freeze_ranges_at: Step from which a fake-quantized graph's ranges stand still.
        learnt: What the methods learnt (projectors) in an earlier stage, to go on from. Fresh
            projectors would first pull a trained student's features out of shape.
    """
    stream = _stream(context, options)
    hook = None
    if freeze_ranges_at is not None and isinstance(student, GraphModule):
        hook = freezer(student, freeze_ranges_at)
    loss = _annotation_loss(context, context.recipe.distill.task_weight if methods else 1.0)
    task: SupervisedTask | DistillationTask
    if methods:
        stream, teacher_outputs = _teacher_outputs(context, stream, methods, options)
        task = _distillation(context, student, methods, loss, teacher_outputs)
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
        progress=context.progress,
        device=context.torch_device,
        on_step=hook,
    )
    if isinstance(task, DistillationTask):
        write_atomic(folder / LEARNT, safetensors.torch.save(task.learnt.state_dict()))
    return curve


def _annotation_loss(context: RunContext, weight: float) -> TaskLoss | None:
    """Returns the weighted loss on annotation, None where it is not known or not wanted."""
    if not context.card.learns_from_annotation or not weight:
        return None
    loss = task_loss(context.card.task, context.card.strides)
    if weight == 1:
        return loss
    return lambda outputs, batch: {k: weight * v for k, v in loss(outputs, batch).items()}


def _stream(context: RunContext, options: FitOptions) -> ViewStream:
    card = context.card
    return ViewStream(
        dataset=context.train,
        size=(card.height, card.width),
        channels=card.channels,
        augmentation=context.recipe.augmentation,
        seed=context.recipe.seed + options.seed,
    )


def _teacher_outputs(
    context: RunContext,
    stream: ViewStream,
    methods: Mapping[str, MethodConfig],
    options: FitOptions,
) -> tuple[ViewStream, Callable[[Batch], Sequence[TeacherOutput]]]:
    """Returns the views, and what gives the teachers' outputs on a batch: live or from a cache."""
    needs = frozenset().union(*(known_method(name).needs for name in methods))
    if needs & {"logits", "dense-predictions"}:  # Which are made of the outputs.
        needs |= {"outputs"}
    kinds = [k for k in KINDS if k in needs]
    stream = replace(stream, teacher_resolution=context.teacher_resolution)
    section = context.recipe.teacher
    if not section.cache_views:
        return stream, lambda batch: live_outputs(context.teachers, batch, kinds)
    stream = replace(stream, view_seed=0)  # The same for all runs, or they could not share it.
    epochs = -(-options.steps * options.batch_size // len(context.train.samples))
    root = section.cache or context.directory.path.parent / "teacher-cache"
    cache = open_cache(
        context.teachers,
        stream,
        kinds,
        [root / _address(context, stream, teacher.identity) for teacher in context.teachers],
        views=min(section.cache_views, epochs),
        progress=context.progress,
        device=context.torch_device,
        precision=section.precision,
    )
    context.progress.note(f"teacher cache: {cache.size_bytes / 2**20:.0f} MiB in {root}")
    return _cached(stream, cache, section.cache_views), cache.teacher_outputs


def _cached(stream: ViewStream, cache: TeacherCache, views: int) -> ViewStream:
    return replace(stream, teacher_resolution=None, teacher_outputs=cache, views=views)


def _address(context: RunContext, stream: ViewStream, teacher: str) -> str:
    """Returns a name for everything that a teacher's outputs on the views depend on."""
    return digest(
        {
            "teacher": teacher,
            "data": fingerprint(stream.dataset),
            "size": stream.size,
            "channels": stream.channels,
            "magnified": stream.teacher_resolution,
            "augmentation": to_mapping(stream.augmentation),
            "seed": stream.view_seed,
            "norms": "folded",
            "edgekd": edgekd.__version__,
            "precision": resolved(context.torch_device, context.recipe.teacher.precision),
        }
    )[:24]


def _distillation(
    context: RunContext,
    student: nn.Module,
    methods: Mapping[str, MethodConfig],
    loss: TaskLoss | None,
    teacher_outputs: Callable[[Batch], Sequence[TeacherOutput]],
) -> DistillationTask:
    task = DistillationTask(
        student=student,
        strides=context.card.strides,
        channels=_feature_channels(context),
        teachers=[teacher.form for teacher in context.teachers],
        teacher_outputs=teacher_outputs,
        methods=methods,
        loss=loss,
        task=context.card.task,
        seed=context.recipe.seed,
    )
    task.model.to(context.torch_device)
    return task


@torch.no_grad()
def _feature_channels(context: RunContext) -> tuple[int, ...]:
    """Returns the channels of the student's tapped features."""
    net = context.student.blank().eval()
    _, features = TappedNet(net, net.taps).eval()(torch.zeros(context.card.input_shape))
    return tuple(f.shape[1] for f in features)
