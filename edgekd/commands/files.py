"""What can be done with exported files and finished runs: evaluate, time, draw, inspect, reopen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from edgekd.benchmark.detector import FileModel, predict_file, score
from edgekd.benchmark.on_board import BoardCompute
from edgekd.board.transport import PYTHON, over_ssh
from edgekd.config.device import load_device
from edgekd.config.methods import METHODS
from edgekd.config.recipe import Recipe, dump_recipe, override
from edgekd.config.sections import DEFAULT_METHODS
from edgekd.core.errors import (
    DataError,
    DeviceError,
    EdgeKDError,
    ModelError,
    RecipeError,
    RunError,
)
from edgekd.core.files import write_atomic
from edgekd.core.owned import claim
from edgekd.core.progress import Progress
from edgekd.core.serialize import to_mapping
from edgekd.core.types import (
    FAMILIES,
    ClassificationMetrics,
    Dataset,
    DetectionMetrics,
    RunRecord,
    Sample,
    Task,
)
from edgekd.data.dataset import recognise
from edgekd.data.image import is_image, read_image
from edgekd.modelfile import read_operators
from edgekd.modelfile.contract import KEY, Contract, read_contract
from edgekd.modelfile.memory import try_out
from edgekd.report.draw import draw_detections
from edgekd.report.gates import judge
from edgekd.report.html import write_html
from edgekd.rules.check import check_conformance
from edgekd.rules.rule import Finding
from edgekd.rules.sarif import sarif
from edgekd.run.directory import finished_record
from edgekd.run.inputs import fitted_recipe, load_split

Metrics = DetectionMetrics | ClassificationMetrics

IMAGES_A_TRIP = 32
"""Sent to a board at once: fewer would be all waiting, more would fill a small memory card."""

SHOWN = 3
"""Places of one rule that an inspection shows people."""


def evaluate_files(
    models: Sequence[Path],
    data: Path | None,
    split: str,
    threads: int,
    progress: Progress,
    host: str | None = None,
    python: str = PYTHON,
) -> Iterator[tuple[Path, Metrics]]:
    """Yields every file and its metrics; a ``.safetensors`` checkpoint is run in torch.

    With a host, images are prepared and detections scored here, and the outputs in between are
    the board's.

    Raises:
        DataError: The data set cannot be read or names other classes.
        ModelError: A file cannot be run.
        RunError: The host is out of reach or lacks something.
    """
    recipe = override(Recipe(), {"data.path": str(data)} if data else {})
    dataset = load_split(recipe, split, Path("runs"), progress)
    for path in models:
        if path.suffix == ".safetensors":
            if host:
                raise ModelError(f"{path}: a board runs .onnx and .tflite files")
            predictions, classes = _checkpoint_predictions(path, dataset, progress)
        else:
            try_out(path)
            model = FileModel(path, threads)
            classes = model.contract.classes
            _require_classes(path, classes, dataset)
            predictions = _file_predictions(model, dataset, progress, path, threads, host, python)
        _require_classes(path, classes, dataset)
        yield path, score(dataset, predictions)


def _file_predictions(
    model: FileModel,
    dataset: Dataset,
    progress: Progress,
    path: Path,
    threads: int,
    host: str | None,
    python: str,
) -> dict[int, Any]:
    if host is None:
        return predict_file(model, dataset, progress, path.name)
    with over_ssh(host, python) as work:
        compute = BoardCompute(work, path, threads)
        title = f"{path.name} on {host}"
        return predict_file(model, dataset, progress, title, compute, IMAGES_A_TRIP)


def _checkpoint_predictions(
    path: Path, dataset: Dataset, progress: Progress
) -> tuple[dict[int, Any], tuple[str, ...]]:
    import torch

    from edgekd.nets.card import load_net
    from edgekd.nets.outputs import network_outputs
    from edgekd.training.inference import network_predictions

    net, card = load_net(path)
    _require_classes(path, card.classes, dataset)
    predictions = network_predictions(
        net,
        card,
        network_outputs(net, card),
        dataset,
        progress=progress,
        title=path.name,
        device=torch.device("cpu"),
    )
    return predictions, card.classes


def _require_classes(path: Path, classes: tuple[str, ...], dataset: Dataset) -> None:
    if classes != dataset.classes:
        raise DataError(
            f"{path}: made for the classes {list(classes)}, {dataset.root} has "
            f"{list(dataset.classes)}"
        )


def predict_images(
    model: Path, sources: Sequence[Path], out: Path, min_score: float, progress: Progress
) -> list[dict[str, Any]]:
    """Writes each image with its boxes drawn, and ``detections.json``; returns what that holds.

    Raises:
        ModelError: The file is no detector of ours.
        DataError: An image cannot be read, or there is none.
        RunError: ``out`` holds something else.
    """
    try_out(model)
    opened = FileModel(model)
    if opened.contract.task is not Task.DETECTION:
        raise ModelError(f"{model}: a classifier draws no boxes; use `edgekd eval`")
    images = _images(sources)
    claim(out, "folder of predictions")
    rows = []
    with progress.meter("predict", len(images)) as meter:
        for done, path in enumerate(images, 1):
            pixels = read_image(_sample(path), opened.contract.input.channels)
            detections = opened.detect(pixels, min_score)
            drawn = draw_detections(
                pixels, detections, opened.contract.classes, min_score=min_score
            )
            target = out / f"{done:04d}-{path.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(drawn[..., 0] if drawn.shape[2] == 1 else drawn).save(target)
            found = zip(detections.boxes, detections.scores, detections.labels, strict=True)
            rows.append(
                {
                    "image": str(path),
                    "drawn": str(target),
                    "detections": [
                        {
                            "class": opened.contract.classes[label],
                            "score": round(float(score), 4),
                            "box_xyxy": [round(float(v), 2) for v in box],
                        }
                        for box, score, label in found
                    ],
                }
            )
            meter.update(done)
    write_atomic(out / "detections.json", json.dumps(rows, indent=1))
    return rows


def _images(sources: Sequence[Path]) -> list[Path]:
    images: list[Path] = []
    for source in sources:
        if source.is_dir():
            images += sorted(p for p in source.iterdir() if is_image(p))
        elif source.exists():
            images.append(source)
        else:
            raise DataError(f"{source}: no such image or folder")
    if not images:
        raise DataError(f"no images in {', '.join(map(str, sources))}")
    return images


def _sample(path: Path) -> Sample:
    empty = np.zeros((0, 4), dtype=np.float32)
    none = np.zeros(0, dtype=np.int64)
    return Sample(
        image_id=1,
        path=path,
        boxes=empty,
        labels=none,
        areas=np.zeros(0, dtype=np.float32),
        ignore=empty,
        ignore_labels=none,
    )


def inspect_file(model: Path, target: str | None, delegates: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what a file holds, JSON-ready, and under ``errors`` how many rules it breaks.

    Rules are those of ``target``, by default of the target that the file was made for, and of the
    delegates that are named.
    """
    operators = read_operators(model)
    contract = _contract(model)
    made_for = contract.target if contract else None
    if contract and contract.form != "board":
        made_for = "host"
    chosen = target or made_for
    if delegates and not chosen:
        raise RecipeError(f"{model}: not made by EdgeKD; name a --target beside its delegates")
    keeps = bool(contract and contract.float_layers)
    findings: list[Finding] = []
    if chosen:
        try:
            device = load_device(chosen)
        except DeviceError as unknown:
            raise ModelError(f"{model}: its rules cannot be checked: {unknown}") from unknown
        findings = check_conformance(model, device, delegates, keeps_float=keeps)
    kinds: dict[str, int] = {}
    for operator in operators.operators:
        label = f"{operator.native} {operator.precision}"
        kinds[label] = kinds.get(label, 0) + 1
    return {
        "file": str(model),
        "size_bytes": operators.size_bytes,
        "parameters": operators.parameters,
        "macs": operators.macs,
        "integer_mac_share": operators.integer_mac_share,
        "operators": dict(sorted(kinds.items(), key=lambda item: -item[1])),
        "contract": to_mapping(contract) if contract else None,
        "rules_of": chosen,
        "findings": [to_mapping(f) for f in findings],
        "errors": sum(f.level == "error" for f in findings),
    }


