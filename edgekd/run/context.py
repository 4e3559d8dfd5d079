"""What the stages of one run share: recipe, data, student, teachers and their folder."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule

from edgekd.config.device import Device
from edgekd.config.recipe import Recipe
from edgekd.config.sections import FitOptions, MethodChoice, QuantizeSection
from edgekd.core.errors import DataError, RecipeError
from edgekd.core.files import sha256_of, write_atomic
from edgekd.core.progress import Progress
from edgekd.core.serialize import to_mapping
from edgekd.core.types import FAMILIES, Dataset, OutputContract, Sample, Task
from edgekd.data.augment import magnification
from edgekd.data.dataset import with_classes
from edgekd.data.loader import normalise
from edgekd.nets.card import Card, Net, OwnCard, build, load_card, load_net, load_weights
from edgekd.nets.outputs import network_outputs
from edgekd.nets.own import OwnNet, call_factory, is_own, load_state
from edgekd.nets.tap import TappedNet
from edgekd.nets.transfer import transfer
from edgekd.quantize.graph import copied, folded_graph
from edgekd.run.compatibility import matched_methods, require_like_outputs
from edgekd.run.directory import RunFolder, digest
from edgekd.run.inputs import fingerprint, load_split, teacher_sources
from edgekd.teacher.boxes import BoxTeacher
from edgekd.teacher.frozen import (
    NetTeacher,
    Teacher,
    load_teacher,
    require_same_classes,
)
from edgekd.training.inference import letterboxed
from edgekd.training.loop import shaping

SAME = "same"
"""Architecture of a student that is the teacher itself."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """One run's recipe, data, teachers and folder.

    Attributes:
        card: Of the student.
        source: Function that makes the student, where it is a network of the user's own.
        teachers: Empty where the student learns from annotation alone.
        choices: Distillation methods; empty without a teacher.
        magnified: Height and width at which the teachers see a view, None for the student's own.
        exported: Folded graphs by checkpoint, so that each is exported once.
    """

    recipe: Recipe
    device: Device
    train: Dataset
    val: Dataset
    card: Card
    source: str | None
    teachers: tuple[Teacher, ...]
    choices: dict[str, MethodChoice]
    magnified: tuple[int, int] | None
    run: RunFolder
    progress: Progress
    torch_device: torch.device
    exported: dict[Path, GraphModule] = field(default_factory=dict)

    def identity(self, section: FitOptions | QuantizeSection) -> dict[str, Any]:
        """Returns what every training stage depends on, and one section of the recipe."""
        return {
            "card": asdict(self.card),
            "data": fingerprint(self.train),
            "seed": self.recipe.seed,
            "augmentation": to_mapping(self.recipe.augmentation),
            "section": _shaping(section),
        }

    def teaching_identity(self) -> dict[str, Any]:
        """Returns what a training stage with teachers depends on beside that."""
        section = self.recipe.teacher
        return {
            "methods": {name: to_mapping(choice) for name, choice in self.choices.items()},
            "teachers": [teacher.identity for teacher in self.teachers],
            "magnified": self.magnified,
            "task_weight": self.recipe.distill.task_weight,
            "views": section.cache_views,
            "precision": section.precision if section.cache_views else None,
        }

    def fresh_student(self) -> nn.Module:
        """Returns the student, its weights random or, as far as they fit, from the recipe's start.

        Random weights are the same for the same seed.
        """
        net, start = self.blank_student(), self.recipe.student.checkpoint
        if start and isinstance(net, OwnNet):
            load_state(net.net, start)
        elif start and not isinstance(net, OwnNet):
            done = transfer(net, self.card, load_weights(start), load_card(start))
            self.progress.note(f"start: {done.taken} of {done.total} tensors from {start.name}")
        return net.to(self.torch_device)

    def blank_student(self) -> Net | OwnNet:
        """Returns the student with random weights, on the CPU."""
        return self._own(self.source) if self.source else build(self.card, self.recipe.seed)

    def outputs(self) -> tuple[OutputContract, ...]:
        """Returns what the student puts out."""
        return network_outputs(self.blank_student(), self.card)

    def load(self, checkpoint: Path) -> nn.Module:
        """Returns a student from a checkpoint of this run, in ``eval`` mode, on the CPU."""
        if not self.source:
            return load_net(checkpoint)[0]
        net = self._own(self.source)
        net.load_state_dict(load_weights(checkpoint))
        return net.eval()

    def folded(self, checkpoint: Path) -> GraphModule:
        """Returns the folded graph, features included, of a student's checkpoint."""
        if checkpoint not in self.exported:
            net = self.load(checkpoint)
            example = torch.zeros((2, *self.card.input_shape[1:]))
            tapped = TappedNet(net, net.taps)  # type: ignore[arg-type]
            self.exported[checkpoint] = folded_graph(tapped.eval(), example)
        # A copy takes a hundredth of the time of an export.
        return copied(self.exported[checkpoint]).to(self.torch_device)

    def _own(self, source: str) -> OwnNet:
        own = self.card.own
        if own is None:
            raise RecipeError(f"{source}: its card does not say what the network is")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            return OwnNet(call_factory(source), own, self.card.channels)


