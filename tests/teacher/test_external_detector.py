from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image as PillowImage

from edgekd.core.errors import DataError, ModelError
from edgekd.core.types import InputContract, Priors
from edgekd.data.image import letterbox, to_input
from edgekd.modelfile.runner import open_runner
from edgekd.teacher.external_detector import (
    ExternalDetector,
    ExternalDetectorCard,
    class_table,
    load_external_detector_card,
)

ULTRAFACE_PRIORS = Priors(
    strides=(8, 16, 32, 64), sizes=((10, 16, 24), (32, 48), (64, 96), (128, 192, 256))
)


def save(path: Path, nodes, inputs, outputs, constants) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(*inputs)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(np.array(v), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def fixed_answer(path: Path, shape=(1, 3, 32, 64), kind=TensorProto.FLOAT, **answers) -> Path:
    """A model that answers every image with the same tensors."""
    nodes = [helper.make_node("Identity", [f"constant_{name}"], [name]) for name in answers]
    constants = {f"constant_{name}": np.float32(value) for name, value in answers.items()}
    outputs = [(name, np.shape(value)) for name, value in answers.items()]
    return save(path, nodes, ("x", kind, list(shape)), outputs, constants)


def channel_means(path: Path, layout: str, kind=TensorProto.FLOAT, batch: int | str = 1) -> Path:
    """YOLOv5's layout: one box with a class a channel, whose score is the channel's mean."""
    axes, shape = ([2, 3], [batch, 3, 16, 16]) if layout == "NCHW" else ([1, 2], [batch, 16, 16, 3])
    nodes = [
        helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "middle"], ["scores"]),
        helper.make_node("Concat", ["box", "scores"], ["y"], axis=2),
    ]
    constants = {
        "axes": np.int64(axes),
        "middle": np.int64([1]),
        "box": np.float32([[[8, 8, 4, 4, 1]]]),
    }
    return save(path, nodes, ("x", kind, shape), [("y", [batch, 1, 8])], constants)


def card(model: Path, **changes) -> ExternalDetectorCard:
    values = {"model": model, "decoder": "yolov5", "classes": ("red", "green", "blue")}
    return ExternalDetectorCard(**{**values, **changes})


def scores_by_class(teacher: ExternalDetector, image: np.ndarray) -> dict[str, float]:
    (found,) = teacher.detect(image[None])
    return {teacher.classes[k]: float(s) for k, s in zip(found.labels, found.scores, strict=True)}


def flat(*pixel: int) -> np.ndarray:
    return np.full((16, 16, len(pixel)), pixel, np.uint8)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batch", [1, "batch"])
def test_the_model_sees_normalised_pixels_in_its_own_layout(tmp_path, layout, batch) -> None:
    model = channel_means(tmp_path / "m.onnx", layout, batch=batch)
    teacher = ExternalDetector(card(model), ("red", "green", "blue"))
    found = scores_by_class(teacher, flat(255, 102, 51))
    assert found == pytest.approx({"red": 1.0, "green": 0.4, "blue": 0.2}, rel=1e-5)
    assert teacher.size == (16, 16)


def test_mean_and_std_go_by_channel_in_the_models_order(tmp_path) -> None:
    model = channel_means(tmp_path / "m.onnx", "NCHW")
    options = {"colour": "bgr", "mean": (10.0, 20.0, 30.0), "std": (100.0, 200.0, 400.0)}
    teacher = ExternalDetector(card(model, **options), ("red", "green", "blue"))
    # The channel that the model takes first, and calls red, is the image's blue.
    found = scores_by_class(teacher, flat(230, 140, 60))
    assert found == pytest.approx({"red": 0.5, "green": 0.6, "blue": 0.5})


def test_grey_images_are_repeated_for_a_colour_model(tmp_path) -> None:
    teacher = ExternalDetector(card(channel_means(tmp_path / "m.onnx", "NCHW")), ("blue", "red"))
    assert scores_by_class(teacher, flat(51)) == pytest.approx({"blue": 0.2, "red": 0.2})


