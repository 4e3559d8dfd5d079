"""Latency of a file on a device that is not at hand: its work by kernel class, times costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.config.device import Cluster, Device, Gpu, Memory, Runtime, list_devices
from edgekd.core.results import Basis, Latency
from edgekd.core.types import Format, Precision
from edgekd.measure.costs import Costs, Kernels, Speed, work_of_all
from edgekd.measure.kernels import (
    KernelFacts,
    KernelSet,
    Latencies,
    load_calibrations,
    load_kernels,
    load_latencies,
)
from edgekd.modelfile.operators import ModelOperators, Operator, OperatorKind

WITHIN_90 = 1.645
"""Standard deviations that hold nine of ten."""

CORE_LOSS = 0.2
"""Of a core's work, for every other core that works with it: four cores do what 2.5 alone would.
ncnn's published tables have four do what 1.5 to 3.1 do."""

OTHER_THREADS = 0.2
"""Standard deviation of the logarithm by which an operator may scale otherwise over cores."""

LITTLE = 0.5
"""Share of the fastest core's rate under which a core is a little one."""

CALL_CYCLES = 15e3
"""What an operator's dispatch takes at full efficiency; the scale of the catalogue's shares."""

CPU_TRAFFIC = 0.5
"""Share of the theoretical bandwidth that a CPU moves, where nobody measured a copy."""


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """What is known of a runtime's costs on a device.

    Attributes:
        costs: By the precision that an operator computes in.
        fills: How the kernels fill, by the same.
        folds: Operators that run inside the convolution behind them.
        known_from: What it rests on, the most alike first.
        calibrated: Networks measured on this very board, by precision.
    """

    costs: dict[Precision, Costs]
    fills: dict[Precision, Kernels]
    folds: tuple[str, ...]
    known_from: tuple[str, ...]
    calibrated: dict[Precision, int]

    def precision(self, operator: Operator) -> Precision:
        """Returns what an operator computes in: float32 where the runtime has no such kernels."""
        return operator.precision if operator.precision in self.costs else Precision.FLOAT32

    def by_operator(self, operators: tuple[Operator, ...]) -> NDArray[np.float64]:
        """Returns ``(N,)`` milliseconds; 0 where an operator runs inside another."""
        return np.array([float(part.sum()) for _, part in self._parts(operators)])

    def milliseconds(self, operators: tuple[Operator, ...]) -> tuple[float, float]:
        """Returns the latency, and the standard deviation of its logarithm."""
        by_precision: dict[Precision, NDArray[np.float64]] = {}
        for precision, part in self._parts(operators):
            by_precision[precision] = by_precision.get(precision, 0.0) + part
        total = sum(float(part.sum()) for part in by_precision.values())
        variance, scatter = 0.0, 0.0
        for precision, part in by_precision.items():
            costs, shares = self.costs[precision], part / total
            variance += float(shares @ costs.covariance @ shares)
            scatter = max(scatter, costs.scatter)
        return total, float(np.sqrt(variance + scatter**2))

    def interval(self, operators: tuple[Operator, ...]) -> tuple[float, float, float]:
        """Returns the latency in ms, and the ends of its 90 % interval."""
        median, deviation = self.milliseconds(operators)
        factor = float(np.exp(WITHIN_90 * deviation))
        return median, median / factor, median * factor

    def _parts(
        self, operators: tuple[Operator, ...]
    ) -> list[tuple[Precision, NDArray[np.float64]]]:
        """Returns the precision of every operator and its milliseconds by class."""
        parts = []
        for operator, behind in zip(operators, (*operators, None)[1:], strict=True):
            precision = self.precision(operator)
            work = work_of_all([operator], self.fills[precision])[0]
            if operator.native in self.folds and behind and _takes(behind, operator):
                work = np.zeros_like(work)
            parts.append((precision, work * np.exp(self.costs[precision].mean)))
        return parts