def open_workshop(
    recipe: Recipe,
    device: Device,
    run: RunFolder,
    progress: Progress,
    torch_device: torch.device,
    *,
    with_teacher: bool = True,
) -> Workshop:
    """Reads the data and the teachers; everything that can be wrong with them is found here.

    Raises:
        DataError: The data set cannot be read.
        ModelError: A teacher cannot be used.
        RecipeError: Student, teachers and data set do not fit each other.
    """
    train = load_split(recipe, recipe.data.train, run.path, progress)
    val = with_classes(load_split(recipe, recipe.data.val, run.path, progress), train.classes)
    if val.task is Task.DETECTION and not any(len(sample.boxes) for sample in val.samples):
        raise DataError(
            f"{val.root}: no object is annotated in the {len(val.samples)} images of split "
            f"{val.split!r} ({val.format}), so that nothing could be judged by them"
        )
    wanted = with_teacher and recipe.distill.methods != {}
    sources = teacher_sources(recipe, train) if wanted else ()
    architecture = recipe.student.architecture
    if architecture == SAME and not sources:
        raise RecipeError("student.architecture 'same' is the teacher: name one with --teacher")
    chosen = sources[0] if architecture == SAME else architecture
    card = student_card(recipe, train, chosen)
    teachers = tuple(open_teacher(s, recipe, card) for s in sources)
    for teacher in teachers:
        teacher.to(torch_device)
    magnified = _magnified(recipe, card, teachers)
    if magnified:
        scale = _scale(card, magnified)
        teachers = tuple(t.at_scale(scale) if isinstance(t, NetTeacher) else t for t in teachers)
    choices = matched_methods(recipe.distill, card, teachers) if teachers else {}
    alone = not choices or (recipe.distill.baseline and architecture != SAME)
    if alone and not card.learns_from_annotation:
        raise RecipeError(
            f"{chosen}: EdgeKD has no loss for the annotation of a detector of your own, so that "
            "it learns from a teacher alone: --teacher, without --baseline and with a method"
        )
    shop = Workshop(
        recipe=recipe,
        device=device,
        train=train,
        val=val,
        card=card,
        source=chosen if is_own(chosen) else None,
        teachers=teachers,
        choices=choices,
        magnified=magnified,
        run=run,
        progress=progress,
        torch_device=torch_device,
    )
    if "raw-outputs" in choices:
        require_like_outputs([o.shape for o in shop.outputs()], teachers)
    return shop


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
    if is_own(chosen):
        return own_card(recipe, dataset.task, dataset.classes, chosen)
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
        family = FAMILIES[dataset.task]
        raise RecipeError(
            f"student.architecture {card.architecture!r} does {card.task}, but {dataset.root} is a "
            f"{dataset.task} set; use {family}-n, {family}-s, {family}-m or {family}-l"
        )
    return card


def own_card(recipe: Recipe, task: Task, classes: tuple[str, ...], source: str) -> Card:
    """Returns the card of a network of the user's own."""
    section = recipe.network
    path, _, function = source.rpartition(":")
    return Card(
        architecture=f"{Path(path).name}:{function}",
        classes=classes,
        height=recipe.input.height,
        width=recipe.input.width,
        channels=recipe.input.channels,
        strides=(),
        own=OwnCard(
            task=task,
            decoder=section.decoder or "none",
            mean=section.mean,
            std=section.std,
            colour=section.colour,
            resize=section.resize,
            priors=section.priors,
        ),
    )


