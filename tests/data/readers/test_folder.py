from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as Pillow

from edgekd.core.errors import DataError
from edgekd.core.types import Dataset, Task
from edgekd.data.dataset import load


def write(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Pillow.new("RGB", (8, 6)).save(folder / f"{number}.png")


def names(dataset: Dataset) -> list[str]:
    return [sample.path.relative_to(dataset.root).as_posix() for sample in dataset.samples]


def test_folders_are_classes_in_alphabetical_order(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("validation", 1)):
        for name in ("dog", "cat"):
            write(tmp_path / split / name, count)
    train = load(tmp_path, "train", strict=True)
    val = load(tmp_path, "val", strict=True, task=Task.CLASSIFICATION)
    assert (train.format, train.classes) == ("folder", ("cat", "dog"))
    assert [int(sample.labels[0]) for sample in train.samples] == [0, 0, 0, 1, 1, 1]
    assert names(val) == ["validation/cat/0.png", "validation/dog/0.png"]
    assert (val.samples[1].width, val.samples[1].height) == (8, 6)


def test_a_made_split_takes_a_fifth_of_every_class(tmp_path: Path) -> None:
    write(tmp_path / "cat", 20)
    write(tmp_path / "dog", 5)
    train, val = load(tmp_path, "train"), load(tmp_path, "val")
    assert [int(sample.labels[0]) for sample in val.samples] == [0, 0, 0, 0, 1]
    assert len(train.samples) == 20
    assert not set(names(train)) & set(names(val))
    assert [problem.kind for problem in val.problems] == ["made-split"]


def test_a_class_that_train_lacks_is_dropped(tmp_path: Path) -> None:
    write(tmp_path / "train" / "cat", 2)
    write(tmp_path / "val" / "cat", 1)
    write(tmp_path / "val" / "cow", 4)
    dataset = load(tmp_path, "val")
    assert dataset.classes == ("cat",)
    assert len(dataset.samples) == 1
    assert [(p.kind, p.path.name, p.detail[:8]) for p in dataset.problems] == [
        ("unknown-class", "cow", "4 images")
    ]


def test_an_unreadable_image_is_dropped(tmp_path: Path) -> None:
    write(tmp_path / "val" / "cat", 2)
    (tmp_path / "val" / "cat" / "0.png").write_bytes(b"nothing")
    dataset = load(tmp_path, "val")
    assert names(dataset) == ["val/cat/1.png"]
    assert [problem.kind for problem in dataset.problems] == ["unreadable-image"]
    with pytest.raises(DataError, match=r"unreadable-image 1: 0\.png"):
        load(tmp_path, "val", strict=True)
