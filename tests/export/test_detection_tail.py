from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.core.errors import ExportError
from edgekd.core.types import OutputContract
from edgekd.export.detection_tail import with_detection_tail
from edgekd.modelfile.contract import read_contract
from edgekd.standalone import decoder

STEP = 1 / 16  # Of the quantized scenes: coarse, so that equal logits abound.


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Raw outputs around objects: neighbouring cells of all levels answer for each of them."""

    height: int = 96
    width: int = 128
    classes: int = 3
    strides: tuple[int, ...] = (8, 16, 32)
    objects: int = 12
    background: float = -8.0
    quantized: bool = False

    @property
    def outputs(self) -> tuple[OutputContract, ...]:
        return tuple(
            OutputContract(
                name=f"{role}_{stride}",
                role=role,
                stride=stride,
                shape=(1, channels, self.height // stride, self.width // stride),
                layout="NCHW",
                dtype="float32",
            )
            for stride in self.strides
            for role, channels in (("scores", self.classes), ("boxes", 4))
        )

    def tensors(self, seed: int) -> list[np.ndarray]:
        """In the order of `outputs`."""
        rng = np.random.default_rng(seed)
        place = rng.uniform(0, (self.width, self.height), (self.objects, 2))
        size = rng.uniform(10, 70, (self.objects, 2))
        kind = rng.integers(self.classes, size=self.objects)
        tensors = []
        for stride in self.strides:
            rows, columns = np.indices((self.height // stride, self.width // stride)) + 0.5
            scores = rng.normal(self.background, 1.5, (self.classes, *rows.shape))
            boxes = rng.normal(0, 0.4, (4, *rows.shape))
            for (x, y), (w, h), label in zip(place, size, kind, strict=True):
                near = (abs(columns * stride - x) < w / 2) & (abs(rows * stride - y) < h / 2)
                scores[label, near] = rng.normal(1.0, 2.0, near.sum())
                # A second class sees the same object: suppression must not mix the two.
                scores[(label + 1) % self.classes, near] = rng.normal(0.0, 2.0, near.sum())
                target = np.stack(
                    (
                        x / stride - columns,
                        y / stride - rows,
                        np.full(rows.shape, np.log(w / stride / decoder.SIZE_PRIOR)),
                        np.full(rows.shape, np.log(h / stride / decoder.SIZE_PRIOR)),
                    )
                )
                boxes[:, near] = (target + rng.normal(0, 0.15, target.shape))[:, near]
            for values in (scores, boxes):
                real = np.clip(np.round(values / STEP), -128, 127) * STEP
                tensors.append((real if self.quantized else values).astype(np.float32)[None])
        return tensors


SCENES = {
    "clusters": Scene(),
    "one class": Scene(classes=1),
    "many classes": Scene(classes=80, objects=30),
    "four levels": Scene(strides=(4, 8, 16, 32)),
    "one level": Scene(strides=(16,)),
    "fewer pairs than candidates": Scene(height=32, width=32, objects=3),
    "more than 1000 candidates": Scene(strides=(4, 8, 16, 32), objects=60, background=-2.0),
    "more than 1000 candidates on an integer grid": Scene(
        strides=(4, 8, 16, 32), objects=60, background=-2.0, quantized=True
    ),
    "many equal logits": Scene(quantized=True),
}


def straight_through(
    outputs: Sequence[OutputContract], opset: int = 20, quantized: bool = False
) -> onnx.ModelProto:
    """A model whose inputs are the raw outputs; with ``quantized``, through an int8 Q/DQ pair."""
    nodes, constants = [], []
    if quantized:
        constants = [
            numpy_helper.from_array(np.array(STEP, np.float32), "scale"),
            numpy_helper.from_array(np.array(0, np.int8), "zero"),
        ]
    for spec in outputs:
        name = spec.name
        if quantized:
            grid = ["scale", "zero"]
            nodes.append(helper.make_node("QuantizeLinear", [f"{name}_in", *grid], [f"{name}_q"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *grid], [name]))
        else:
            nodes.append(helper.make_node("Identity", [f"{name}_in"], [name]))
    values = [
        [helper.make_tensor_value_info(s.name + end, TensorProto.FLOAT, s.shape) for s in outputs]
        for end in ("_in", "")
    ]
    graph = helper.make_graph(nodes, "raw", *values, initializer=constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=min(opset, 10)
    )


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def reference(
    tensors: Sequence[np.ndarray], outputs: Sequence[OutputContract], **settings: float
) -> tuple[np.ndarray, ...]:
    contract = {"outputs": [asdict(spec) for spec in outputs]}
    return decoder.detect(tensors, contract, **settings)


def assert_same(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    boxes, scores, labels = found
    assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)
    assert boxes.shape == (len(labels), 4)
    np.testing.assert_array_equal(labels, expected[2])
    np.testing.assert_allclose(scores, expected[1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(boxes, expected[0], rtol=0, atol=1e-3)


def fed(outputs: Sequence[OutputContract], tensors: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{spec.name}_in": t for spec, t in zip(outputs, tensors, strict=True)}


@pytest.mark.parametrize("name", SCENES)
def test_the_file_finds_what_the_decoder_finds(name: str) -> None:
    scene = SCENES[name]
    model = straight_through(scene.outputs, quantized=scene.quantized)
    session = session_of(with_detection_tail(model, scene.outputs))
    for seed in range(20):
        tensors = scene.tensors(seed)
        expected = reference(tensors, scene.outputs, min_score=0.05)
        assert len(expected[0]) > 0
        assert_same(session.run(None, fed(scene.outputs, tensors)), expected)


def test_the_crowded_scenes_are_crowded() -> None:
    scene = SCENES["more than 1000 candidates"]
    for seed in range(20):
        tensors = scene.tensors(seed)
        contract = {"outputs": [asdict(spec) for spec in scene.outputs]}
        everything = decoder.decode(tensors, contract, 0.05, max_candidates=10**6)
        assert len(everything[0]) > 1000
        assert len(reference(tensors, scene.outputs, min_score=0.05, limit=1000)[0]) > 100


@pytest.mark.parametrize(
    ("min_score", "iou", "limit"),
    [(0.001, 0.6, 100), (0.5, 0.3, 100), (0.05, 0.0, 100), (0.05, 1.0, 300), (0.05, 0.6, 1),
     (0.3, 0.45, 2000)],
)  # fmt: skip
@pytest.mark.parametrize("quantized", [False, True], ids=["real", "quantized"])
def test_the_settings_mean_what_they_mean_to_the_decoder(
    min_score: float, iou: float, limit: int, quantized: bool
) -> None:
    scene = replace(SCENES["more than 1000 candidates"], quantized=quantized)
    settings = {"min_score": min_score, "iou": iou, "limit": limit}
    model = with_detection_tail(straight_through(scene.outputs), scene.outputs, **settings)
    session = session_of(model)
    for seed in range(3):
        tensors = scene.tensors(seed)
        expected = reference(tensors, scene.outputs, **settings)
        assert_same(session.run(None, fed(scene.outputs, tensors)), expected)


def test_nothing_found_is_an_empty_result() -> None:
    scene = Scene(objects=0, background=-30.0)
    session = session_of(with_detection_tail(straight_through(scene.outputs), scene.outputs))
    found = session.run(None, fed(scene.outputs, scene.tensors(0)))
    assert [t.shape for t in found] == [(0, 4), (0,), (0,)]
    assert [t.dtype for t in found] == [np.float32, np.float32, np.int64]


@pytest.mark.parametrize("min_score", [0.05, 0.2, 0.3, 0.5, 0.7, 0.9])
def test_a_logit_beside_the_threshold_falls_on_the_decoders_side(min_score: float) -> None:
    scene = Scene(height=32, width=32, classes=2, strides=(8,))
    scores, boxes = np.full((1, 2, 4, 4), -30, np.float32), np.zeros((1, 4, 4, 4), np.float32)
    nearest = np.float32(np.log(min_score / (1 - min_score)))
    scores[0, 0, 0, :3] = [nearest, np.nextafter(nearest, -np.float32(9)), 0]
    scores[0, 0, 0, 2] = np.nextafter(nearest, np.float32(9))
    settings = {"min_score": min_score, "iou": 1.0}
    model = with_detection_tail(straight_through(scene.outputs), scene.outputs, **settings)
    found = session_of(model).run(None, fed(scene.outputs, [scores, boxes]))
    assert_same(found, reference([scores, boxes], scene.outputs, **settings))


def test_sizes_are_clipped_as_the_decoder_clips_them() -> None:
    scene = Scene(height=32, width=32, classes=1, strides=(8,))
    scores = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    boxes = np.zeros((1, 4, 4, 4), np.float32)
    boxes[0, 2] = np.linspace(-9, 9, 16).reshape(4, 4)
    boxes[0, 3] = -boxes[0, 2]
    model = with_detection_tail(straight_through(scene.outputs), scene.outputs)
    found = session_of(model).run(None, fed(scene.outputs, [scores, boxes]))
    assert np.ptp(found[0][:, ::2], axis=1).max() > 3000
    assert_same(found, reference([scores, boxes], scene.outputs, min_score=0.05))


@pytest.mark.parametrize("opset", [11, 12, 13, 16, 18, 19, 20, 21])
def test_every_opset_from_11_on_computes_the_same(opset: int) -> None:
    scene = Scene()
    model = with_detection_tail(straight_through(scene.outputs, opset), scene.outputs)
    assert [(x.domain, x.version) for x in model.opset_import] == [("", opset)]
    tensors = scene.tensors(5)
    found = session_of(model).run(None, fed(scene.outputs, tensors))
    assert_same(found, reference(tensors, scene.outputs, min_score=0.05))


def test_raw_outputs_follow_where_they_are_kept() -> None:
    scene = SCENES["many equal logits"]
    backwards = scene.outputs[::-1]
    model = with_detection_tail(straight_through(scene.outputs), backwards, keep_raw=True)
    names = [spec.name for spec in scene.outputs]
    assert [item.name for item in model.graph.output] == ["boxes", "scores", "labels", *names]
    tensors = scene.tensors(1)
    found = session_of(model).run(None, fed(scene.outputs, tensors))
    assert_same(found[:3], reference(tensors, scene.outputs, min_score=0.05))
    for raw, tensor in zip(found[3:], tensors, strict=True):
        np.testing.assert_array_equal(raw, tensor)


def test_the_model_given_is_left_alone_and_the_bytes_repeat() -> None:
    outputs = Scene().outputs
    model = straight_through(outputs)
    before = model.SerializeToString(deterministic=True)
    first, second = (with_detection_tail(model, outputs) for _ in range(2))
    assert model.SerializeToString(deterministic=True) == before
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_a_contract_of_the_raw_outputs_is_not_carried_on() -> None:
    outputs = Scene().outputs
    model = straight_through(outputs)
    helper.set_model_props(model, {"author": "someone", "edgekd_contract": "{}"})
    tailed = with_detection_tail(model, outputs)
    assert [(p.key, p.value) for p in tailed.metadata_props] == [("author", "someone")]


def test_what_cannot_have_a_tail_is_refused_with_its_reason() -> None:
    outputs = Scene().outputs
    model = straight_through(outputs)
    scores, boxes = outputs[:2]
    plain = replace(boxes, name="boxes")
    cases = {
        "opset is 10": (straight_through(outputs, 10), outputs, {}),
        "already has a value 'detection_tail/": (with_detection_tail(model, outputs), outputs, {}),
        "already has a value 'boxes'": (straight_through([plain]), (scores, plain), {}),
        "no output 'other'": (model, (replace(scores, name="other"), boxes), {}),
        "a batch of 2": (model, (replace(scores, shape=(2, 3, 12, 16)), boxes), {}),
        "shape .1, 3, 12, 16.": (
            model,
            (replace(scores, shape=(1, 5, 12, 16)), boxes),
            {},
        ),
        "legal beside 'scores_8'": (model, (scores, replace(boxes, shape=(1, 4, 6, 8))), {}),
        "stride 8 has scores": (model, (scores, *outputs[2:]), {}),
        "two scores outputs": (model, (scores, scores, boxes), {}),
        "int8 NCHW": (model, (replace(scores, dtype="int8"), boxes), {}),
        "float32 NHWC": (model, (replace(scores, layout="NHWC"), boxes), {}),
        "at least one level": (model, (), {}),
        "min_score 1": (model, outputs, {"min_score": 1}),
        "min_score 0": (model, outputs, {"min_score": 0}),
        "iou 1.5": (model, outputs, {"iou": 1.5}),
        "limit 0": (model, outputs, {"limit": 0}),
    }
    for reason, (case, contract, settings) in cases.items():
        with pytest.raises(ExportError, match=reason):
            with_detection_tail(case, contract, **settings)


@pytest.mark.xdist_group("run")
@pytest.mark.parametrize("file", ["float.onnx", "int8.onnx", "int8-host.onnx"])
def test_a_shipped_file_with_a_tail_finds_what_its_raw_outputs_mean(
    finished_run, file: str
) -> None:
    path = finished_run.folder / "export" / file
    contract, model = read_contract(path), onnx.load(path)
    # A few steps of training leave every score near zero; a low threshold gives boxes to compare.
    settings = {"min_score": 1e-3, "iou": 0.5, "limit": 50}
    raw = session_of(model)
    tailed = session_of(with_detection_tail(model, contract.outputs, **settings))
    rng = np.random.default_rng(0)
    for _ in range(3):
        image = rng.uniform(-1, 1, raw.get_inputs()[0].shape).astype(np.float32)
        expected = reference(raw.run(None, {"images": image}), contract.outputs, **settings)
        assert len(expected[0]) > 0
        assert_same(tailed.run(None, {"images": image}), expected)


def test_the_tail_needs_no_torch() -> None:
    code = "import sys, edgekd.export.detection_tail; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
