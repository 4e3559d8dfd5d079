from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgekd.standalone.decoder as decoder
from edgekd.core.types import InputContract
from edgekd.data.image import letterbox


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
    assert imported - {"numpy"} <= sys.stdlib_module_names


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


def test_it_decodes_from_the_command_line_of_a_bundle(tmp_path: Path) -> None:
    spec = contract(8)
    scores = np.full((1, 2, 2, 1), 3.0, np.float32)
    np.savez(tmp_path / "out.npz", scores_8=scores, boxes_8=np.zeros((1, 2, 2, 4), np.float32))
    whole = {"files": [{"path": "models/a.onnx", "outputs": []}, {"path": "models/b.onnx", **spec}]}
    (tmp_path / "contract.json").write_text(json.dumps(whole))
    copy = shutil.copy(decoder.__file__, tmp_path)

    def run(*named: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", copy, tmp_path / "contract.json"]
        return subprocess.run(
            [*command, tmp_path / "out.npz", *named], capture_output=True, text=True, check=False
        )

    assert [r["label"] for r in json.loads(run("b.onnx").stdout)] == [0] * 4
    for named in ((), ("c.onnx",)):
        assert "name the file that made the outputs: a.onnx, b.onnx" in run(*named).stderr
        assert run(*named).returncode == 1


@pytest.mark.parametrize(("min_score", "found"), [(0.0, 4), (0.9, 4), (0.96, 0), (1.0, 0)])
def test_scores_of_nothing_and_of_certainty_are_thresholds_too(min_score: float, found: int):
    outputs = [np.full((1, 2, 2, 1), 3.0, np.float32), np.zeros((1, 2, 2, 4), np.float32)]
    assert len(decoder.decode(outputs, contract(8), min_score)[0]) == found


def foreign(name: str, roles=("detections",), layout="any", width: int = 64, height: int = 32,
            priors=None):  # fmt: skip
    """The contract of another project's file."""
    return {
        "input": {"height": height, "width": width},
        "outputs": [
            {"name": role, "role": role, "stride": 0, "layout": layout,
             "scale": None, "zero_point": None}
            for role in roles
        ],
        "decoding": {"decoder": name, **({"priors": priors} if priors else {})},
    }  # fmt: skip


PRIORS = {"strides": [16, 32], "sizes": [[10, 16], [40]]}
SSD_ROLES = ("scores", "boxes")


def assert_finds(outputs, spec, boxes, scores, labels, atol=1e-4) -> None:
    found = decoder.decode([np.array([o], np.float32) for o in outputs], spec, min_score=0.2)
    np.testing.assert_allclose(found[0], boxes, atol=atol)
    np.testing.assert_allclose(found[1], scores, atol=1e-5)
    assert found[2].tolist() == labels
    assert [part.dtype.name for part in found] == ["float32", "float32", "int64"]


def test_yolov5_multiplies_objectness_and_class() -> None:
    rows = [[20, 10, 8, 4, 0.5, 0.2, 0.8], [40, 20, 10, 10, 0.9, 1.0, 0.1]]
    assert_finds([rows], foreign("yolov5"), [[35, 15, 45, 25], [16, 8, 24, 12]], [0.9, 0.4], [0, 1])


def test_yolov8_reads_columns_and_has_no_objectness() -> None:
    columns = [[20, 40], [10, 20], [8, 10], [4, 10], [0.1, 0.9], [0.6, 0.1], [0.3, 0.0]]
    assert_finds(
        [columns],
        foreign("yolov8"),
        [[35, 15, 45, 25], [16, 8, 24, 12], [16, 8, 24, 12]],
        [0.9, 0.6, 0.3],
        [0, 1, 2],
    )


def test_yolox_counts_cells_from_their_corner_over_three_strides() -> None:
    # 64 x 32 pixels: 8 x 4 cells of stride 8, then 4 x 2 of 16, then 2 x 1 of 32.
    rows = np.zeros((32 + 8 + 2, 6))
    rows[8 * 2 + 3] = [0.5, 0.25, 0, np.log(2), 0.8, 1.0]
    rows[32 + 4 * 1 + 2] = [0, 0, 0, 0, 1.0, 0.7]
    rows[32 + 8 + 1] = [-1, 0.5, -np.log(2), 0, 0.5, 0.5]
    boxes = [
        [28 - 4, 18 - 8, 28 + 4, 18 + 8],  # centre ((3 + 0.5) 8, (2 + 0.25) 8), size (8, 16)
        [32 - 8, 16 - 8, 32 + 8, 16 + 8],
        [0 - 8, 16 - 16, 0 + 8, 16 + 16],
    ]
    assert_finds([rows], foreign("yolox"), boxes, [0.8, 0.7, 0.25], [0, 0, 0])


def test_ssd_skips_the_background_and_scales_each_axis() -> None:
    scores = [[0.1, 0.3, 0.6], [0.9, 0.05, 0.05]]
    boxes = [[0.25, 0.5, 0.75, 1.0], [0, 0, 1, 1]]
    expected = [[16, 16, 48, 32]] * 2
    assert_finds([scores, boxes], foreign("ssd", SSD_ROLES), expected, [0.6, 0.3], [1, 0])
    assert_finds([boxes, scores], foreign("ssd", SSD_ROLES[::-1]), expected, [0.6, 0.3], [1, 0])


def test_raw_ssd_reads_locations_against_its_priors() -> None:
    # 4 x 2 cells of stride 16 with two priors each, then 2 x 1 of stride 32 with one.
    scores, boxes = np.zeros((18, 2)), np.zeros((18, 4))
    scores[:, 0] = 30
    row = 2 * (4 * 1 + 2) + 1  # Row 1, column 2, side 16: centre (40, 24).
    scores[row] = [0, np.log(3)]
    boxes[row] = [2.5, -5, 5 * np.log(2), 0]
    expected = [[40 + 4 - 16, 24 - 8 - 8, 40 + 4 + 16, 24 - 8 + 8]]
    spec = foreign("ssd-raw", SSD_ROLES, priors=PRIORS)
    assert_finds([scores, boxes], spec, expected, [0.75], [0])


def test_priors_follow_levels_rows_columns_sizes_and_stay_in_the_image() -> None:
    priors = decoder.ssd_priors(PRIORS, 32, 64) * [64, 32, 64, 32]
    np.testing.assert_allclose(priors[:3], [[8, 8, 10, 10], [8, 8, 16, 16], [24, 8, 10, 10]])
    np.testing.assert_allclose(priors[16:], [[16, 16, 40, 32], [48, 16, 40, 32]])
    # Ten pixels are four even columns, not three of 3 pixels and one of 1.
    uneven = decoder.ssd_priors({"strides": [3], "sizes": [[5]]}, 3, 10)
    np.testing.assert_allclose(uneven[:, 0], [0.125, 0.375, 0.625, 0.875])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_fastestdet_weighs_objectness_and_class(layout: str) -> None:
    grid = np.zeros((2, 4, 7))
    grid[..., 0] = 1e-6
    grid[1, 2] = [0.5, np.arctanh(0.5), np.arctanh(-0.5), 0, np.log(1 / 3), 0.1, 0.9]
    # Centre ((2 + 0.5) / 4, (1 - 0.5) / 2) of 64 x 32; size (0.5, 0.25) of it.
    expected = [[40 - 16, 8 - 4, 40 + 16, 8 + 4]] * 2
    scores = [0.5**0.6 * 0.9**0.4, 0.5**0.6 * 0.1**0.4]
    given = grid.transpose(2, 0, 1) if layout == "NCHW" else grid
    assert_finds([given], foreign("fastestdet", layout=layout), expected, scores, [1, 0])


def from_centre(x, y, w, h):
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def loop_yolov5(rows):
    return [(from_centre(*r[:4]), [r[4] * c for c in r[5:]]) for r in rows]


def loop_yolov8(columns):
    return [(from_centre(*c[:4]), c[4:]) for c in columns.T]


def loop_yolox(rows):
    found, rows = [], iter(rows)
    for stride in (8, 16, 32):
        for y in range(32 // stride):
            for x in range(64 // stride):
                r = next(rows)
                box = [r[0] + x, r[1] + y, np.exp(r[2]), np.exp(r[3])]
                found.append((from_centre(*(v * stride for v in box)), [r[4] * c for c in r[5:]]))
    return found


def loop_ssd(scores, boxes):
    return [
        ([b[0] * 64, b[1] * 32, b[2] * 64, b[3] * 32], s[1:])
        for s, b in zip(scores, boxes, strict=True)
    ]


def loop_ssd_raw(scores, boxes):
    found, rows = [], iter(zip(scores, boxes, strict=True))
    for stride, sides in zip(PRIORS["strides"], PRIORS["sizes"], strict=True):
        for y in range(32 // stride):
            for x in range(64 // stride):
                for side in sides:
                    s, b = next(rows)
                    w, h = min(side, 64), min(side, 32)
                    centre = (
                        (x + 0.5) * stride + 0.1 * b[0] * w,
                        (y + 0.5) * stride + 0.1 * b[1] * h,
                    )
                    box = from_centre(*centre, w * np.exp(0.2 * b[2]), h * np.exp(0.2 * b[3]))
                    found.append((box, [np.exp(v) / np.exp(s).sum() for v in s[1:]]))
    return found


def loop_fastestdet(grid):
    found = []
    for y in range(grid.shape[1]):
        for x in range(grid.shape[2]):
            c = grid[:, y, x]
            w, h = 64 / (1 + np.exp(-c[3])), 32 / (1 + np.exp(-c[4]))
            box = from_centre((x + np.tanh(c[1])) / 4 * 64, (y + np.tanh(c[2])) / 2 * 32, w, h)
            found.append((box, [c[0] ** 0.6 * v**0.4 for v in c[5:]]))
    return found


def loop_fastestdet_raw(objectness, boxes, classes):
    shares = np.exp(classes) / np.exp(classes).sum(axis=0)
    return loop_fastestdet(np.concatenate((1 / (1 + np.exp(-objectness)), boxes, shares)))


@pytest.mark.parametrize(
    ("name", "shapes", "loop", "options"),
    [
        ("yolov5", [(30, 8)], loop_yolov5, {}),
        ("yolov8", [(7, 30)], loop_yolov8, {}),
        ("yolox", [(42, 8)], loop_yolox, {}),
        ("ssd", [(30, 4), (30, 4)], loop_ssd, {"roles": SSD_ROLES}),
        ("ssd-raw", [(18, 4), (18, 4)], loop_ssd_raw, {"roles": SSD_ROLES, "priors": PRIORS}),
        ("fastestdet", [(8, 2, 4)], loop_fastestdet, {"layout": "NCHW"}),
        (
            "fastestdet-raw",
            [(1, 2, 4), (4, 2, 4), (3, 2, 4)],
            loop_fastestdet_raw,
            {"layout": "NCHW", "roles": ("objectness", "boxes", "classes")},
        ),
    ],
)
def test_arrays_decode_like_a_loop_over_boxes(name, shapes, loop, options) -> None:
    rng = np.random.default_rng(5)
    outputs = [rng.random(shape) for shape in shapes]
    candidates = [
        (score, label, box)
        for box, scores in loop(*outputs)
        for label, score in enumerate(scores)
        if score > 0.1
    ]
    candidates.sort(key=lambda candidate: -candidate[0])
    boxes, scores, labels = decoder.decode(
        [output[None].astype(np.float32) for output in outputs], foreign(name, **options), 0.1
    )
    assert len(candidates) > 10
    np.testing.assert_allclose(scores, [c[0] for c in candidates], rtol=1e-5)
    np.testing.assert_allclose(boxes, [c[2] for c in candidates], atol=1e-3)
    assert labels.tolist() == [c[1] for c in candidates]


def test_quantized_outputs_of_other_layouts_are_made_real_first() -> None:
    spec = foreign("yolov5")
    spec["outputs"][0].update(scale=0.25, zero_point=-100)
    rows = np.array([[[-60, -80, -68, -84, -96, -97, -99]]], np.int8)
    boxes, scores, labels = decoder.decode([rows], spec, 0.5)
    assert boxes.tolist() == [[6, 3, 14, 7]]
    assert (scores.tolist(), labels.tolist()) == ([0.75], [0])


def test_an_unknown_decoder_is_refused_with_the_legal_ones() -> None:
    with pytest.raises(ValueError, match=r"'yolov3'; legal: edgedet, yolov5, .*fastestdet"):
        decoder.decode([], foreign("yolov3"))


def test_a_contract_that_names_edgedet_decodes_like_one_that_names_nothing() -> None:
    rng = np.random.default_rng(1)
    outputs = [rng.normal(size=(1, 3, 4, columns)).astype(np.float32) for columns in (2, 4)]
    named = {**contract(8), "decoding": {"decoder": "edgedet", "size_prior": 3.0}}
    for a, b in zip(
        decoder.detect(outputs, contract(8)), decoder.detect(outputs, named), strict=True
    ):
        np.testing.assert_array_equal(a, b)
