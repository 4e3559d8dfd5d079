from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.config.device import load_device
from edgekd.core.errors import ModelError
from edgekd.quantize.fake_quantize import ActivationFakeQuantize, WeightFakeQuantize
from edgekd.quantize.graph import (
    calibrate,
    converted,
    folded_graph,
    freezer,
    frozen,
    only_outputs,
    prepared,
    training_mode,
)

SCHEMES = {name: load_device(name).quantization for name in ("raspberry-pi", "jetson")}


def test_affine_ranges_cover_what_was_seen_and_zero_exactly() -> None:
    module = ActivationFakeQuantize(symmetric=False, scale_floor=2**-12)
    module(torch.tensor([-1.0, 4.1]))
    assert module.scale.item() == pytest.approx(5.1 / 255)
    assert module.zero_point.item() == -128 + round(1.0 / (5.1 / 255))
    assert module(torch.zeros(3)).eq(0).all()


def test_symmetric_activations_have_zero_point_zero() -> None:
    module = ActivationFakeQuantize(symmetric=True, scale_floor=2**-12)
    module(torch.tensor([0.0, 2.54]))
    assert module.zero_point.item() == 0
    assert module.scale.item() == pytest.approx(2.54 / 127)


def test_a_fixed_grid_never_moves() -> None:
    module = ActivationFakeQuantize(symmetric=False, scale_floor=2**-12, fixed=(1 / 128, 0))
    module(torch.tensor([-100.0, 100.0]))
    assert (module.scale.item(), module.zero_point.item()) == (1 / 128, 0)


def test_a_shared_range_ends_near_the_widest_tensor_not_the_average() -> None:
    module = ActivationFakeQuantize(symmetric=False, scale_floor=2**-12)
    for _ in range(100):
        for peak in (1.0, 1.0, 1.0, 8.0):
            module(torch.tensor([0.0, peak]))
    assert module.scale.item() * 255 > 7.0


def test_a_range_shrinks_slowly_once_an_outlier_is_gone() -> None:
    module = ActivationFakeQuantize(symmetric=False, scale_floor=2**-12)
    module(torch.tensor([0.0, 10.0]))
    for _ in range(500):
        module(torch.tensor([0.0, 1.0]))
    assert module.scale.item() * 255 < 1.2


def test_the_scale_floor_holds_in_training() -> None:
    module = ActivationFakeQuantize(symmetric=False, scale_floor=2**-12)
    module(torch.zeros(4))
    assert module.scale.item() == 2**-12


def test_observing_reads_a_channels_last_tensor_right() -> None:
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    x[1, 2, 3, 4] = 9.0
    module = ActivationFakeQuantize(symmetric=True, scale_floor=2**-12)
    module(x)
    assert module.scale.item() == pytest.approx(9 / 127)


def test_weights_use_127_steps_a_channel_and_dead_channels_a_floor() -> None:
    weight = torch.zeros(3, 2, 1, 1)
    weight[0] = 1.27
    weight[1, 0] = -0.0127
    module = WeightFakeQuantize(axis=0)
    rounded = module(weight)
    assert module.scale[0].item() == pytest.approx(0.01)
    assert module.scale[2].item() == pytest.approx(0.01 * 2**-10)
    assert rounded[0].unique().item() == pytest.approx(1.27)
    steps = rounded / module.scale.view(-1, 1, 1, 1)
    assert steps.abs().max() <= 127.01


def test_gradients_pass_inside_the_range_and_stop_outside() -> None:
    module = ActivationFakeQuantize(symmetric=True, scale_floor=2**-12, fixed=(0.1, 0))
    x = torch.tensor([0.5, 50.0], requires_grad=True)
    module(x).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0]


