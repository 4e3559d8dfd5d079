from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekd.config.sections import Augmentation
from edgekd.core.types import InputContract, Sample
from edgekd.data.augment import make_view
from edgekd.data.image import letterbox

STILL = Augmentation(
    scale=(1.0, 1.0), stretch=0.0, horizontal_flip=0.0, brightness=0.0, gamma=0.0, colour=0.0
)


def marked_image(height: int = 60, width: int = 80) -> tuple[Sample, np.ndarray]:
    """A grey image with one bright object exactly in its box."""
    image = np.full((height, width, 3), 40, np.uint8)
    image[20:40, 30:60] = 220
    sample = Sample(
        image_id=1,
        path=Path("x.png"),
        width=width,
        height=height,
        boxes=np.array([[30, 20, 60, 40]], np.float32),
        labels=np.array([2]),
        areas=np.array([600], np.float32),
        ignore=np.array([[0, 0, 10, 10]], np.float32),
        ignore_labels=np.array([-1]),
    )
    return sample, image


def view(options: Augmentation, seed: int = 0, size: tuple[int, int] = (96, 128)):
    tile = marked_image()
    return make_view(lambda _other: tile, size, options, np.random.default_rng(seed), 1)


def bright_extent(image: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(image[..., 0] > 180)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_without_augmentation_a_view_is_the_letterboxed_image() -> None:
    sample, image = marked_image()
    spec = InputContract(height=96, width=128, channels=3, layout="NCHW", dtype="float32")
    expected, (sx, sy, left, top) = letterbox(image, spec)
    seen = view(STILL)
    np.testing.assert_array_equal(seen.image, expected)
    np.testing.assert_allclose(seen.boxes, sample.boxes * [sx, sy, sx, sy] + [left, top, left, top])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_boxes_follow_their_objects_through_every_placement(seed: int, mosaic: float) -> None:
    options = replace(
        STILL, scale=(0.6, 1.6), stretch=0.2, horizontal_flip=0.5, vertical_flip=0.5, mosaic=mosaic
    )
    seen = view(options, seed)
    for box in seen.boxes:
        left, top, right, bottom = (round(float(v)) for v in box)
        inside = seen.image[max(top, 0) + 2 : bottom - 2, max(left, 0) + 2 : right - 2, 0]
        assert (inside > 150).all()
    if mosaic == 0 and len(seen.boxes):
        np.testing.assert_allclose(bright_extent(seen.image), seen.boxes[0], atol=1.6)


def test_the_same_seed_gives_the_same_view_and_another_another() -> None:
    options = Augmentation(mosaic=0.5)
    np.testing.assert_array_equal(view(options, 3).image, view(options, 3).image)
    assert (view(options, 3).image != view(options, 4).image).any()


def test_light_changes_pixels_and_no_box() -> None:
    lit = view(replace(STILL, brightness=0.5, gamma=0.4, colour=0.2), 1)
    still = view(STILL)
    assert (lit.image != still.image).any()
    np.testing.assert_array_equal(lit.boxes, still.boxes)


def test_an_object_that_is_mostly_cut_off_is_dropped_but_ignore_regions_stay() -> None:
    kept = dropped = 0
    for seed in range(40):
        seen = view(replace(STILL, scale=(2.5, 3.0)), seed)
        kept += len(seen.boxes)
        dropped += 1 - len(seen.boxes)
        assert (seen.boxes[:, 2:] - seen.boxes[:, :2] >= 2).all()
        assert (seen.boxes >= 0).all()
        assert (seen.boxes[:, 2] <= 128).all()
    assert kept
    assert dropped


def test_grey_images_stay_grey() -> None:
    sample, image = marked_image()
    grey = (sample, image[..., :1])
    seen = make_view(lambda _o: grey, (96, 128), Augmentation(), np.random.default_rng(0), 1)
    assert seen.image.shape == (96, 128, 1)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="scale"):
        Augmentation(scale=(2.0, 1.0))
    with pytest.raises(ValueError, match="mosaic"):
        Augmentation(mosaic=1.5)


@pytest.mark.parametrize("seed", range(12))
def test_a_teachers_view_shows_the_same_scene_from_the_same_corner(seed: int) -> None:
    options = Augmentation(scale=(0.6, 1.6), mosaic=0.5, vertical_flip=0.5, shift=0.1)
    tile, size = marked_image(), (64, 96)
    small, large = (
        make_view(lambda _other: tile, size, options, np.random.default_rng(seed), 1, larger)
        for larger in (None, (160, 192))
    )
    assert small.teacher_view is None
    np.testing.assert_array_equal(large.image, small.image)
    np.testing.assert_array_equal(large.boxes, small.boxes)
    assert large.teacher_view.shape == (160, 192, 3)
    # Twice the size: the student sees what is in the upper 128 rows, the rest is padding.
    assert (large.teacher_view[128:] == 128).all()
    shrunk = large.teacher_view[:128].reshape(64, 2, 96, 2, 3).mean((1, 3))
    assert np.abs(shrunk - small.image).mean() < 6


def test_a_shift_moves_image_and_boxes_together_and_repeats_the_edge() -> None:
    plain = view(STILL)
    moved = view(replace(STILL, shift=0.2), seed=3)
    right, down = (moved.boxes[0, :2] - plain.boxes[0, :2]).astype(int)
    assert right != 0
    assert down != 0
    assert bright_extent(moved.image) == moved.boxes[0].astype(int).tolist()
    rows = np.clip(np.arange(96) - down, 0, 95)
    columns = np.clip(np.arange(128) - right, 0, 127)
    np.testing.assert_array_equal(moved.image, plain.image[rows[:, None], columns])
