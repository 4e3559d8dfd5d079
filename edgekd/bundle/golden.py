"""Golden vectors: images, and what every file makes of them in every kernel set at hand."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.bundle.contract import BundleContract, FileContract
from edgekd.core.errors import ModelError
from edgekd.core.files import write_atomic
from edgekd.core.serialize import to_mapping
from edgekd.core.types import Format, Image, Precision, Task, arithmetic_of
from edgekd.data.image import to_input
from edgekd.modelfile.runner import Kernels, Runner, open_runner
from edgekd.standalone import replay

LEAST_VECTORS = 3
INT8_STEPS = 255

Outputs = list[NDArray[Any]]
Recorded = dict[str, list[Outputs]]
"""Kernel set → image → outputs in the order of the file."""

_MEASURES = {Precision.INT8: "steps", Precision.FLOAT16: "half", Precision.FLOAT32: "range"}

_KERNELS: dict[Format, tuple[Kernels, ...]] = {
    Format.TFLITE: ("default", "builtin"),
    Format.ONNX: ("default",),
}


def write_golden(folder: Path, contract: BundleContract, images: Sequence[Image]) -> None:
    """Writes ``golden/NNN.npz``, one an image, and ``golden/golden.json`` into a bundle.

    An ``.npz`` holds ``image``, uint8 ``(H, W, C)`` as the contract's input takes it, and the raw
    outputs of each file under ``<file>/<kernels>/<output>``. The document holds for each file:

    * ``runtime`` and ``kernels``, what computed;
    * ``measure``, ``steps`` for an int8 file, ``range`` for a float one and ``half`` for one in
      float16, and ``units``, the size of one step or of the range of each output in the numbers
      that the runtime returns;
    * ``spread``, the RMS (of the worst image) and the largest distance between two kernel sets, in
      units; 0 where there is one set. A file whose outputs have a length that only the run decides
      has neither units nor spread;
    * ``expected``, for each image the detections that reach their thresholds, in input pixels, or
      the ``label`` of the best class, from the first kernel set; empty where no decoder is known.

    Args:
        folder: Of the bundle; the model files are there already.
        contract: Of the bundle.
        images: uint8 ``(H, W, C)``, letterboxed, at least `LEAST_VECTORS`.

    Raises:
        ModelError: Too few images, a file cannot be run, or its outputs are not those of its
            contract.
        DataError: An image has another shape than the contract's input.
    """
    if len(images) < LEAST_VECTORS:
        raise ModelError(f"{len(images)} golden images; legal: {LEAST_VECTORS} or more")
    arrays: list[dict[str, NDArray[Any]]] = [{"image": image} for image in images]
    files = {}
    for file in contract.files:
        path = folder / file.path
        recorded, runtime = _record(path, file, images)
        for (kernels, outputs), index in itertools.product(recorded.items(), range(len(images))):
            for spec, values in zip(file.outputs, outputs[index], strict=True):
                arrays[index][f"{path.name}/{kernels}/{spec.name}"] = values
        files[path.name] = _document(path, file, contract, recorded, runtime)
    vectors = [f"{index:03}" for index in range(len(images))]
    for vector, named in zip(vectors, arrays, strict=True):
        packed = io.BytesIO()
        np.savez_compressed(packed, **named)  # type: ignore[arg-type]  # Takes names for options.
        write_atomic(folder / "golden" / f"{vector}.npz", packed.getvalue())
    document = {"schema": 1, "vectors": vectors, "files": files}
    write_atomic(folder / "golden" / "golden.json", json.dumps(document, indent=1) + "\n")


def _record(path: Path, file: FileContract, images: Sequence[Image]) -> tuple[Recorded, str]:
    """Returns the outputs of every kernel set for every image, and the runtime's name."""
    recorded: Recorded = {}
    arithmetic = arithmetic_of(file.precision, file.form)
    for kernels in _KERNELS[file.format]:
        runner = open_runner(path, arithmetic=arithmetic, kernels=kernels)
        _check_names(runner, file)
        recorded[kernels] = [runner.run(to_input(image, file.input)) for image in images]
    return recorded, f"{runner.runtime} {runner.runtime_version}"


def _check_names(runner: Runner, file: FileContract) -> None:
    names, stated = [[item.name for item in items] for items in (runner.outputs, file.outputs)]
    if names != stated:
        raise ModelError(f"{runner.path}: its outputs are {names}; its contract has {stated}")


def _document(
    path: Path, file: FileContract, contract: BundleContract, recorded: Recorded, runtime: str
) -> dict[str, Any]:
    first = next(iter(recorded.values()))
    fixed = all(0 not in spec.shape for spec in file.outputs)
    units = _units(path, file, first) if fixed else {}
    return {
        "runtime": runtime,
        "kernels": list(recorded),
        "measure": _MEASURES[file.precision],
        "units": units,
        "spread": _spread(recorded if fixed else {}, list(units.values())),
        "expected": _expected(file, contract, first),
    }


def _units(path: Path, file: FileContract, outputs: Sequence[Outputs]) -> dict[str, float]:
    """Returns a step or the range of each output.

    A step is 1 for integers and, for reals that an ONNX file dequantizes, the scale of that
    operator. An output that an int8 file computes in float has no step; it is given as many as an
    int8 output has.
    """
    integer = file.precision is Precision.INT8
    scales = _final_scales(path) if integer and file.format is Format.ONNX else {}
    units = {}
    for index, spec in enumerate(file.outputs):
        values = np.stack([image[index] for image in outputs])
        if values.dtype.kind in "iu":
            units[spec.name] = 1.0
        else:
            span = float(np.ptp(values)) or 1.0  # A constant output has no range to compare with.
            units[spec.name] = scales.get(spec.name, span / INT8_STEPS if integer else span)
    return units


def _final_scales(path: Path) -> dict[str, float]:
    """Returns the scale of every output that a ``DequantizeLinear`` makes."""
    from edgekd.modelfile.onnx_graph import read_onnx

    graph = read_onnx(path)
    scales = {}
    for name in graph.outputs:
        node = graph.producers[name]
        scale = graph.value(node.input[1]) if node.op_type == "DequantizeLinear" else None
        if scale is not None and scale.size == 1:
            scales[name] = float(scale.item())
    return scales


def _spread(recorded: Recorded, units: Sequence[float]) -> dict[str, float]:
    spreads = [
        replay.figures(
            [replay.distance(*pair, units) for pair in zip(first, second, strict=True)], grain=1.0
        )
        for first, second in itertools.combinations(recorded.values(), 2)
    ]
    return {
        name: max((float(spread[name]) for spread in spreads), default=0.0)
        for name in ("rms", "max")
    }


def _expected(
    file: FileContract, contract: BundleContract, images: Sequence[Outputs]
) -> list[Mapping[str, Any]]:
    specification = to_mapping(file)
    if contract.task is Task.CLASSIFICATION:
        logits = [replay.real_logits(outputs, specification) for outputs in images]
        return [{"label": int(values.argmax())} for values in logits]
    if file.decoding.decoder == "none":
        return []
    thresholds = [item.score for item in contract.thresholds]
    rows = [replay.detections(outputs, specification, thresholds) for outputs in images]
    return [
        {"boxes": boxes.tolist(), "scores": scores.tolist(), "labels": labels.tolist()}
        for boxes, scores, labels in rows
    ]
