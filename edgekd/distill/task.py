"""Learning from a teacher: any student that returns outputs and features, any set of methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgekd.data.loader import Batch
from edgekd.distill.methods import methods
from edgekd.distill.signal import LevelPair, Signal
from edgekd.errors import RecipeError
from edgekd.nets.tap import Tapped
from edgekd.training.assigner import hidden_cells
from edgekd.training.detection import dense_detections
from edgekd.training.task_loss import TaskLoss
from edgekd.types import Task


class DistillationTask:
    """Trains a student on annotation and on a teacher's signal.

    The student may be a network, its fake-quantized graph, or anything else that maps images to
    ``(outputs, features)``: the same task serves distillation and QAT.

    Args:
        student: Maps images to ``(outputs, features)``.
        student_strides: Of the student's levels; empty for classification.
        teacher: Frozen; the same mapping, without gradient.
        teacher_strides: Of the teacher's levels.
        pairs: Features that are compared.
        weights: Method name to weight beside the task loss.
        loss: The loss on annotation.
        task: What both networks do.
        seed: Of the initial weights of whatever the methods learn.

    Raises:
        RecipeError: A method is unknown, or does not serve the task.

    Attributes:
        model: The student and whatever the methods learn (projectors); the latter is thrown away
            after training.
    """

    def __init__(
        self,
        *,
        student: nn.Module,
        student_strides: Sequence[int],
        teacher: Callable[[Tensor], Tapped],
        teacher_strides: Sequence[int],
        pairs: Sequence[LevelPair],
        weights: Mapping[str, float],
        loss: TaskLoss,
        task: Task,
        seed: int = 0,
    ) -> None:
        for name in weights:
            if task not in methods[name].tasks:
                raise RecipeError(f"distillation method {name!r} does not serve {task}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            learnt = nn.ModuleDict({name: methods[name].build(pairs) for name in weights})
        self.model = nn.ModuleDict({"student": student, "methods": learnt})
        self._strides = (tuple(student_strides), tuple(teacher_strides))
        self._teacher, self._pairs, self._weights = teacher, tuple(pairs), dict(weights)
        self._loss, self._task = loss, task

    @property
    def learnt(self) -> nn.Module:
        """What the methods themselves learn, projectors, by method."""
        return self.model["methods"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the task's terms and one ``kd/<method>`` term a method, weighted."""
        student: Tapped = self.model["student"](batch.images)
        terms = self._loss(student[0], batch)
        if not self._weights:
            return terms
        signal = self._signal(student, self._teacher(batch.images), batch)
        learnt = self.model["methods"]
        with torch.autocast(batch.images.device.type, enabled=False):
            for name, weight in self._weights.items():
                terms[f"kd/{name}"] = weight * learnt[name](signal)  # type: ignore[index]
        return terms

    def _signal(self, student: Tapped, teacher: Tapped, batch: Batch) -> Signal:
        features_s = tuple(student[1][pair.student].float() for pair in self._pairs)
        features_t = tuple(teacher[1][pair.teacher].float() for pair in self._pairs)
        if self._task is Task.CLASSIFICATION:
            logits_s, logits_t = student[0][0].float(), teacher[0][0].float()
            return Signal(None, None, logits_s, logits_t, features_s, features_t, None, batch)
        shared = [pair.stride for pair in self._pairs]
        dense_s = dense_detections(_levels(student[0], self._strides[0], shared), shared)
        dense_t = dense_detections(_levels(teacher[0], self._strides[1], shared), shared)
        classes = dense_s.logits.shape[-1]
        hidden = hidden_cells(dense_s.centres, batch.ignore, batch.ignore_labels, classes)
        return Signal(dense_s, dense_t, None, None, features_s, features_t, ~hidden, batch)


def _levels(
    outputs: tuple[Tensor, ...], strides: Sequence[int], wanted: Sequence[int]
) -> list[torch.Tensor]:
    """Returns the (scores, boxes) pairs of the wanted strides."""
    return [outputs[2 * list(strides).index(s) + part] for s in wanted for part in (0, 1)]
