from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.core.serialize import to_mapping
from edgekd.core.types import InputContract
from edgekd.data.image import to_input
from edgekd.standalone import replay
from edgekd.standalone.replay import LIMITS, compare_detections, distance, figures, input_tensor

BOX = [10.0, 10.0, 30.0, 30.0]
FAR = [50.0, 50.0, 70.0, 70.0]


def expected(*rows: tuple[list[float], float, int]) -> list[dict[str, Any]]:
    boxes, scores, labels = [[row[column] for row in rows] for column in range(3)]
    return [{"boxes": boxes, "scores": scores, "labels": labels}]


def actual(*rows: tuple[list[float], float, int]) -> list[tuple[np.ndarray, ...]]:
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[1] for row in rows], np.float32)
    return [(boxes, scores, np.array([row[2] for row in rows], np.int64))]


def compare(wanted: list[Any], found: list[Any], measure: str = "range") -> dict[str, Any]:
    return compare_detections(wanted, found, [0.3, 0.6], LIMITS[measure])


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point"),
    [("float32", None, None), ("int8", 1 / 128, 0), ("int8", 0.017, 3), ("uint8", 1 / 128, 128)],
)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pixels_become_the_very_input_that_the_files_were_measured_with(
    dtype: Any, scale: float | None, zero_point: int | None, layout: Any
) -> None:
    contract = InputContract(
        height=16, width=32, channels=3, layout=layout, dtype=dtype, mean=110.0, std=57.0,
        scale=scale, zero_point=zero_point,
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8)
    mine = input_tensor(image, to_mapping(contract))
    theirs = to_input(image, contract)
    assert mine.dtype == theirs.dtype
    np.testing.assert_array_equal(mine, theirs)


def test_distances_are_in_units_of_each_output() -> None:
    first = [np.array([[1, -128]], np.int8), np.array([[1.0]], np.float32)]
    second = [np.array([[3, 127]], np.int8), np.array([[1.5]], np.float32)]
    assert distance(first, second, [1.0, 0.25]).tolist() == [2.0, 255.0, 2.0]


def test_figures_are_of_all_images_and_the_rms_of_the_worst() -> None:
    found = [np.array([0.0, 0.0, 1.0, 0.0]), np.array([2.0, 0.0, 0.0, 0.0])]
    assert figures(found, grain=1.0) == {"equal": 0.75, "within": 0.875, "rms": 1.0, "max": 2.0}


def test_a_value_that_is_no_number_is_not_near_anything() -> None:
    away = distance([np.array([np.nan], np.float32)], [np.zeros(1, np.float32)], [1.0])
    assert not figures([away], grain=1.0)["rms"] <= 1e9


def test_the_same_detections_in_another_order_agree() -> None:
    wanted = expected((BOX, 0.9, 0), (FAR, 0.8, 1))
    found = actual((FAR, 0.83, 1), (BOX, 0.88, 0))
    result = compare(wanted, found)
    assert (result["found"], result["missing"], result["extra"], result["reasons"]) == (2, 0, 0, [])
    assert result["median_iou"] == 1.0
    assert result["median_score_difference"] == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("found", "missing", "extra"),
    [
        (actual(), 1, 0),
        (actual((BOX, 0.9, 1)), 1, 1),
        (actual((FAR, 0.9, 0)), 1, 1),
        (actual((BOX, 0.84, 0)), 1, 1),
        (actual((BOX, 0.9, 0), (BOX, 0.9, 0)), 0, 1),
        (actual((BOX, 0.9, 0), (FAR, 0.34, 0)), 0, 0),
        (actual((BOX, 0.9, 0), (FAR, 0.36, 0)), 0, 1),
        (actual((BOX, 0.9, 0), (FAR, 0.62, 1)), 0, 0),
    ],
    ids=["none", "class", "place", "score", "twice", "at the threshold", "over the threshold",
         "at its class's threshold"],
)  # fmt: skip
def test_what_is_missing_or_unexpected_is_counted(
    found: list[Any], missing: int, extra: int
) -> None:
    result = compare(expected((BOX, 0.9, 0)), found)
    assert (result["missing"], result["extra"]) == (missing, extra)
    assert bool(result["reasons"]) == bool(missing or extra)


@pytest.mark.parametrize(("score", "missing"), [(0.34, 0), (0.36, 1)])
def test_an_expected_detection_near_its_threshold_may_be_missing(
    score: float, missing: int
) -> None:
    assert compare(expected((BOX, score, 0)), actual())["missing"] == missing


def test_one_box_of_an_int8_file_may_be_a_rivals_but_not_half_of_them() -> None:
    rival = [10.0, 10.0, 30.0, 24.0]  # IoU 0.7
    three = [([x, 0.0, x + 10.0, 10.0], 0.9, 0) for x in (0.0, 40.0, 80.0)]
    result = compare(expected((BOX, 0.9, 0), *three), actual((rival, 0.9, 0), *three), "steps")
    assert result["reasons"] == []
    assert compare(expected((BOX, 0.9, 0), *three), actual((rival, 0.9, 0), *three))["missing"] == 1
    result = compare(expected((BOX, 0.9, 0)), actual((rival, 0.9, 0)), "steps")
    assert (result["missing"], result["median_iou"]) == (0, pytest.approx(0.7))
    assert result["reasons"] == ["detections: median IoU 0.700; legal: 0.9 or more"]


def test_scores_that_are_all_off_are_told_from_one_that_is() -> None:
    rows = [([x, 0.0, x + 10.0, 10.0], 0.8, 0) for x in (0.0, 40.0, 80.0)]
    one = [(rows[0][0], 0.72, 0), *rows[1:]]
    shifted = [(box, 0.72, 0) for box, _, _ in rows]
    assert compare(expected(*rows), actual(*one), "steps")["reasons"] == []
    (reason,) = compare(expected(*rows), actual(*shifted), "steps")["reasons"]
    assert reason.startswith("detections: median score off by 0.080")


def test_it_is_one_file_for_python_3_8_with_numpy_and_a_runtime() -> None:
    tree = ast.parse(Path(replay.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    guarded = {
        inner
        for node in tree.body
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node not in guarded:
            imported.add(str(node.module).split(".")[0])
    standard = {name for name in imported if name in sys.stdlib_module_names}
    assert imported - standard == {"numpy", "edgekd", "decoder"}
