from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgekd.decoder as decoder
from edgekd.data.image import letterbox
from edgekd.types import InputContract


def contract(
    stride: int, layout: str = "NHWC", scale: float | None = None, zero: int | None = None
):
    return {
        "outputs": [
            {"name": f"{role}_{stride}", "role": role, "stride": stride, "layout": layout,
             "scale": scale, "zero_point": zero}
            for role in ("scores", "boxes")
        ]
    }  # fmt: skip


def test_a_cell_decodes_to_the_box_written_in_the_docstring() -> None:
    scores = np.full((1, 2, 3, 2), -20.0, np.float32)
    boxes = np.zeros((1, 2, 3, 4), np.float32)
    scores[0, 1, 2, 1] = 0.0
    boxes[0, 1, 2] = [0.5, -0.25, np.log(2.0), 0.0]
    found, score, label = decoder.detect([scores, boxes], contract(8))
    # Centre ((2 + 0.5 + 0.5) 8, (1 + 0.5 - 0.25) 8) = (24, 10); size (3 8 2, 3 8) = (48, 24).
    np.testing.assert_allclose(found, [[0, -2, 48, 22]], atol=1e-4)
    assert score.tolist() == [0.5]
    assert label.tolist() == [1]


def test_layout_and_quantization_do_not_change_the_detections() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(-128, 127, (1, 4, 5, 3), dtype=np.int8)
    boxes = rng.integers(-30, 30, (1, 4, 5, 4), dtype=np.int8)
    a = decoder.detect([scores, boxes], contract(8, "NHWC", 0.05, -3))
    reals = [
        ((t.astype(np.float32) + 3) * np.float32(0.05)).transpose(0, 3, 1, 2)
        for t in (scores, boxes)
    ]
    b = decoder.detect(reals, contract(8, "NCHW"))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_suppression_keeps_the_best_of_a_class_and_other_classes() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    kept = decoder.suppress(boxes, np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 0]))
    assert kept.tolist() == [0, 2, 3]
    assert decoder.suppress(
        boxes, np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 0]), limit=2
    ).tolist() == [0, 2]


def test_overlap_just_at_the_threshold_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 6]], np.float32)
    assert decoder.suppress(boxes, np.array([0.9, 0.8]), np.array([0, 0]), iou=0.6).tolist() == [
        0,
        1,
    ]
    assert decoder.suppress(boxes, np.array([0.9, 0.8]), np.array([0, 0]), iou=0.59).tolist() == [0]


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (50, 300)])
def test_unletterbox_inverts_letterbox(resize: str, height: int, width: int) -> None:
    spec = InputContract(
        height=192, width=256, channels=3, layout="NCHW", dtype="float32", resize=resize
    )
    image = np.zeros((height, width, 3), np.uint8)
    _, (sx, sy, left, top) = letterbox(image, spec)
    boxes = np.array([[10, 5, width - 20, height - 10]], np.float32)
    inside = boxes * [sx, sy, sx, sy] + [left, top, left, top]
    back = decoder.unletterbox(inside.astype(np.float32), sx, sy, left, top, width, height)
    np.testing.assert_allclose(back, boxes, atol=0.01)


def test_no_candidate_gives_empty_arrays() -> None:
    outputs = [np.full((1, 2, 2, 1), -30.0, np.float32), np.zeros((1, 2, 2, 4), np.float32)]
    boxes, scores, labels = decoder.detect(outputs, contract(8))
    assert boxes.shape == (0, 4)
    assert scores.shape == labels.shape == (0,)


def test_it_is_one_file_that_needs_only_numpy_and_python_3_8() -> None:
    source = Path(decoder.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import)
            else [node.module] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert imported <= {"__future__", "json", "sys", "numpy"}


def test_it_decodes_from_the_command_line(tmp_path: Path) -> None:
    spec = contract(8)
    scores = np.full((1, 2, 2, 1), -20.0, np.float32)
    scores[0, 0, 0, 0] = 3.0
    np.savez(tmp_path / "out.npz", scores_8=scores, boxes_8=np.zeros((1, 2, 2, 4), np.float32))
    (tmp_path / "contract.json").write_text(json.dumps(spec))
    copy = tmp_path / "decoder.py"
    copy.write_text(Path(decoder.__file__).read_text(encoding="utf-8"))
    printed = subprocess.run(
        [sys.executable, "-I", copy, tmp_path / "contract.json", tmp_path / "out.npz"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(printed.stdout) == [
        {"box": [-8.0, -8.0, 16.0, 16.0], "score": 0.952574, "label": 0}
    ]
