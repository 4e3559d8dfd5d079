"""Learning from annotation alone: the loss of each task, and a training task made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.core.types import UNANNOTATED, Task
from edgekd.data.loader import Batch
from edgekd.training.detection import DetectionLoss, dense_predictions

TaskLoss = Callable[[Sequence[Tensor], Batch], dict[str, Tensor]]
"""Raw outputs of a network and the batch to named, weighted, scalar terms."""


def task_loss(task: Task, strides: Sequence[int]) -> TaskLoss:
    """Returns the loss on ground truth for networks with these strides."""
    if task is Task.CLASSIFICATION:
        return _classification_loss
    loss = DetectionLoss()

    def detection_loss(outputs: Sequence[Tensor], batch: Batch) -> dict[str, Tensor]:
        return loss(dense_predictions(outputs, strides), batch)

    return detection_loss


def _classification_loss(outputs: Sequence[Tensor], batch: Batch) -> dict[str, Tensor]:
    labels = batch.labels[:, 0]
    total = functional.cross_entropy(
        outputs[0].float(), labels, ignore_index=UNANNOTATED, reduction="sum"
    )
    return {"class": total / (labels != UNANNOTATED).sum().clamp(min=1)}


class SupervisedTask:
    """Trains a network on annotation alone.

    Attributes:
        model: The network, ready to be trained, which returns a tuple of raw outputs.
    """

    def __init__(self, net: nn.Module, loss: TaskLoss) -> None:
        self.model = net
        self._loss = loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the task's terms."""
        outputs: tuple[torch.Tensor, ...] = self.model(batch.images)
        return self._loss(outputs, batch)
