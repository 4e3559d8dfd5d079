"""Layers kept in float: proven in both files on every board, and caught where a file differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekd.config.device import load_device
from edgekd.config.sections import ExportSection
from edgekd.core.errors import RecipeError
from edgekd.core.results import Check
from edgekd.core.types import Artifact, Task
from edgekd.export.write import Graphs, export_files
from edgekd.nets.card import Card, CustomCard
from edgekd.nets.custom import CustomModel
from edgekd.nets.outputs import network_outputs
from edgekd.nets.tap import TappedNet
from edgekd.proof.alignment import align, parameter_differences
from edgekd.proof.prove import Placements, prove
from edgekd.proof.read_onnx import onnx_integer_graph
from edgekd.proof.read_torch import integer_graph
from edgekd.quantize import graph as graphs
from edgekd.quantize.mixed import between_layers, keep_float, layers

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)


class Branches(nn.Module):
    """A strided pad, a depthwise layer, two additions, an output read on, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.down = nn.Conv2d(8, 8, 3, 2, 1)
        self.point = nn.Conv2d(8, 8, 1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.short = nn.Conv2d(8, 8, 1, 2)
        self.head = nn.Conv2d(8, 4, 1)
        self.linear = nn.Linear(4 * 64, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(x).relu()
        z = self.point(self.down(x).relu()).relu()
        y = ((self.depth(z) + self.short(x)) + z).relu()
        y = self.head(y)
        return y, self.linear(y.flatten(1))


def prepared(board: str) -> tuple[graphs.GraphModule, graphs.GraphModule, Card]:
    """The folded and the calibrated graph of the network above."""
    torch.manual_seed(0)
    own = CustomCard(task=Task.DETECTION, mean=(127.0,), std=(128.0,))
    card = Card(architecture="own", classes=("a", "b"), height=32, width=32, strides=(), own=own)
    net = TappedNet(CustomModel(Branches().eval(), own, 3).eval(), ()).eval()
    folded = graphs.folded_graph(net, torch.zeros(2, 3, 32, 32))
    quantized = graphs.prepared(folded, load_device(board).quantization)
    images = (torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() - 128) / 128
    graphs.calibrate(quantized, [images])
    return folded, quantized, card


def converted(board: str, kept: tuple[str, ...]) -> tuple[Graphs, Card]:
    folded, quantized, card = prepared(board)
    frozen = graphs.frozen(keep_float(quantized, kept))
    outputs = network_outputs(CustomModel(Branches().eval(), card.own, 3).eval(), card)  # type: ignore[arg-type]
    integer, complete = graphs.placements(frozen, 2)
    built = Graphs(
        floating=graphs.only_outputs(folded, 2),
        integer=integer,
        complete=complete,
        unfolded=graphs.converted(frozen, 2, fold_weights=False, complete=True),
        outputs=outputs,
    )
    return built, card


def exported(board: str, kept: tuple[str, ...], folder: Path) -> tuple[list[Artifact], Graphs]:
    built, card = converted(board, kept)
    files = export_files(
        built, card, load_device(board), ExportSection(), folder=folder, recipe_sha256="0" * 64
    )
    return list(files), built


def proven(board: str, files: list[Artifact], built: Graphs) -> dict[str, Check]:
    assert built.integer is not None
    assert built.complete is not None
    trained = Placements(target=built.integer, complete=built.complete)
    return {c.name: c for c in prove(files, trained, load_device(board), PIXELS)}


CASES = [
    pytest.param("jetson", ("depth", "short", "add"), id="jetson-depthwise-and-fused-addition"),
    *(
        pytest.param(board, kept, id=f"{board}-{','.join(kept)}", marks=pytest.mark.slow)
        for board in ("raspberry-pi", "jetson")
        for kept in (("down", "point", "add_1"), ("first", "down"), ("add", "add_1", "head"))
    ),
]


@pytest.mark.parametrize(("board", "kept"), CASES)
def test_layers_kept_in_float_pass_every_proof(
    board: str, kept: tuple[str, ...], tmp_path: Path
) -> None:
    checks = proven(board, *exported(board, kept, tmp_path))
    failed = {name: (c.figure, c.failing_operator) for name, c in checks.items() if not c.passed}
    assert failed == {}
    assert "in float as trained" in checks["parity/parameters/int8.tflite"].figure
    assert "100.00 %" not in checks["coverage/int8.tflite"].figure or kept[0].startswith("add")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Artifact], Graphs, Path]:
    folder = tmp_path_factory.mktemp("pair")
    return (*exported("raspberry-pi", ("down", "point"), folder), folder)


