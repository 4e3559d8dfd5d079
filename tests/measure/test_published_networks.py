"""The networks of benchmarks/latency against the figures that their authors published."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "latency"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, SOURCE / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nets, gpu = load("networks"), load("gpu_networks")


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
        # Those of torchvision, and of YOLO11's table (half of its FLOPs).
        (gpu.alexnet(), 714, 61.1, 0.01),
        (gpu.vgg(11), 7609, 132.9, 0.01),
        (gpu.vgg(19), 19632, 143.7, 0.01),
        (gpu.resnet(18), 1814, 11.7, 0.01),
        (gpu.resnet(50), 4089, 25.6, 0.01),
        (gpu.resnet(152), 11514, 60.2, 0.01),
        (gpu.densenet(121), 2834, 7.98, 0.01),
        (gpu.densenet(161), 7728, 28.7, 0.01),
        (gpu.squeezenet(0), 819, 1.25, 0.01),
        (gpu.squeezenet(1), 349, 1.24, 0.01),
        (gpu.shufflenet_v2("0_5"), 41, 1.37, 0.02),
        (gpu.shufflenet_v2("2_0"), 583, 7.4, 0.01),
        (gpu.mnasnet(0.5), 104, 2.22, 0.01),
        (gpu.mnasnet(1.0), 314, 4.38, 0.01),
        (gpu.yolo11("n"), 3250, 2.6, 0.01),
        (gpu.yolo11("m"), 34000, 20.1, 0.01),
        (gpu.yolo11("x"), 97450, 56.9, 0.01),
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
