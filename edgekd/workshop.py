"""What the stages of one run share, and how a student of any form is trained in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule

from edgekd.data.loader import ViewStream, normalise
from edgekd.device import Device
from edgekd.distill.signal import LevelPair, pair_levels
from edgekd.distill.task import DistillationTask
from edgekd.errors import RecipeError
from edgekd.files import sha256_of, write_atomic
from edgekd.nets.card import Card, Net, build, load_card, load_net, load_weights
from edgekd.nets.tap import TappedNet
from edgekd.nets.transfer import transfer
from edgekd.progress import Progress
from edgekd.quantize.graph import folded_graph, freezer
from edgekd.recipe import DEFAULT_METHODS, FitOptions, QuantizeSection, Recipe
from edgekd.runfolder import RunFolder
from edgekd.sources import fingerprint, load_split, teacher_path
from edgekd.strict import to_mapping
from edgekd.teacher.frozen import Teacher, freeze, load_teacher, require_same_classes
from edgekd.training.inference import letterboxed
from edgekd.training.loop import Point, fit
from edgekd.training.task_loss import SupervisedTask, task_loss
from edgekd.types import Dataset, Sample, Task

LEARNT = "methods.safetensors"
"""In a training stage's folder: what the distillation methods themselves learnt."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """One run's recipe, data, teacher and folder.

    Attributes:
        card: Of the student.
        teacher: None where the student learns from annotation alone.
    """

    recipe: Recipe
    device: Device
    train: Dataset
    val: Dataset
    card: Card
    teacher: Teacher | None
    run: RunFolder
    progress: Progress
    torch_device: torch.device

    def identity(self, section: FitOptions | QuantizeSection) -> dict[str, Any]:
        """Returns what every training stage depends on, and one section of the recipe."""
        return {
            "card": asdict(self.card),
            "data": fingerprint(self.train),
            "seed": self.recipe.seed,
            "augmentation": to_mapping(self.recipe.augmentation),
            "section": to_mapping(section),
        }

    @property
    def methods(self) -> dict[str, float]:
        """Distillation methods and their weights; empty without a teacher."""
        named = self.recipe.distill.methods
        chosen = DEFAULT_METHODS[self.card.task] if named is None else named
        return dict(chosen) if self.teacher else {}

    def teacher_identity(self) -> str | None:
        """Returns the hash of the teacher's checkpoint, None without a teacher."""
        return sha256_of(teacher_path(self.recipe)) if self.teacher else None


def open_workshop(
    recipe: Recipe,
    device: Device,
    run: RunFolder,
    progress: Progress,
    torch_device: torch.device,
    *,
    with_teacher: bool = True,
) -> Workshop:
    """Reads the data and the teacher; everything that can be wrong with them is found here.

    Raises:
        DataError: The data set cannot be read.
        ModelError: The teacher cannot be used.
        RecipeError: Student, teacher and data set do not fit each other.
    """
    checkpoint = None
    if with_teacher and recipe.distill.methods != {}:
        checkpoint = teacher_path(recipe)
    train = load_split(recipe, recipe.data.train, run.path, progress)
    val = load_split(recipe, recipe.data.val, run.path, progress)
    card = student_card(recipe, train)
    teacher = None
    if checkpoint:
        teacher = load_teacher(checkpoint).to(torch_device)
        require_same_classes(teacher.card, card)
    return Workshop(recipe, device, train, val, card, teacher, run, progress, torch_device)


def student_card(recipe: Recipe, dataset: Dataset) -> Card:
    """Returns the card of the student that the recipe asks for.

    Raises:
        RecipeError: The architecture does not do what the data set is annotated for.
    """
    detects = dataset.task is Task.DETECTION
    card = Card(
        architecture=recipe.student.architecture,
        classes=dataset.classes,
        height=recipe.input.height,
        width=recipe.input.width,
        channels=recipe.input.channels,
        strides=recipe.student.strides if detects else (),
    )
    if card.task is not dataset.task:
        family = "edgedet" if detects else "edgecls"
        raise RecipeError(
            f"student.architecture {card.architecture!r} does {card.task}, but {dataset.root} is a "
            f"{dataset.task} set; use {family}-n, {family}-s, {family}-m or {family}-l"
        )
    return card


