"""Graphs in, files out, proven as shipped."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

import edgekd
from edgekd.core.files import sha256_of, write_atomic
from edgekd.core.serialize import to_mapping
from edgekd.export.write import Graphs, export_files
from edgekd.nets.outputs import network_outputs
from edgekd.proof.prove import Placements, prove, require_passed
from edgekd.quantize import graph as graphs
from edgekd.quantize.peer import quantized_by_neural_compressor
from edgekd.run.context import RunContext
from edgekd.run.directory import making
from edgekd.run.images import calibration_batches, proof_images
from edgekd.run.inputs import fingerprint
from edgekd.run.student import load_graph
from edgekd.run.trained import Trained, integer_graph


def export(context: RunContext, trained: Trained) -> Path:
    """Returns the folder of the exported files, every one of them proven.

    Raises:
        ExportError: A converter refuses the network.
        ProofError: A proof failed; the message names the first operator that breaks.
    """
    return context.directory.complete(Export(context, trained))


@dataclass(frozen=True, slots=True)
class Export:
    """ONNX and TFLite files from one set of scales."""

    context: RunContext
    trained: Trained
    name: str = "export"

    def inputs(self) -> dict[str, Any]:
        """Returns what the files depend on."""
        context, trained = self.context, self.trained
        return {
            "floating": sha256_of(trained.floating),
            "integer": sha256_of(trained.integer) if trained.integer else None,
            "kept": trained.float_layers,
            "device": to_mapping(context.device),
            "recipe": making(context.recipe),
            "val": fingerprint(context.val),
            "edgekd": edgekd.__version__,
        }

    def work(self, folder: Path) -> None:
        """Writes the files with their list and their proofs; fails where a proof does."""
        context = self.context
        for judged in ("report", "bundle"):  # Of the files that are replaced here.
            context.directory.discard(judged)
        built = _graphs(context, self.trained)
        artifacts = export_files(
            built,
            context.card,
            context.device,
            context.recipe.export,
            folder=folder,
            recipe_sha256=making(context.recipe),
            note=context.progress.note,
        )
        images = proof_images(context)
        context.progress.note(f"proving the files on {len(images)} images in every runtime")
        placements = None
        if built.integer is not None and built.complete is not None:
            placements = Placements(target=built.integer, complete=built.complete)
        checks = prove(artifacts, placements, context.device, images)
        listed = [to_mapping(replace(a, path=Path(a.path.name))) for a in artifacts]
        write_atomic(folder / "artifacts.json", json.dumps(listed, indent=1))
        write_atomic(folder / "checks.json", json.dumps([to_mapping(c) for c in checks], indent=1))
        require_passed(checks)


def _graphs(context: RunContext, trained: Trained) -> Graphs:
    """Returns the graphs to export, rebuilt from their states, on the CPU."""
    student = context.student.on(torch.device("cpu"))
    outputs = network_outputs(student.load(trained.student), context.card)
    floating = load_graph(trained.floating, student.folded(trained.student))
    folded = graphs.only_outputs(floating, len(outputs))
    peer = None
    if context.recipe.export.neural_compressor:
        context.progress.note("quantizing with neural-compressor, for comparison")
        peer = _peer(context, folded)
    if trained.integer is None:
        return Graphs(
            folded, integer=None, complete=None, unfolded=None, outputs=outputs, peer=peer
        )
    quantized = integer_graph(student, trained, context.device.quantization)
    target, complete = graphs.placements(quantized, len(outputs))
    return Graphs(
        floating=folded,
        integer=target,
        complete=complete,
        unfolded=graphs.converted(quantized, len(outputs), fold_weights=False, complete=True),
        outputs=outputs,
        kept=trained.float_layers,
        peer=peer,
    )


def _peer(context: RunContext, floating: GraphModule) -> GraphModule:
    """Returns what neural-compressor's own calibration makes of the float graph, on the CPU."""
    batches = (images.cpu() for images in calibration_batches(context))
    example = torch.zeros((2, *context.card.input_shape[1:]))
    return quantized_by_neural_compressor(floating, batches, example)
