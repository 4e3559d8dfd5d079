from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from edgekd.core.errors import DataError
from edgekd.core.types import Dataset
from edgekd.data.dataset import load, summarise
from edgekd.data.reader import recognise

Entry = dict[str, Any]


def box(image: int, values: list[float], category: int = 0, **more: object) -> Entry:
    return {"image_id": image, "category_id": category, "bbox": values} | more


def write(root: Path, annotations: list[Entry], images: int = 2, where: str = "val") -> Entry:
    """Writes ``images`` pictures of 100 x 50 with ids from 0, and ``annotations/val.json``."""
    document = {
        "images": [
            {"id": index, "file_name": f"{index}.png", "width": 100, "height": 50}
            for index in range(images)
        ],
        "categories": [{"id": 0, "name": "Person"}, {"id": 4, "name": "Car"}],
        "annotations": [entry | {"id": number} for number, entry in enumerate(annotations)],
    }
    (root / where).mkdir(parents=True)
    for index in range(images):
        Pillow.new("L", (100, 50)).save(root / where / f"{index}.png")
    save(root, document)
    return document


def save(root: Path, document: Entry, name: str = "annotations/val.json") -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(json.dumps(document))


def kinds(dataset: Dataset) -> Counter[str]:
    return Counter(problem.kind for problem in dataset.problems)


def test_boxes_classes_and_areas_read_as_written(tmp_path: Path) -> None:
    write(tmp_path, [box(0, [10, 5, 20, 30], area=444), box(0, [1, 2, 3, 4], category=4)])
    dataset = load(tmp_path, "val", strict=True)
    assert (dataset.format, dataset.classes) == ("coco", ("Person", "Car"))
    first, second = dataset.samples
    assert first.boxes.tolist() == [[10, 5, 30, 35], [1, 2, 4, 6]]
    assert first.labels.tolist() == [0, 1]
    assert first.areas.tolist() == [444, 12]
    assert (first.image_id, first.width, first.height) == (1, 100, 50)
    assert first.path == tmp_path / "val" / "0.png"
    assert second.boxes.shape == (0, 4)


def test_the_other_dialect_of_keys_reads_the_same(tmp_path: Path) -> None:
    document = write(tmp_path, [box(1, [10, 5, 20, 30])])
    usual = load(tmp_path, "val").samples
    document["annotation"] = document.pop("annotations")
    for entry in document["images"]:
        entry["filename"] = entry.pop("file_name")
    save(tmp_path, document)
    other = load(tmp_path, "val").samples
    assert [sample.path for sample in other] == [sample.path for sample in usual]
    assert other[1].boxes.tolist() == usual[1].boxes.tolist() == [[10, 5, 30, 35]]


def test_a_crowd_becomes_an_ignore_region_of_its_class(tmp_path: Path) -> None:
    write(tmp_path, [box(0, [0, 0, 40, 40], category=4, iscrowd=1), box(0, [1, 2, 3, 4])])
    sample = load(tmp_path, "val").samples[0]
    assert sample.ignore.tolist() == [[0, 0, 40, 40]]
    assert sample.ignore_labels.tolist() == [1]
    assert sample.boxes.tolist() == [[1, 2, 4, 6]]


@pytest.mark.parametrize("name", ["DontCare", "Don't Care", "IGNORE", "ignored regions"])
def test_an_ignore_category_hides_every_class_and_is_none(tmp_path: Path, name: str) -> None:
    document = write(tmp_path, [box(0, [0, 0, 40, 40]), box(0, [1, 2, 3, 4], category=4)])
    document["categories"][0]["name"] = name
    save(tmp_path, document)
    dataset = load(tmp_path, "val")
    assert dataset.classes == ("Car",)
    assert dataset.samples[0].ignore_labels.tolist() == [-1]
    assert dataset.samples[0].labels.tolist() == [0]


def test_an_ignore_class_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, [box(0, [0, 0, 40, 40]), box(0, [1, 2, 3, 4], category=4)])
    dataset = load(tmp_path, "val", ignore_classes=("person",))
    assert dataset.classes == ("Car",)
    assert dataset.samples[0].ignore.tolist() == [[0, 0, 40, 40]]
    with pytest.raises(DataError, match="'bus' is no category; legal: Person, Car"):
        load(tmp_path, "val", ignore_classes=("Bus",))


def test_wrong_annotations_are_dropped_and_reported(tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            box(0, [10, 10, 0, 5]),
            box(0, [10, 10, 5, -1]),
            box(0, [10, 10, float("nan"), 5]),
            box(0, [150, 10, 20, 20]),
            box(0, [80, 10, 30, 20]),
            box(0, [90.5, 10, 10, 20]),
            box(0, [1, 1, 5, 5], category=9),
            box(7, [1, 1, 5, 5]),
            {"image_id": 0, "category_id": 0},
            box(0, [1, 1, 5]),
        ],
    )
    dataset = load(tmp_path, "val")
    assert kinds(dataset) == {
        "degenerate-box": 3,
        "outside-box": 1,
        "clipped-box": 1,
        "unknown-class": 1,
        "annotation-without-image": 1,
        "malformed-annotation": 2,
    }
    assert dataset.samples[0].boxes.tolist() == [[80, 10, 100, 30], [90.5, 10, 100, 30]]
    assert dataset.samples[0].areas.tolist() == [400, 190]
    text = summarise(dataset.problems)
    assert "degenerate-box 3: val.json: val/0.png: Person (10, 10, 10, 15) in 100 x 50" in text
    with pytest.raises(DataError, match="9 problems under --strict"):
        load(tmp_path, "val", strict=True)


