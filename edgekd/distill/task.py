"""Learning from teachers: any student that returns outputs and features, any set of methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from edgekd.config.learning import MethodConfig
from edgekd.core.errors import RecipeError
from edgekd.core.types import UNANNOTATED, Task
from edgekd.data.loader import Batch
from edgekd.distill.align import aligned, averaged, pair_levels, seen_part
from edgekd.distill.batch_context import DistillationBatch, LevelPair
from edgekd.distill.method import build_method, known_method
from edgekd.nets.tap import Tapped
from edgekd.training.assigner import Assignment, TaskAlignedAssigner, hidden_cells
from edgekd.training.detection import DensePredictions, dense_predictions
from edgekd.training.task_loss import TaskLoss
from edgekd.training.teacher_output import DetectionBatch, Head, TeacherForm, TeacherOutput


class DistillationTask:
    """Trains a student on annotation and on its teachers' outputs.

    The student may be a network, its fake-quantized graph, or anything else that maps images to
    ``(outputs, features)``: the same task serves distillation and QAT.

    Args:
        student: Maps images to ``(outputs, features)``.
        strides: Of the student's levels; empty for classification, and for a network whose outputs
            only its own decoder understands.
        channels: Of the student's features.
        teachers: What the teachers are.
        teacher_outputs: What they say about a batch, one teacher_output a teacher.
        methods: The methods, their weights beside the task loss and their options.
        loss: The loss on annotation; None to learn from the teachers alone.
        task: What student and teachers do.
        seed: Of the initial weights of whatever the methods learn.

    Raises:
        RecipeError: A method does not serve the task.

    Attributes:
        model: The student and whatever the methods learn (projectors); the latter is thrown away
            after training.
    """

    def __init__(
        self,
        *,
        student: nn.Module,
        strides: Sequence[int],
        channels: Sequence[int],
        teachers: Sequence[TeacherForm],
        teacher_outputs: Callable[[Batch], Sequence[TeacherOutput]],
        methods: Mapping[str, MethodConfig],
        loss: TaskLoss | None,
        task: Task,
        seed: int = 0,
    ) -> None:
        for name in methods:
            if task not in known_method(name).tasks:
                raise RecipeError(f"distillation method {name!r} does not serve {task}")
        self._strides, self._teachers = tuple(strides), tuple(teachers)
        self._pairs = [_pairs(strides, channels, form) for form in teachers]
        joined = [pair for pairs in self._pairs for pair in pairs]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            learnt = {name: build_method(name, c.options, joined) for name, c in methods.items()}
        self.model = nn.ModuleDict({"student": student, "methods": nn.ModuleDict(learnt)})
        self._teacher_outputs, self._methods = teacher_outputs, dict(methods)
        self._loss, self._task = loss, task
        self._needs = frozenset().union(*(known_method(name).needs for name in methods))
        self._assigner = TaskAlignedAssigner() if "labels" in self._needs else None

    @property
    def learnt(self) -> nn.Module:
        """What the methods themselves learn, projectors, by method."""
        return self.model["methods"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the task's terms and one ``kd/<method>`` term a method, weighted."""
        student: Tapped = self.model["student"](batch.images)
        terms = self._loss(student[0], batch) if self._loss else {}
        teacher_outputs = self._teacher_outputs(batch)
        learnt = self.model["methods"]
        with torch.autocast(batch.images.device.type, enabled=False):
            given = self._distillation_batch(student, teacher_outputs, batch)
            for name, choice in self._methods.items():
                loss = _one_number(name, learnt[name](given))  # type: ignore[index]
                terms[f"kd/{name}"] = choice.weight * loss
        return terms

    def _distillation_batch(
        self, student: Tapped, teacher_outputs: Sequence[TeacherOutput], batch: Batch
    ) -> DistillationBatch:
        outputs = tuple(o.float() for o in student[0])
        joined: list[LevelPair] = []
        ours: list[Tensor] = []
        theirs: list[Tensor] = []
        for form, pairs, teacher_output in zip(
            self._teachers, self._pairs, teacher_outputs, strict=True
        ):
            joined += pairs
            ours += [student[1][pair.student].float() for pair in pairs]
            if teacher_output.features:
                theirs += [self._feature(teacher_output, form, pair, student) for pair in pairs]
        given = DistillationBatch(
            batch=batch,
            pairs=tuple(joined),
            student_features=tuple(ours),
            teacher_features=tuple(theirs),
            detections=_joined_detections(
                [x.detections for x in teacher_outputs if x.detections is not None]
            ),
        )
        told = [teacher_output for teacher_output in teacher_outputs if teacher_output.outputs]
        given = replace(given, student_outputs=outputs)
        if told and "outputs" in self._needs:
            given = replace(given, teacher_outputs=_mean_outputs([x.outputs for x in told]))
        if self._task is Task.CLASSIFICATION:
            logits = _mean_logits([x.outputs[0].float() for x in told]) if told else None
            return replace(given, student_logits=outputs[0], teacher_logits=logits)
        if not self._strides:
            return given
        return self._dense_signal(given, outputs, teacher_outputs)

    def _feature(
        self, teacher_output: TeacherOutput, form: TeacherForm, pair: LevelPair, student: Tapped
    ) -> Tensor:
        feature = teacher_output.features[pair.teacher].float()
        if not form.strides:
            return feature
        ours = student[1][pair.student]
        size, stride = (ours.shape[2], ours.shape[3]), self._strides[pair.student]
        return seen_part(feature, size, stride, form, pair.teacher)

    def _dense_signal(
        self,
        given: DistillationBatch,
        outputs: tuple[Tensor, ...],
        teacher_outputs: Sequence[TeacherOutput],
    ) -> DistillationBatch:
        """Returns the signal with the detections of student and teachers on the same cells."""
        batch = given.batch
        levels = self._levels()
        used = [outputs[2 * level + part] for level in levels for part in (0, 1)]
        student = dense_predictions(used, [self._strides[level] for level in levels])
        sizes = tuple((o.shape[2], o.shape[3]) for o in used[::2])
        opinions = [
            aligned([o.float() for o in teacher_output.outputs], form, pairs, student, sizes)
            for form, pairs, teacher_output in zip(
                self._teachers, self._pairs, teacher_outputs, strict=True
            )
            if teacher_output.outputs and form.strides
        ]
        known = (batch.ignore_labels != UNANNOTATED).unsqueeze(-1)
        hidden = hidden_cells(
            student.centres, batch.ignore * known, batch.ignore_labels, student.logits.shape[-1]
        )
        return replace(
            given,
            student=student,
            teacher=averaged(opinions) if opinions else None,
            sizes=sizes,
            visible=~hidden,
            target=self._target(student, batch),
            head=self._head(),
        )

    def _levels(self) -> tuple[int, ...]:
        """Returns the student's levels that the teachers speak about, all of them for boxes."""
        paired = {tuple(pair.student for pair in pairs) for pairs in self._pairs if pairs}
        if len(paired) > 1:
            raise RecipeError(
                f"the teachers pair with different levels of the student {sorted(paired)}: give "
                "them the same strides and input, or make them external detectors"
            )
        return next(iter(paired), tuple(range(len(self._strides))))

    def _target(self, student: DensePredictions, batch: Batch) -> Assignment | None:
        if self._assigner is None:
            return None
        return self._assigner(
            probabilities=student.logits.detach().sigmoid(),
            boxes=student.boxes.detach(),
            centres=student.centres,
            strides=student.strides,
            objects=batch.boxes,
            labels=batch.labels,
            ignore=batch.ignore,
            ignore_labels=batch.ignore_labels,
        )

    def _head(self) -> Head | None:
        """Returns the head of the first teacher that has one, by pair."""
        for form, pairs in zip(self._teachers, self._pairs, strict=True):
            if form.head is not None:
                return partial(_at_pair, form.head, pairs)
        return None


