from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgekd.benchmark.predict import predict_latency
from edgekd.device import Device, load_device
from edgekd.modelfile import ModelOperators, Operator, OperatorKind
from edgekd.types import Basis, Format, Precision


def layer(
    macs: int,
    *,
    kind: OperatorKind = OperatorKind.CONV,
    precision: Precision = Precision.INT8,
    moved: int = 0,
) -> Operator:
    return Operator(
        kind=kind,
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
    )


def model(*operators: Operator, model_format: Format = Format.TFLITE) -> ModelOperators:
    return ModelOperators(path=Path("net"), format=model_format, operators=operators, size_bytes=0)


def mobilenet_v1(precision: Precision, model_format: Format = Format.TFLITE) -> ModelOperators:
    """Returns MobileNet v1 1.0 at 224x224, written out: 569 million MACs."""
    size = {Precision.INT8: 1, Precision.FLOAT16: 2, Precision.FLOAT32: 4}[precision]
    operators: list[Operator] = []

    def add(kind: OperatorKind, macs: int, values: int) -> None:
        operators.append(layer(macs, kind=kind, precision=precision, moved=values * size))

    side, channels = 112, 32
    add(OperatorKind.CONV, 112 * 112 * 32 * 27, 224 * 224 * 3 + 864 + 112 * 112 * 32)
    for out, stride in (
        [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
        + [(512, 1)] * 5
        + [(1024, 2), (1024, 1)]
    ):
        before, side = side, side // stride
        cells = side * side
        add(
            OperatorKind.DEPTHWISE_CONV,
            cells * channels * 9,
            channels * (before * before + 9 + cells),
        )
        add(OperatorKind.CONV, cells * channels * out, cells * (channels + out) + channels * out)
        channels = out
    add(OperatorKind.POOL, 0, 50 * 1024)
    add(OperatorKind.FULLY_CONNECTED, 1024 * 1000, 1024 * 1000)
    return model(*operators, model_format=model_format)


def at_clock(device: Device, ghz: float) -> Device:
    return dataclasses.replace(
        device, cpu=(dataclasses.replace(device.cpu[0], clock_ghz=ghz), *device.cpu[1:])
    )


def test_arithmetic_and_floor_add_up() -> None:
    device = load_device("raspberry-pi")
    latency = predict_latency(model(layer(10**9), layer(10**9)), device)
    prediction = device.runtimes[Format.TFLITE].prediction
    assert latency is not None
    assert prediction is not None
    efficiency, floor = prediction.efficiency[Precision.INT8].dense, prediction.layer_floor_us
    peak = 4 * 2.4e9 * 64
    assert latency.median_ms == pytest.approx(
        2 * (2e9 / (peak * efficiency.likely) * 1e3 + floor.likely * 1e-3)
    )
    assert latency.low_ms == pytest.approx(
        2 * (2e9 / (peak * efficiency.high) * 1e3 + floor.low * 1e-3)
    )
    assert latency.high_ms == pytest.approx(
        2 * (2e9 / (peak * efficiency.low) * 1e3 + floor.high * 1e-3)
    )


def test_traffic_bounds_an_operator_without_arithmetic() -> None:
    device = load_device("raspberry-pi")
    latency = predict_latency(model(layer(1, moved=110_000_000)), device)
    assert latency is not None
    assert latency.median_ms == pytest.approx(10.0, abs=0.1)


def test_record_says_that_it_is_a_guess() -> None:
    latency = predict_latency(model(layer(10**8)), load_device("android"))
    assert latency is not None
    assert latency.basis is Basis.PREDICTED
    assert latency.note == "uncalibrated"
    assert latency.where == "android"
    assert (latency.runtime, latency.delegate, latency.threads) == ("litert", "xnnpack", 2)
    assert latency.low_ms is not None
    assert latency.high_ms is not None
    assert latency.low_ms < latency.median_ms < latency.high_ms
    assert (latency.p90_ms, latency.p99_ms, latency.runs) == (None, None, 0)


def test_more_threads_help_up_to_the_big_cluster() -> None:
    device = load_device("raspberry-pi-4")

    def milliseconds(threads: int) -> float:
        latency = predict_latency(model(layer(10**9)), device, threads=threads)
        assert latency is not None
        assert latency.threads == threads
        return latency.median_ms

    assert milliseconds(1) > 1.9 * milliseconds(2) > 3.5 * milliseconds(4)
    assert milliseconds(8) == milliseconds(4)


def test_int8_gains_more_with_dot_products() -> None:
    def gain(device: Device) -> float:
        real = predict_latency(mobilenet_v1(Precision.FLOAT32), device)
        integer = predict_latency(mobilenet_v1(Precision.INT8), device)
        assert real is not None
        assert integer is not None
        return real.median_ms / integer.median_ms

    assert 1.8 < gain(load_device("raspberry-pi-4")) < 3
    assert gain(load_device("raspberry-pi")) > gain(load_device("raspberry-pi-4"))


@pytest.mark.parametrize(
    ("device", "clock_ghz", "precision", "published_ms"),
    [
        # TFLite 2.5 and 2.11 with its own kernels, four threads, single-stream medians published
        # by Krai in MLPerf Inference v1.1 and v3.0. The second board has the Raspberry Pi 5's core.
        ("raspberry-pi-4", 1.5, Precision.INT8, 28.5),
        ("raspberry-pi-4", 1.5, Precision.FLOAT32, 68.4),
        ("raspberry-pi", 2.4, Precision.INT8, 7.9),
        ("raspberry-pi", 2.4, Precision.FLOAT32, 23.9),
    ],
)
def test_published_mobilenet_latency_lies_in_the_interval(
    device: str, clock_ghz: float, precision: Precision, published_ms: float
) -> None:
    net = mobilenet_v1(precision)
    assert net.macs == pytest.approx(569e6, rel=0.001)
    latency = predict_latency(net, at_clock(load_device(device), clock_ghz))
    assert latency is not None
    assert latency.low_ms is not None
    assert latency.high_ms is not None
    assert latency.low_ms < published_ms < latency.high_ms
    assert latency.median_ms == pytest.approx(published_ms, rel=0.25)


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
    half = model(layer(10**8), layer(10**6, precision=Precision.FLOAT16))
    full = model(layer(10**8), layer(10**6, precision=Precision.FLOAT32))
    assert predict_latency(half, device) == predict_latency(full, device)