class TinyNet(nn.Module):
    """Convolution, norm, ReLU, residual, pool, concatenation, upsampling: every rule once."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.first(x)
        x = x + self.second(x)
        small = self.pool(x)
        up = nn.functional.interpolate(small, scale_factor=2.0, mode="nearest")
        return self.head(torch.cat((x, up), 1)), small


@pytest.fixture(params=SCHEMES, ids=str)
def scheme(request: pytest.FixtureRequest):
    return SCHEMES[request.param]


@pytest.fixture
def graph():
    torch.manual_seed(0)
    net = TinyNet().train()
    with torch.no_grad():
        for _ in range(5):
            net(torch.randn(4, 3, 16, 16))
    return folded_graph(net.eval(), torch.zeros(2, 3, 16, 16)), net


def test_folding_the_norm_changes_nothing(graph) -> None:
    folded, net = graph
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        for a, b in zip(net(x), folded(x), strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)
    assert not any("1.running_mean" in name for name in folded.state_dict())


def test_the_converted_graph_computes_what_the_trained_one_does(graph, scheme) -> None:
    qat = prepared(graph[0], scheme)
    x = torch.randn(4, 3, 16, 16).clamp(-1, 0.99)
    calibrate(qat, [x])
    trained = frozen(qat)
    for fold in (True, False):
        integer = converted(trained, 2, fold_weights=fold)
        with torch.no_grad():
            for a, b in zip(trained(x), integer(x), strict=True):
                torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_every_operator_is_quantized_and_shared_scales_are_shared(graph, scheme) -> None:
    from edgekd.proof.read_torch import integer_graph

    qat = prepared(graph[0], scheme)
    calibrate(qat, [torch.randn(4, 3, 16, 16)])
    picture = integer_graph(converted(frozen(qat), 2, fold_weights=True, complete=True))
    kinds = [o.kind for o in picture.operators]
    assert sorted(kinds) == ["add", "conv", "conv", "conv", "max_pool"]
    trained = integer_graph(converted(frozen(qat), 2, fold_weights=True))
    fused = [o for o in trained.operators if o.residual]
    assert len(fused) == (1 if scheme.fuses_residual else 0)
    assert len(trained.operators) == len(picture.operators) - len(fused)
    assert sorted(m.name for m in picture.moves) == ["cat", "upsample_nearest2d"]
    (pool,) = (o for o in picture.operators if o.kind == "max_pool")
    for step, grid in [(pool, pool.grid), *((m, picture.grids[m.output]) for m in picture.moves)]:
        assert all(picture.grids[name] == grid for name in step.inputs)
    assert picture.grids[picture.input].scale == 1 / 128
    if scheme.activation_symmetry == "symmetric":
        assert {g.zero_point for g in picture.grids.values()} == {0}


def test_biases_lie_on_the_int32_grid(graph, scheme) -> None:
    from edgekd.proof.read_torch import integer_graph

    qat = prepared(graph[0], scheme)
    calibrate(qat, [torch.randn(4, 3, 16, 16)])
    picture = integer_graph(converted(frozen(qat), 2, fold_weights=True))
    for operator in picture.operators:
        if operator.weight is not None:
            step = operator.weight.scales * picture.grids[operator.inputs[0]].scale
            steps = operator.weight.bias / step
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-2)


def test_ranges_stand_still_once_frozen_and_weights_go_on(graph, scheme) -> None:
    qat = training_mode(prepared(graph[0], scheme))
    calibrate(qat, [torch.randn(4, 3, 16, 16)])
    training_mode(qat)
    before_step = freezer(qat, 3)
    before_step(2)
    qat(torch.randn(2, 3, 16, 16) * 5)
    moved = {k: v.clone() for k, v in qat.state_dict().items() if k.endswith("high")}
    before_step(3)
    qat(torch.randn(2, 3, 16, 16) * 50)
    for name, value in moved.items():
        assert torch.equal(qat.state_dict()[name], value)
    loss = sum(o.square().mean() for o in qat(torch.randn(2, 3, 16, 16)))
    loss.backward()
    assert all(p.grad is not None for p in qat.parameters())


def test_dropping_outputs_drops_what_only_they_need(graph) -> None:
    trimmed = only_outputs(graph[0], 1)
    assert len(trimmed(torch.randn(2, 3, 16, 16))) == 1


class Refused(nn.Module):
    """One convolution, and what a test puts behind it."""

    def __init__(self, tail) -> None:
        super().__init__()
        self.conv, self.tail = nn.Conv2d(3, 4, 3, padding=1), tail

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.conv(x))


@pytest.mark.parametrize(
    ("tail", "operator", "advice"),
    [
        pytest.param(torch.tanh, "tanh", "build the network from", id="no int8 form"),
        pytest.param(lambda x: x * 0.5, "mul", "fold that into the weights", id="a constant"),
        pytest.param(lambda x: x.mean((2, 3)).relu(), "relu", "directly behind", id="lone relu"),
        pytest.param(
            lambda x: nn.functional.interpolate(x, scale_factor=1.5),
            "upsample_nearest2d", "whole multiple", id="fractional resize",
        ),
        pytest.param(
            lambda x: nn.functional.pad(x, (1, 1), value=2.0), "pad", "pad with zeros", id="border"
        ),
        pytest.param(
            lambda x: nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"),
            "pad", "pad with zeros", id="reflection",
        ),
        pytest.param(
            lambda x: nn.functional.hardtanh(x), "hardtanh", "use ReLU", id="another clip"
        ),
    ],
)  # fmt: skip
def test_what_no_target_computes_in_integers_is_refused_before_training(
    tail, operator: str, advice: str
) -> None:
    folded = folded_graph(Refused(tail).eval(), torch.zeros(2, 3, 8, 8))
    with pytest.raises(ModelError) as refused:
        prepared(folded, SCHEMES["raspberry-pi"])
    message = str(refused.value)
    assert message.startswith(f"{operator} in Refused (test_fake_quantize.py, line ")
    assert advice in message
    assert "end the network before it" in message


def test_scores_on_a_fixed_scale_are_not_joined_with_boxes_on_another() -> None:
    folded = folded_graph(
        Refused(lambda x: torch.cat((x[:, :1].sigmoid(), x[:, 1:]), 1)).eval(),
        torch.zeros(2, 3, 8, 8),
    )
    with pytest.raises(ModelError, match=r"cat in Refused .* return each as an output of its own"):
        prepared(folded, SCHEMES["raspberry-pi"])


def test_halves_of_a_split_share_the_scale_of_the_whole() -> None:
    net = Refused(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1))
    qat = prepared(folded_graph(net.eval(), torch.zeros(2, 3, 8, 8)), SCHEMES["raspberry-pi"])
    calibrate(qat, [torch.randn(4, 3, 8, 8)])
    scales = {m.scale.item() for m in qat.modules() if isinstance(m, ActivationFakeQuantize)}
    assert len(scales) == 2
