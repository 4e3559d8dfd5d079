"""Writes what predictions start from: `devices/kernels` and `devices/latencies`.

    python benchmarks/latency/learn.py

Efficiencies of XNNPACK and TensorRT are learnt from published latencies; those of ONNX Runtime are
assumed, with a wide spread, and say so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jetsons import FILLS as GPU_FILLS
from jetsons import tensorrt_runs
from population import guessed, population
from published import ERROR, FILLS, Run, runs

from edgekd.core.files import write_atomic
from edgekd.core.serialize import to_mapping
from edgekd.core.types import Precision
from edgekd.measure.costs import CLASSES, Efficiencies, Kernels

DEVICES = Path(__file__).parents[2] / "devices"
CPU = (Precision.FLOAT32, Precision.INT8)
SETS = {
    "xnnpack": ("XNNPACK in LiteRT", CPU),
    "onnxruntime": ("MLAS in ONNX Runtime's CPU provider", CPU),
    "tensorrt": ("TensorRT", (Precision.FLOAT32, Precision.FLOAT16, Precision.INT8)),
}
FOLDS = {"xnnpack": ["PAD", "PADV2"]}
KEPT = {
    "Raspberry Pi 4 (ARM64)": "raspberry-pi-4-xnnpack",
    "Raspberry Pi 3+": "raspberry-pi-3-xnnpack",
    "Jetson AGX Orin": "jetson-agx-orin-xnnpack",
    "Jetson Nano": "jetson-nano-tensorrt",
    "Jetson AGX Xavier": "jetson-agx-xavier-tensorrt",
    "Jetson Orin Nano Super Developer Kit": "jetson-orin-nano-super-tensorrt",
    "Jetson Orin NX 16GB": "jetson-orin-nx-tensorrt",
    "Jetson AGX Orin Developer Kit 64GB": "jetson-agx-orin-tensorrt",
}


def fills(kernels: str, precision: Precision) -> dict[str, Kernels]:
    """Returns how kernels fill, by instructions."""
    if kernels == "tensorrt":
        return {"gpu": GPU_FILLS}
    known = FILLS["xnnpack"]
    return {name: fill for (name, of), fill in known.items() if of is precision}


def facts(kernels: str, precision: Precision, known: Sequence[Run]) -> dict[str, Any]:
    """Returns a precision of a kernel set, as its file has it."""
    seen = [run for run in known if run.precision is precision]
    learnt: Efficiencies = population(seen, guessed(kernels, precision))
    return {
        "fills": {k: to_mapping(v) for k, v in fills(kernels, precision).items()},
        "share": {
            name: round(float(np.exp(-mean)), 4)
            for name, mean in zip(CLASSES, learnt.mean, strict=True)
        },
        "covariance": np.round(learnt.covariance, 5).tolist(),
        "scatter": learnt.scatter,
        "learnt_from": [f"{run.label}: {len(run.ms)} networks" for run in seen],
    }


def latencies(name: str, of: Sequence[Run]) -> dict[str, Any]:
    """Returns a board's published latencies, as their file has them."""
    first = max(of, key=lambda run: len(run.ms))
    mlperf = "mlperf" in first.runtime.lower() or "inference_results" in first.source
    return {
        "schema": 1,
        "id": name,
        "device": first.board,
        "kernels": first.kernels,
        "runtime": first.runtime,
        "threads": first.threads,
        "statistic": "median" if mlperf else "mean",
        "source": first.source,
        "precisions": {
            run.precision.value: {
                "speed": to_mapping(run.speed),
                "fills": to_mapping(run.fills),
                "error": ERROR,
                "networks": [
                    {
                        "network": network,
                        "ms": round(float(ms), 4),
                        "work": {
                            c: float(f"{w:.5g}") for c, w in zip(CLASSES, work, strict=True) if w
                        },
                    }
                    for network, ms, work in zip(run.names, run.ms, run.work, strict=True)
                ],
            }
            for run in of
        },
    }


def dumped(document: dict[str, Any]) -> str:
    """Returns JSON with every innermost list or object on one line."""

    def joined(found: re.Match[str]) -> str:
        return re.sub(r"\s*\n\s*", " ", found[0]).replace("{ ", "{").replace(" }", "}")

    return re.sub(r"[\[{][^\[\]{}]*[\]}]", joined, json.dumps(document, indent=1)) + "\n"


def main() -> None:
    """Writes the files."""
    known = {"xnnpack": runs("xnnpack"), "onnxruntime": [], "tensorrt": tensorrt_runs()}
    for folder in ("kernels", "latencies"):
        (DEVICES / folder).mkdir(exist_ok=True)
    for kernels, (name, precisions) in SETS.items():
        document = {
            "schema": 1,
            "id": kernels,
            "name": name,
            "folds": FOLDS.get(kernels, []),
            "precisions": {p.value: facts(kernels, p, known[kernels]) for p in precisions},
        }
        write_atomic(DEVICES / "kernels" / f"{kernels}.json", dumped(document))
    for board, name in KEPT.items():
        of = [run for found in known.values() for run in found if run.board == board]
        write_atomic(DEVICES / "latencies" / f"{name}.json", dumped(latencies(name, of)))


if __name__ == "__main__":
    main()
