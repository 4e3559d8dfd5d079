"""What the distillation benchmarks share: one trained student, scored before and after int8.

A row is one training run of EdgeKD's own pipeline. Its predictions stay in the work folder, so that
every difference gets a paired bootstrap interval over images; the row itself is JSON beside this
file and is not trained again while its recipe is the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd import pipeline
from edgekd.config.device import load_device
from edgekd.config.recipe import Recipe
from edgekd.core.files import write_atomic
from edgekd.core.host import cpu_model
from edgekd.core.progress import PlainProgress
from edgekd.core.serialize import to_mapping
from edgekd.core.types import Dataset, Detections, OutputContract, Task
from edgekd.measure.detector import score
from edgekd.metrics.bootstrap import paired_bootstrap, paired_top1_bootstrap
from edgekd.nets import cost
from edgekd.nets.outputs import network_outputs
from edgekd.quantize import graph as graphs
from edgekd.run.context import RunContext, open_context
from edgekd.run.directory import RunDirectory, digest
from edgekd.run.images import calibration_batches
from edgekd.stages.distill import distill
from edgekd.training.inference import network_predictions
from edgekd.training.precision import resolved

CPU = torch.device("cpu")
RESULTS = Path(__file__).parent / "results"

PATHS = (
    ("data", "path"),
    ("data", "unlabelled"),
    ("teacher", "model"),
    ("teacher", "cache"),
    ("student", "checkpoint"),
)

DECIDES = ["seed", "target", "data", "input", "network", "augmentation", "student", "distill"]
"""Sections of a recipe that a row depends on; its teacher's too, where it has one."""

