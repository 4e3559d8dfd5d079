"""The demo set: deterministic scenes, boxes that fit, and a folder that COCO readers accept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from edgekd.core.errors import DataError
from edgekd.data.demo import render
from edgekd.data.demo.canvas import SUPERSAMPLING, outline_mask
from edgekd.data.demo.cover import LEAST_SIDE, Cover
from edgekd.data.demo.render import CLASSES, render_scene, write_demo_set
from edgekd.data.demo.shapes import Camera, Solid, oblong

CAMERA = Camera(scale=10.0, tilt=0.5, centre=(100.0, 80.0), sun=(1.0, 0.0))
SIZE = (200, 160)


def _block(x: float, y: float) -> list[Solid]:
    block = Solid(footprint=oblong(4.0, 2.0), low=0.0, high=1.0, colour=(90, 90, 90))
    return [block.at((x, y, 0.0))]


@pytest.fixture(scope="module")
def demo_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("demo") / "set"
    return write_demo_set(folder, train=5, val=3, seed=7)


def _annotations(folder: Path, split: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "annotations" / f"{split}.json").read_text())
    return content


def test_same_seed_and_index_give_the_same_scene() -> None:
    for first, second in zip(render_scene(5, 3), render_scene(5, 3), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("seed", "index"), [(5, 4), (6, 3)])
def test_another_seed_or_index_gives_another_scene(seed: int, index: int) -> None:
    assert not np.array_equal(render_scene(5, 3)[0], render_scene(seed, index)[0])


def test_boxes_lie_inside_the_image_and_have_an_area() -> None:
    for index in range(25):
        image, boxes, labels = render_scene(11, index, 256, 192)
        assert image.shape == (192, 256, 3)
        assert image.dtype == np.uint8
        assert boxes.dtype == np.float32
        assert labels.dtype == np.int64
        assert len(boxes) == len(labels)
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= (256, 192)).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all()


def test_scenes_hold_a_handful_of_objects_of_every_class() -> None:
    labels = [render_scene(2026, index)[2] for index in range(25)]
    assert all(4 <= len(found) <= 18 for found in labels)
    shares = np.bincount(np.concatenate(labels), minlength=len(CLASSES)) / sum(map(len, labels))
    np.testing.assert_allclose(shares, (0.45, 0.15, 0.18, 0.22), atol=0.09)


def test_box_bounds_the_painted_object() -> None:
    box = Cover(CAMERA, SIZE).visible_box(_block(0.0, 0.0))
    # 4 m wide at 10 pixels a metre; 2 m deep, foreshortened, plus 1 m of height leaning up.
    depth = 20 * np.sqrt(0.75)
    expected = np.array((80, 80 - depth / 2 - 5, 120, 80 + depth / 2)) / SUPERSAMPLING
    assert box is not None
    np.testing.assert_allclose(box, expected, atol=0.51)


def test_object_mostly_outside_the_image_is_dropped_and_a_cut_one_is_clipped() -> None:
    cover = Cover(CAMERA, SIZE)
    assert cover.visible_box(_block(-11.0, 0.0)) is None
    cut = cover.visible_box(_block(-10.0, 0.0))
    assert cut is not None
    assert cut[0] == 0.0


def test_object_behind_a_building_is_dropped() -> None:
    cover = Cover(CAMERA, SIZE)
    assert cover.visible_box(_block(0.0, 0.0)) is not None
    cover.add_building(np.random.default_rng(0), (0.0, 0.0, 0.0), 8.0, 8.0)
    assert cover.visible_box(_block(0.0, 0.0)) is None


@pytest.mark.parametrize("heading", [0.0, 0.4, 1.9, 3.0, 4.6])
def test_outline_covers_both_faces_of_a_turned_solid_and_nothing_beyond(heading: float) -> None:
    tower = Solid(footprint=oblong(4.0, 2.0, 0.3), low=0.0, high=3.0, colour=(0, 0, 0))
    tower = tower.at((0.0, 0.0, heading))
    whole = np.asarray(outline_mask(SIZE, [CAMERA.outline(tower)]))
    slices = [CAMERA.pixels(tower.footprint, height) for height in np.linspace(0.0, 3.0, 60)]
    swept = np.asarray(outline_mask(SIZE, slices))
    assert not (swept & ~whole).any()
    assert (whole != swept).mean() < 0.002


def test_annotations_agree_with_the_images_and_the_renderer(demo_set: Path) -> None:
    content = _annotations(demo_set, "train")
    assert [entry["id"] for entry in content["images"]] == [1, 2, 3, 4, 5]
    assert [entry["name"] for entry in content["categories"]] == list(CLASSES)
    for index, entry in enumerate(content["images"]):
        pixels, boxes, labels = render_scene(7, index)
        with Pillow.open(demo_set / "train" / entry["file_name"]) as stored:
            assert stored.size == (entry["width"], entry["height"])
            np.testing.assert_array_equal(np.asarray(stored), pixels)
        found = [note for note in content["annotations"] if note["image_id"] == entry["id"]]
        stored_boxes = np.array([note["bbox"] for note in found])
        np.testing.assert_allclose(stored_boxes[:, :2] + stored_boxes[:, 2:], boxes[:, 2:])
        np.testing.assert_array_equal([note["category_id"] - 1 for note in found], labels)


@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_are_numbered_from_one_with_area_and_no_crowd(
    demo_set: Path, split: str
) -> None:
    notes = _annotations(demo_set, split)["annotations"]
    assert [note["id"] for note in notes] == list(range(1, len(notes) + 1))
    assert all(note["area"] == pytest.approx(note["bbox"][2] * note["bbox"][3]) for note in notes)
    assert all(note["iscrowd"] == 0 for note in notes)


def test_validation_scenes_are_not_training_scenes(demo_set: Path) -> None:
    train = {path.read_bytes() for path in (demo_set / "train").iterdir()}
    val = {path.read_bytes() for path in (demo_set / "val").iterdir()}
    assert len(train) == 5
    assert len(val) == 3
    assert not train & val


def test_second_call_renders_nothing(demo_set: Path) -> None:
    (demo_set / "train" / "000001.png").write_bytes(b"untouched")
    assert write_demo_set(demo_set, train=5, val=3, seed=7) == demo_set
    assert (demo_set / "train" / "000001.png").read_bytes() == b"untouched"


def test_other_parameters_replace_the_set(tmp_path: Path) -> None:
    folder = write_demo_set(tmp_path / "set", train=2, val=1)
    write_demo_set(folder, train=1, val=1)
    assert [path.name for path in (folder / "train").iterdir()] == ["000001.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_interrupted_rendering_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgekd.data.demo.render.render_scene", fail)
    with pytest.raises(KeyboardInterrupt):
        write_demo_set(tmp_path / "set", train=1, val=1)
    assert not list(tmp_path.iterdir())


def test_folder_that_is_no_demo_set_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match=r"holds no demo\.json"):
        write_demo_set(tmp_path, train=1, val=1)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_processes_that_share_the_work_write_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = write_demo_set(tmp_path / "alone", train=5, val=3, seed=7)
    monkeypatch.setattr(render, "_FEW", 1)
    monkeypatch.setattr(render, "cores", lambda: 2)
    shared = write_demo_set(tmp_path / "set", train=5, val=3, seed=7)
    files = [path.relative_to(alone) for path in alone.rglob("*") if path.is_file()]
    assert len(files) == 5 + 3 + 3  # annotations of both splits, demo.json
    assert all((shared / f).read_bytes() == (alone / f).read_bytes() for f in files)