def inspection_sarif(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the findings of an inspection as SARIF."""
    findings = [Finding(**entry) for entry in found["findings"]]
    return sarif({Path(found["file"]): findings})


def inspection_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yields the lines that people read."""
    yield (
        f"{found['file']}: {found['size_bytes']:,} bytes, {found['parameters']:,} parameters, "
        f"{found['macs'] / 1e6:.1f} M MACs, {100 * found['integer_mac_share']:.1f} % of them int8"
    )
    yield "operators: " + ", ".join(f"{n} {k}" for k, n in found["operators"].items())
    contract = found["contract"]
    if contract is None:
        yield f"no {KEY}: not an EdgeKD export"
    else:
        image = contract["input"]
        yield (
            f"contract: {contract['task']} for {contract['target']} ({contract['form']} form), "
            f"{len(contract['classes'])} classes: {', '.join(contract['classes'])}"
        )
        if contract["float_layers"]:
            yield f"in float: {', '.join(contract['float_layers'])}"
        yield (
            f"input: {image['dtype']} {image['layout']} {image['height']}x{image['width']}x"
            f"{image['channels']}, (pixel - {image['mean']:g}) / {image['std']:g}"
            + _grid(image["scale"], image["zero_point"])
        )
        for output in contract["outputs"]:
            shape = "x".join(map(str, output["shape"]))
            grid = _grid(output["scale"], output["zero_point"])
            yield f"output: {output['name']} {output['dtype']} {output['layout']} {shape}{grid}"
    if found["rules_of"]:
        yield f"rules of {found['rules_of']}: {found['errors']} broken"
    yield from _finding_lines(found["findings"])


def _finding_lines(findings: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yields the first places of each rule, and how many more there are."""
    places: dict[str, list[dict[str, Any]]] = {}
    for finding in findings:
        places.setdefault(finding["rule"], []).append(finding)
    for rule, members in places.items():
        for finding in members[:SHOWN]:
            yield f"  {finding['level']} {rule} at {finding['where']}: {finding['message']}"
        if len(members) > SHOWN:
            yield f"  ... and {len(members) - SHOWN} more places of {rule}; --json lists them"


def _grid(scale: float | None, zero_point: int | None) -> str:
    return "" if scale is None else f", scale {scale:.6g}, zero point {zero_point}"


def _contract(model: Path) -> Contract | None:
    """Returns the contract of a file that is known to be whole, None where it carries none."""
    try:
        return read_contract(model)
    except ModelError:
        return None


def write_recipe(data: Path, target: str, out: Path, force: bool) -> str:
    """Writes a recipe that fits a data set, every default spelt out; returns what to do next.

    Raises:
        RecipeError: ``out`` exists and ``force`` is not set.
        DataError: The data set is not recognised.
    """
    device = load_device(target)
    if out.exists() and not force:
        raise RecipeError(f"{out}: exists; use --force to replace it, or --out for another name")
    fitted, train = fitted_recipe(data.resolve())
    methods = fitted.distill.methods
    if methods is None:
        methods = {name: METHODS[name].weight for name in DEFAULT_METHODS[train.task]}
    named = str(Path(target).resolve()) if target.endswith((".yaml", ".yml")) else device.id
    recipe = override(fitted, {"target": named, "distill.methods": methods})
    header = (
        f"# EdgeKD recipe for {data} ({recognise(data)}, {len(train.samples)} training images,\n"
        f"# classes: {', '.join(train.classes)}) on {device.name}.\n"
        "# Every key is shown with its default; unknown keys are errors. What they mean:\n"
        "#   input        pixels the network sees, multiples of 32; more finds smaller objects\n"
        "#   teacher      checkpoint of `edgekd train`\n"
        "#   distill      method: weight beside the task loss; baseline: also without the teacher\n"
        "#   quantize     mode qat or ptq; float_control is the yardstick of every int8 figure\n"
        "#   benchmark    latency protocol and number of bootstrap resamples\n"
    )
    write_atomic(out, header + dump_recipe(recipe))
    return (
        f"{out} written. Next: edgekd train --recipe {out} --student {FAMILIES[train.task]}-m "
        f"--out runs/teacher, then edgekd compress --recipe {out} "
        "--teacher runs/teacher/train/student.safetensors"
    )


def reopened_report(run: Path, limits: dict[str, Any]) -> RunRecord:
    """Returns the record of a finished run and rewrites its HTML.

    Args:
        run: Its folder.
        limits: Recipe keys of other gates to hold the run against; then nothing is written.

    Raises:
        RunError: The run has no report yet.
        RecipeError: A limit is not legal.
    """
    record = finished_record(run)
    if limits:
        return replace(record, gates=judge(record, override(Recipe(), limits).gates))
    try:
        write_html(record, run / "report" / "report.html")
    except (EdgeKDError, LookupError, TypeError, ValueError, AttributeError) as damaged:
        raise RunError(f"{run / 'report' / 'report.json'}: cannot be drawn: {damaged}") from damaged
    return record
