from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from edgekd.config.device import Device, load_device
from edgekd.core.results import Basis
from edgekd.core.types import Format, Precision
from edgekd.measure.predict import predict_latency
from edgekd.modelfile.operators import Geometry, ModelOperators, Operator, OperatorKind


def layer(
    shape: Geometry | None = None,
    *,
    precision: Precision = Precision.INT8,
    moved: int = 0,
) -> Operator:
    depthwise = shape is not None and shape.groups == shape.inputs > 1
    macs = 0
    if shape is not None:
        cells = shape.height * shape.width * math.prod(shape.kernel)
        macs = cells * shape.outputs * shape.inputs // shape.groups
    kind = OperatorKind.DEPTHWISE_CONV if depthwise else OperatorKind.CONV
    return Operator(
        kind=kind if shape else OperatorKind.ELEMENTWISE,
        native="Conv",
        name="",
        macs=macs,
        parameters=0,
        input_bytes=moved,
        weight_bytes=0,
        output_bytes=0,
        precision=precision,
        input_shapes=(),
        output_shapes=(),
        geometry=shape,
    )


def dense(channels: int = 256, *, precision: Precision = Precision.INT8) -> Operator:
    shape = Geometry(inputs=channels, outputs=channels, height=64, width=64)
    return layer(shape, precision=precision)


def model(*operators: Operator, model_format: Format = Format.TFLITE) -> ModelOperators:
    return ModelOperators(path=Path("net"), format=model_format, operators=operators, size_bytes=0)


