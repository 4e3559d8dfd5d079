"""The networks of benchmarks/latency against the figures that their authors published."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "latency" / "networks.py"
spec = importlib.util.spec_from_file_location("architectures", SOURCE)
nets = importlib.util.module_from_spec(spec)
sys.modules["architectures"] = nets
spec.loader.exec_module(nets)


# Millions of multiply-accumulates and of parameters. EfficientNet-lite's published counts are a few
# percent above the products of its table at every size, while its parameters agree.
@pytest.mark.parametrize(
    ("net", "macs", "parameters", "tolerance"),
    [
        (nets.mobilenet_v1(1.0, 224), 569, 4.24, 0.01),
        (nets.mobilenet_v1(0.5, 160), 76, 1.34, 0.01),
        (nets.mobilenet_v1(0.25, 128), 14, 0.47, 0.04),
        (nets.mobilenet_v2(1.0, 224), 300, 3.47, 0.01),
        (nets.mobilenet_v2(1.4, 224), 582, 6.06, 0.01),
        (nets.mobilenet_v3("large", 1.0, 224), 217, 5.4, 0.02),
        (nets.mobilenet_v3("large", 0.75, 224), 155, 4.0, 0.01),
        (nets.mobilenet_v3("small", 1.0, 224), 56, 2.5, 0.02),
        (nets.mobilenet_v3("small", 0.75, 224), 44, 2.0, 0.02),
        (nets.mobilenet_v3("large", 1.0, 224, minimalistic=True), 209, 3.9, 0.01),
        (nets.efficientnet_lite(0), 407, 4.65, 0.06),
        (nets.efficientnet_lite(4), 2640, 13.0, 0.06),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_work_and_size_are_the_published_ones(net, macs, parameters, tolerance) -> None:
    assert net.macs / 1e6 == pytest.approx(macs, rel=tolerance)
    assert net.parameters / 1e6 == pytest.approx(parameters, rel=max(tolerance, 0.02))


def test_a_layer_is_the_operator_that_a_file_would_hold() -> None:
    precision = nets.Precision.INT8
    first, depthwise = (
        layer.operator(precision) for layer in nets.mobilenet_v1(1.0, 224).layers[:2]
    )
    assert (first.input_bytes, first.output_bytes) == (224 * 224 * 3, 112 * 112 * 32)
    assert first.geometry.stride == 2
    assert depthwise.geometry.groups == 32
    assert depthwise.macs == 112 * 112 * 32 * 9