def test_a_strided_pad_before_a_float_layer_passes_every_proof(
    pair: tuple[list[Artifact], Graphs, Path],
) -> None:
    checks = proven("raspberry-pi", pair[0], pair[1])
    assert all(check.passed for check in checks.values())
    assert "2 operators in float as trained" in checks["parity/parameters/int8.tflite"].figure


def test_only_what_is_kept_stays_float(pair: tuple[list[Artifact], Graphs, Path]) -> None:
    _, built, folder = pair
    assert built.integer is not None
    trained = integer_graph(built.integer)
    found = onnx_integer_graph(folder / "int8.onnx")
    partners = [p for ours, p in align(trained, found) if ours in trained.kept]
    assert len(partners) == len(trained.kept) == 2
    assert [operator.grid is None for operator in trained.kept] == [True, False]


@pytest.mark.parametrize("fault", ["weight", "bias"])
def test_a_changed_float_parameter_is_found(
    pair: tuple[list[Artifact], Graphs, Path], tmp_path: Path, fault: str
) -> None:
    _, built, folder = pair
    model = onnx.load(folder / "int8.onnx")
    stored = next(t for t in model.graph.initializer if t.name.endswith(f"down.{fault}"))
    values = onnx.numpy_helper.to_array(stored).copy()
    values.flat[3] += 0.01
    stored.CopyFrom(onnx.numpy_helper.from_array(values, stored.name))
    onnx.save(model, tmp_path / "int8.onnx")
    assert built.integer is not None
    trained, found = integer_graph(built.integer), onnx_integer_graph(tmp_path / "int8.onnx")
    (difference, *_) = parameter_differences(trained, found, align(trained, found))
    assert difference.what.startswith("float32 weights" if fault == "weight" else "biases")


def test_a_float_layer_that_was_not_trained_so_is_found(
    pair: tuple[list[Artifact], Graphs, Path],
) -> None:
    built, _ = converted("raspberry-pi", ("first", "down"))
    checks = proven("raspberry-pi", pair[0], built)
    assert not checks["parity/parameters/int8.tflite"].passed
    assert not checks["parity/parameters/int8.onnx"].passed
    assert not checks["coverage/int8.tflite"].passed


def test_what_lies_between_layers() -> None:
    _, quantized, _ = prepared("raspberry-pi")
    assert list(layers(quantized)) == [
        "adapter", "first", "down", "point", "depth", "short", "add", "add_1", "head", "linear"
    ]  # fmt: skip
    found = set(between_layers(quantized).values())
    assert ("first", "down", "short") in found
    assert ("point", "depth", "add_1") in found
    assert ("head", "linear") not in found  # Behind a flatten, and an output.
    assert not any(names[0] == "linear" for names in found)


def test_a_layer_alone_or_unknown_is_refused() -> None:
    _, quantized, _ = prepared("raspberry-pi")
    with pytest.raises(RecipeError, match="'down' would be alone in float"):
        keep_float(quantized, ["down"])
    with pytest.raises(RecipeError, match=r"no layer 'dwon'.*did you mean 'down'"):
        keep_float(quantized, ["dwon"])


@torch.no_grad()
def test_what_stays_in_float_is_not_rounded() -> None:
    folded, quantized, _ = prepared("raspberry-pi")
    every = [name for name in layers(quantized) if name not in ("linear", "adapter", "first")]
    mixed = graphs.frozen(keep_float(quantized, every))
    image = (torch.from_numpy(PIXELS[:1]).permute(0, 3, 1, 2).float() - 128) / 128
    exact = graphs.only_outputs(folded, 2)(image)[0]
    found = graphs.only_outputs(mixed, 2)(image)[0]
    step = float(mixed.get_submodule(_output_rounding(mixed)).scale)  # type: ignore[arg-type]
    assert (exact - found).abs().max() < 3 * step


def _output_rounding(graph: graphs.GraphModule) -> str:
    (output,) = (n for n in graph.graph.nodes if n.op == "output")
    return str(output.args[0][0].target)
