from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgekd.nets.card import Card, build
from edgekd.nets.folding import fold_for_inference
from edgekd.nets.tap import TappedNet


@pytest.mark.parametrize("architecture", ["edgedet-n", "edgedet-m", "edgecls-n"])
def test_folded_outputs_and_features_are_those_of_the_network(architecture: str) -> None:
    net = build(Card(architecture=architecture, classes=("a", "b"), height=64, width=64), seed=0)
    net.train()
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(3):  # Or every norm would be all but the identity.
            net(torch.randn(4, 3, 64, 64) * 2 + 1)
    net.eval()
    folded = fold_for_inference(copy.deepcopy(net))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        outputs, features = TappedNet(net, net.taps)(images)
        fast_outputs, fast_features = TappedNet(folded, net.taps)(images)
    for wanted, found in zip((*outputs, *features), (*fast_outputs, *fast_features), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_blocks_of_other_kinds_are_left_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()).eval()
    assert fold_for_inference(net) is net
    assert isinstance(net[1], nn.BatchNorm2d)