def test_missing_unreadable_and_resized_images_are_reported(tmp_path: Path) -> None:
    write(tmp_path, [box(index, [1, 1, 5, 5]) for index in range(10)], images=10)
    for index in range(6):
        (tmp_path / "val" / f"{index}.png").unlink()
    (tmp_path / "val" / "6.png").write_bytes(b"not an image")
    Pillow.new("L", (50, 100)).save(tmp_path / "val" / "7.png")
    dataset = load(tmp_path, "val")
    assert kinds(dataset) == {"missing-image": 6, "unreadable-image": 1, "size-mismatch": 1}
    assert [sample.path.name for sample in dataset.samples] == ["7.png", "8.png", "9.png"]
    assert [sample.image_id for sample in dataset.samples] == [1, 2, 3]
    assert dataset.samples[0].width == 50
    missing = summarise(dataset.problems).splitlines()[0]
    assert missing.startswith("missing-image 6: 0.png: ")
    assert missing.endswith("and 3 more")


def test_a_set_without_any_image_is_an_error_unless_only_annotations_matter(tmp_path: Path) -> None:
    write(tmp_path, [box(0, [1, 1, 5, 5])])
    for path in (tmp_path / "val").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no usable image"):
        load(tmp_path, "val")
    assert len(load(tmp_path, "val", require_images=False).samples) == 2


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png"])
def test_an_image_path_may_not_leave_the_root(tmp_path: Path, name: str) -> None:
    document = write(tmp_path / "set", [])
    document["images"][0]["file_name"] = name
    save(tmp_path / "set", document)
    with pytest.raises(DataError, match=r"val\.json.*leaves the data set"):
        load(tmp_path / "set", "val")


@pytest.mark.parametrize(
    "document",
    ["{", "[]", '{"images": 3}', '{"images": [], "annotations": [1], "categories": []}'],
)
def test_a_malformed_file_is_named(tmp_path: Path, document: str) -> None:
    (tmp_path / "val.json").write_text(document)
    with pytest.raises(DataError, match="val"):
        load(tmp_path, "val", format="coco")


def test_an_image_id_used_twice_is_refused(tmp_path: Path) -> None:
    document = write(tmp_path, [])
    document["images"][1]["id"] = 0
    save(tmp_path, document)
    with pytest.raises(DataError, match="image id 0"):
        load(tmp_path, "val")


@pytest.mark.parametrize("where", ["val", "images/val", "val2017", "images", "valid", "."])
def test_images_are_found_in_every_usual_folder(tmp_path: Path, where: str) -> None:
    write(tmp_path / "set", [box(0, [1, 1, 5, 5])], where=where)
    dataset = load(tmp_path / "set", "val")
    assert dataset.samples[0].path == tmp_path / "set" / where / "0.png"


def test_images_are_found_where_cvat_leaves_them(tmp_path: Path) -> None:
    document = write(tmp_path, [box(0, [1, 1, 5, 5])], where="images/default")
    (tmp_path / "annotations" / "val.json").unlink()
    save(tmp_path, document, "annotations/instances_default.json")
    found = [load(tmp_path, split, strict=True).samples for split in ("train", "val")]
    assert {s.path.parent.name for samples in found for s in samples} == {"default"}


def test_instances_win_over_captions_of_the_same_split(tmp_path: Path) -> None:
    document = write(tmp_path, [box(0, [1, 1, 5, 5])])
    (tmp_path / "annotations" / "val.json").unlink()
    save(tmp_path, document, "annotations/instances_val2017.json")
    save(tmp_path, document, "annotations/captions_val2017.json")
    assert recognise(tmp_path) == "coco"
    assert len(load(tmp_path, "val").samples[0].boxes) == 1
    save(tmp_path, document, "annotations/instances_val2014.json")
    with pytest.raises(DataError, match="several files annotate split 'val'"):
        load(tmp_path, "val")


def test_a_lone_file_lends_a_fifth_to_val(tmp_path: Path) -> None:
    document = write(tmp_path, [box(index, [1, 1, 5, 5]) for index in range(10)], 10, "images")
    (tmp_path / "annotations" / "val.json").unlink()
    save(tmp_path, document, "annotations/boxes.json")
    parts = [load(tmp_path, split) for split in ("train", "val")]
    names = [{sample.path.name for sample in part.samples} for part in parts]
    assert [len(part) for part in names] == [8, 2]
    assert not names[0] & names[1]
    assert [kinds(part) for part in parts] == [{"made-split": 1}] * 2
    assert len(load(tmp_path, "val", strict=True).samples) == 2
    with pytest.raises(DataError, match="no split 'test'; legal: train"):
        load(tmp_path, "test")


def test_the_annotation_file_itself_can_be_the_root(tmp_path: Path) -> None:
    write(tmp_path, [box(0, [1, 1, 5, 5])])
    dataset = load(tmp_path / "annotations" / "val.json", "val")
    assert dataset.samples[0].path == tmp_path / "val" / "0.png"
    assert dataset.root == tmp_path


def test_a_lone_subset_list_is_applied_and_another_can_be_given(tmp_path: Path) -> None:
    write(tmp_path, [box(0, [1, 1, 5, 5])], images=5)
    (tmp_path / "val_subset_2.txt").write_text("1.png\n3.png\n")
    (tmp_path / "other.txt").write_text("val/4.png\n")
    dataset = load(tmp_path, "val")
    assert [sample.path.name for sample in dataset.samples] == ["1.png", "3.png"]
    assert kinds(dataset) == {"subset": 1}
    other = load(tmp_path, "val", subset=tmp_path / "other.txt", strict=True)
    assert [sample.path.name for sample in other.samples] == ["4.png"]
