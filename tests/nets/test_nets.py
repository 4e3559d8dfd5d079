from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekd.core.errors import ModelError
from edgekd.nets import cost
from edgekd.nets.backbone import SCALES
from edgekd.nets.blocks import StridedDepthwise
from edgekd.nets.card import Card, build, load_net, save_net
from edgekd.nets.tap import TappedNet

CLASSES = ("a", "b", "c")


def card(architecture: str = "edgedet-n", **changes: object) -> Card:
    fields = {"architecture": architecture, "classes": CLASSES, "height": 64, "width": 96}
    if architecture.startswith("edgecls"):
        fields["strides"] = ()
    return Card(**fields | changes)


@pytest.mark.parametrize("size", SCALES)
def test_a_detector_returns_raw_scores_and_boxes_of_every_level(size: str) -> None:
    net = build(card(f"edgedet-{size}")).eval()
    with torch.no_grad():
        shapes = [tuple(o.shape) for o in net(torch.zeros(2, 3, 64, 96))]
    assert shapes == [
        (2, 3, 8, 12), (2, 4, 8, 12), (2, 3, 4, 6), (2, 4, 4, 6), (2, 3, 2, 3), (2, 4, 2, 3),
    ]  # fmt: skip


def test_a_fine_level_serves_small_objects() -> None:
    net = build(card(strides=(4, 8, 16))).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 96))[0].shape == (1, 3, 16, 24)


@pytest.mark.parametrize("strides", [(4,), (8, 16), (4, 8, 16), (16, 32), (8, 16, 32)])
def test_every_weight_of_a_detector_serves_a_level(strides: tuple[int, ...]) -> None:
    net = build(card(strides=strides))
    torch.cat([o.flatten() for o in net(torch.randn(2, 3, 64, 96))]).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_strided_depthwise_layers_train_in_float32_amid_bfloat16() -> None:
    layer = StridedDepthwise(8, 8, 3, 2, 1, groups=8, bias=False)
    images = torch.randn(2, 8, 9, 9).bfloat16()
    exact = torch.nn.functional.conv2d(images.float(), layer.weight, None, 2, 1, 1, 8)
    with torch.autocast("cpu", torch.bfloat16):
        trained, asked = layer(images), layer.eval()(images)
    assert trained.dtype == torch.bfloat16
    assert torch.equal(trained, exact.bfloat16())
    assert not torch.equal(asked, trained)
    net = build(card())
    strided = {m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1}
    strided = {m for m in strided if m.stride == (2, 2)}
    assert len(strided) == 4
    assert all(isinstance(m, StridedDepthwise) for m in strided)


def test_the_family_grows_from_a_third_of_a_million_parameters() -> None:
    counts = [cost.parameters(build(card(f"edgedet-{size}"))) for size in "nsml"]
    assert counts == sorted(counts)
    assert 200_000 < counts[0] < 400_000
    assert counts[2] > 8 * counts[0]


def test_a_classifier_returns_logits_in_grey_and_colour() -> None:
    for channels in (1, 3):
        net = build(card("edgecls-n", channels=channels)).eval()
        with torch.no_grad():
            (logits,) = net(torch.zeros(2, channels, 64, 96))
        assert logits.shape == (2, 3)


def test_macs_equal_a_count_by_hand() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Conv2d(8, 8, 3, 1, 1, groups=8)
    )
    assert cost.macs(net, (1, 3, 16, 16)) == 8 * 8 * (8 * 3 * 9 + 8 * 9)


def test_every_class_starts_rare() -> None:
    net = build(card()).eval()
    with torch.no_grad():
        scores = net(torch.randn(1, 3, 64, 96))[0].sigmoid()
    assert scores.max() < 0.05


@pytest.mark.parametrize("half", [False, True])
def test_a_checkpoint_returns_the_same_network(tmp_path: Path, half: bool) -> None:
    net = build(card(), seed=5).eval()
    path = tmp_path / "net.safetensors"
    save_net(path, net, card(), half=half)
    again, read = load_net(path)
    assert read == card()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(net(x), again(x), strict=True):
            torch.testing.assert_close(a, b, atol=2e-2 if half else 0, rtol=0)


def test_the_same_seed_builds_the_same_network() -> None:
    a, b, c = (build(card(), seed=s).state_dict()["backbone.stem.0.weight"] for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_tapped_features_are_the_modules_outputs() -> None:
    net = build(card()).eval()
    with torch.no_grad():
        outputs, features = TappedNet(net, net.taps)(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape[2:]) for f in features] == [(8, 12), (4, 6), (2, 3)]
    assert len(outputs) == 6
    with pytest.raises(ModelError, match="no module"):
        TappedNet(net, ["pyramid.nothing"])


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"\x80\x04.", "net.pth", "pickled checkpoints"),
        (b"nonsense", "net.safetensors", "not a whole safetensors"),
        (None, "missing.safetensors", "no such checkpoint"),
    ],
)
def test_a_checkpoint_that_is_none_of_ours_is_refused(
    tmp_path: Path, content: bytes | None, name: str, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_net(path)


def test_impossible_cards_name_the_value() -> None:
    with pytest.raises(ModelError, match="height 50: must be a multiple of 32"):
        card(height=50)
    for strides in ((4, 16), (16, 8), (5,)):
        with pytest.raises(ModelError, match="neighbours of 4, 8, 16, 32"):
            card(strides=strides)
    with pytest.raises(ModelError, match="did you mean 'edgedet-n'"):
        build(card("edgedet-nn"))
