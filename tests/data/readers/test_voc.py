from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image as Pillow

from edgekd.core.errors import DataError
from edgekd.core.types import Dataset
from edgekd.data.dataset import load
from edgekd.data.reader import recognise


def item(name: str, box: tuple[object, ...], difficult: int = 0) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{corners}</bndbox><part><name>head</name></part></object>"
    )


def write(
    root: Path,
    files: dict[str, str],
    annotations: str = "Annotations",
    images: str = "JPEGImages",
) -> None:
    """Writes one 100 x 50 picture for every XML file."""
    for place in (annotations, images):
        (root / place).mkdir(parents=True, exist_ok=True)
    size = "<size><width>100</width><height>50</height></size>"
    for stem, objects in files.items():
        text = f"<annotation><filename>../x.jpg</filename>{size}{objects}</annotation>"
        (root / annotations / f"{stem}.xml").write_text(text)
        Pillow.new("L", (100, 50)).save(root / images / f"{stem}.jpg")


def write_lists(root: Path, **lists: str) -> None:
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, stems in lists.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems.split()) + "\n")


def kinds(dataset: Dataset) -> Counter[str]:
    return Counter(problem.kind for problem in dataset.problems)


def stems(dataset: Dataset) -> list[str]:
    return [sample.path.stem for sample in dataset.samples]


def test_lists_choose_the_split_and_classes_come_from_all_of_them(tmp_path: Path) -> None:
    write(tmp_path, {"a": item("dog", (1, 2, 30, 40)), "b": item("cat", (5, 6, 7, 8)), "c": ""})
    write_lists(tmp_path, train="a c", val="b", trainval="a b c")
    train, val = load(tmp_path, "train", strict=True), load(tmp_path, "val", strict=True)
    assert train.format == "voc"
    assert train.classes == val.classes == ("cat", "dog")
    assert (stems(train), stems(val)) == (["a", "c"], ["b"])
    assert train.samples[0].boxes.tolist() == [[1, 2, 30, 40]]
    assert train.samples[0].labels.tolist() == [1]
    assert val.samples[0].labels.tolist() == [0]


def test_a_difficult_object_is_an_ignore_region_of_its_class(tmp_path: Path) -> None:
    objects = item("cat", (1, 2, 30, 40), difficult=1) + item("dog", (5, 6, 7, 8))
    write(tmp_path, {"a": objects})
    write_lists(tmp_path, val="a")
    sample = load(tmp_path, "val").samples[0]
    assert sample.ignore.tolist() == [[1, 2, 30, 40]]
    assert sample.ignore_labels.tolist() == [0]
    assert sample.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("annotations", "images"),
    [("annotations", "images"), (".", "."), ("annotations/xmls", "images"), ("xmls", "images")],
)
def test_flat_folders_are_read_and_split(tmp_path: Path, annotations: str, images: str) -> None:
    files = {str(number): item("toy", (1, 2, 30, 40)) for number in range(10)}
    write(tmp_path, files, annotations, images)
    assert recognise(tmp_path) == "voc"
    train, val = load(tmp_path, "train"), load(tmp_path, "val")
    assert (len(train.samples), len(val.samples)) == (8, 2)
    assert sorted(stems(train) + stems(val)) == sorted(files)


def test_folders_named_after_splits_are_read(tmp_path: Path) -> None:
    for split, stem in (("train", "a"), ("valid", "b")):
        write(tmp_path / split, {stem: item("toy", (1, 2, 30, 40))}, ".", ".")
    assert stems(load(tmp_path, "val", strict=True)) == ["b"]


def test_the_folder_above_is_a_root_too(tmp_path: Path) -> None:
    write(tmp_path / "VOC2007", {"a": item("toy", (1, 2, 30, 40))})
    write_lists(tmp_path / "VOC2007", val="a")
    assert stems(load(tmp_path, "val")) == stems(load(tmp_path / "VOC2007", "val")) == ["a"]


def test_what_has_no_counterpart_is_reported(tmp_path: Path) -> None:
    write(tmp_path, {stem: item("toy", (1, 2, 30, 40)) for stem in "abcd"})
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    (tmp_path / "Annotations" / "b.xml").unlink()
    write_lists(tmp_path, val="a b c gone")
    dataset = load(tmp_path, "val")
    assert kinds(dataset) == {
        "annotation-without-image": 1,
        "image-without-annotation": 1,
        "missing-image": 1,
    }
    assert stems(dataset) == ["b", "c"]
    assert dataset.samples[0].boxes.shape == (0, 4)


def test_wrong_objects_and_files_are_reported(tmp_path: Path) -> None:
    objects = item("toy", (5, 5, 5, 9)) + item("toy", ("x", 5, 6, 9)) + item("", (1, 1, 2, 2))
    write(tmp_path, {"a": objects + item("toy", (90, 5, 120, 9)), "b": "</oops>"})
    write_lists(tmp_path, val="a b")
    dataset = load(tmp_path, "val")
    assert kinds(dataset) == {
        "degenerate-box": 1,
        "malformed-annotation": 2,
        "clipped-box": 1,
        "unreadable-annotation": 1,
    }
    assert stems(dataset) == ["a"]
    assert dataset.samples[0].boxes.tolist() == [[90, 5, 100, 9]]


def test_entities_are_refused_unexpanded(tmp_path: Path) -> None:
    write(tmp_path, {"a": item("toy", (1, 2, 30, 40))})
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY l0 "lol">{levels}]><annotation>&l11;</annotation>'
    (tmp_path / "Annotations" / "b.xml").write_text(bomb)
    with pytest.raises(DataError, match=r"b\.xml: declares the document type x"):
        load(tmp_path, "train")


def test_a_list_may_not_leave_the_root(tmp_path: Path) -> None:
    write(tmp_path, {"a": item("toy", (1, 2, 30, 40))})
    write_lists(tmp_path, val="a ../../secret")
    with pytest.raises(DataError, match=r"val\.txt.*leaves the data set"):
        load(tmp_path, "val")


def test_names_in_a_list_may_hold_spaces(tmp_path: Path) -> None:
    named = ["WhatsApp Image 1", "IMG (3)", "a -1", "b"]
    write(tmp_path, {name: item("dog", (1, 2, 30, 40)) for name in named})
    write_lists(tmp_path, train="", val="")
    listed = ["WhatsApp Image 1", "IMG (3)  1", "a -1", "b -1"]
    (tmp_path / "ImageSets/Main/train.txt").write_text("\n".join(listed) + "\n")
    dataset = load(tmp_path, "train", strict=True)
    assert sorted(stems(dataset)) == sorted(named)


def test_several_sets_in_one_folder_are_named_and_not_taken_for_classes(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        write(tmp_path / year, {"a": item("dog", (1, 2, 30, 40))})
    with pytest.raises(DataError, match=r"several Pascal VOC sets; name one .*VOC2007, .*VOC2012"):
        load(tmp_path, "train")
    assert load(tmp_path / "VOC2012", "train").classes == ("dog",)
