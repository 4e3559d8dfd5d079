from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from edgekd.core.errors import DataError
from edgekd.core.types import UNANNOTATED, Dataset, Task
from edgekd.data.dataset import load, with_classes
from edgekd.data.reader import recognise

needs_data = pytest.mark.skipif(
    "EDGEKD_DATA" not in os.environ, reason="EDGEKD_DATA does not name the folder of real data"
)


@pytest.fixture
def data() -> Path:
    return Path(os.environ["EDGEKD_DATA"])


def kinds(dataset: Dataset) -> Counter[str]:
    return Counter(problem.kind for problem in dataset.problems)


def boxes(dataset: Dataset) -> int:
    return sum(len(sample.boxes) for sample in dataset.samples)


def objects(*parts: Dataset) -> dict[str, np.ndarray]:
    """Returns image stem → sorted rows of class name's rank and box, difficult ones included."""
    found = {}
    for dataset in parts:
        ranks = np.argsort(np.argsort(dataset.classes))
        for sample in dataset.samples:
            labels = ranks[np.concatenate((sample.labels, sample.ignore_labels))]
            rows = np.column_stack((labels, np.concatenate((sample.boxes, sample.ignore))))
            found[sample.path.stem] = rows[np.lexsort(np.rint(rows).T[::-1])]
    return found


def test_a_folder_of_nothing_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "web"}')
    with pytest.raises(DataError, match=r"no known data set; legal: a data\.yaml"):
        recognise(tmp_path)
    with pytest.raises(DataError, match="no such data set"):
        load(tmp_path / "gone", "val")


def test_labels_follow_their_classes_names(small_set: Path) -> None:
    val = load(small_set, "val")
    other = (*reversed(val.classes), "unicorn")
    moved = with_classes(val, other)
    assert moved.classes == other
    for before, after in zip(val.samples, moved.samples, strict=True):
        named = [val.classes[k] for k in before.labels]
        assert [other[k] for k in after.labels] == named
    assert with_classes(moved, val.classes).samples[0].labels.tolist() == (
        val.samples[0].labels.tolist()
    )


def test_ignore_regions_follow_too_and_those_of_every_class_stay(small_set: Path) -> None:
    val = load(small_set, "val")
    region = np.array([[0, 0, 9, 9]] * 3, np.float32)
    hidden = np.array([0, -1, UNANNOTATED])
    sample = replace(val.samples[0], ignore=region, ignore_labels=hidden)
    moved = with_classes(replace(val, samples=(sample,)), tuple(reversed(val.classes)))
    assert moved.samples[0].ignore_labels.tolist() == [len(val.classes) - 1, -1, UNANNOTATED]


def test_an_object_of_a_class_that_the_other_split_lacks_is_named(small_set: Path) -> None:
    val = load(small_set, "val")
    used = {val.classes[k] for sample in val.samples for k in sample.labels}
    kept = tuple(name for name in val.classes if name != min(used))
    with pytest.raises(DataError, match=rf"annotated as {min(used)} in split 'val'; legal: "):
        with_classes(val, kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev"}, "split 'dev'.*legal: test, train, val"),
        ({"format": "cocoa"}, "did you mean 'coco'"),
        ({"task": Task.DETECTION}, "folder data for classification, wanted detection"),
    ],
)
def test_an_illegal_argument_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "cat").mkdir()
    for number in range(2):
        Pillow.new("L", (8, 8)).save(tmp_path / "cat" / f"{number}.png")
    with pytest.raises(DataError, match=message):
        load(tmp_path, **({"split": "val"} | change))


@needs_data
def test_hit_uav_val_is_whole(data: Path) -> None:
    dataset = load(data / "hit_uav", "val", strict=True)
    assert dataset.classes == ("Person", "Car", "Bicycle", "OtherVehicle")
    assert len(dataset.samples) == 290
    regions = sum(len(sample.ignore) for sample in dataset.samples)
    assert (boxes(dataset), regions) == (2453, 7)
    assert {int(label) for sample in dataset.samples for label in sample.ignore_labels} == {-1}


@needs_data
def test_hit_uav_train_uses_its_subset_list(data: Path, tmp_path: Path) -> None:
    dataset = load(data / "hit_uav", "train", strict=True)
    assert len(dataset.samples) == 600
    assert boxes(dataset) + sum(len(sample.ignore) for sample in dataset.samples) == 5208
    assert kinds(dataset) == {"subset": 1}
    for name in ("annotations", "train"):
        (tmp_path / name).symlink_to(data / "hit_uav" / name)
    (tmp_path / "val").mkdir()
    assert kinds(load(tmp_path, "train"))["missing-image"] > 1000


@needs_data
@pytest.mark.parametrize("root", ["bccd", "bccd/BCCD"])
def test_bccd_counts(data: Path, root: str) -> None:
    parts = [load(data / root, split) for split in ("train", "val", "test")]
    assert [len(part.samples) for part in parts] == [205, 87, 72]
    assert sum(boxes(part) for part in parts) == 4888 - 2
    assert [kinds(part)["degenerate-box"] for part in parts] == [1, 1, 0]
    assert parts[0].classes == ("Platelets", "RBC", "WBC")


@needs_data
def test_toy_plane_reports_files_without_counterpart(data: Path) -> None:
    parts = [load(data / "toy_plane", split) for split in ("train", "val")]
    assert sum(len(part.samples) for part in parts) == 100
    assert sum(boxes(part) for part in parts) == 99
    assert sum((kinds(part) for part in parts), Counter()) == {
        "annotation-without-image": 2,
        "image-without-annotation": 1,
        "made-split": 2,
    }


@needs_data
def test_mnist_counts_and_first_labels(data: Path, tmp_path: Path) -> None:
    test = load(data / "mnist", "test", cache=tmp_path)
    assert len(test.samples) == 10_000
    assert [int(sample.labels[0]) for sample in test.samples[:5]] == [7, 2, 1, 0, 4]
    train = load(data / "mnist", "train", cache=tmp_path)
    assert len(train.samples) == 48_000
    assert len(load(data / "mnist", "val", cache=tmp_path).samples) == 12_000


@needs_data
def test_every_format_gives_the_same_boxes(data: Path, tmp_path: Path) -> None:
    source = data / "map_reference" / "formats" / "gts"
    both = {
        name: [load(source / name, split, require_images=False) for split in ("train", "val")]
        for name in ("pascalvoc_format", "coco_format_v1", "coco_format_v2")
    }
    shutil.copytree(source / "yolo_format", tmp_path / "yolo", copy_function=shutil.copyfile)
    (tmp_path / "yolo").chmod(0o755)
    (tmp_path / "yolo" / "obj_train_data").chmod(0o755)
    for sample in (sample for part in both["coco_format_v1"] for sample in part.samples):
        image = Pillow.new("1", (sample.width, sample.height))
        image.save(tmp_path / "yolo" / "obj_train_data" / f"{sample.path.stem}.png")
    listed = tmp_path / "yolo" / "train.txt"
    listed.chmod(0o644)
    listed.write_text(listed.read_text().replace(".jpg", ".png"))
    both["yolo_format"] = [load(tmp_path / "yolo", split) for split in ("train", "val")]
    reference = objects(*both.pop("pascalvoc_format"))
    assert sum(len(rows) for rows in reference.values()) == 273
    for name, parts in both.items():
        found = objects(*parts)
        assert found.keys() == reference.keys()
        for stem, rows in found.items():
            assert np.abs(rows - reference[stem]).max() < 0.01, (name, stem)