Predictions = Mapping[int, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trained student.

    Attributes:
        name: Of the row in its table.
        recipe: How it was trained.
        base: Row that it is compared with.
    """

    name: str
    recipe: Recipe
    base: str | None = None


def run_row(row: Row, work: Path, table: str, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the row's figures, trained and scored unless that is done already.

    Args:
        row: What to train.
        work: Keeps runs and predictions; rows that are compared share it.
        table: Folder of the JSON below ``results``.
        classes: Judged together as ``map``; the data set's own mean is ``map_all``.
    """
    path = RESULTS / table / f"{row.name}.json"
    identity = digest(_portable(row.recipe))
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known["recipe_sha256"] == identity:
            return known
    folder = work / table / row.name
    began = time.monotonic()
    with RunDirectory(folder) as run:
        device = load_device(row.recipe.target)
        context = open_context(row.recipe, device, run, PlainProgress(interval_s=60), CPU)
        checkpoint = distill(context)
        net = context.student.load(checkpoint)
        outputs = network_outputs(net, context.card)
        floating = _predicted(context, net, outputs, f"{row.name} float32")
        integer = _predicted(
            context, _calibrated(context, checkpoint), outputs, f"{row.name} int8 PTQ"
        )
    found = {
        "row": row.name,
        "recipe_sha256": identity,
        "methods": to_mapping(row.recipe.distill)["methods"],
        "seed": row.recipe.seed,
        "steps": row.recipe.distill.training.steps,
        "image_passes": row.recipe.distill.training.steps * row.recipe.distill.training.batch_size,
        "parameters": cost.parameters(net),
        "macs": cost.macs(net, context.card.input_shape),
        "train_seconds": round(run.seconds.get("distill", time.monotonic() - began), 1),
        "threads": torch.get_num_threads(),
        "precision": resolved(CPU, row.recipe.distill.training.precision),
        "processor": cpu_model(),
        "float32": figures(context.val, floating, classes),
        "int8_ptq": figures(context.val, integer, classes),
        "int8_minus_float": difference(context.val, floating, integer, classes),
    }
    keep(folder / "float32.npz", floating)
    keep(folder / "int8_ptq.npz", integer)
    if row.base:
        base = kept(work / table / row.base / "float32.npz")
        found["base"] = row.base
        found["minus_base"] = difference(context.val, base, floating, classes)
        base = kept(work / table / row.base / "int8_ptq.npz")
        found["int8_minus_base_int8"] = difference(context.val, base, integer, classes)
    write_atomic(path, json.dumps(found, indent=1) + "\n")
    return found


def show(found: Mapping[str, Any]) -> None:
    """Prints a row in one line: its figure, int8's, and the difference from its base."""
    headline = "map" if "map" in found["float32"] else "top1"
    line = f"{found['row']:<28} {found['float32'][headline]:6.2f}"
    line += f"  int8 {found['int8_ptq'][headline]:6.2f}"
    if "minus_base" in found:
        d = found["minus_base"]
        line += f"  {d['value']:+.2f} [{d['low']:+.2f}, {d['high']:+.2f}]"
    print(f"{line}  {found['train_seconds']:.0f} s", flush=True)


def train_teacher(name: str, recipe: Recipe, work: Path) -> Path:
    """Returns the checkpoint of a teacher, trained unless that is done; keeps its figures."""
    checkpoint, assessment = pipeline.train(
        recipe, work / name, progress=PlainProgress(interval_s=60), torch_device=CPU
    )
    (row,) = assessment.rows
    write_atomic(RESULTS / f"{name}.json", json.dumps(to_mapping(row), indent=1) + "\n")
    return checkpoint


def figures(dataset: Dataset, predictions: Predictions, classes: Sequence[str]) -> dict[str, float]:
    """Returns the accuracy figures of a row, in points of 100."""
    metrics = to_mapping(score(dataset, dict(predictions)))
    per_class = {name: round(100 * v, 2) for name, v in metrics["per_class"].items()}
    if dataset.task is Task.CLASSIFICATION:
        return {"top1": round(100 * metrics["top1"], 2), "per_class": per_class}
    judged = float(np.mean([per_class[name] for name in classes]))
    return {
        "map": round(judged, 2),
        "map_all": round(100 * metrics["map"], 2),
        "ap50_all": round(100 * metrics["ap50"], 2),
        "per_class": per_class,
    }


def difference(
    dataset: Dataset, minus: Predictions, of: Predictions, classes: Sequence[str]
) -> dict[str, float]:
    """Returns ``of`` minus ``minus`` in points, with its 95 % paired bootstrap interval."""
    if dataset.task is Task.DETECTION:
        interval = paired_bootstrap(dataset, minus, of, classes=classes or None)
    else:
        ids = [s.image_id for s in dataset.samples]
        labels = np.array([int(s.labels[0]) for s in dataset.samples])
        a, b = (np.stack([p[k] for k in ids]) for p in (minus, of))
        interval = paired_top1_bootstrap(a, b, labels)
    return {k: round(100 * getattr(interval, k), 2) for k in ("value", "low", "high")}


def keep(path: Path, predictions: Predictions) -> None:
    """Writes predictions to an ``.npz`` file."""
    arrays = {}
    for image_id, found in predictions.items():
        if isinstance(found, Detections):
            arrays[f"{image_id}"] = np.column_stack((found.boxes, found.scores, found.labels))
        else:
            arrays[f"{image_id}"] = found
    np.savez(path, **arrays)


def kept(path: Path) -> dict[int, Any]:
    """Returns predictions from an ``.npz`` file."""
    with np.load(path) as archive:
        rows = {int(name): archive[name] for name in archive.files}
    return {k: v if v.ndim == 1 else _detections(v) for k, v in rows.items()}


def _detections(rows: np.ndarray) -> Detections:
    return Detections(
        boxes=rows[:, :4].astype(np.float32),
        scores=rows[:, 4].astype(np.float32),
        labels=rows[:, 5].astype(np.int64),
    )


def _calibrated(context: RunContext, checkpoint: Path) -> Callable[..., Any]:
    """Returns the student as its target would compute it after calibration alone."""
    graph = graphs.prepared(context.student.folded(checkpoint), context.device.quantization)
    graphs.calibrate(graph, calibration_batches(context))
    graph = graphs.frozen(graph)
    return lambda images: graph(images)[0]


def _predicted(
    context: RunContext,
    forward: Callable[..., Any],
    outputs: Sequence[OutputContract],
    title: str,
) -> dict[int, Any]:
    return network_predictions(
        forward,
        context.card,
        outputs,
        context.val,
        progress=context.progress,
        title=title,
        device=CPU,
    )


def _portable(recipe: Recipe) -> dict[str, Any]:
    """Returns what decides a row, without the folders of one machine."""
    plain = to_mapping(recipe)
    for section, key in PATHS:
        value = plain[section][key]
        plain[section][key] = Path(value).name if value else value
    taught = bool(plain["distill"]["methods"])
    decides = [*DECIDES, "teacher"] if taught else DECIDES
    return {section: plain[section] for section in decides}