def latency_model(
    device: Device, model_format: Format, *, threads: int | None = None
) -> LatencyModel | None:
    """Returns what is known of a format's runtime on a device; None where nothing is predicted.

    Efficiencies that the runtime's kernels have on other boards, then what latencies of the
    profile's relatives teach, then one's own calibration, at the device's peaks.

    Raises:
        DeviceError: A file of the catalogue, or the calibration, is missing or malformed.
    """
    prediction = device.predictions.get(model_format)
    if prediction is None:
        return None
    runtime = device.runtimes[model_format]
    used = device.threads_in(runtime) if threads is None else threads
    kernels = load_kernels(prediction.kernels)
    sources = [(load_latencies(item.latencies), item.transfer) for item in prediction.relatives]
    sources += [(own, 0.0) for own in load_calibrations(device.id, kernels.id)]
    costs, fills, calibrated = {}, {}, {}
    for precision, facts in kernels.precisions.items():
        if precision not in runtime.precisions:
            continue
        known = facts.efficiencies
        calibrated[precision] = 0
        for latencies, transfer in sources:
            readings = latencies.precisions.get(precision)
            if readings is None:
                continue
            if latencies.threads != used:
                transfer = max(transfer, OTHER_THREADS)
            known = readings.teach(known).loosened(transfer)
            calibrated[precision] += 0 if transfer else len(readings.networks)
        costs[precision] = known.at(engine_speed(device, runtime, precision, used))
        fills[precision] = kernel_fills(device, runtime, facts)
    return LatencyModel(
        costs=costs,
        fills=fills,
        folds=kernels.folds,
        known_from=(
            *(_described(latencies) for latencies, _ in reversed(sources)),
            _learnt(kernels),
        ),
        calibrated=calibrated,
    )


def predict_everywhere(model: ModelOperators) -> tuple[Latency, ...]:
    """Returns the latency on every profile that executes the file and predicts one, least first.

    Raises:
        DeviceError: As `latency_model`.
    """
    found = (predict_latency(model, device) for device in list_devices())
    return tuple(sorted(filter(None, found), key=lambda latency: latency.median_ms))


def predict_latency(
    model: ModelOperators, device: Device, *, threads: int | None = None
) -> Latency | None:
    """Returns the latency at batch 1 that is expected on a device, with a 90 % interval.

    Args:
        model: What the file computes.
        device: Profile with peaks.
        threads: CPU threads, by default the profile's. Those beyond the fast cores count for
            nothing: little cores rarely help.

    Returns:
        None where the device does not execute the file's format and precision, or where its
        profile gives no peaks.

    Raises:
        DeviceError: As `latency_model`.
    """
    runtime = device.runtimes.get(model.format)
    if runtime is None or model.precision not in runtime.precisions:
        return None
    known = latency_model(device, model.format, threads=threads)
    if known is None:
        return None
    median, low, high = known.interval(model.operators)
    return Latency(
        basis=Basis.PREDICTED,
        where=device.id,
        runtime=runtime.name,
        runtime_version=runtime.version,
        delegate=runtime.delegate,
        threads=device.threads_in(runtime) if threads is None else threads,
        median_ms=median,
        low_ms=low,
        high_ms=high,
        note=_note(known, model.precision),
        conditions={
            "power mode": device.power_mode.name,
            "known from": "; ".join(known.known_from),
        },
    )


def _takes(convolution: Operator, folded: Operator) -> bool:
    """Returns whether an operator is a convolution of what the one before it wrote."""
    kinds = (OperatorKind.CONV, OperatorKind.DEPTHWISE_CONV)
    return convolution.kind in kinds and convolution.input_shapes[:1] == folded.output_shapes[:1]


def _note(known: LatencyModel, precision: Precision) -> str:
    count = known.calibrated[precision]
    if count == 0:
        return "uncalibrated"
    return f"calibrated with {count} network{'s' if count > 1 else ''}"