def new_student(shop: Workshop) -> Net:
    """Returns the student, its weights fresh or, as far as they fit, from the recipe's start."""
    net = build(shop.card, shop.recipe.seed)
    start = shop.recipe.student.checkpoint
    if start:
        done = transfer(net, shop.card, load_weights(start), load_card(start))
        shop.progress.note(f"start: {done.taken} of {done.total} tensors from {start.name}")
    net.to(shop.torch_device)
    return net


def fit_student(
    shop: Workshop,
    student: nn.Module,
    methods: Mapping[str, float],
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
        shop: Gives data, teacher and augmentation.
        student: In training mode.
        methods: Distillation method to weight; empty to learn from annotation alone.
        options: The loop.
        folder: Keeps the checkpoint.
        title: Shown beside the progress.
        freeze_ranges_at: Step from which a fake-quantized graph's ranges stand still.
        learnt: What the methods learnt (projectors) in an earlier stage, to go on from. Fresh
            projectors would first pull a trained student's features out of shape.
    """
    card = shop.card
    stream = ViewStream(
        shop.train,
        size=(card.height, card.width),
        channels=card.channels,
        augmentation=shop.recipe.augmentation,
        seed=shop.recipe.seed + options.seed,
    )
    hook = None
    if freeze_ranges_at is not None and isinstance(student, GraphModule):
        hook = freezer(student, freeze_ranges_at)
    task = _task(shop, student, methods)
    if isinstance(task, DistillationTask) and learnt:
        task.learnt.load_state_dict(safetensors.torch.load_file(learnt))
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


def _task(
    shop: Workshop, student: nn.Module, methods: Mapping[str, float]
) -> SupervisedTask | DistillationTask:
    card, teacher = shop.card, shop.teacher
    loss = task_loss(card.task, card.strides)
    if teacher is None or not methods:
        return SupervisedTask(student, lambda tapped, batch: loss(tapped[0], batch))  # type: ignore[arg-type]
    task = DistillationTask(
        student=student,
        student_strides=card.strides,
        teacher=teacher,
        teacher_strides=teacher.card.strides,
        pairs=_pairs(card, teacher),
        weights=methods,
        loss=loss,
        task=card.task,
        seed=shop.recipe.seed,
    )
    task.model.to(shop.torch_device)
    return task


def _pairs(card: Card, teacher: Teacher) -> tuple[LevelPair, ...]:
    """Returns the features of student and teacher that are compared."""
    channels = freeze(build(card), card).channels
    if card.task is Task.CLASSIFICATION:
        return (LevelPair(0, 0, 0, channels[0], teacher.channels[0]),)
    return pair_levels(card.strides, channels, teacher.card.strides, teacher.channels)


def folded_student(shop: Workshop, checkpoint: Path) -> GraphModule:
    """Returns the folded graph, features included, of a student's checkpoint."""
    net, card = load_net(checkpoint)
    example = torch.zeros((2, *card.input_shape[1:]))
    graph = folded_graph(TappedNet(net, net.taps).eval(), example)
    graph.to(shop.torch_device)
    return graph


def save_graph(path: Path, graph: GraphModule) -> None:
    """Writes a graph's state as safetensors."""
    # Cloned, because tensors that share a scale share the module, and safetensors wants no sharing.
    state = {k: v.detach().cpu().clone().contiguous() for k, v in graph.state_dict().items()}
    write_atomic(path, safetensors.torch.save(state))


def load_graph(path: Path, graph: GraphModule) -> GraphModule:
    """Puts a saved state into a graph of the same form and returns it."""
    graph.load_state_dict(safetensors.torch.load_file(path))
    return graph


def calibration_batches(shop: Workshop, batch_size: int = 16) -> Iterator[Tensor]:
    """Yields training images, letterboxed and evenly spread over the split."""
    chosen = _spread(shop.train.samples, shop.recipe.quantize.calibration_images)
    for start in range(0, len(chosen), batch_size):
        images = [
            image for _, image, _, _ in letterboxed(chosen[start : start + batch_size], shop.card)
        ]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        yield normalise(pixels).to(shop.torch_device)


def proof_images(shop: Workshop) -> NDArray[np.uint8]:
    """Returns ``(N, H, W, C)`` letterboxed validation images, evenly spread over the split."""
    chosen = _spread(shop.val.samples, shop.recipe.export.proof_images)
    return np.stack([image for _, image, _, _ in letterboxed(chosen, shop.card)])


def _spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Returns at most so many samples, evenly spread over the split."""
    count = min(len(samples), most)
    return [samples[i * len(samples) // count] for i in range(count)]
