from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from edgekd.core.errors import DataError
from edgekd.core.types import Dataset
from edgekd.data.dataset import load

NAMES = "names: [Person, Car]\n"


def write(root: Path, labels: dict[str, str | None], folder: str = "images/val") -> None:
    """Writes one 100 x 50 picture a label file; None leaves the label file out."""
    marks = root / folder.replace("images", "labels")
    for place in (root / folder, marks):
        place.mkdir(parents=True, exist_ok=True)
    for stem, lines in labels.items():
        Pillow.new("L", (100, 50)).save(root / folder / f"{stem}.png")
        if lines is not None:
            (marks / f"{stem}.txt").write_text(lines)


def describe(root: Path, text: str) -> None:
    (root / "data.yaml").write_text(text)


def kinds(dataset: Dataset) -> Counter[str]:
    return Counter(problem.kind for problem in dataset.problems)


def test_centres_and_sizes_become_corners_in_pixels(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1 0.5 0.5 0.2 0.4\n", "b": ""})
    describe(tmp_path, NAMES + "val: images/val\n")
    dataset = load(tmp_path, "val", strict=True)
    assert (dataset.format, dataset.classes) == ("yolo", ("Person", "Car"))
    assert dataset.samples[0].boxes == pytest.approx(np.array([[40, 15, 60, 35]]))
    assert dataset.samples[0].labels.tolist() == [1]
    assert dataset.samples[0].areas == pytest.approx([400])
    assert dataset.samples[1].boxes.shape == (0, 4)


def test_a_polygon_reads_as_its_box(tmp_path: Path) -> None:
    write(tmp_path, {"a": "0 0.1 0.2 0.5 0.1 0.3 0.9\n"})
    describe(tmp_path, NAMES + "val: images/val\n")
    assert load(tmp_path, "val").samples[0].boxes == pytest.approx(np.array([[10, 5, 50, 45]]))


@pytest.mark.parametrize(
    "text",
    [
        "names: {1: Car, 0: Person}\nval: images/val",
        "names: [Person, Car]\nval: [images/val]",
        "names: [Person, Car]\nval: val.txt",
        "names: [Person, Car]\npath: images\nval: val",
        "names: [Person, Car]\nvalid: ../images/val",
    ],
)
def test_every_dialect_of_the_description_reads_the_same(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"a": "1 0.5 0.5 0.2 0.4\n"})
    (tmp_path / "val.txt").write_text("./images/val/a.png\n")
    describe(tmp_path, text)
    dataset = load(tmp_path, "val")
    assert dataset.classes == ("Person", "Car")
    assert dataset.samples[0].labels.tolist() == [1]


def test_wrong_labels_are_dropped_and_reported(tmp_path: Path) -> None:
    lines = "0 0.5 0.5 0 0.1\n7 0.5 0.5 0.1 0.1\n0 0.5 0.5\nx 1 1 1 1\n0 2 2 .1 .1\n0 1 .5 .2 .2\n"
    write(tmp_path, {"a": lines, "b": None, "c": ""})
    (tmp_path / "labels/val/ghost.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "labels/val/c.txt").write_bytes(b"\xff\xfe\x00")
    describe(tmp_path, NAMES + "val: images/val\n")
    dataset = load(tmp_path, "val")
    assert kinds(dataset) == {
        "degenerate-box": 1,
        "unknown-class": 1,
        "malformed-annotation": 2,
        "outside-box": 1,
        "clipped-box": 1,
        "image-without-annotation": 1,
        "annotation-without-image": 1,
        "unreadable-annotation": 1,
    }
    assert [sample.path.name for sample in dataset.samples] == ["a.png", "b.png"]
    assert dataset.samples[0].boxes == pytest.approx(np.array([[90, 20, 100, 30]]))


def test_labels_of_other_images_in_the_folder_are_no_orphans(tmp_path: Path) -> None:
    write(tmp_path, {"a": "", "b": ""})
    (tmp_path / "val.txt").write_text("images/val/a.png\n")
    describe(tmp_path, NAMES + "val: val.txt\n")
    assert kinds(load(tmp_path, "val")) == {}


def test_a_listed_image_that_is_not_there_is_reported(tmp_path: Path) -> None:
    write(tmp_path, {"a": ""})
    (tmp_path / "val.txt").write_text("images/val/a.png\nimages/val/gone.png\n")
    describe(tmp_path, NAMES + "val: val.txt\n")
    dataset = load(tmp_path, "val")
    assert kinds(dataset) == {"missing-image": 1}
    assert dataset.problems[0].path.name == "gone.png"


def test_darknet_reads_beside_its_images(tmp_path: Path) -> None:
    write(tmp_path, {"a": "0 0.5 0.5 0.2 0.4"}, folder="obj_train_data")
    (tmp_path / "obj.names").write_text("Person\nCar\n")
    (tmp_path / "obj.data").write_text("train = data/train.txt\nnames = data/obj.names\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\n")
    dataset = load(tmp_path, "train")
    assert dataset.classes == ("Person", "Car")
    assert dataset.samples[0].boxes == pytest.approx(np.array([[40, 15, 60, 35]]))


@pytest.mark.parametrize(
    "text",
    [
        "val: /etc",
        "val: ../other",
        "path: ../other\nval: images/val",
        "path: /somewhere\nval: images/val",
        "val: leaving.txt",
    ],
)
def test_no_entry_may_leave_the_root(tmp_path: Path, text: str) -> None:
    root = tmp_path / "set"
    write(root, {"a": ""})
    (root / "leaving.txt").write_text("../secret.png\n")
    describe(root, NAMES + text + "\n")
    with pytest.raises(DataError, match="leaves the data set"):
        load(root, "val")


@pytest.mark.parametrize(
    "text",
    [
        "val: images/val",
        "names: 3\nval: images/val",
        "names: [[a, b]]\nval: images/val",
        "names: [a]\nval: {}",
        "names: [a]\nval: {a: b}",
        "names: [a",
    ],
)
def test_a_malformed_description_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"a": ""})
    describe(tmp_path, text)
    with pytest.raises(DataError):
        load(tmp_path, "val")


def test_nested_aliases_do_not_explode(tmp_path: Path) -> None:
    write(tmp_path, {"a": ""})
    levels = "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 30))
    describe(tmp_path, f"b0: &b0 [x]\n{levels}names: *b29\nval: images/val\n")
    with pytest.raises(DataError, match="names"):
        load(tmp_path, "val")


def test_a_description_cannot_run_code(tmp_path: Path) -> None:
    write(tmp_path, {"a": ""})
    trap = tmp_path / "trap"
    describe(tmp_path, f"names: !!python/object/apply:os.mkdir [{trap}]\nval: images/val\n")
    with pytest.raises(DataError, match=r"data\.yaml"):
        load(tmp_path, "val")
    assert not trap.exists()
