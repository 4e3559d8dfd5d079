from __future__ import annotations

import numpy as np
import pytest

from edgekd.core.errors import ModelError
from edgekd.core.types import Detections
from edgekd.report.draw import class_colour, draw_detections

CLASSES = ("person", "car")


def found(*boxes: tuple[float, float, float, float], score: float = 0.9) -> Detections:
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.full(len(boxes), score, np.float32),
        labels=np.ones(len(boxes), np.int64),
    )


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(120, 160, 3), (240, 320, 2), (480, 640, 1), (1080, 1920, 1)]
)
def test_small_images_are_enlarged(height: int, width: int, factor: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    drawn = draw_detections(image, found(), CLASSES)
    assert drawn.shape == (height * factor, width * factor, 3)
    assert drawn.dtype == np.uint8


def test_box_lies_where_it_was_detected_in_its_class_colour() -> None:
    image = np.full((240, 320, 1), 90, np.uint8)
    drawn = draw_detections(image, found((100, 100, 200, 180)), CLASSES)
    colour = class_colour(1)
    for row, column in ((300, 200), (300, 400), (200, 390), (360, 300)):
        assert tuple(drawn[row, column]) == colour
    assert tuple(drawn[300, 300]) == (90, 90, 90)
    assert tuple(drawn[100, 100]) == (90, 90, 90)


def test_label_stands_above_its_box_and_the_image_is_untouched() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    drawn = draw_detections(image, found((100, 100, 200, 180)), CLASSES)
    assert (drawn[185:195, 200:230] == class_colour(1)).all(axis=2).mean() > 0.3
    assert not image.any()


def test_detections_below_the_score_are_left_out() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    weak = found((100, 100, 200, 180), score=0.29)
    assert not draw_detections(image, weak, CLASSES).any()
    assert draw_detections(image, weak, CLASSES, min_score=0.2).any()


def test_score_can_be_left_out() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    with_score = draw_detections(image, found((100, 100, 200, 180)), CLASSES)
    without = draw_detections(image, found((100, 100, 200, 180)), CLASSES, show_scores=False)
    assert with_score.any(axis=2).sum() > without.any(axis=2).sum()


@pytest.mark.parametrize(
    "box",
    [(-50, -50, 400, 400), (0, 0, 3, 3), (318, 238, 320, 240), (500, 500, 600, 600), (9, 9, 5, 5)],
    ids=["larger", "top-left", "bottom-right", "outside", "inverted"],
)
def test_any_box_can_be_drawn(box: tuple[float, float, float, float]) -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    assert draw_detections(image, found(box), CLASSES).shape == (480, 640, 3)


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    one = draw_detections(image, found((100, 100, 140, 140)), CLASSES)
    two = draw_detections(image, found((100, 100, 140, 140), (100, 100, 141, 141)), CLASSES)
    label, first, both = (
        int((picture == class_colour(1)).all(axis=2).sum()) for picture in (one[:198], one, two)
    )
    assert label > 200
    assert both - first > 0.8 * label


def test_label_without_a_name_is_an_error() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    with pytest.raises(ModelError, match=r"label 1, but there are 1 class names; legal: 0 to 0"):
        draw_detections(image, found((0, 0, 9, 9)), ("person",))


def test_first_hundred_classes_have_colours_of_their_own() -> None:
    assert len({class_colour(label) for label in range(100)}) == 100
