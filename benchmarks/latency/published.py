"""Published TFLite latencies of `data/tflite.csv`, with the boards that they were measured on.

Medians of MLPerf's single stream (Krai, cTuning) with TFLite's own ruy kernels, and XNNPACK's own
table (means). One trap is left out: the Orin rows named "xnnpack" ran int8 MobileNets on all cores
in ruy, which XNNPACK of that day did not take, while everything else ran in XNNPACK on one.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from networks import Network, efficientnet_lite, mobilenet_v1, mobilenet_v2, mobilenet_v3
from numpy.typing import NDArray

from edgekd.config.device import Cluster, Memory
from edgekd.core.types import Precision
from edgekd.measure.costs import Efficiencies, Kernels, Speed, work_of_all
from edgekd.measure.predict import cpu_speed

DATA = Path(__file__).parent / "data"
PRECISIONS = {"fp32": Precision.FLOAT32, "int8": Precision.INT8}
ERROR = 0.04
"""Standard deviation of the logarithm of one published latency."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """CPU cores and memory of a published row.

    Attributes:
        name: As the rows have it.
        copied_gb_s: Measured by sbc-bench where it has the board; guessed for the two Khadas and
            Odroid boards and the phones.
    """

    name: str
    cores: int
    uarch: str
    clock_ghz: float
    fp32: int
    int8: int
    instructions: Literal["mlal", "sdot"]
    copied_gb_s: float

    def speed(self, precision: Precision, threads: int) -> Speed:
        """Returns the speed of that many cores."""
        cluster = Cluster(
            name="big",
            cores=self.cores,
            uarch=self.uarch,
            clock_ghz=self.clock_ghz,
            int8_kernel=self.instructions,
            fp32_ops_per_cycle=self.fp32,
            fp16_ops_per_cycle=None,
            int8_ops_per_cycle=self.int8,
            source="",
        )
        memory = Memory(theoretical_gb_s=1.0, copied_gb_s=self.copied_gb_s, source="")
        return cpu_speed([cluster], memory, precision, threads)


def _board(
    name: str,
    cores: int,
    uarch: str,
    clock: float,
    rates: tuple[int, int],
    copied: float,
) -> Board:
    instructions: Literal["mlal", "sdot"] = "sdot" if rates[1] == 4 * rates[0] else "mlal"
    return Board(
        name=name,
        cores=cores,
        uarch=uarch,
        clock_ghz=clock,
        fp32=rates[0],
        int8=rates[1],
        instructions=instructions,
        copied_gb_s=copied,
    )


BOARDS = {
    board.name: board
    for board in (
        _board("Raspberry Pi 4", 4, "Cortex-A72", 1.5, (8, 16), 2.5),
        _board("Raspberry Pi 4 (ARM64)", 4, "Cortex-A72", 1.5, (8, 16), 2.5),
        _board("Raspberry Pi 3+", 4, "Cortex-A53", 1.4, (8, 16), 1.15),
        _board("ODROID-N2 (S922X)", 4, "Cortex-A73", 2.2, (8, 16), 3.0),
        _board("Khadas VIM4", 4, "Cortex-A73", 2.2, (8, 16), 3.5),
        _board("Firefly RK3588S", 4, "Cortex-A76", 2.4, (16, 64), 10.8),
        _board("Jetson AGX Xavier", 8, "Carmel", 2.266, (16, 32), 10.9),
        _board("Jetson AGX Orin", 12, "Cortex-A78AE", 2.2, (16, 64), 10.6),
        _board("Pixel", 2, "Kryo", 2.15, (8, 16), 5.0),
        _board("Pixel 2", 4, "Cortex-A73", 2.35, (8, 16), 9.7),
        _board("Pixel 3a", 2, "Cortex-A75", 2.0, (8, 16), 6.0),
    )
}
FILLS = {
    "ruy": {
        ("mlal", Precision.FLOAT32): Kernels(depth=16, outputs=16, rows=8),
        ("mlal", Precision.INT8): Kernels(depth=64, outputs=16, rows=8),
        ("sdot", Precision.FLOAT32): Kernels(depth=64, outputs=8, rows=4),
        ("sdot", Precision.INT8): Kernels(depth=128, outputs=32, rows=16),
    },
    "xnnpack": {
        (instructions, precision): kernels
        for instructions in ("mlal", "sdot", "i8mm")
        for precision, kernels in (
            (Precision.FLOAT32, Kernels(depth=8, outputs=8, rows=4, depthwise_rows=10)),
            (Precision.INT8, Kernels(depth=16, outputs=16, rows=4, depthwise_rows=10)),
        )
    },
}
"""A faster kernel wastes more on the same remainder."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The latencies of networks on one board, in one precision and with so many threads.

    Attributes:
        kernels: ``ruy``, ``xnnpack`` or ``tensorrt``.
        speed: Of what it ran on.
        fills: How its kernels fill.
        names: Of ``N`` networks.
        architectures: Of each.
        work: ``(N, classes)``.
        ms: ``(N,)``; of each network the median over its rows.
    """

    board: str
    kernels: str
    runtime: str
    precision: Precision
    threads: int
    speed: Speed
    fills: Kernels
    names: tuple[str, ...]
    architectures: tuple[str, ...]
    work: NDArray[np.float64]
    ms: NDArray[np.float64]
    source: str

    @property
    def label(self) -> str:
        """Names the run for people."""
        threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.board}{threads if self.kernels != 'tensorrt' else ''}"

    def teach(self, known: Efficiencies, chosen: NDArray[np.bool_] | None = None) -> Efficiencies:
        """Returns what is known after it, or after some of its networks."""
        chosen = np.ones(len(self.ms), bool) if chosen is None else chosen
        return known.learnt(self.speed, self.work[chosen], self.ms[chosen], ERROR)


def network(name: str) -> tuple[Network, str]:
    """Returns the network that a published row names, and its architecture."""
    if found := re.match(r"efficientnet-(?:\w+-)?lite(\d)", name):
        return efficientnet_lite(int(found[1])), "EfficientNet-lite"
    if found := re.match(r"mobilenet[-_]v1[-_](?:precision_\w+-)?([\d.]+)(?:-(\d+))?", name):
        return mobilenet_v1(float(found[1]), int(found[2] or 224)), "MobileNet v1"
    if found := re.match(r"mobilenet_v2_([\d.]+)", name):
        return mobilenet_v2(float(found[1]), 224), "MobileNet v2"
    if found := re.match(
        r"mobilenet[-_]v3[-_](?:precision_\w+?-)?(large|small)(-minimalistic)?(?:[-_](\d+))?"
        r"(?:_([\d.]+))?",
        name,
    ):
        kind, minimalistic, size, width = found.groups()
        net = mobilenet_v3(
            kind, float(width or 1), int(size or 224), minimalistic=bool(minimalistic)
        )
        return net, "MobileNet v3"
    raise ValueError(f"no architecture of that name: {name}")


def runs(kernels: str) -> list[Run]:
    """Returns the published runs of ``ruy`` or ``xnnpack``."""
    rows = defaultdict(lambda: defaultdict(list))
    with (DATA / "tflite.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            mixed = row["precision"].startswith("int8") and row["model"].startswith("mobilenet-")
            ran = "xnnpack" if "xnnpack" in row["runtime"].lower() else "ruy"
            if ran == kernels and not (ran == "xnnpack" and mixed):
                threads = int(row["threads"] or BOARDS[row["device"]].cores)
                key = row["device"], row["runtime"], row["precision"].split()[0], threads
                rows[key][row["model"]].append((float(row["latency_ms"]), row["source"]))
    return [_run(kernels, key, found) for key, found in rows.items()]


def _run(
    kernels: str,
    key: tuple[str, str, str, int],
    rows: dict[str, list[tuple[float, str]]],
) -> Run:
    device, runtime, precision_name, threads = key
    board, precision = BOARDS[device], PRECISIONS[precision_name]
    fills = FILLS[kernels][board.instructions, precision]
    nets = {name: network(name) for name in sorted(rows)}
    work = [
        work_of_all([layer.operator(precision) for layer in net.layers], fills).sum(0)
        for net, _ in nets.values()
    ]
    source = next(iter(rows.values()))[0][1].split("/efficientnet")[0].split("/mobilenet-")[0]
    return Run(
        board=board.name,
        kernels=kernels,
        runtime=runtime,
        precision=precision,
        threads=threads,
        speed=board.speed(precision, threads),
        fills=fills,
        names=tuple(net.name for net, _ in nets.values()),
        architectures=tuple(architecture for _, architecture in nets.values()),
        work=np.array(work),
        ms=np.array([np.median([ms for ms, _ in rows[name]]) for name in nets]),
        source=source,
    )
