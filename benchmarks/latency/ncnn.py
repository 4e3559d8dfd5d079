"""How well costs by kernel class predict ncnn, whose tables have the most diverse networks.

    python benchmarks/latency/ncnn.py

`data/ncnn.csv` holds the *minimum* of each network's runs on 21 boards and phones, of one and of
four threads (github.com/Tencent/ncnn at a4d2ea1d4, benchmark/README.md), `data/ncnn_layers.csv` the
layers of its networks, VGG to ShuffleNet, detectors and a vision transformer. The questions are
those of `leaving_out.py`. EdgeKD ships nothing in ncnn: this is a proof of the method alone.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from leaving_out import report
from published import DATA, Run

from edgekd.config.device import Cluster, Memory
from edgekd.core.types import Precision
from edgekd.measure.costs import Kernels, work_of_all
from edgekd.measure.predict import cpu_speed
from edgekd.modelfile.operators import Geometry, Operator, OperatorKind

FILLS = Kernels(depth=4, outputs=4, rows=5, depthwise_rows=13, winograd=8, group_calls=0.1)
# Cores with their clock and float32 operations a cycle (times the share that wide cores reach),
# fastest first; GB/s copied by one core, guessed for phones and the last three boards.
Cores = tuple[tuple[int, float, float], ...]
BOARDS: dict[str, tuple[Cores, float]] = {
    "Raspberry Pi Zero 2 W": (((4, 1.0, 8),), 1.3),
    "Raspberry Pi 3 Model B+": (((4, 1.4, 8),), 1.15),
    "Raspberry Pi 4 Model B": (((4, 1.8, 8),), 2.55),
    "Raspberry Pi 5": (((4, 2.4, 16),), 5.65),
    "NVIDIA Jetson Nano": (((4, 1.43, 8),), 3.9),
    "NVIDIA Jetson AGX Xavier": (((8, 2.2, 16),), 10.9),
    "NVIDIA Jetson Orin Nano": (((6, 1.5, 16),), 6.73),
    "NVIDIA Jetson AGX Orin": (((12, 2.2, 16),), 10.6),
    "RK3588 board (rk3588_s Android)": (((4, 2.4, 16),), 10.8),
    "ROCK 5B": (((4, 2.4, 16),), 10.8),
    "Orange Pi 5": (((4, 2.4, 16),), 10.8),
    "Google Pixel 2 XL (taimen)": (((4, 2.45, 8),), 9.7),
    "OnePlus 7T": (((1, 2.96, 16), (3, 2.42, 16)), 10.0),
    "Snapdragon 8 Gen 2 device": (((1, 3.2, 14.4), (4, 2.8, 16)), 15.0),
    "Dimensity 9300 ref device (k6989v1_64)": (((1, 3.25, 14.4), (3, 2.85, 14.4)), 15.0),
    "Nexus 6P (angler)": (((4, 2.0, 8),), 6.0),
    "Huawei P20 (HWEML)": (((4, 2.4, 8),), 8.0),
    "Xiaomi Mi 5s Plus (natrium)": (((2, 2.35, 8), (2, 2.19, 8)), 6.0),
    "Khadas VIM3": (((4, 2.2, 8),), 4.0),
    "Rock 3A": (((4, 2.0, 8),), 4.0),
    "Arduino UNO Q": (((4, 2.0, 8),), 4.0),
}
KINDS = {
    "Convolution": OperatorKind.CONV,
    "InnerProduct": OperatorKind.FULLY_CONNECTED,
    "Gemm": OperatorKind.MATMUL,
    "MultiHeadAttention": OperatorKind.MATMUL,
    "Pooling": OperatorKind.POOL,
    "Eltwise": OperatorKind.ELEMENTWISE,
    "BinaryOp": OperatorKind.ELEMENTWISE,
} | dict.fromkeys(
    ("ReLU", "Swish", "HardSwish", "HardSigmoid", "Sigmoid", "GELU", "Softmax"),
    OperatorKind.ACTIVATION,
)
FEWEST = 16
"""Networks that a run must have to be judged."""


def operator(layer: Mapping[str, str], width: int) -> Operator:
    """Returns a layer as an operator whose values are of so many bytes."""
    macs, parameters, outputs = (int(layer[name] or 0) for name in ("macs", "params", "out_elems"))
    kind = KINDS.get(layer["type"], OperatorKind.MOVE)
    if "DepthWise" in layer["type"]:
        depthwise = layer["depthwise"] == "1"
        kind = OperatorKind.DEPTHWISE_CONV if depthwise else OperatorKind.CONV
    return Operator(
        kind=kind,
        native=layer["type"],
        name="",
        macs=macs,
        parameters=parameters,
        input_bytes=width * int(layer["in_elems"] or 0),
        weight_bytes=width * parameters,
        output_bytes=width * outputs,
        precision=Precision.FLOAT16 if width == 2 else Precision.FLOAT32,
        input_shapes=(),
        output_shapes=(),
        geometry=_geometry(layer, kind, macs) if macs else None,
    )


def _geometry(layer: Mapping[str, str], kind: OperatorKind, macs: int) -> Geometry:
    if kind in (OperatorKind.FULLY_CONNECTED, OperatorKind.MATMUL):
        rows = max(1, round(macs / max(1, int(layer["params"] or 0))))
        columns = max(1, int(layer["out_elems"]) // rows)
        depth = max(1, macs // (rows * columns))
        return Geometry(inputs=depth, outputs=columns, height=rows, width=1)
    return Geometry(
        inputs=int(layer["in_ch"]),
        outputs=int(layer["out_ch"]),
        height=int(layer["out_h"]),
        width=int(layer["out_w"]),
        kernel=(int(layer["kernel_h"]), int(layer["kernel_w"])),
        stride=int(layer["stride_h"]),
        groups=max(1, int(layer["groups"] or 1)),
    )


def runs() -> list[Run]:
    """Returns the runs of float networks, which compute in float16 where the cores do."""
    layers = defaultdict(list)
    with (DATA / "ncnn_layers.csv").open(encoding="utf-8") as stream:
        for layer in csv.DictReader(stream):
            layers[layer["model"]].append(layer)
    rows: dict[tuple[str, int, bool], dict[str, float]] = defaultdict(dict)
    with (DATA / "ncnn.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if not row["model"].endswith("_int8") and row["model"] in layers:
                key = row["device"], int(row["threads"]), row["fp16"] == "1"
                rows[key][row["model"]] = float(row["min_ms"])
    work = {
        (name, width): work_of_all([operator(layer, width) for layer in found], FILLS).sum(0)
        for name, found in layers.items()
        for width in (2, 4)
    }
    found = []
    for (device, threads, half), times in rows.items():
        if len(times) >= FEWEST:
            cores, copied = BOARDS[device]
            clusters = [_cluster(*part, half) for part in cores]
            memory = Memory(theoretical_gb_s=None, copied_gb_s=copied, source="")
            found.append(
                Run(
                    board=device,
                    kernels="ncnn",
                    runtime="ncnn",
                    precision=Precision.FLOAT16 if half else Precision.FLOAT32,
                    threads=threads,
                    speed=cpu_speed(clusters, memory, Precision.FLOAT32, threads),
                    fills=FILLS,
                    names=tuple(times),
                    architectures=tuple(times),
                    work=np.array([work[name, 2 if half else 4] for name in times]),
                    ms=np.array(list(times.values())),
                    source="github.com/Tencent/ncnn benchmark/README.md",
                )
            )
    return found


def _cluster(cores: int, clock: float, operations: float, half: bool) -> Cluster:
    return Cluster(
        name="",
        cores=cores,
        uarch="",
        clock_ghz=clock,
        int8_kernel="mlal",
        fp32_ops_per_cycle=operations * (2 if half else 1),
        fp16_ops_per_cycle=None,
        int8_ops_per_cycle=math.nan,
        source="",
    )


def main() -> None:
    """Writes ``ncnn.json`` and prints its tables."""
    report("ncnn", [runs()])


if __name__ == "__main__":
    main()
