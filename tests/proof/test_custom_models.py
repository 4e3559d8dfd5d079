"""Networks that users already have: exported for two boards and proven, or refused with a place."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import ZipFile

import flatbuffers
import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from edgekd.config.device import load_device
from edgekd.config.sections import ExportSection
from edgekd.core.errors import ExportError, ModelError, ProofError
from edgekd.core.types import Artifact, Task
from edgekd.export.tflite_file import tflite_model
from edgekd.export.write import Graphs, export_files
from edgekd.modelfile.operator_table import OperatorEntry
from edgekd.modelfile.operators import OperatorKind
from edgekd.nets.aten import ENTRIES, overload
from edgekd.nets.card import Card, CustomCard
from edgekd.nets.custom import CustomModel, load_state
from edgekd.nets.outputs import network_outputs
from edgekd.nets.tap import TappedNet
from edgekd.proof.alignment import Alignment, align, parameter_differences
from edgekd.proof.float16 import check_half_outputs, check_half_parameters
from edgekd.proof.integer_graph import IntegerGraph
from edgekd.proof.intermediates import tflite_intermediates
from edgekd.proof.parity import check_operators
from edgekd.proof.prove import Placements, prove
from edgekd.proof.read_onnx import onnx_integer_graph
from edgekd.proof.read_tflite import tflite_graph
from edgekd.proof.read_torch import integer_graph
from edgekd.quantize import graph as graphs
from edgekd.quantize.fake_quantize import ActivationFakeQuantize
from edgekd.rules.check import check_conformance

NETS = Path(__file__).parents[2] / "benchmarks" / "own_nets"
BOARDS = ("raspberry-pi", "jetson")
CIFAR = CustomCard(
    task=Task.CLASSIFICATION, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
)
FASTESTDET = CustomCard(task=Task.DETECTION, mean=(0.0,), std=(255.0,), colour="bgr")
ULTRAFACE = CustomCard(task=Task.DETECTION, mean=(127.0,), std=(128.0,))

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Exported:
    """Files of one network for one board, and what they are proven against."""

    artifacts: tuple[Artifact, ...]
    graphs: Graphs
    pixels: Pixels

    @property
    def tflite(self) -> Path:
        return next(a.path for a in self.artifacts if a.path.name == "int8.tflite")


def quantized(net: nn.Module, own: CustomCard, pixels: Pixels, board: str) -> tuple[Graphs, Card]:
    """The graphs of a network whose ranges are calibrated on the images."""
    height, width = pixels.shape[1:3]
    card = Card(
        architecture="own", classes=("a", "b"), height=height, width=width, strides=(), own=own
    )
    own_net = CustomModel(net, own, 3).eval()
    outputs = network_outputs(own_net, card)
    folded = graphs.folded_graph(TappedNet(own_net, ()).eval(), torch.zeros(2, 3, height, width))
    prepared = graphs.prepared(folded, load_device(board).quantization)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 128) / 128
    graphs.calibrate(prepared, images.split(4))
    frozen, count = graphs.frozen(prepared), len(outputs)
    integer, complete = graphs.placements(frozen, count)
    built = Graphs(
        floating=graphs.only_outputs(folded, count),
        integer=integer,
        complete=complete,
        unfolded=graphs.converted(frozen, count, fold_weights=False, complete=True),
        outputs=outputs,
    )
    return built, card


def exported(net: nn.Module, own: CustomCard, pixels: Pixels, board: str, folder: Path) -> Exported:
    built, card = quantized(net, own, pixels, board)
    artifacts = export_files(
        built, card, load_device(board), ExportSection(), folder=folder, recipe_sha256="0" * 64
    )
    return Exported(artifacts, built, pixels)


def assert_proven(made: Exported, board: str) -> None:
    trained = Placements(target=made.graphs.integer, complete=made.graphs.complete)
    checks = prove(made.artifacts, trained, load_device(board), made.pixels)
    assert {c.name.split("/")[0] for c in checks} == {"parity", "coverage", "conformance"}
    for check in checks:
        assert check.passed, f"{check.name}: {check.figure} ({check.failing_operator})"


class Mover(nn.Module):
    """Every operator that only moves integers, and pools, between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.wide = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.branch = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.shuffled = nn.Conv2d(8, 8, 1)
        self.even = nn.Conv2d(4, 6, 1)
        self.joined = nn.Conv2d(32, 8, 1)
        self.heads = nn.ModuleList([nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(8, 4, 1)])
        self.linear = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = functional.relu(self.stem(x))
        x = self.wide(x)
        kept, worked = x.chunk(2, dim=1)
        x = self.shuffle(torch.cat((kept, functional.relu(self.branch(worked))), dim=1))
        x = functional.relu(self.shuffled(x))
        fine = functional.avg_pool2d(x, 3, 2, 1)
        short = functional.pad(x[:, 1::2, ::2, ::2], (0, 0, 0, 0, 1, 1))
        fine = torch.cat((fine, functional.relu(self.even(x[:, 0::2, 1::2, 1::2]) + short)), dim=1)
        coarse = functional.max_pool2d(fine, 3, 2, 1)
        up = functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        image = functional.relu(self.joined(torch.cat((fine, up, fine[:, :4]), dim=1)))
        rows = [self.rows(head(image)) for head in self.heads]
        pooled = functional.adaptive_avg_pool2d(torch.cat((image, x[:, :, ::2, ::2]), 1), 1)
        return torch.cat(rows, dim=1), image, self.linear(pooled.flatten(1))

    @staticmethod
    def shuffle(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return x.view(batch, channels, height, width)

    @staticmethod
    def rows(maps: Tensor) -> Tensor:
        priors = maps.shape[1] // 2 * maps.shape[2] * maps.shape[3]
        return maps.permute(0, 2, 3, 1).reshape(-1, priors, 2)


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (8, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("mover")
    return exported(Mover(), CustomCard(task=Task.DETECTION), noise(16, 24), "raspberry-pi", folder)


def test_every_way_of_moving_integers_is_proven(moved: Exported) -> None:
    assert_proven(moved, "raspberry-pi")


class Activated(nn.Module):
    """SiLU behind a convolution and in a residual branch, as YOLO and EfficientNet have it."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.branch = nn.Conv2d(8, 8, 3, 1, 1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.stem(x))
        return self.head(x + self.activation(self.branch(x)))


def silu(x: Tensor) -> Tensor:
    return functional.silu(x, inplace=True)


@pytest.mark.parametrize("board", BOARDS)
def test_silu_is_rewritten_and_proven(board: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    own, pixels = CustomCard(task=Task.DETECTION), noise(16, 24)
    made = exported(Activated(silu), own, pixels, board, tmp_path)
    assert_proven(made, board)
    x = torch.randn(2, 3, 16, 24)
    net = CustomModel(Activated(silu), own, 3).eval()
    folded = graphs.folded_graph(TappedNet(net, ()), torch.zeros(2, 3, 16, 24))
    torch.testing.assert_close(folded(x)[0][0], net(x)[0])
    assert not any("silu" in str(node.target) for node in folded.graph.nodes)
    # TensorRT's scheme has no zero point, which TFLite's sigmoid demands: no such file, and said.
    names = {artifact.path.name for artifact in made.artifacts}
    assert ("int8.tflite" in names) == (board == "raspberry-pi")


def test_an_operator_is_one_entry_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`x * x`, which EdgeKD does not know: refused before, proven after, gone again."""
    net, own, pixels = Activated(torch.square), CustomCard(task=Task.DETECTION), noise(16, 24)
    with pytest.raises(ModelError, match=r"square in .* has no int8 form"):
        exported(net, own, pixels, "raspberry-pi", tmp_path / "before")
    entry = OperatorEntry(
        name="square",
        cost=OperatorKind.ELEMENTWISE,
        torch=("aten.square.default",),
        parts=(("out", "mul", "x", "x"),),
    )
    with monkeypatch.context() as patched:
        patched.setitem(ENTRIES, overload(entry.torch[0]), entry)
        made = exported(net, own, pixels, "raspberry-pi", tmp_path / "with")
        assert_proven(made, "raspberry-pi")
    with pytest.raises(ModelError, match=r"square in .* has no int8 form"):
        exported(net, own, pixels, "raspberry-pi", tmp_path / "after")


def aligned(made: Exported, path: Path) -> tuple[IntegerGraph, IntegerGraph, Alignment]:
    trained, (shipped, _) = integer_graph(made.graphs.integer), tflite_graph(path)
    return trained, shipped, align(trained, shipped)


def changed(
    path: Path, copy: Path, native: str, tensor: int, old: list[int], new: list[int]
) -> None:
    """Replaces one constant of every operator of a kind that has exactly these values."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    graph, code = model.subgraphs[0], getattr(schema.BuiltinOperator, native)
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    found = 0
    for operator in graph.operators:
        if codes[operator.opcodeIndex] != code:
            continue
        constant = graph.tensors[operator.inputs[tensor]]
        values = np.array(model.buffers[constant.buffer].data, np.uint8).view(np.int32)
        if values.tolist() == old:
            buffer = schema.BufferT()
            buffer.data = np.array(new, np.int32).view(np.uint8)
            model.buffers.append(buffer)
            constant.buffer = len(model.buffers) - 1
            found += 1
    assert found, f"no {native} with {old}"
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    copy.write_bytes(bytes(builder.Output()))


@pytest.mark.parametrize(
    ("native", "tensor", "old", "new"),
    [
        pytest.param("STRIDED_SLICE", 1, [0, 0, 0, 1], [0, 0, 0, 0], id="odd channels, not even"),
        pytest.param(
            "PAD", 1, [0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 2, 0, 0, 0, 0, 0], id="channels shifted"
        ),
        pytest.param(
            "PAD", 1, [0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 2, 1, 1, 0, 0], id="border above shifted"
        ),
    ],
)
def test_a_file_that_moves_elsewhere_is_refused(
    moved: Exported, tmp_path: Path, native: str, tensor: int, old: list[int], new: list[int]
) -> None:
    suspect = tmp_path / "int8.tflite"
    changed(moved.tflite, suspect, native, tensor, old, new)
    aligned(moved, moved.tflite)
    with pytest.raises(ProofError, match=r"never trained|outputs"):
        aligned(moved, suspect)


def test_a_runtime_that_changes_one_moved_value_is_caught(moved: Exported) -> None:
    trained, shipped, pairs = aligned(moved, moved.tflite)
    _, indices = tflite_graph(moved.tflite)
    images = (moved.pixels[:2].astype(np.int16) - 128).astype(np.int8)
    integers = tflite_intermediates(moved.tflite, indices, images)
    assert check_operators(trained, shipped, pairs, integers, "runtime").passed
    move = next(m for m in shipped.moves if m.name.startswith("STRIDED_SLICE"))
    integers[move.output].flat[0] ^= 1
    check = check_operators(trained, shipped, pairs, integers, "runtime")
    assert not check.passed
    assert check.failing_operator == move.name


class Shared(nn.Module):
    """A ReLU whose scale is shared with values below zero, beside a global mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat((self.first(x), functional.relu(self.second(x))), dim=1)
        return self.last(joined).mean(dim=(2, 3))


def test_a_relu_on_a_symmetric_shared_scale_is_proven(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = CustomCard(task=Task.CLASSIFICATION)
    assert_proven(exported(Shared(), own, noise(12, 12), "jetson", tmp_path), "jetson")


class Gated(nn.Module):
    """A sigmoid that scales channels, and a softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x * x.mean(dim=(2, 3), keepdim=True).sigmoid()).softmax(dim=1)


def test_sigmoid_and_softmax_keep_the_scales_that_the_runtime_fixes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = exported(Gated(), FASTESTDET, noise(8, 12), "raspberry-pi", tmp_path)
    assert_proven(made, "raspberry-pi")


def test_a_scheme_that_cannot_hold_a_sigmoid_says_where_it_is_and_what_to_do() -> None:
    made, _ = quantized(Gated(), FASTESTDET, noise(8, 12), "jetson")
    with pytest.raises(ExportError, match=r"in Gated \(test_custom_models.py, line \d+\).*raw"):
        tflite_model(made.unfolded, (1, 3, 8, 12), ["scores"], [0], integer=True)


def test_a_network_that_returns_a_dictionary_is_refused() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    with pytest.raises(ModelError, match="returns a str among its outputs"):
        quantized(Named(), FASTESTDET, noise(8, 8), "jetson")


def factory(file: str, name: str) -> Callable[[], nn.Module]:
    spec = importlib.util.spec_from_file_location(f"own_{Path(file).stem}", NETS / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Callable[[], nn.Module] = getattr(module, name)
    return made


@dataclass(frozen=True)
class Published:
    """A network that others trained.

    Attributes:
        weights: Under the folder of real data.
        size: Height and width.
    """

    file: str
    function: str
    weights: str
    own: CustomCard
    size: tuple[int, int]


RESNET20 = Published(
    "resnet_cifar.py", "build_resnet20", "cifar10_resnet_akamaster/resnet20-12fca82f.th",
    CIFAR, (32, 32),
)  # fmt: skip
RESNET56 = replace(
    RESNET20,
    function="build_resnet56",
    weights="cifar10_resnet_akamaster/resnet56-4bfd9763.th",
)
FASTEST = Published(
    "fastestdet.py", "build_raw", "fastestdet/weight_AP05_0.253207_280-epoch.pth",
    FASTESTDET, (352, 352),
)  # fmt: skip
RFB = Published("ultraface.py", "build", "ultraface/version-RFB-320.pth", ULTRAFACE, (240, 320))
SLIM = replace(RFB, function="build_slim", weights="ultraface/version-slim-320.pth")


def trained_net(published: Published, real_data: Path) -> nn.Module:
    net = factory(published.file, published.function)()
    load_state(net, real_data / "models" / published.weights)
    return net


def photographs(real_data: Path, height: int, width: int) -> Pixels:
    files = sorted((real_data / "toy_plane" / "images").glob("*.jpg"))[:8]
    opened = [Image.open(file).convert("RGB").resize((width, height)) for file in files]
    return np.stack([np.asarray(image) for image in opened])


def small_pictures(real_data: Path) -> Pixels:
    with ZipFile(real_data / "cifar10_jpg" / "cifar10_jpg_train20k_test10k.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.startswith("test/") and n[-1] != "/")
        blobs = [archive.read(name) for name in names[:: len(names) // 32]]
    return np.stack([np.asarray(Image.open(io.BytesIO(b)).convert("RGB")) for b in blobs])


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(
    "published",
    [
        pytest.param(RESNET20, id="resnet20"),
        pytest.param(RESNET56, id="resnet56"),
        pytest.param(FASTEST, id="fastestdet"),
        pytest.param(RFB, id="ultraface-rfb"),
        pytest.param(SLIM, id="ultraface-slim"),
    ],
)
def test_a_published_network_passes_every_proof(
    real_data: Path, tmp_path: Path, published: Published, board: str
) -> None:
    net = trained_net(published, real_data)
    small = published.size == (32, 32)
    pixels = small_pictures(real_data) if small else photographs(real_data, *published.size)
    assert_proven(exported(net, published.own, pixels, board, tmp_path), board)


def test_published_fastestdet_is_told_to_end_at_its_raw_outputs(real_data: Path) -> None:
    net = trained_net(replace(FASTEST, function="build"), real_data)
    with pytest.raises(ModelError, match=r"cat in ActivatedFastestDet \(fastestdet.py, line \d+"):
        quantized(net, FASTESTDET, noise(64, 64), "raspberry-pi")


class Residual(nn.Module):
    """Additions of every sort: with one convolution, two, none to fuse, one that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.plain = nn.Conv2d(8, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 12, 3, 2, 1)
        self.short = nn.Conv2d(8, 12, 1, 2)
        self.left = nn.Conv2d(12, 12, 1)
        self.right = nn.Conv2d(12, 12, 1)
        self.twice = nn.Conv2d(12, 12, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x).relu()
        x = (x + self.plain(x)).relu()  # Fuses `plain`, on the right.
        x = self.short(x) + self.down(x)  # Fuses `down`, the later of two; no activation.
        y = self.left(x).relu() + self.right(x).relu()  # Fuses neither: both end in an activation.
        z = self.twice(y)
        return y + z, z  # `twice` is an output too and must be rounded.


PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)


def residual_net() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported(residual_net(), FASTESTDET, PIXELS, "jetson", tmp_path_factory.mktemp("files"))


def makers(path: Path) -> list[set[str]]:
    """The operators that make the inputs of every addition in an ONNX file."""
    graph = onnx.load(path).graph
    producers = {o: n.op_type for n in graph.node for o in n.output}
    return [{producers[name] for name in n.input} for n in graph.node if n.op_type == "Add"]


def named(files: Exported, name: str) -> Path:
    return next(a.path for a in files.artifacts if a.path.name == name)


def test_the_jetson_file_rounds_nothing_on_the_branch_that_is_fused(fused: Exported) -> None:
    one, free = {"Conv", "DequantizeLinear"}, {"DequantizeLinear"}
    assert makers(named(fused, "int8.onnx")) == [one, one, free, free]
    assert makers(named(fused, "int8-host.onnx")) == [free] * 4
    advice = check_conformance(named(fused, "int8.onnx"), load_device("jetson"))
    assert not [f for f in advice if f.level == "error"]
    fusions = [f for f in advice if f.rule == "tensorrt/residual-fusion"]
    assert len(fusions) == 1  # The branch that is read twice cannot be helped.


def test_the_later_of_two_convolutions_is_the_one(fused: Exported) -> None:
    graph = onnx.load(named(fused, "int8.onnx")).graph
    producers = {o: n for n in graph.node for o in n.output}
    addition = [n for n in graph.node if n.op_type == "Add"][1]
    (branch,) = (producers[i] for i in addition.input if producers[i].op_type == "Conv")
    kernel = next(a.ints for a in branch.attribute if a.name == "kernel_shape")
    assert list(kernel) == [3, 3]


def test_every_file_is_proven_against_its_own_way_of_rounding(fused: Exported) -> None:
    assert_proven(fused, "jetson")


def test_the_files_share_every_scale_and_the_jetsons_has_fewer(fused: Exported) -> None:
    def scales(name: str) -> set[float]:
        graph = onnx_integer_graph(named(fused, name))
        return {round(grid.scale, 9) for grid in graph.grids.values()}

    assert scales("int8.onnx") < scales("int8-host.onnx")


def test_a_pair_put_back_is_not_what_was_trained(fused: Exported) -> None:
    trained = onnx_integer_graph(named(fused, "int8.onnx"))
    with pytest.raises(ProofError, match="never trained"):
        align(trained, onnx_integer_graph(named(fused, "int8-host.onnx")))


def test_another_residual_is_not_what_was_trained(fused: Exported) -> None:
    shipped = onnx_integer_graph(named(fused, "int8.onnx"))
    place, operator = next(
        (k, s) for k, s in enumerate(shipped.steps) if getattr(s, "residual", "")
    )
    steps = list(shipped.steps)
    steps[place] = replace(operator, residual=shipped.input)
    with pytest.raises(ProofError, match=f"{operator.name}.*never trained"):
        align(shipped, replace(shipped, steps=tuple(steps)))


def test_a_residual_on_another_scale_is_found(fused: Exported) -> None:
    shipped = onnx_integer_graph(named(fused, "int8.onnx"))
    operator = next(s for s in shipped.steps if getattr(s, "residual", ""))
    grid = shipped.grids[operator.residual]
    grids = shipped.grids | {operator.residual: replace(grid, scale=2 * grid.scale)}
    other = replace(shipped, grids=grids)
    found = parameter_differences(shipped, other, align(shipped, other))
    assert any(d.operator.startswith(operator.name) and "residual" in d.what for d in found)


def test_boards_that_round_everything_train_that() -> None:
    graph = graphs.folded_graph(residual_net(), torch.zeros(2, 3, 32, 32))
    for board, observer_only in (("jetson", 2), ("raspberry-pi", 0)):
        modules = graphs.prepared(graph, load_device(board).quantization).modules()
        watched = [m for m in modules if isinstance(m, ActivationFakeQuantize)]
        assert sum(m.observer_only for m in watched) == observer_only


def test_what_only_observes_observes_and_rounds_nothing() -> None:
    module = ActivationFakeQuantize(symmetric=True, scale_floor=2**-12, observer_only=True)
    x = torch.tensor([0.1234567, -2.54])
    assert module(x) is x
    assert module.scale.item() == pytest.approx(2.54 / 127)


def test_float16_is_float32_rounded_and_a_changed_weight_is_found(
    fused: Exported, tmp_path: Path
) -> None:
    half, whole = named(fused, "float16.onnx"), named(fused, "float.onnx")
    assert check_half_parameters(half, whole).passed
    model = onnx.load(half)
    weight = next(t for t in model.graph.initializer if t.name.endswith("plain.weight"))
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = np.nextafter(values[0, 0, 0, 0], np.float16(9))
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "float16.onnx")
    check = check_half_parameters(tmp_path / "float16.onnx", whole)
    assert not check.passed
    assert check.failing_operator is not None
    assert check.failing_operator.endswith("plain.weight")


def test_float16_computes_what_float32_computes_and_another_scale_does_not(
    fused: Exported, tmp_path: Path
) -> None:
    images = ((fused.pixels.astype(np.float32) - 128) / 128).transpose(0, 3, 1, 2)
    half, whole = named(fused, "float16.onnx"), named(fused, "float.onnx")
    good = check_half_outputs(half, whole, images)
    assert good.passed
    assert all(0 < cost < 0.01 for cost in good.details["relative_rms_of_rounding"].values())
    model = onnx.load(half)
    bias = next(t for t in model.graph.initializer if t.name.endswith("twice.bias"))
    values = onnx.numpy_helper.to_array(bias) + np.float16(0.5)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, tmp_path / "float16.onnx")
    check = check_half_outputs(tmp_path / "float16.onnx", whole, images)
    assert not check.passed
    assert check.failing_operator is not None


def test_an_old_parser_gets_its_own_operator_set(tmp_path: Path) -> None:
    board = load_device("jetson-nano")
    built, card = quantized(residual_net(), FASTESTDET, PIXELS, "jetson")
    floats = Graphs(
        built.floating, integer=None, complete=None, unfolded=None, outputs=built.outputs
    )
    artifacts = export_files(
        floats, card, board, ExportSection(), folder=tmp_path, recipe_sha256="0" * 64
    )
    assert [a.path.name for a in artifacts] == ["float.onnx", "float16.onnx"]
    for artifact in artifacts:
        assert onnx.load(artifact.path).opset_import[0].version == 13
    checks = prove(artifacts, None, board, PIXELS)
    assert len(checks) == 4
    assert all(check.passed for check in checks), checks
