"""What one network takes over from another."""

from dataclasses import replace

import pytest
import torch

from edgekd.nets.card import Card, build
from edgekd.nets.transfer import transfer

SOURCE = Card(architecture="edgedet-n", classes=("car", "truck"), height=64, width=64)


def test_the_same_card_takes_everything_but_nothing_random_remains() -> None:
    source, net = build(SOURCE, seed=1), build(SOURCE, seed=2)
    done = transfer(net, SOURCE, source.state_dict(), SOURCE)
    assert done.fresh == ()
    assert all(
        torch.equal(a, b)
        for a, b in zip(net.state_dict().values(), source.state_dict().values(), strict=True)
    )


def test_other_classes_keep_their_own_last_layer_only() -> None:
    card = replace(SOURCE, classes=("cat", "dog"))  # The same shape: still other classes.
    net = build(card, seed=2)
    before = net.scores[0].last.weight.clone()
    done = transfer(net, card, build(SOURCE, seed=1).state_dict(), SOURCE)
    assert sorted(done.fresh) == sorted(
        f"scores.{i}.1.{p}" for i in range(3) for p in ("bias", "weight")
    )
    assert torch.equal(net.scores[0].last.weight, before)


def test_levels_are_matched_by_stride_not_by_index() -> None:
    card = replace(SOURCE, strides=(4, 8, 16, 32))
    source, net = build(SOURCE, seed=1), build(card, seed=2)
    done = transfer(net, card, source.state_dict(), SOURCE)
    for name in ("boxes", "scores"):
        ours, theirs = getattr(net, name), getattr(source, name)
        assert torch.equal(ours[1].last.weight, theirs[0].last.weight)
        assert torch.equal(ours[3].last.weight, theirs[2].last.weight)
    assert torch.equal(net.pyramid.down[1][0][0].weight, source.pyramid.down[0][0][0].weight)
    assert torch.equal(
        net.pyramid.top_down[2][0][0].weight, source.pyramid.top_down[1][0][0].weight
    )
    assert all(".0." in name for name in done.fresh)


@pytest.mark.parametrize(("channels", "other"), [(1, 3), (3, 1)])
def test_a_grey_image_gives_the_same_stem_whatever_its_channels(channels: int, other: int) -> None:
    first, second = (replace(SOURCE, channels=c) for c in (channels, other))
    source, net = build(first, seed=1).eval(), build(second, seed=2).eval()
    transfer(net, second, source.state_dict(), first)
    grey = torch.randn(1, 1, 64, 64)
    seen = [
        n.backbone.stem(grey.expand(-1, c, -1, -1)) for n, c in ((source, channels), (net, other))
    ]
    torch.testing.assert_close(*seen)


def test_another_width_is_left_alone() -> None:
    card = replace(SOURCE, architecture="edgedet-s")
    done = transfer(build(card), card, build(SOURCE).state_dict(), SOURCE)
    assert "backbone.stages.0.0.expand.0.weight" in done.fresh