def open_teacher(source: str, recipe: Recipe, student: Card) -> Teacher:
    """Returns the teacher that a source names.

    Raises:
        ModelError: It cannot be used, or names other classes than the student.
        RecipeError: The source is of no known form.
    """
    if is_own(source):
        card = own_card(recipe, student.task, student.classes, source)
        net = call_factory(source)
        if recipe.teacher.weights:
            load_state(net, recipe.teacher.weights)
        own = OwnNet(net, card.own, card.channels)  # type: ignore[arg-type]
        return NetTeacher(card, lambda: copy.deepcopy(own), own, _own_identity(own, card, source))
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


def _shaping(section: FitOptions | QuantizeSection) -> dict[str, Any]:
    """Returns what shapes a training's result: not its speed, nor what comes after it."""
    if isinstance(section, FitOptions):
        return shaping(section)
    plain = to_mapping(section) | {"training": shaping(section.training)}
    return {k: v for k, v in plain.items() if k not in ("tune", "tuning_images", "keep_float")}


def save_graph(path: Path, graph: GraphModule) -> None:
    """Writes a graph's state as safetensors."""
    # Cloned, because tensors that share a scale share the module, and safetensors wants no sharing.
    state = {k: v.detach().cpu().clone().contiguous() for k, v in graph.state_dict().items()}
    write_atomic(path, safetensors.torch.save(state))


def load_graph(path: Path, graph: GraphModule) -> GraphModule:
    """Puts a saved state into a graph of the same form and returns it."""
    graph.load_state_dict(safetensors.torch.load_file(path))
    return graph


def calibration_batches(
    shop: Workshop, batch_size: int = 16, most: int | None = None
) -> Iterator[Tensor]:
    """Yields training images, letterboxed and evenly spread over the split.

    Args:
        shop: Gives the images and how many the recipe wants.
        batch_size: Images at once.
        most: Fewer, where not all are needed.
    """
    wanted = shop.recipe.quantize.calibration_images
    chosen = spread(shop.train.samples, min(wanted, most or wanted))
    for start in range(0, len(chosen), batch_size):
        images = [
            image for _, image, _, _ in letterboxed(chosen[start : start + batch_size], shop.card)
        ]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        yield normalise(pixels).to(shop.torch_device)


def proof_images(shop: Workshop) -> NDArray[np.uint8]:
    """Returns ``(N, H, W, C)`` letterboxed validation images, evenly spread over the split."""
    chosen = spread(shop.val.samples, shop.recipe.export.proof_images)
    return np.stack([image for _, image, _, _ in letterboxed(chosen, shop.card)])


def spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Returns at most so many samples, evenly spread over the split."""
    count = min(len(samples), most)
    return [samples[i * len(samples) // count] for i in range(count)]


def _require_classes(card: Card, dataset: Dataset) -> None:
    if card.classes != dataset.classes:
        raise RecipeError(
            f"the network's classes {list(card.classes)} are not those of {dataset.root}, "
            f"{list(dataset.classes)}"
        )


def _own_identity(net: nn.Module, card: Card, source: str) -> str:
    """Returns the hash of a network's weights, of the file that defines it, and of its card."""
    state = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    weights = hashlib.sha256(safetensors.torch.save(state)).hexdigest()
    return digest([weights, sha256_of(Path(source.rpartition(":")[0])), asdict(card)])


def _magnified(recipe: Recipe, card: Card, teachers: Sequence[Teacher]) -> tuple[int, int] | None:
    """Returns the input of the first teacher that has one of its own, None for the student's."""
    sizes = [t.size for t in teachers if t.size is not None]
    if recipe.teacher.resolution == "student" or not sizes:
        return None
    return None if sizes[0] == (card.height, card.width) else sizes[0]


def _scale(card: Card, magnified: tuple[int, int]) -> float:
    return magnification((card.height, card.width), magnified)
