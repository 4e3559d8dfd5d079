"""A first estimate of latency on a device that nobody has at hand: a roofline over operators."""

from __future__ import annotations

from typing import Literal

from edgekd.device import Cluster, Device, Gpu, Prediction, Runtime, Span
from edgekd.modelfile import ModelOperators, Operator, OperatorKind
from edgekd.types import Basis, Latency, Precision

Case = Literal["best", "likely", "worst"]
Peaks = dict[Precision, float]


def predict_latency(
    model: ModelOperators, device: Device, *, threads: int | None = None
) -> Latency | None:
    """Returns the latency at batch 1 that a device's published peaks suggest, with an interval.

    An operator takes as long as its arithmetic or its memory traffic, whichever is longer, and a
    floor for its dispatch. The ends of the interval take every efficiency, bandwidth and floor at
    its most and its least favourable at once. Nothing was fitted on the device itself, so the
    figure ranks models better than it times them.

    Args:
        model: What the file computes.
        device: Profile with peaks.
        threads: CPU threads, by default the profile's. Those beyond the cores of the fastest
            cluster count for nothing: slower cores rarely help.

    Returns:
        None where the device does not execute the file's format and precision, or where its
        profile gives no peaks.
    """
    runtime = device.runtimes.get(model.format)
    if runtime is None or runtime.prediction is None or model.precision not in runtime.precisions:
        return None
    used = runtime.threads if threads is None else threads
    peaks = _peaks(device, runtime, used)
    return Latency(
        basis=Basis.PREDICTED,
        where=device.id,
        runtime=runtime.name,
        runtime_version=runtime.version,
        delegate=runtime.delegate,
        threads=used,
        median_ms=_milliseconds(model, runtime.prediction, peaks, "likely"),
        low_ms=_milliseconds(model, runtime.prediction, peaks, "best"),
        high_ms=_milliseconds(model, runtime.prediction, peaks, "worst"),
        note="uncalibrated",
        conditions={"power mode": device.power_mode.name},
    )


def _milliseconds(model: ModelOperators, prediction: Prediction, peaks: Peaks, case: Case) -> float:
    floor = _cost(prediction.layer_floor_us, case) * 1e-3
    return sum(_work_ms(item, prediction, peaks, case) + floor for item in model.operators)


def _work_ms(operator: Operator, prediction: Prediction, peaks: Peaks, case: Case) -> float:
    # What a runtime does not compute in the file's precision, it computes in float32.
    precision = operator.precision if operator.precision in peaks else Precision.FLOAT32
    efficiency = prediction.efficiency[precision]
    depthwise = operator.kind is OperatorKind.DEPTHWISE_CONV
    reached = _rate(efficiency.depthwise if depthwise else efficiency.dense, case)
    compute = 2 * operator.macs / (peaks[precision] * reached)
    moved = operator.input_bytes + operator.weight_bytes + operator.output_bytes
    traffic = moved / (_rate(prediction.traffic_gb_s, case) * 1e9)
    return max(compute, traffic) * 1e3


def _rate(span: Span, case: Case) -> float:
    return {"best": span.high, "likely": span.likely, "worst": span.low}[case]


def _cost(span: Span, case: Case) -> float:
    return {"best": span.low, "likely": span.likely, "worst": span.high}[case]


def _peaks(device: Device, runtime: Runtime, threads: int) -> Peaks:
    """Returns operations a second, two per multiply-accumulate, by what the engine computes in."""
    if runtime.engine == "gpu" and device.gpu is not None:
        peaks = _gpu_peaks(device.gpu)
    else:
        peaks = _cpu_peaks(device.cpu[0], threads)
    return {kind: peak for kind, peak in peaks.items() if kind in runtime.precisions}


def _cpu_peaks(cluster: Cluster, threads: int) -> Peaks:
    cycles = min(threads, cluster.cores) * cluster.clock_ghz * 1e9
    rates = {
        Precision.FLOAT32: cluster.fp32_ops_per_cycle,
        Precision.FLOAT16: cluster.fp16_ops_per_cycle,
        Precision.INT8: cluster.int8_ops_per_cycle,
    }
    return {kind: rate * cycles for kind, rate in rates.items() if rate is not None}


def _gpu_peaks(gpu: Gpu) -> Peaks:
    rates = {
        Precision.FLOAT32: gpu.fp32_tflops,
        Precision.FLOAT16: gpu.fp16_tflops,
        Precision.INT8: gpu.int8_tops,
    }
    return {kind: rate * 1e12 for kind, rate in rates.items() if rate is not None}