def mobilenet_v1(precision: Precision, model_format: Format = Format.TFLITE) -> ModelOperators:
    """Returns MobileNet v1 1.0 at 224x224, written out: 569 million MACs."""
    size = {Precision.INT8: 1, Precision.FLOAT16: 2, Precision.FLOAT32: 4}[precision]
    operators: list[Operator] = []

    def add(shape: Geometry, before: int) -> None:
        values = shape.inputs * before**2 + shape.outputs * shape.height**2
        operators.append(layer(shape, precision=precision, moved=values * size))

    side, channels = 112, 32
    add(Geometry(inputs=3, outputs=32, height=112, width=112, kernel=(3, 3), stride=2), 224)
    for out, stride in (
        [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
        + [(512, 1)] * 5
        + [(1024, 2), (1024, 1)]
    ):
        before, side = side, side // stride
        of = {"height": side, "width": side}
        add(
            Geometry(
                inputs=channels,
                outputs=channels,
                kernel=(3, 3),
                stride=stride,
                groups=channels,
                **of,
            ),
            before,
        )
        add(Geometry(inputs=channels, outputs=out, **of), side)
        channels = out
    add(Geometry(inputs=1024, outputs=1000, height=1, width=1), 1)
    return model(*operators, model_format=model_format)


def at_clock(device: Device, ghz: float) -> Device:
    return dataclasses.replace(
        device, cpu=(dataclasses.replace(device.cpu[0], clock_ghz=ghz), *device.cpu[1:])
    )


def milliseconds(model: ModelOperators, device: str | Device, threads: int | None = None) -> float:
    device = load_device(device) if isinstance(device, str) else device
    latency = predict_latency(model, device, threads=threads)
    assert latency is not None
    return latency.median_ms


def test_operators_add_up() -> None:
    one, other = model(dense()), model(layer(moved=10**7))
    both = model(*one.operators, *other.operators)
    expected = milliseconds(one, "raspberry-pi") + milliseconds(other, "raspberry-pi")
    assert milliseconds(both, "raspberry-pi") == pytest.approx(expected)


def test_no_convolution_is_faster_than_the_cores_could_be() -> None:
    net = model(*[dense()] * 20)
    peak_ms = net.macs / (4 * 2.4e9 * 32) * 1e3
    assert peak_ms < milliseconds(net, "raspberry-pi") < 4 * peak_ms


def test_moving_values_is_bound_by_memory() -> None:
    moved = milliseconds(model(layer(moved=110_000_000)), "raspberry-pi")
    assert 5 < moved < 100  # 11 GB/s take 10 ms.


def test_record_says_that_it_is_a_guess() -> None:
    latency = predict_latency(model(dense()), load_device("android"))
    assert latency is not None
    assert latency.basis is Basis.PREDICTED
    assert latency.note == "uncalibrated"
    assert latency.where == "android"
    assert (latency.runtime, latency.delegate, latency.threads) == ("litert", "xnnpack", 2)
    assert latency.low_ms is not None
    assert latency.high_ms is not None
    assert latency.low_ms < latency.median_ms < latency.high_ms
    assert (latency.p90_ms, latency.p99_ms, latency.runs) == (None, None, 0)


def test_more_threads_help_up_to_the_big_cluster_but_never_wholly() -> None:
    net = model(*[dense()] * 4)
    one, two, four, eight = (milliseconds(net, "raspberry-pi-4", n) for n in (1, 2, 4, 8))
    assert 1.5 * two < one < 2 * two
    assert 1.4 * four < two < 2 * four
    assert eight == four


def test_middle_cores_help_and_little_ones_do_not() -> None:
    net, phone = model(*[dense()] * 4), load_device("pixel-4")
    assert milliseconds(net, phone, 4) < milliseconds(net, phone, 1)
    assert milliseconds(net, phone, 8) == milliseconds(net, phone, 4)
    prime = dataclasses.replace(phone, cpu=phone.cpu[:1])
    assert milliseconds(net, prime, 1) == milliseconds(net, phone, 1)


def test_int8_gains_more_with_dot_products() -> None:
    def gain(device: str) -> float:
        real, integer = (
            milliseconds(mobilenet_v1(p), device) for p in (Precision.FLOAT32, Precision.INT8)
        )
        return real / integer

    assert 1.5 < gain("raspberry-pi-4") < 3.5
    assert gain("jetson") > 1


@pytest.mark.parametrize(
    ("device", "clock_ghz", "precision", "published_ms"),
    [
        # XNNPACK's own table, four threads, and TFLite 2.4 with its own kernels (Krai, MLPerf
        # Inference v1.0): the second is no part of what the profile was fitted on.
        ("raspberry-pi-4", 1.5, Precision.INT8, 24),
        ("raspberry-pi-4", 1.5, Precision.FLOAT32, 77),
        ("raspberry-pi-4", 1.5, Precision.INT8, 28.5),
        ("raspberry-pi-4", 1.5, Precision.FLOAT32, 68.4),
    ],
)
def test_published_mobilenet_latency_is_near(
    device: str, clock_ghz: float, precision: Precision, published_ms: float
) -> None:
    net = mobilenet_v1(precision)
    assert net.macs == pytest.approx(569e6, rel=0.001)
    found = milliseconds(net, at_clock(load_device(device), clock_ghz))
    assert found == pytest.approx(published_ms, rel=0.4)


def test_jetson_runs_onnx_on_the_gpu_and_tflite_on_the_cpu() -> None:
    jetson = load_device("jetson")
    gpu = predict_latency(mobilenet_v1(Precision.INT8, Format.ONNX), jetson)
    cpu = predict_latency(mobilenet_v1(Precision.INT8), jetson)
    assert gpu is not None
    assert cpu is not None
    assert (gpu.runtime, cpu.runtime) == ("tensorrt", "litert")
    assert 3 * gpu.median_ms < cpu.median_ms


def test_nothing_is_predicted_where_nothing_is_known() -> None:
    assert predict_latency(mobilenet_v1(Precision.INT8), load_device("host")) is None


def test_nothing_is_predicted_for_what_the_device_refuses() -> None:
    nano = load_device("jetson-nano")
    assert predict_latency(mobilenet_v1(Precision.INT8, Format.ONNX), nano) is None
    assert predict_latency(mobilenet_v1(Precision.FLOAT32), nano) is None
    assert predict_latency(mobilenet_v1(Precision.FLOAT16, Format.ONNX), nano) is not None


def test_half_precision_operator_on_a_cpu_counts_as_float32() -> None:
    device = load_device("raspberry-pi-4")
    half = model(dense(), dense(32, precision=Precision.FLOAT16))
    full = model(dense(), dense(32, precision=Precision.FLOAT32))
    assert predict_latency(half, device) == predict_latency(full, device)
