"""Exact arithmetic of a whole network, and what it proves where there is one runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.config.device import load_device
from edgekd.proof.exact import exact_outputs
from edgekd.proof.parity import Steps, check_against_exact
from edgekd.proof.read_torch import integer_graph
from edgekd.quantize import graph as graphs


class Net(nn.Module):
    """Every kind of step: weights, residual, pool, move, fixed output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.branch = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], tuple[()]]:
        x = torch.relu(self.stem(x))
        x = torch.cat((torch.relu(x + self.branch(x)), x), 1)[:, 4:12]
        gate = torch.sigmoid(x)
        return (self.head((x * gate).mean((2, 3))), x), ()


@pytest.mark.parametrize("board", ["raspberry-pi", "jetson"])
def test_it_is_what_the_trained_graph_computes_but_for_float32(board: str) -> None:
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(-128, 128, (4, 3, 16, 24), dtype=np.int16)
    images = torch.from_numpy(pixels).float() / 128
    folded = graphs.folded_graph(Net().eval(), torch.zeros(2, 3, 16, 24))
    prepared = graphs.prepared(folded, load_device(board).quantization)
    graphs.calibrate(prepared, images.split(2))
    integer, _ = graphs.placements(graphs.frozen(prepared), 2)
    reference = integer_graph(integer)
    found = exact_outputs(reference, pixels.astype(np.int8))
    with torch.no_grad():
        wanted = [torch.cat(o).numpy() for o in zip(*map(integer, images.split(1)), strict=True)]
    for values, real, name in zip(found, wanted, reference.outputs, strict=True):
        grid = reference.grids[name]
        steps = np.rint(real / grid.scale) + grid.zero_point
        assert values.shape == steps.shape
        assert (np.abs(values - steps) <= 1).all()
        assert (values == steps).mean() > 0.97


def moved(steps: Steps, by: int, share: float) -> Steps:
    rng = np.random.default_rng(1)
    return [s + (rng.random(s.shape) < share).astype(np.int16) * by for s in steps]


@pytest.mark.parametrize(
    ("trained", "runtime", "passed", "named"),
    [
        ((0, 0), (0, 0), True, None),
        ((1, 0.1), (0, 0), True, None),
        ((0, 0), (1, 0.05), True, None),  # 0.22 steps: no more than rounding makes.
        ((1, 0.1), (1, 0.1), True, None),
        ((0, 0), (1, 0.2), False, "runtime"),
        ((1, 0.1), (2, 0.2), False, "runtime"),
        ((9, 0.5), (0, 0), False, "trained"),
    ],
)
def test_a_runtime_may_be_as_far_as_the_trained_graph(
    trained: tuple[int, float], runtime: tuple[int, float], passed: bool, named: str | None
) -> None:
    exact = [np.random.default_rng(0).integers(-100, 100, (4, 500)).astype(np.int16)]
    groups = [(moved(exact, *trained), {"runtime": moved(exact, *runtime)})]
    check = check_against_exact(groups, [exact])
    assert (check.passed, check.failing_operator) == (passed, named)
