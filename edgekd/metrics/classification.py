"""Top-1 and top-5 accuracy of a classifier on one split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import DataError
from edgekd.core.results import ClassificationMetrics


class ClassificationEvaluator:
    """Collects logits batch by batch and returns accuracies.

    Of equal logits the class of lower index ranks first, as argmax has it.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        """Takes the names of the classes, indexed by label."""
        self._classes = tuple(classes)
        self._ranks: list[NDArray[np.int64]] = []
        self._labels: list[NDArray[np.int64]] = []

    def reset(self) -> None:
        """Forgets every update."""
        self._ranks.clear()
        self._labels.clear()

    def update(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> None:
        """Takes one batch.

        Args:
            logits: ``(N, C)``, higher is likelier, in any unit.
            labels: ``(N,)`` true classes.

        Raises:
            DataError: The shapes or a label do not fit the classes, or a logit is not a number.
        """
        self._ranks.append(true_ranks(logits, labels, len(self._classes)))
        self._labels.append(labels)

    def compute(self) -> ClassificationMetrics:
        """Returns the accuracies of all updates since the last reset.

        A class without an image has the accuracy -1.

        Raises:
            DataError: There was no update.
        """
        if not self._ranks:
            raise DataError("no image was evaluated")
        ranks, labels = np.concatenate(self._ranks), np.concatenate(self._labels)
        per_class = {}
        for label, name in enumerate(self._classes):
            members = ranks[labels == label]
            per_class[name] = float(np.mean(members == 0)) if members.size else -1.0
        return ClassificationMetrics(
            top1=float(np.mean(ranks == 0)),
            top5=float(np.mean(ranks < 5)),
            per_class=per_class,
            images=len(ranks),
        )


def true_ranks(
    logits: NDArray[np.floating], labels: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Returns ``(N,)`` how many classes rank before the true one; 0 is a correct answer.

    Raises:
        DataError: The shapes or a label do not fit the classes, or a logit is not a number.
    """
    if logits.shape != (len(labels), classes):
        expected = (len(labels), classes)
        raise DataError(f"logits are {logits.shape}; legal for these labels: {expected}")
    if np.isnan(logits).any():
        raise DataError("a logit is not a number")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise DataError(f"label {wrong[0]}; legal: 0 to {classes - 1}")
    true = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(classes) < labels[:, None]
    return np.asarray(((logits > true) | ((logits == true) & earlier)).sum(axis=1), np.int64)
