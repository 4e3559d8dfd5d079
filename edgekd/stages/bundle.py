"""From a finished run to the bundle that firmware takes over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgekd
from edgekd.bundle.write import BundleSource, write_bundle
from edgekd.config.device import load_device
from edgekd.config.plugins import require_loaded
from edgekd.config.recipe import Recipe, load_recipe
from edgekd.core.exported import (
    FLOAT16_ONNX,
    INT8_HOST_ONNX,
    INT8_ONNX,
    INT8_TFLITE,
    form_of,
)
from edgekd.core.files import sha256_of
from edgekd.core.progress import Progress
from edgekd.core.results import RunRecord
from edgekd.core.types import Artifact, Dataset, Detections, InputContract, Sample, Task
from edgekd.data.dataset import with_classes
from edgekd.data.image import letterbox, read_image
from edgekd.measure.detector import FileModel, predict_file
from edgekd.modelfile.contract import read_contract
from edgekd.proof.prove import require_passed
from edgekd.report.gates import require_gates
from edgekd.run.context import RunContext
from edgekd.run.directory import exported_files, finished_record
from edgekd.run.inputs import fingerprint, load_split, shipped_models, teacher_sources

GOLDEN = 4
"""Golden vectors in a bundle: enough to see a layout or a scale that is wrong."""

_SHOWN_BYTES = 100_000


def bundle(context: RunContext, record: RunRecord, files: Path) -> Path:
    """Returns the folder that firmware takes over, made of the run's exported files."""
    stage = Bundle(context, record, files)
    return context.directory.complete(stage) / stage.title


@dataclass(frozen=True, slots=True)
class Bundle:
    """One folder, named after run and target."""

    context: RunContext
    record: RunRecord
    files: Path
    name: str = "bundle"

    @property
    def title(self) -> str:
        """Name of the folder."""
        return f"{self.context.directory.path.resolve().name}-{self.context.device.id}"

    def inputs(self) -> dict[str, Any]:
        """Returns what the folder depends on."""
        context = self.context
        return {
            "files": {a.path.name: a.sha256 for a in exported_files(self.files)},
            "report": sha256_of(context.directory.path / "report" / "report.json"),
            "val": fingerprint(context.val),
            "edgekd": edgekd.__version__,
        }

    def work(self, folder: Path) -> None:
        """Writes it."""
        context, artifacts = self.context, exported_files(self.files)
        source = bundle_source(
            self.record, context.recipe, context.val, artifacts, context.progress
        )
        write_bundle(source, folder / self.title)


def bundle_run(run: Path, out: Path, progress: Progress) -> Path:
    """Returns ``out``, which holds the bundle of a finished run.

    Raises:
        RunError: The run has no report yet, or ``out`` holds something else.
        DataError: The data set that the run was judged on is gone.
        ProofError: A file of the run failed a proof.
        GateError: The run did not meet its recipe's gates.
        RecipeError: The recipe names a plugin that was not run.
    """
    record = finished_record(run)
    require_passed(record.checks)
    require_gates(record.gates)
    recipe = load_recipe(run / "recipe.yaml")
    require_loaded(recipe.plugins, f"{run} was made with the plugin")
    files = exported_files(run / "export")
    val = load_split(recipe, recipe.data.val, run, progress)
    val = with_classes(val, read_contract(files[0].path).classes)
    return write_bundle(bundle_source(record, recipe, val, files, progress), out)


def bundle_source(
    record: RunRecord,
    recipe: Recipe,
    val: Dataset,
    artifacts: Sequence[Artifact],
    progress: Progress,
) -> BundleSource:
    """Returns what the bundle of a run is made of.

    Args:
        record: The run's report.
        recipe: The run's recipe.
        val: Split that thresholds are tuned on and golden images come from.
        artifacts: Every exported file; one for comparison does not ship.
        progress: Shows the thresholds' predictions being made.
    """
    artifacts = [artifact for artifact in artifacts if artifact.form != "peer"]
    shipped, device = _shipping(artifacts), load_device(recipe.target)
    model = FileModel(shipped.path)
    predictions: Mapping[int, Detections] | None = None
    if val.task is Task.DETECTION and model.readable:
        predictions = predict_file(model, val, progress, f"thresholds on {shipped.path.name}")
    return BundleSource(
        name=f"{record.name} for {record.target}",
        artifacts=tuple(artifacts),
        images=_golden_images(val.samples, shipped.input),
        dataset=val,
        predictions=predictions,
        licences={"data": _data_licence(recipe), "teacher": _teacher_licence(recipe, val)},
        rows=tuple(row for row in record.rows if form_of(row.key) != "peer"),
        tensorrt_opset=device.quantization.opset if device.runtime.name == "tensorrt" else None,
    )


def _shipping(artifacts: Sequence[Artifact]) -> Artifact:
    """Returns the file whose decisions set the thresholds: int8 TFLite, else what ships."""
    by_name = {artifact.path.name: artifact for artifact in artifacts}
    for file in (INT8_TFLITE, INT8_ONNX, INT8_HOST_ONNX, FLOAT16_ONNX):
        if file.name in by_name:
            return by_name[file.name]
    return artifacts[0]


def _golden_images(samples: Sequence[Sample], contract: InputContract) -> NDArray[np.uint8]:
    """Returns ``(N, H, W, C)`` letterboxed images, evenly spread, those with most in them first."""
    crowded = sorted(samples, key=lambda s: (-len(s.boxes), s.image_id))
    pool = crowded[: max(GOLDEN, len(crowded) // 2)]
    count = min(GOLDEN, len(pool))
    chosen = [pool[i * len(pool) // count] for i in range(count)]
    image = replace(contract, layout="NHWC", dtype="float32", scale=None, zero_point=None)
    return np.stack([letterbox(read_image(s, image.channels), image)[0] for s in chosen])


def _data_licence(recipe: Recipe) -> str:
    """Returns what is known of the licence of the training data."""
    section = recipe.data
    if section.licence:
        return section.licence
    if section.path is None:
        return "The demo set is rendered by EdgeKD itself. Apache-2.0.\n"
    folder = section.path if section.path.is_dir() else section.path.parent
    for path in sorted(path for path in folder.glob("LICEN[CS]E*") if path.is_file()):
        text = path.read_bytes()[:_SHOWN_BYTES].decode("utf-8", errors="replace")
        return f"{folder.name}, from its {path.name}:\n\n{text}"
    return f"{folder.name}: not stated. State it with data.licence in the recipe.\n"


def _teacher_licence(recipe: Recipe, dataset: Dataset) -> str:
    """Returns what is known of the licences of the teachers."""
    if recipe.teacher.licence:
        return recipe.teacher.licence
    if recipe.distill.methods == {}:
        return "No teacher: the student learnt from annotation alone.\n"
    return "".join(_source_licence(source) for source in teacher_sources(recipe, dataset))


def _source_licence(source: str) -> str:
    for model in shipped_models():
        if str(model.weights) == source:
            return f"{model.id}, shipped with EdgeKD under {model.licence}. {model.credit}\n"
    return f"{Path(source).name}: not stated. State it with teacher.licence in the recipe.\n"
