"""Images without annotation beside an annotated split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from edgekd.config.sections import Augmentation
from edgekd.core.errors import DataError
from edgekd.core.types import UNANNOTATED, Task
from edgekd.data.dataset import load
from edgekd.data.loader import ViewStream, collate
from edgekd.data.unlabelled import with_unlabelled
from edgekd.training.task_loss import task_loss


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "more"
    (folder / "deep").mkdir(parents=True)
    for index, name in enumerate(("a.png", "deep/b.png")):
        pixels = np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_images_are_added_with_ids_of_their_own_and_broken_ones_are_named(
    small_set: Path, pictures: Path
) -> None:
    train = load(small_set, "train")
    more = with_unlabelled(train, pictures)
    assert len(more.samples) == len(train.samples) + 2
    assert len({s.image_id for s in more.samples}) == len(more.samples)
    assert [s.path.name for s in more.samples[-2:]] == ["a.png", "b.png"]
    assert [p.path.name for p in more.problems if p.kind == "unreadable-image"] == ["broken.png"]


def test_a_detectors_loss_on_annotation_does_not_see_them(small_set: Path, pictures: Path) -> None:
    more = with_unlabelled(load(small_set, "train"), pictures)
    stream = ViewStream(
        dataset=more, size=(64, 64), channels=3, augmentation=Augmentation(), seed=0
    )
    loss = task_loss(Task.DETECTION, (8,))
    batch = collate([stream[(0, len(more.samples) - 1)], stream[(0, len(more.samples) - 2)]])
    assert (batch.ignore_labels == UNANNOTATED).any()
    outputs = [torch.randn(2, c, 8, 8, requires_grad=True) for c in (len(more.classes), 4)]
    sum(loss(outputs, batch).values()).backward()
    inside = torch.zeros(2, 8, 8, dtype=torch.bool)
    for index, box in enumerate(batch.ignore[:, 0]):
        x0, y0, x1, y1 = (box / 8).tolist()
        inside[index, round(y0 + 0.5) : round(y1 - 0.5), round(x0 + 0.5) : round(x1 - 0.5)] = True
    assert inside.any()
    assert not outputs[0].grad.transpose(0, 1)[:, inside].any()
    assert outputs[1].grad is None or not outputs[1].grad.any()


def test_a_classifiers_loss_leaves_them_out_of_the_mean() -> None:
    from edgekd.data.loader import Batch

    none = torch.zeros(3, 0, 4)
    labels = torch.tensor([[1], [UNANNOTATED], [0]])
    batch = Batch(torch.zeros(3, 1, 4, 4), none, labels, none, torch.zeros(3, 0))
    logits = torch.randn(3, 5)
    found = task_loss(Task.CLASSIFICATION, ())((logits,), batch)["class"]
    wanted = torch.nn.functional.cross_entropy(logits[[0, 2]], labels[[0, 2], 0])
    torch.testing.assert_close(found, wanted)


def test_an_empty_folder_is_an_error(small_set: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image that can be read"):
        with_unlabelled(load(small_set, "train"), tmp_path / "empty")
