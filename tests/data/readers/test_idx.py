from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from edgekd.commands.init import write_recipe
from edgekd.config.recipe import load_recipe
from edgekd.core.errors import DataError
from edgekd.core.types import Task
from edgekd.data.dataset import load
from edgekd.data.image import read_image


def write_pair(root: Path, prefix: str, count: int, packed: bool = True) -> np.ndarray:
    pixels = np.random.default_rng(count).integers(0, 255, (count, 4, 6), np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 3
    images = struct.pack(">BBBBIII", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes()
    marks = struct.pack(">BBBBI", 0, 0, 8, 1, count) + labels.tobytes()
    for name, content in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", marks)):
        path = root / f"{prefix}-{name}{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
    return pixels


@pytest.mark.parametrize("packed", [True, False])
def test_every_frame_reads_as_written(tmp_path: Path, packed: bool) -> None:
    pixels = write_pair(tmp_path, "t10k", 7, packed)
    dataset = load(tmp_path, "test", cache=tmp_path / "cache")
    assert (dataset.task, dataset.format) == (Task.CLASSIFICATION, "idx")
    assert dataset.classes == ("0", "1", "2")
    assert [int(sample.labels[0]) for sample in dataset.samples] == [0, 1, 2, 0, 1, 2, 0]
    assert [sample.image_id for sample in dataset.samples] == list(range(1, 8))
    for sample, expected in zip(dataset.samples, pixels, strict=True):
        assert (sample.width, sample.height) == (6, 4)
        assert (read_image(sample, 1)[..., 0] == expected).all()
        assert (read_image(sample, 3) == expected[..., None]).all()


def test_a_packed_file_is_unpacked_once(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", 10)
    first = load(tmp_path, "train", cache=tmp_path / "cache").samples[0].path
    os.utime(first, (1, 1))
    second = load(tmp_path, "val", cache=tmp_path / "cache").samples[0].path
    assert second == first
    assert second.stat().st_mtime == 1
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [first]


def test_a_val_split_is_made_of_train_frames(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", 20)
    train = load(tmp_path, "train", cache=tmp_path / "cache")
    val = load(tmp_path, "val", cache=tmp_path / "cache")
    frames = [{sample.frame for sample in dataset.samples} for dataset in (train, val)]
    assert len(frames[1]) == 4
    assert frames[0] | frames[1] == set(range(20))
    assert [problem.kind for problem in val.problems] == ["made-split"]


@pytest.mark.parametrize("excess", [-3, 5])
@pytest.mark.parametrize("packed", [True, False])
def test_a_file_of_the_wrong_length_is_named(tmp_path: Path, packed: bool, excess: int) -> None:
    write_pair(tmp_path, "test", 5, packed)
    path = next(tmp_path.glob("test-images*"))
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    content = content[:excess] if excess < 0 else content + b"x" * excess
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match="test-images"):
        load(tmp_path, "test", cache=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "test", 5)
    path = tmp_path / "test-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="test-images"):
        load(tmp_path, "test", cache=tmp_path / "cache")


def test_labels_that_are_too_few_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "test", 5, packed=False)
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, 4) + bytes(4)
    (tmp_path / "test-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(DataError, match="5 images, but 4 labels"):
        load(tmp_path, "test")


def test_the_recipe_for_digits_has_a_classifier_and_mirrors_nothing(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", 20)
    advice = write_recipe(tmp_path, "jetson", tmp_path / "recipe.yaml", force=False)
    assert "--student edgecls-m" in advice
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.student.architecture == "edgecls-n"
    assert recipe.augmentation.horizontal_flip == 0
