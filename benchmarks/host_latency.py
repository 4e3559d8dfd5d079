"""int8 against float on this computer, one thread, one run: edgedet-s at 320x320.

    python benchmarks/host_latency.py

Writes host_latency.json beside itself. Latency does not depend on what the weights are, so the
network is calibrated, not trained. Every file is timed in turns, five rounds, and the best median
of each counts, because a busy machine only ever adds time.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from edgekd.benchmark.on_board import Protocol, as_latency, measure
from edgekd.board.transport import on_this_computer
from edgekd.config.device import load_device
from edgekd.core.results import Latency
from edgekd.core.serialize import to_mapping
from edgekd.core.types import Artifact, Format
from edgekd.data.demo.render import render_scene
from edgekd.export.write import Graphs, export_files
from edgekd.nets.card import Card, build
from edgekd.nets.tap import TappedNet
from edgekd.quantize import graph as graphs

ROUNDS = 5
MARKS = {"int8.tflite / float.tflite": 0.65, "int8-host.onnx / float.onnx": 0.85}


def exported(folder: Path) -> tuple[Artifact, ...]:
    """Writes float and int8 files of a calibrated edgedet-s."""
    torch.manual_seed(0)
    card = Card(architecture="edgedet-s", classes=("car", "person"), height=320, width=320)
    pixels = np.stack([render_scene(1, i, 320, 320)[0] for i in range(8)])
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 128) / 128
    net = build(card).train()
    with torch.no_grad():
        for _ in range(20):
            net(images)
    folded = graphs.folded_graph(TappedNet(net.eval(), net.taps).eval(), images[:2])
    integer = graphs.prepared(folded, load_device("host").quantization)
    graphs.calibrate(integer, [images])
    trained = graphs.frozen(integer)
    built = Graphs(
        floating=graphs.only_outputs(folded, 6),
        integer=graphs.converted(trained, 6, fold_weights=True),
        unfolded=graphs.converted(trained, 6, fold_weights=False),
    )
    return export_files(
        built, card, load_device("host"), tuple(Format), folder=folder, recipe_sha256="benchmark"
    )


def timed(artifacts: tuple[Artifact, ...]) -> dict[str, Latency]:
    """Returns the best of several interleaved measurements of each file."""
    best: dict[str, Latency] = {}
    for _ in range(ROUNDS):
        for artifact in artifacts:
            with on_this_computer() as work:
                latency = as_latency(measure(work, artifact.path, Protocol(runs=200)))
            name = artifact.path.name
            if name not in best or latency.median_ms < best[name].median_ms:
                best[name] = latency
    return best


def main() -> None:
    """Measures, prints and stores."""
    with tempfile.TemporaryDirectory() as folder:
        best = timed(exported(Path(folder)))
    ratios = {}
    for pair, mark in MARKS.items():
        integer, floating = (best[name].median_ms for name in pair.split(" / "))
        ratios[pair] = {"ratio": round(integer / floating, 3), "mark": mark}
    record = {
        "command": "python benchmarks/host_latency.py",
        "network": "edgedet-s, 320x320x3, batch 1",
        "measured": {name: to_mapping(latency) for name, latency in best.items()},
        "ratios": ratios,
    }
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, latency in best.items():
        print(f"{name:<16} median {latency.median_ms:.3f} ms, p90 {latency.p90_ms:.3f}")
    for pair, figures in ratios.items():
        print(f"{pair}: {figures['ratio']} (mark {figures['mark']})")


if __name__ == "__main__":
    main()