def _one_number(name: str, loss: object) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"a tensor of {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise RecipeError(
            f"distillation method {name!r} returned {found}; legal: a tensor of one number, made "
            "of what it says that it needs"
        )
    return loss.reshape(())


def _at_pair(
    head: Head, pairs: Sequence[LevelPair], index: int, feature: Tensor
) -> tuple[Tensor, Tensor]:
    return head(pairs[index].teacher, feature)


def _pairs(
    strides: Sequence[int], channels: Sequence[int], form: TeacherForm
) -> tuple[LevelPair, ...]:
    """Returns the levels, or for a classifier the features, of student and teacher that agree."""
    if strides and form.strides:
        return pair_levels(strides, channels, form)
    if not strides and channels and form.channels:
        return (LevelPair(0, 0, channels[0], form.channels[0]),)
    return ()


def _joined_detections(parts: Sequence[DetectionBatch]) -> DetectionBatch | None:
    """Returns all teachers' detections side by side, None where there are none."""
    if not parts:
        return None
    return DetectionBatch(
        torch.cat([p.boxes for p in parts], dim=1),
        torch.cat([p.labels for p in parts], dim=1),
        torch.cat([p.scores for p in parts], dim=1),
    )


def _mean_outputs(opinions: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Returns the mean of the teachers' raw outputs, which have the same shapes."""
    return tuple(
        torch.stack([o.float() for o in parts]).mean(0) for parts in zip(*opinions, strict=True)
    )


def _mean_logits(opinions: Sequence[Tensor]) -> Tensor:
    """Returns the logits of the mean of the teachers' class distributions."""
    if len(opinions) == 1:
        return opinions[0]
    return torch.stack([o.softmax(1) for o in opinions]).mean(0).clamp(min=1e-12).log()