def _described(latencies: Latencies) -> str:
    threads = f"{latencies.threads} thread{'s' if latencies.threads > 1 else ''}"
    return f"{latencies.statistic} of {latencies.device}, {latencies.runtime}, {threads}"


def _learnt(kernels: KernelSet) -> str:
    boards = {name for facts in kernels.precisions.values() for name in facts.learnt_from}
    return f"{kernels.name}: {f'{len(boards)} published runs' if boards else 'assumed'}"


def kernel_fills(device: Device, runtime: Runtime, facts: KernelFacts) -> Kernels:
    """Returns how a runtime's kernels fill on a device."""
    return facts.fills["gpu" if runtime.engine == "gpu" else device.cpu[0].int8_kernel]


def engine_speed(device: Device, runtime: Runtime, precision: Precision, threads: int) -> Speed:
    """Returns what the engine of a runtime does at best.

    Raises:
        ValueError: The profile has no such engine, or no memory.
    """
    if device.memory is None or not (device.gpu if runtime.engine == "gpu" else device.cpu):
        raise ValueError(f"{device.id}: no peaks of a {runtime.engine} and its memory")
    if runtime.engine == "gpu" and device.gpu is not None:
        return gpu_speed(device.gpu, device.memory, precision)
    return cpu_speed(device.cpu, device.memory, precision, threads)


def cpu_speed(
    clusters: Sequence[Cluster], memory: Memory, precision: Precision, threads: int
) -> Speed:
    """Returns what the fastest cores do together at best; little cores only hold others up."""
    cores = sorted(
        (_core_gmacs(cluster, precision) for cluster in clusters for _ in range(cluster.cores)),
        reverse=True,
    )
    used = [core for core in cores if core[0] >= LITTLE * cores[0][0]][:threads]
    alone = 1 + CORE_LOSS * (len(used) - 1)
    return Speed(
        gmacs=sum(summed for _, summed in used) / alone,
        depthwise_gmacs=sum(plain for plain, _ in used) / alone,
        gb_s=_cpu_traffic(memory),
        call_us=CALL_CYCLES / 1e3 / clusters[0].clock_ghz,
    )


def _cpu_traffic(memory: Memory) -> float:
    """Returns 10^9 bytes a second that the cores move: a copied byte is read and written."""
    if memory.copied_gb_s is not None:
        return 2 * memory.copied_gb_s
    return CPU_TRAFFIC * (memory.theoretical_gb_s or 0.0)


def _core_gmacs(cluster: Cluster, precision: Precision) -> tuple[float, float]:
    """Returns 10^9 products a second of one core: apart, and summed over channels."""
    cycles = cluster.clock_ghz * cluster.reached / 2
    plain = summed = cluster.fp32_ops_per_cycle
    if precision is Precision.INT8:
        # Widening multiplies do two int8 products where float32 does one.
        plain, summed = 2 * plain, cluster.int8_ops_per_cycle
    return cycles * plain, cycles * summed


def gpu_speed(gpu: Gpu, memory: Memory, precision: Precision) -> Speed:
    """Returns what a GPU does at best; tensor cores do not help where nothing is summed."""
    rates = {
        Precision.FLOAT32: (gpu.fp32_tflops, gpu.fp32_tflops),
        Precision.FLOAT16: (gpu.fp16_tflops, min(gpu.fp16_tflops, 2 * gpu.fp32_tflops)),
        Precision.INT8: (gpu.int8_tops or gpu.fp16_tflops, 2 * gpu.fp32_tflops),
    }
    summed, plain = rates[precision]
    return Speed(
        gmacs=summed * 1e3 / 2,
        depthwise_gmacs=plain * 1e3 / 2,
        gb_s=memory.theoretical_gb_s or 2 * (memory.copied_gb_s or 0.0),
        call_us=CALL_CYCLES / 1e3 / gpu.clock_ghz,
    )
