"""Tuning: sensitivity is measured at the right layer, and only what is needed stays float."""

from __future__ import annotations

import importlib
import itertools
import logging
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from edgekd.config.device import load_device
from edgekd.quantize import graph as graphs
from edgekd.quantize.tuning import Evaluate, LayerSensitivity, layer_sensitivities, tune


class Chain(nn.Module):
    """Six layers in a row, and an addition that jumps two of them."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 12, 12, 12, 12, 12)
        self.steps = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1) for i, o in itertools.pairwise(widths)
        )
        self.last = nn.Conv2d(12, 6, 1)
        for layer in (*self.steps, self.last):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        for index, step in enumerate(self.steps):
            y = step(x).relu()
            x = x + y if index == 3 else y
        return (self.last(x),)


Setup = tuple[graphs.GraphModule, graphs.GraphModule, list[Tensor], Evaluate]


@cache
def setup(outliers: tuple[int, ...]) -> Setup:
    """A calibrated chain in which one channel behind each named step is a thousand times larger.

    In float it computes what it computed before; its accuracy is the share of the signal that
    rounding leaves.
    """
    torch.manual_seed(0)
    net = Chain().eval()
    with torch.no_grad():
        for index in outliers:
            made, read = net.steps[index], net.steps[index + 1]
            made.weight[5] *= 1000
            made.bias[5] *= 1000
            read.weight[:, 5] /= 1000
    folded = graphs.folded_graph(net, torch.zeros(2, 3, 16, 16))
    prepared = graphs.prepared(folded, load_device("raspberry-pi").quantization)
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand((8, 3, 16, 16), generator=generator) * 2 - 1 for _ in range(2)]
    graphs.calibrate(prepared, images)

    @torch.no_grad()
    def evaluate(candidate: nn.Module) -> float:
        noise = signal = 0.0
        for batch in images:
            (wanted,), (found,) = net(batch), candidate(batch)
            noise += float(((found - wanted) ** 2).sum())
            signal += float(((wanted - wanted.mean((0, 2, 3), keepdim=True)) ** 2).sum())
        return max(0.0, 1 - noise / signal)

    return folded, prepared, images, evaluate


def test_damage_is_found_where_it_is_done() -> None:
    _, prepared, images, _ = setup((1,))
    found = {item.layer: item for item in layer_sensitivities(prepared, images, 1)}
    assert list(found) == [f"steps.{i}" for i in range(4)] + ["add", "steps.4", "last"]
    outputs = {name: item.output or 0.0 for name, item in found.items()}
    worst = max(outputs, key=lambda name: outputs[name])
    assert worst == "steps.1"
    assert outputs["steps.1"] > 100 * outputs["steps.2"]
    assert found["add"].weight is None
    # A weight has a scale of its own for every output channel, so the outlier costs it nothing.
    assert (found["steps.1"].weight or 0.0) < 0.01 * outputs["steps.1"]


def test_analysis_leaves_the_graph_as_it_was() -> None:
    _, prepared, images, _ = setup((1,))
    before = {k: v.clone() for k, v in prepared.state_dict().items()}
    assert len(list(layer_sensitivities(prepared, images, 1))) == 7
    assert all(torch.equal(v, before[k]) for k, v in prepared.state_dict().items())


def tuned(outliers: tuple[int, ...], tolerable: float, prices: dict[str, float] | None = None):
    folded, prepared, images, evaluate = setup(outliers)
    found = list(layer_sensitivities(prepared, images, 1))
    return tune(folded, prepared, found, prices or {}, evaluate, tolerable), evaluate


def test_only_the_layers_round_an_outlier_stay_float() -> None:
    result, _ = tuned((1,), 0.05)
    assert result.met
    assert result.kept == ("steps.1", "steps.2")
    assert [trial.kept for trial in result.trials] == [(), ("steps.1", "steps.2")]
    assert result.trials[0].accuracy < 0.5 < 0.95 <= result.trials[1].accuracy
    assert result.floating == pytest.approx(1.0)


def test_two_outliers_in_a_row_share_a_layer() -> None:
    result, _ = tuned((0, 1), 0.05)
    assert result.met
    assert result.kept == ("steps.0", "steps.1", "steps.2")


def test_nothing_is_kept_where_nothing_is_lost() -> None:
    result, _ = tuned((), 0.05)
    assert result.met
    assert result.kept == ()
    assert len(result.trials) == 1


def test_what_was_not_needed_is_rounded_again() -> None:
    """The ranking is told that a harmless tensor is worst: the search must find that out."""
    folded, prepared, images, evaluate = setup((1,))
    found = [
        LayerSensitivity(
            layer=i.layer, weight=i.weight, output=9.0 if i.layer == "steps.3" else i.output
        )
        for i in layer_sensitivities(prepared, images, 1)
    ]
    result = tune(folded, prepared, found, {}, evaluate, 0.05)
    assert result.met
    assert result.kept == ("steps.1", "steps.2")
    tried = [trial.kept for trial in result.trials]
    assert ("steps.1", "steps.2") in tried[2:]
    assert len(set(tried)) == len(tried)


def test_what_cannot_be_met_is_said_and_the_best_is_given() -> None:
    result, _ = tuned((1,), 1e-9)
    assert not result.met
    best = max(result.trials, key=lambda trial: trial.accuracy)
    assert result.kept == best.kept != ()


def test_neural_compressor_says_nothing_and_its_logger_is_left_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    importlib.import_module("neural_compressor.torch.quantization")  # It sets its own level.
    logger = logging.getLogger("neural_compressor")
    before = logger.level
    tuned((1,), 0.05)
    assert logger.level == before
    assert capfd.readouterr() == ("", "")
