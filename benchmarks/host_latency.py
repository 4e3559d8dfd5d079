"""int8 against float on this computer, one thread, one run: edgedet-s at 320x320.

    python benchmarks/host_latency.py [--short] [--out FILE]

Writes host_latency.json beside itself, or FILE. Latency does not depend on what the weights are, so
the network is calibrated, not trained. Every file is timed in turns, five rounds, and the best
median of each counts, because a busy machine only ever adds time. ``--short`` shows that it still
runs: a small input, one round.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from edgekd.board.transport import on_this_computer
from edgekd.config.device import load_device
from edgekd.config.sections import ExportSection
from edgekd.core.host import cpu_model
from edgekd.core.results import Latency
from edgekd.core.serialize import to_mapping
from edgekd.core.types import Artifact
from edgekd.data.demo.render import render_scene
from edgekd.export.write import Graphs, export_files
from edgekd.measure.on_board import Protocol, as_latency, measure
from edgekd.nets.card import Card, build
from edgekd.nets.outputs import network_outputs
from edgekd.nets.tap import TappedNet
from edgekd.quantize import graph as graphs

ROUNDS, RUNS = 5, 200
MARKS = {"int8.tflite / float.tflite": 0.65, "int8-host.onnx / float.onnx": 0.85}


def exported(folder: Path, side: int) -> tuple[Artifact, ...]:
    """Writes float and int8 files of a calibrated edgedet-s."""
    torch.manual_seed(0)
    device = load_device("host")
    card = Card(architecture="edgedet-s", classes=("car", "person"), height=side, width=side)
    pixels = np.stack([render_scene(1, i, side, side)[0] for i in range(8)])
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 128) / 128
    net = build(card).train()
    with torch.no_grad():
        for _ in range(20):
            net(images)
    folded = graphs.folded_graph(TappedNet(net.eval(), net.taps).eval(), images[:2])
    integer = graphs.prepared(folded, device.quantization)
    graphs.calibrate(integer, [images])
    trained, outputs = graphs.frozen(integer), network_outputs(net, card)
    target, complete = graphs.placements(trained, len(outputs))
    built = Graphs(
        floating=graphs.only_outputs(folded, len(outputs)),
        integer=target,
        complete=complete,
        unfolded=graphs.converted(trained, len(outputs), fold_weights=False, complete=True),
        outputs=outputs,
    )
    return export_files(
        built, card, device, ExportSection(), folder=folder, recipe_sha256="benchmark"
    )


def timed(artifacts: tuple[Artifact, ...], rounds: int, runs: int) -> dict[str, Latency]:
    """Returns the best of several interleaved measurements of each file."""
    best: dict[str, Latency] = {}
    for _ in range(rounds):
        for artifact in artifacts:
            with on_this_computer() as work:
                latency = as_latency(measure(work, artifact.path, Protocol(runs=runs)))
            name = artifact.path.name
            if name not in best or latency.median_ms < best[name].median_ms:
                best[name] = latency
    return best


def main() -> None:
    """Measures, prints and stores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="96x96, one round of 50 runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    side = 96 if options.short else 320
    rounds, runs = (1, 50) if options.short else (ROUNDS, RUNS)
    with tempfile.TemporaryDirectory() as folder:
        best = timed(exported(Path(folder), side), rounds, runs)
    ratios = {}
    for pair, mark in MARKS.items():
        integer, floating = (best[name].median_ms for name in pair.split(" / "))
        ratios[pair] = {"ratio": round(integer / floating, 3), "mark": mark}
    record = {
        "command": "python benchmarks/host_latency.py",
        "network": f"edgedet-s, {side}x{side}x3, batch 1",
        "processor": cpu_model(),
        "measured": {name: to_mapping(latency) for name, latency in best.items()},
        "ratios": ratios,
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, latency in best.items():
        print(f"{name:<16} median {latency.median_ms:.3f} ms, p90 {latency.p90_ms:.3f}")
    for pair, figures in ratios.items():
        print(f"{pair}: {figures['ratio']} (mark {figures['mark']})")


if __name__ == "__main__":
    main()
