from __future__ import annotations

import numpy as np
import pytest

from edgekd.core.errors import DataError
from edgekd.metrics.classification import ClassificationEvaluator

CLASSES = ("a", "b", "c", "d", "e", "f")


def test_top1_top5_and_classes_by_hand() -> None:
    evaluator = ClassificationEvaluator(CLASSES)
    logits = np.array([[6, 5, 4, 3, 2, 1]] * 3, np.float32)
    evaluator.update(logits, np.array([0, 1, 5]))
    evaluator.update(logits[:1], np.array([0]))
    metrics = evaluator.compute()
    assert metrics.top1 == 0.5
    assert metrics.top5 == 0.75
    assert metrics.per_class == {"a": 1, "b": 0, "c": -1, "d": -1, "e": -1, "f": 0}
    assert metrics.images == 4


def test_equal_logits_rank_by_class_as_argmax_does() -> None:
    evaluator = ClassificationEvaluator(CLASSES)
    evaluator.update(np.zeros((6, 6), np.float32), np.arange(6))
    assert evaluator.compute().per_class == dict.fromkeys(CLASSES, 0) | {"a": 1}
    assert evaluator.compute().top5 == pytest.approx(5 / 6)


def test_random_logits_agree_with_argmax() -> None:
    generator = np.random.default_rng(0)
    logits = generator.integers(-3, 4, (500, 6)).astype(np.float32)
    labels = generator.integers(0, 6, 500)
    evaluator = ClassificationEvaluator(CLASSES)
    evaluator.update(logits, labels)
    assert evaluator.compute().top1 == np.mean(logits.argmax(axis=1) == labels)


def test_reset_forgets() -> None:
    evaluator = ClassificationEvaluator(CLASSES)
    evaluator.update(np.eye(6, dtype=np.float32), np.zeros(6, np.int64))
    evaluator.reset()
    with pytest.raises(DataError, match="no image"):
        evaluator.compute()
    evaluator.update(np.eye(6, dtype=np.float32), np.arange(6))
    assert evaluator.compute().top1 == 1


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 5)), [0, 0], r"\(2, 5\)"),
        (np.zeros((2, 6)), [0], r"legal for these labels: \(1, 6\)"),
        (np.zeros((1, 6)), [6], "label 6; legal: 0 to 5"),
        (np.full((1, 6), np.nan), [0], "not a number"),
    ],
)
def test_what_does_not_fit_is_refused(logits: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ClassificationEvaluator(CLASSES).update(logits, np.array(labels))