def test_colour_images_become_grey_by_luma_for_a_grey_model(tmp_path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["score"]),
        helper.make_node("Concat", ["box", "score"], ["y"], axis=2),
    ]
    constants = {"shape": np.int64([1, 1, 1]), "box": np.float32([[[8, 8, 4, 4, 1]]])}
    model = save(tmp_path / "m.onnx", nodes, ("x", TensorProto.FLOAT, [1, 1, 16, 16]),
                 [("y", [1, 1, 6])], constants)  # fmt: skip
    teacher = ExternalDetector(card(model, classes=("light",)), ("light",))
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert scores_by_class(teacher, flat(200, 100, 50)) == pytest.approx({"light": luma / 255})


def test_an_integer_input_without_scale_takes_the_pixels_as_they_are(tmp_path) -> None:
    model = channel_means(tmp_path / "m.onnx", "NHWC", TensorProto.UINT8)
    teacher = ExternalDetector(card(model, std=(1.0,)), ("red", "green", "blue"))
    assert scores_by_class(teacher, flat(3, 2, 1)) == {"red": 3, "green": 2, "blue": 1}
    with pytest.raises(ModelError, match=r"uint8 input has no scale .* legal: mean 0, std 1"):
        ExternalDetector(card(model), ("red",))


def quantized_reshape(path: Path, dtype: str, scale: float, zero_point: int) -> Path:
    """A TFLite file that hands its quantized 2 x 4 RGB pixels on as four rows of six."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    import flatbuffers

    def tensor(name, shape, kind, buffer, quantization=None):
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name, shape, buffer
        made.type, made.quantization = getattr(schema.TensorType, kind), quantization
        return made

    affine = schema.QuantizationParametersT()
    affine.scale, affine.zeroPoint = [scale], [zero_point]
    rows = schema.BufferT()
    rows.data = np.frombuffer(np.int32([1, 4, 6]).tobytes(), np.uint8)
    model, graph, code, reshape = (
        schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    )  # fmt: skip
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    reshape.inputs, reshape.outputs = [0, 2], [1]
    graph.tensors = [
        tensor("x", [1, 2, 4, 3], dtype.upper(), 0, affine),
        tensor("y", [1, 4, 6], dtype.upper(), 0, affine),
        tensor("rows", [3], "INT32", 1),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [reshape]
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers = [schema.BufferT(), rows]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 0), ("int8", -128)])
def test_a_quantized_file_is_fed_and_read_through_its_scale(tmp_path, dtype, zero_point) -> None:
    model = quantized_reshape(tmp_path / "m.tflite", dtype, 0.02, zero_point)
    # (pixel - 0) / 50 in steps of 0.02 is the pixel itself: boxes lie within the 4 x 2 pixels.
    teacher = ExternalDetector(
        card(model, classes=("spot",), std=(50.0,), min_score=0.5), ("spot",)
    )
    image = np.zeros((2, 4, 3), np.uint8)
    image.reshape(4, 6)[2] = [100, 50, 100, 50, 50, 45]  # (2, 1), 2 x 1, objectness 1, class 0.9
    (found,) = teacher.detect(image[None])
    np.testing.assert_allclose(found.boxes, [[1, 0.5, 3, 1.5]], atol=1e-5)
    np.testing.assert_allclose(found.scores, [0.9], rtol=1e-5)


def test_pixels_are_quantized_as_for_our_own_files(tmp_path) -> None:
    model = quantized_reshape(tmp_path / "m.tflite", "int8", 0.0171, -7)
    options = {"mean": (101.0,), "std": (57.0,), "classes": ("spot",)}
    teacher = ExternalDetector(card(model, **options), ("spot",))
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 3), dtype=np.uint8)
    ours = InputContract(height=2, width=4, channels=3, layout="NHWC", dtype="int8", mean=101.0,
                         std=57.0, scale=teacher.runner.input.scale, zero_point=-7)  # fmt: skip
    np.testing.assert_array_equal(teacher._tensor(image), to_input(image, ours))


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_boxes_come_back_in_the_pixels_of_each_image(tmp_path, resize) -> None:
    rows = [[[32, 16, 32, 16, 1, 0.9], [2, 16, 4, 4, 1, 0.8]]]
    model = fixed_answer(tmp_path / "m.onnx", y=rows)
    teacher = ExternalDetector(card(model, classes=("car",), resize=resize), ("car",))
    (tall,) = teacher.detect(np.zeros((1, 128, 128, 3), np.uint8))
    expected = {
        # 128 x 128 onto 64 x 32: a factor of 2 and of 4.
        "stretch": [[32, 32, 96, 96], [0, 56, 8, 72]],
        # 32 x 32 in the middle, 16 of padding left and right, where the second box lies.
        "letterbox": [[0, 32, 128, 96]],
    }
    np.testing.assert_allclose(tall.boxes, expected[resize], atol=1e-4)
    pair = teacher.detect(np.zeros((2, 32, 64, 3), np.uint8))
    for found in pair:
        np.testing.assert_allclose(found.boxes[0], [16, 8, 48, 24], atol=1e-4)


def test_what_is_dropped_crowds_nothing_out_and_merged_classes_leave_one_box(tmp_path) -> None:
    crowd = [[4 + i % 60, 4 + i // 60, 2, 2, 1, 0.9, 0, 0] for i in range(1500)]
    rows = [*crowd, [30, 16, 20, 10, 1, 0, 0.3, 0.6]]
    model = fixed_answer(tmp_path / "m.onnx", y=[rows])
    changes = {
        "classes": ("tree", "car", "truck"),
        "class_map": {"car": "vehicle", "truck": "vehicle"},
    }
    teacher = ExternalDetector(card(model, **changes), ("person", "vehicle"))
    (found,) = teacher.detect(np.zeros((1, 32, 64, 3), np.uint8))
    np.testing.assert_allclose(found.boxes, [[20, 11, 40, 21]], atol=1e-4)
    assert found.labels.tolist() == [1]
    np.testing.assert_allclose(found.scores, [0.6], rtol=1e-5)


def test_min_score_of_the_card_is_obeyed(tmp_path) -> None:
    model = fixed_answer(tmp_path / "m.onnx", y=[[[32, 16, 8, 8, 1, 0.3]]])
    for min_score, count in ((0.2, 1), (0.4, 0)):
        teacher = ExternalDetector(card(model, classes=("car",), min_score=min_score), ("car",))
        (found,) = teacher.detect(np.zeros((1, 32, 64, 3), np.uint8))
        assert (len(found.boxes), found.boxes.shape[1]) == (count, 4)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8),
     np.zeros((1, 8, 8, 4), np.uint8)],
)  # fmt: skip
def test_images_of_another_kind_are_refused(tmp_path, images) -> None:
    teacher = ExternalDetector(card(channel_means(tmp_path / "m.onnx", "NCHW")), ("red",))
    with pytest.raises(DataError, match="legal: uint8"):
        teacher.detect(images)


class TestOutputsMustFitTheDecoder:
    def refused(self, model: Path, match: str, **changes) -> None:
        with pytest.raises(ModelError, match=match):
            ExternalDetector(card(model, **changes), ("red",))

    def test_another_number_of_classes(self, tmp_path) -> None:
        model = fixed_answer(tmp_path / "m.onnx", y=np.zeros((1, 10, 85)))
        self.refused(model, r"m.onnx: its outputs are y 1 x 10 x 85; .*3 classes.* 1 x N x 8")

    def test_rows_and_columns_exchanged(self, tmp_path) -> None:
        model = fixed_answer(tmp_path / "m.onnx", y=np.zeros((1, 10, 7)))
        self.refused(model, "reads detections 1 x 7 x N", decoder="yolov8")

    def test_too_few_cells(self, tmp_path) -> None:
        model = fixed_answer(tmp_path / "m.onnx", y=np.zeros((1, 41, 8)))
        self.refused(model, "64 x 32 reads detections 1 x 42 x 8", decoder="yolox")

    def test_too_many_outputs(self, tmp_path) -> None:
        model = fixed_answer(tmp_path / "m.onnx", y=np.zeros((1, 9, 8)), z=np.zeros((1, 9, 8)))
        self.refused(model, "y 1 x 9 x 8, z 1 x 9 x 8")

    def test_scores_and_boxes_of_different_length(self, tmp_path) -> None:
        answers = {"a": np.zeros((1, 9, 2)), "b": np.zeros((1, 8, 4))}
        model = fixed_answer(tmp_path / "m.onnx", **answers)
        self.refused(model, "scores 1 x N x 2", decoder="ssd", classes=("red",))

    def test_priors_of_another_number(self, tmp_path) -> None:
        answers = {"a": np.zeros((1, 9, 2)), "b": np.zeros((1, 9, 4))}
        model = fixed_answer(tmp_path / "m.onnx", **answers)
        priors = Priors(strides=(16,), sizes=((8,),))
        options = {"decoder": "ssd-raw", "classes": ("red",), "priors": priors}
        self.refused(model, "scores 1 x 8 x 2, boxes 1 x 8 x 4", **options)

    def test_scores_and_boxes_that_look_alike_must_carry_their_names(self, tmp_path) -> None:
        boxes, scores = [[[0.25, 0.5, 0.75, 1]]], [[[0.1, 0.2, 0.3, 0.4]]]
        named = fixed_answer(tmp_path / "named.onnx", boxes=boxes, scores=scores)
        teacher = ExternalDetector(card(named, decoder="ssd", min_score=0.35), ("blue",))
        (found,) = teacher.detect(np.zeros((1, 32, 64, 3), np.uint8))
        np.testing.assert_allclose(found.boxes, [[16, 16, 48, 32]])
        nameless = fixed_answer(tmp_path / "nameless.onnx", a=boxes, b=scores)
        self.refused(nameless, "outputs of equal shape by these names", decoder="ssd")

    def test_an_open_size_or_an_odd_number_of_channels(self, tmp_path) -> None:
        for shape in ((1, 3, "h", "w"), (2, 3, 32, 64), (1, 4, 32, 64)):
            model = fixed_answer(tmp_path / "m.onnx", shape, y=np.zeros((1, 10, 8)))
            self.refused(model, "legal: batch 1 or open, a fixed height and width")

    def test_half_precision_input(self, tmp_path) -> None:
        model = fixed_answer(tmp_path / "m.onnx", kind=TensorProto.FLOAT16, y=np.zeros((1, 1, 8)))
        self.refused(model, "is float16; legal: float32, uint8, int8")

    @pytest.mark.parametrize("name", ["mean", "std"])
    def test_normalisation_for_another_number_of_channels(self, tmp_path, name) -> None:
        model = fixed_answer(tmp_path / "m.onnx", y=np.zeros((1, 10, 8)))
        self.refused(model, name + r" \[1.0, 2.0\] for 3 channels", **{name: (1.0, 2.0)})


def test_class_table_pairs_by_name_or_by_map() -> None:
    assert class_table(["Person", "cat", "CAR"], ["car", "person"], {}).tolist() == [1, -1, 0]
    mapped = class_table(["person", "bus", "car"], ["person", "vehicle"],
                         {"bus": "vehicle", "car": "vehicle"})  # fmt: skip
    assert mapped.tolist() == [-1, 1, 1]


def test_class_table_explains_what_does_not_map() -> None:
    with pytest.raises(ModelError, match=r"\['cat', 'dog'\] is one of the student's \['car'\]"):
        class_table(["cat", "dog"], ["car"], {})
    with pytest.raises(ModelError, match=r"'van', which is no class .*legal: car"):
        class_table(["bus"], ["car"], {"bus": "van"})


CARD = """
model: nets/m.onnx
decoder: ssd-raw
classes: [face, mask]
class_map: {mask: face}
mean: [127]
std: [128, 127.5, 64]
colour: bgr
resize: stretch
min_score: 0.3
priors: {strides: [8, 16], sizes: [[10, 16], [32]]}
"""


def test_a_card_is_read_whole(tmp_path) -> None:
    (tmp_path / "card.yaml").write_text(CARD)
    assert load_external_detector_card(tmp_path / "card.yaml") == ExternalDetectorCard(
        model=tmp_path / "nets" / "m.onnx",
        decoder="ssd-raw",
        classes=("face", "mask"),
        class_map={"mask": "face"},
        mean=(127.0,),
        std=(128.0, 127.5, 64.0),
        colour="bgr",
        resize="stretch",
        min_score=0.3,
        priors=Priors(strides=(8, 16), sizes=((10, 16), (32,))),
    )


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (
            "decoder: yolov9",
            "'yolov9'; did you mean 'yolov[58]'.* legal: fastestdet, fastestdet-raw, ssd",
        ),
        ("decoder: edgedet", "'edgedet'; .*legal: fastestdet, fastestdet-raw, ssd"),
        ("decoder: ssd", "'priors' belong to 'ssd-raw'"),
        ("priors: null", "'priors' belong to 'ssd-raw', which needs them"),
        ("priors: {strides: [8], sizes: []}", r"strides \[8\], sizes \[\]; legal: for every"),
        ("priors: {strides: [8], sizes: [[]]}", "legal: for every stride a list"),
        ("classes: []", "legal: at least one"),
        ("classes: [face, face]", "each named once"),
        ("class_map: {helmet: face}", "no class 'helmet' in 'classes'"),
        ("colour: grey", "colour: illegal value 'grey'; .*legal: bgr, rgb"),
        ("pad_value: 256", "pad_value 256; legal: 0 to 255"),
        ("min_score: 1.0", "min_score 1.0"),
        ("std: [0]", "std .*legal: numbers above 0"),
        ("colours: rgb", "unknown key 'colours'; did you mean 'colour'"),
        ("model: ../m.onnx", "'../m.onnx' leaves the folder"),
        ("model: /m.onnx", "'/m.onnx' leaves the folder"),
        (r"model: nets\..\..\m.onnx", "leaves the folder"),
        (r"model: C:\m.onnx", "leaves the folder"),
    ],
)
def test_a_wrong_card_names_file_value_and_what_is_legal(tmp_path, line, match) -> None:
    key = line.split(":")[0] + ":"
    kept = [other for other in CARD.splitlines() if not other.startswith(key)]
    path = tmp_path / "card.yaml"
    path.write_text("\n".join([*kept, line]))
    with pytest.raises(ModelError, match=match) as refused:
        load_external_detector_card(path)
    assert str(path) in str(refused.value)


def test_sha256_follows_model_card_and_classes_but_not_the_place(tmp_path) -> None:
    def address(folder: str, score: float = 0.9, classes=("car", "bus"), **changes) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        model = fixed_answer(tmp_path / folder / "m.onnx", y=[[[32, 16, 8, 8, 1, score]]])
        return ExternalDetector(card(model, **{"classes": ("car",), **changes}), classes).sha256

    first = address("a")
    assert len(first) == 64
    assert address("b") == first
    others = [
        address("b", score=0.8),
        address("b", min_score=0.5),
        address("b", colour="bgr"),
        address("b", classes=("bus", "car")),
    ]
    assert len({first, *others}) == 5


def test_an_external_detector_needs_no_torch() -> None:
    code = "import edgekd.teacher.external_detector, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def models(real_data: Path) -> Path:
    return real_data / "models"


@pytest.fixture
def portrait() -> np.ndarray:
    """A photograph of one person, 600 x 512, that matplotlib brings along."""
    matplotlib = pytest.importorskip("matplotlib")
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    if not path.is_file():
        pytest.skip("this matplotlib comes without its sample photograph")
    return np.asarray(PillowImage.open(path).convert("RGB"))


def ultraface(models: Path, **changes) -> ExternalDetectorCard:
    values = {
        "model": models / "ultraface" / "version-RFB-320.onnx", "decoder": "ssd",
        "classes": ("face",), "mean": (127.0,), "std": (128.0,), "resize": "stretch",
    }  # fmt: skip
    return ExternalDetectorCard(**{**values, **changes})


def fastestdet(models: Path, **changes) -> ExternalDetectorCard:
    # COCO's order; the classes that no test names are numbered.
    names = ("person", "bicycle", "car", "motorbike", "aeroplane")
    values = {
        "model": models / "fastestdet" / "FastestDet.onnx", "decoder": "fastestdet",
        "classes": names + tuple(f"class {i}" for i in range(5, 80)),
        "class_map": {"person": "person", "aeroplane": "plane"},
        "colour": "bgr",
    }  # fmt: skip
    return ExternalDetectorCard(**{**values, **changes})


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.clip(high - low, 0, None).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_ultraface_finds_the_face(models, portrait, resize) -> None:
    teacher = ExternalDetector(ultraface(models, resize=resize, min_score=0.5), ("face",))
    (found,) = teacher.detect(portrait[None])
    assert len(found.boxes) == 1
    # Read off the photograph: forehead to chin, ear to ear.
    assert overlap(found.boxes[0], np.array([170, 120, 355, 335])) > 0.8


def test_a_letterboxed_image_and_the_same_image_in_its_padding_agree(models, portrait) -> None:
    options = {"min_score": 0.02, "resize": "letterbox", "pad_value": 114}
    teacher = ExternalDetector(ultraface(models, **options), ("face",))
    wide = np.ascontiguousarray(portrait[120:280, :320])
    assert wide.shape == (160, 320, 3)
    padded = np.full((240, 320, 3), 114, np.uint8)
    padded[40:200] = wide
    (a,), (b,) = teacher.detect(wide[None]), teacher.detect(padded[None])
    moved = np.clip(b.boxes - np.float32([0, 40, 0, 40]), 0, [320, 160, 320, 160])
    inside = (moved[:, 2:] > moved[:, :2]).all(axis=1)
    assert len(a.boxes) > 0
    np.testing.assert_allclose(a.boxes, moved[inside], atol=1e-3)
    np.testing.assert_array_equal(a.scores, b.scores[inside])


def test_raw_heads_of_ultraface_decode_to_the_boxes_that_its_file_computes(
    models, portrait, tmp_path
) -> None:
    published = ultraface(models)
    model = onnx.load(published.model)
    (softmax,) = [node for node in model.graph.node if node.output[0] == "scores"]
    # The last two joins of the four levels: logits, which go into the softmax, and locations.
    joins = [n.output[0] for n in model.graph.node if n.op_type == "Concat" and len(n.input) == 4]
    logits, locations = joins[-2:]
    assert softmax.input[0] == logits
    del model.graph.output[:]
    for name, columns in ((logits, 2), (locations, 4)):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4420, columns])
        model.graph.output.append(info)
    onnx.save(model, tmp_path / "raw.onnx")
    raw = dataclasses.replace(
        published, model=tmp_path / "raw.onnx", decoder="ssd-raw", priors=ULTRAFACE_PRIORS
    )
    (a,) = ExternalDetector(published, ("face",)).detect(portrait[None])
    (b,) = ExternalDetector(raw, ("face",)).detect(portrait[None])
    assert len(a.boxes) > 0
    np.testing.assert_allclose(a.boxes, b.boxes, atol=0.01)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_fastestdet_applies_sigmoid_and_softmax_in_its_file(models, portrait) -> None:
    size = InputContract(height=352, width=352, channels=3, layout="NCHW", dtype="float32",
                         mean=0.0, std=255.0)  # fmt: skip
    tensor = to_input(letterbox(portrait, size)[0], size)
    (grid,) = open_runner(fastestdet(models).model).run(tensor)
    assert grid[0, 0].min() >= 0
    assert 0.5 < grid[0, 0].max() <= 1
    np.testing.assert_allclose(grid[0, 5:].sum(axis=0), 1, atol=1e-5)


def test_fastestdet_finds_the_person(models, portrait) -> None:
    teacher = ExternalDetector(fastestdet(models, min_score=0.5), ("plane", "person"))
    (found,) = teacher.detect(portrait[None])
    assert teacher.classes[found.labels[0]] == "person"
    assert found.scores[0] > 0.8
    assert overlap(found.boxes[0], np.array([0, 20, 512, 600])) > 0.9


def test_fastestdet_finds_annotated_planes(models, real_data) -> None:
    planes = fastestdet(models, class_map={"aeroplane": "plane"})
    teacher = ExternalDetector(planes, ("plane",))
    overlaps = []
    for annotation in sorted((real_data / "toy_plane" / "annotations").glob("*.xml"))[:40]:
        image = real_data / "toy_plane" / "images" / f"{annotation.stem}.jpg"
        sides = re.findall(r"<[xy]m(?:in|ax)>(\d+)<", annotation.read_text())
        if len(sides) != 4 or not image.is_file():
            continue
        truth = np.array(sides, np.float32)  # One box: xmin, ymin, xmax, ymax.
        (found,) = teacher.detect(np.asarray(PillowImage.open(image).convert("RGB"))[None])
        overlaps.append(overlap(found.boxes[0], truth) if len(found.boxes) else 0.0)
    assert len(overlaps) > 30
    assert np.mean(np.array(overlaps) > 0.5) > 0.65


def test_a_file_with_its_own_post_processing_is_refused_clearly(models) -> None:
    folder = models / "ssd_mobilenet_v1_coco_tflite"
    (model,) = folder.glob("*.tflite")
    given = ExternalDetectorCard(model=model, decoder="ssd", classes=("person",), mean=(127.5,),
                         std=(127.5,))  # fmt: skip
    with pytest.raises(ModelError, match="TFLite_Detection_PostProcess 1 x 10 x 4"):
        ExternalDetector(given, ("person",))
