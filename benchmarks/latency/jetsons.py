"""Published TensorRT latencies of `data/tensorrt.csv`, with the GPUs that they were measured on.

Means: NVIDIA's torch2trt tables (Nano, AGX Xavier), Ultralytics' YOLO11 on three Orins, in the
highest power mode as far as it is told. NVIDIA's TX2 table is left out: TensorRT 4 took 12.9 ms for
MobileNet v1 in float16 and float32 alike, so that its kernels say nothing of today's.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from gpu_networks import (
    alexnet,
    densenet,
    mnasnet,
    resnet,
    shufflenet_v2,
    squeezenet,
    vgg,
    yolo11,
)
from networks import Network, mobilenet_v1
from published import DATA, Run

from edgekd.config.device import Gpu, Memory
from edgekd.core.types import Precision
from edgekd.measure.costs import Kernels, work_of_all
from edgekd.measure.predict import gpu_speed

FILLS = Kernels(depth=128, outputs=64, rows=256, depthwise_rows=256, group_calls=0.02)
PRECISIONS = {
    "fp32": Precision.FLOAT32,
    "fp16": Precision.FLOAT16,
    "int8 PTQ": Precision.INT8,
}
# Clock in GHz; TFLOPS float32 and float16, TOPS int8, dense; GB/s.
GPUS = {
    "NVIDIA Jetson Nano": (0.9216, 0.236, 0.472, None, 25.6),
    "NVIDIA Jetson AGX Xavier": (1.377, 1.41, 11.3, 22.6, 136.5),
    "NVIDIA Jetson Orin Nano Super Developer Kit": (1.02, 2.09, 16.7, 33.4, 102.0),
    "NVIDIA Jetson Orin NX 16GB": (0.918, 1.88, 15.0, 30.1, 102.4),
    "NVIDIA Jetson AGX Orin Developer Kit 64GB": (1.3, 5.3, 42.6, 85.2, 204.8),
}
NETWORKS: tuple[tuple[str, str, Callable[..., Network]], ...] = (
    (r"alexnet", "AlexNet", alexnet),
    (r"vgg_?(\d+)", "VGG", lambda depth: vgg(int(depth))),
    (r"resnet(?:_v1_)?(\d+)", "ResNet", lambda depth: resnet(int(depth))),
    (r"densenet(\d+)", "DenseNet", lambda depth: densenet(int(depth))),
    (r"squeezenet1_(\d)", "SqueezeNet", lambda minor: squeezenet(int(minor))),
    (r"shufflenet_v2_x(\w+)", "ShuffleNet v2", shufflenet_v2),
    (r"mnasnet(\w+)", "MnasNet", lambda width: mnasnet(float(width.replace("_", ".")))),
    (
        r"mobilenet_v1_(\w+?)_(\d+)",
        "MobileNet v1",
        lambda width, size: mobilenet_v1(float(width.replace("p", ".")), int(size)),
    ),
    (r"yolo11(\w)", "YOLO11", yolo11),
)


def network(name: str) -> tuple[Network, str]:
    """Returns the network that a published row names, and its architecture.

    Raises:
        ValueError: No builder knows it.
    """
    for pattern, architecture, build in NETWORKS:
        if found := re.fullmatch(pattern, name):
            return build(*found.groups()), architecture
    raise ValueError(f"no architecture of that name: {name}")


def tensorrt_runs() -> list[Run]:
    """Returns the published runs in TensorRT, by GPU and precision."""
    rows = defaultdict(dict)
    with (DATA / "tensorrt.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            key = row["device"], row["precision"], row["source"]
            rows[key][row["model"]] = float(row["latency_ms"])
    return [_run(*key, found) for key, found in rows.items()]


def _run(device: str, precision_name: str, source: str, rows: dict[str, float]) -> Run:
    precision = PRECISIONS[precision_name]
    clock, fp32, fp16, int8, bandwidth = GPUS[device]
    gpu = Gpu(
        name=device, clock_ghz=clock, fp32_tflops=fp32, fp16_tflops=fp16, int8_tops=int8, source=""
    )
    memory = Memory(theoretical_gb_s=bandwidth, copied_gb_s=None, source="")
    nets = {name: network(name) for name in rows}
    work = [
        work_of_all([layer.operator(precision) for layer in net.layers], FILLS).sum(0)
        for net, _ in nets.values()
    ]
    return Run(
        board=device.removeprefix("NVIDIA "),
        kernels="tensorrt",
        runtime="TensorRT",
        precision=precision,
        threads=1,
        speed=gpu_speed(gpu, memory, precision),
        fills=FILLS,
        names=tuple(net.name for net, _ in nets.values()),
        architectures=tuple(architecture for _, architecture in nets.values()),
        work=np.array(work),
        ms=np.array(list(rows.values())),
        source=source,
    )
