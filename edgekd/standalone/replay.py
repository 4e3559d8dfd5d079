"""Proves on any machine that a bundle's models compute what they computed when it was made.

One file; it needs numpy, the reference decoder beside it, and a runtime: ai_edge_litert or
tflite_runtime for ``.tflite``, onnxruntime for ``.onnx``. It runs on Python 3.8 and numpy 1.21 and
newer, and is copied as it is into every bundle.

    python replay.py [BUNDLE] [--file int8.tflite] [--json]

It exits with 0 where every file that a runtime is installed for agrees, with 1 where one does not
or the manifest does not hold, with 2 where nothing could be compared.

Where ONNX Runtime has TensorRT, int8 and float16 ``.onnx`` files of a board run on it, whole or not
at all: an engine is built, which may take minutes, and no operator falls back to the CPU unsaid.

Runtimes round differently. Raw outputs are compared with those of every kernel set on record, and
the nearest may be farther away by a quarter than those sets are from each other. Distances are root
mean squares over the outputs of one image: in quantization steps for an int8 file, in shares of an
output's range for a float one. Where the sets on record agree, half a step is allowed, the most
that rounding the outputs alone can make, or a thousandth of the range, far above what the order of
float32 sums makes and far below what a wrong weight or a wrong pixel does.

Every detection of the nearest kernel set must be found, and no other, save what lies so near its
threshold that rounding decides. A step also decides which of two boxes of one object survives
non-maximum suppression; such rivals overlap by more than its 0.6. So one detection of an int8 file
may move that far, while half of all must overlap by 0.9, as every detection of a float file must.
"""

# ruff: noqa: B905, T201 - zip has no ``strict`` before Python 3.10, and this is a command.

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import platform
import re
import stat
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # Before ONNX Runtime is loaded, which reports its use.

if __package__:
    from edgekd.standalone import decoder
else:
    sys.dont_write_bytecode = True  # The bundle stays as its manifest describes it.
    import decoder  # type: ignore[import-not-found,no-redef]

if TYPE_CHECKING:  # Python 3.8 cannot subscript these.
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Record = dict[str, Any]
    Array = NDArray[Any]
    Detections = tuple[Array, Array, Array]


class Limits(NamedTuple):
    """What may differ: distance in units, and IoU and score of each detection."""

    distance: float
    grain: float
    iou: float
    score: float


LIMITS = {
    "steps": Limits(distance=0.5, grain=1.0, iou=0.6, score=0.1),
    "range": Limits(distance=1e-3, grain=1e-3, iou=0.9, score=0.05),
    "half": Limits(distance=1e-2, grain=1e-2, iou=0.8, score=0.05),
}
SPREAD_FACTOR = 1.25
MEDIAN_IOU, MEDIAN_SCORE = 0.9, 0.05
TFLITE = (
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
)
ONNX = (("onnxruntime", "onnxruntime"),)
SWITCHES = {"board": "session.qdqisint8allowed", "host": "session.x64quantprecision"}
"""By the form of an int8 file. Without the first x86 computes with uint8 activations, which is not
what a board does; without the second it saturates where the CPU has no VNNI."""
TENSORRT = "TensorrtExecutionProvider"
ONNX_DTYPES = {"tensor(float)": "float32", "tensor(int8)": "int8", "tensor(int64)": "int64"}
MALFORMED = (LookupError, TypeError, ValueError, AttributeError)


NAME = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)*\Z", re.ASCII)
"""Legal names in a manifest: relative, POSIX, and nowhere a part such as ``..``."""
LONGEST_NAME = 200


class BundleError(Exception):
    """The bundle cannot be read, or nothing in it can be run here."""


class NoRuntimeError(Exception):
    """No runtime for a file's format is installed."""


class RefusedError(Exception):
    """The runtime refuses a file."""


def replay(folder: Path, only: str | None = None) -> Record:
    """Returns what the files of a bundle compute here, beside what is on record.

    Args:
        folder: The bundle.
        only: Name of the one file to run.

    Returns:
        ``passed``; ``manifest``, a line for each changed file, in which case nothing is run; and
        ``files``, a record for each.

    Raises:
        BundleError: The folder is no bundle, is damaged, or nothing in it can be run here.
    """
    listed = read_manifest(folder)
    changed = changed_files(folder, listed)
    files = []  # type: list[Record]
    if not changed:
        try:
            files = _Bundle(folder, listed).run(only)
        except MALFORMED as malformed:
            message = f"{folder}: contract.json or golden/ is malformed: {malformed!r}"
            raise BundleError(message) from malformed
        if all(file["status"] == "not run" for file in files):
            reasons = sorted({reason for file in files for reason in file["reasons"]})
            raise BundleError(f"{folder}: nothing could be run here: {'; '.join(reasons)}")
    return {
        "passed": not changed and all(file["status"] != "failed" for file in files),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "manifest": changed,
        "files": files,
    }


def read_manifest(folder: Path) -> dict[str, Record]:
    """Returns the entry of every file by its path; each exists and lies in the folder.

    Raises:
        BundleError: It does not, or there is no manifest.
    """
    path = folder / "manifest.json"
    document = _read_json(path)
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise BundleError(f"{path}: holds no table of files")
    for name in files:
        _require_inside(folder, name, path)
    return files


def _require_inside(folder: Path, name: str, manifest: Path) -> None:
    """Raises `BundleError` where a name in a manifest is not that of a plain file in the bundle.

    What the name says is judged before anything is looked up by it; no part of it may be a link,
    which could lead anywhere.
    """
    if not NAME.match(name) or len(name) > LONGEST_NAME:
        shown = ascii(name)[:LONGEST_NAME]
        raise BundleError(
            f"{manifest}: the name {shown} leaves the bundle or is no plain one; legal: "
            "letters, digits, '_', '-' and '.' between slashes, no part beginning with '.'"
        )
    place = folder
    for part in name.split("/"):
        place = place / part
        if place.is_symlink():
            raise BundleError(f"{place}: is a link; a bundle holds plain files and folders")
    try:
        plain = stat.S_ISREG(place.lstat().st_mode)
    except OSError as missing:
        raise BundleError(f"{place}: listed in manifest.json and missing") from missing
    if not plain:
        raise BundleError(f"{place}: listed in manifest.json and no plain file")


def changed_files(folder: Path, listed: dict[str, Record]) -> list[str]:
    """Returns a line for each file whose content is not what the manifest says."""
    lines = []
    for name, entry in sorted(listed.items()):
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if digest != entry.get("sha256"):
            lines.append(f"{name}: sha256 is {digest}; manifest.json has {entry.get('sha256')}")
    return lines


def _read_json(path: Path) -> Any:  # noqa: ANN401 - a document
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as unreadable:
        raise BundleError(f"{path}: cannot be read: {unreadable}") from unreadable


class _Bundle:
    """Contract and golden vectors; only files in the manifest are ever opened."""

    def __init__(self, folder: Path, listed: dict[str, Record]) -> None:
        self._folder, self._listed = folder, listed
        self._contract = _read_json(self._path("contract.json"))
        self._golden = _read_json(self._path("golden/golden.json"))

    def run(self, only: str | None) -> list[Record]:
        """Returns a record for each file."""
        files = {Path(file["path"]).name: file for file in self._contract["files"]}
        if only is not None and only not in files:
            raise BundleError(f"no file {only!r} in the bundle; legal: {', '.join(sorted(files))}")
        return [self._run(name, files[name]) for name in sorted(files) if only in (None, name)]

    def _run(self, name: str, file: Record) -> Record:
        report = {"file": name, "runtime": None, "status": "failed"}  # type: Record
        try:
            model = open_model(self._path(file["path"]), file)
            report["runtime"] = model.runtime
            report["reasons"] = disagreements(file, model.tensors)
            if not report["reasons"]:
                report.update(self._compare(name, file, model))
        except NoRuntimeError as missing:
            return dict(report, status="not run", reasons=[str(missing)])
        except RefusedError as refused:
            return dict(report, reasons=[str(refused)])
        return report if report["reasons"] else dict(report, status="passed")

    def _compare(self, name: str, file: Record, model: Model) -> Record:
        """Returns what was measured over all golden vectors."""
        golden, names = self._golden["files"][name], [spec["name"] for spec in file["outputs"]]
        limits = LIMITS[golden["measure"]]
        # Outputs of a length that only the run decides cannot be compared value by value.
        fixed = all(0 not in spec["shape"] for spec in file["outputs"])
        units = [golden["units"][item] for item in names if fixed]
        actual = []  # type: list[list[Array]]
        away = {kernels: [] for kernels in golden["kernels"] if fixed}  # type: dict[str, list[Array]]
        known = {kernels: [] for kernels in away}  # type: dict[str, list[list[Array]]]
        for vector in self._golden["vectors"]:
            (image,) = self._arrays(vector, ["image"])
            actual.append(model.run(input_tensor(image, file["input"])))
            for kernels, distances in away.items():
                recorded = self._arrays(vector, [f"{name}/{kernels}/{item}" for item in names])
                distances.append(distance(actual[-1], recorded, units))
                known[kernels].append(recorded)
        rows = {kernels: figures(found, limits.grain) for kernels, found in away.items()}
        nearest = min(rows, key=lambda kernels: float(rows[kernels]["rms"]), default=None)
        allowed = max(limits.distance, SPREAD_FACTOR * golden["spread"]["rms"])
        # Decisions on record are those of the first kernel set; another set's are in its outputs.
        twin = known[nearest] if nearest not in (None, golden["kernels"][0]) else []
        decisions = self._decisions(file, golden, actual, twin, 2 * allowed)
        reasons = decisions.pop("reasons")
        if nearest and not rows[nearest]["rms"] <= allowed:  # Not a number is off, too.
            reasons.append(f"raw outputs are {rows[nearest]['rms']:.4g} {golden['measure']} off")
        return {
            "measure": golden["measure"],
            "kernels": rows,
            "nearest": nearest,
            "allowed": allowed,
            "decisions": decisions,
            "reasons": reasons,
        }

    def _decisions(
        self,
        file: Record,
        golden: Record,
        actual: list[list[Array]],
        twin: list[list[Array]],
        margin: float,
    ) -> Record:
        """Returns how the decisions agree with those that golden.json, or ``twin``, leads to.

        Args:
            file: Entry of the contract.
            golden: What golden.json holds of it.
            actual: Outputs of every vector.
            twin: Recorded outputs whose decisions are not on record, to be decided here; or none.
            margin: Two classes nearer than this, in units of the measure, are equally right.
        """
        expected = golden["expected"]
        classifies = self._contract["task"] == "classification"
        readable = classifies or file["decoding"]["decoder"] != "none"
        if readable and not classifies:
            _require_decoder(file["decoding"]["decoder"])
        if len(expected) != readable * len(actual):
            name = Path(file["path"]).name
            raise BundleError(f"golden.json has {len(expected)} results for {name}")
        if classifies:
            output = file["outputs"][0]
            step = (output["scale"] or 1.0) * golden["units"][output["name"]]
            if twin:
                expected = [{"label": int(real_logits(one, file).argmax())} for one in twin]
            logits = [real_logits(outputs, file) for outputs in actual]
            return compare_classes(expected, logits, margin * step)
        if readable:
            thresholds = [item["score"] for item in self._contract["thresholds"]]
            if twin:
                decided = [detections(outputs, file, thresholds) for outputs in twin]
                expected = [dict(zip(("boxes", "scores", "labels"), one)) for one in decided]
            found = [detections(outputs, file, thresholds) for outputs in actual]
            limits = LIMITS[golden["measure"]]
            return compare_detections(expected, found, thresholds, limits)
        return {"reasons": []}

    def _path(self, name: str) -> Path:
        if name not in self._listed:
            raise BundleError(f"{self._folder}: {name!r} is not listed in manifest.json")
        return self._folder / name

    def _arrays(self, vector: str, names: Sequence[str]) -> list[Array]:
        path = self._path(f"golden/{vector}.npz")
        try:
            with path.open("rb") as stream, np.load(stream) as archive:
                return [archive[name] for name in names]
        except Exception as damaged:  # Of damaged bytes zipfile, zlib and numpy raise ten kinds.
            raise BundleError(f"{path}: cannot be read: {damaged}") from damaged


def _require_decoder(name: str) -> None:
    """Raises `BundleError` where the outputs cannot be read here.

    `edgekd verify` runs no code of a bundle, and so no decoder that came in it.
    """
    try:
        if name != decoder.IN_THE_FILE:
            decoder.function_of(name)
    except ValueError as unknown:
        raise BundleError(
            f"{unknown}. The bundle's own {decoder.file_of(name)} is code, which only its own "
            "replay.py runs, or `edgekd verify --plugin` with the file that you name"
        ) from unknown


def input_tensor(image: Array, spec: Record) -> Array:
    """Returns the input for one uint8 image ``(H, W, C)`` that has the input's size already."""
    tensor = (image.astype(np.float64) - spec["mean"]) / spec["std"]
    if spec["dtype"] in ("int8", "uint8"):
        lowest = -128 if spec["dtype"] == "int8" else 0
        steps = np.rint(tensor / spec["scale"]) + spec["zero_point"]
        tensor = np.clip(steps, lowest, lowest + 255)
    axes = (2, 0, 1) if spec["layout"] == "NCHW" else (0, 1, 2)
    return np.ascontiguousarray(tensor.transpose(axes)[None].astype(spec["dtype"]))


def distance(actual: list[Array], recorded: list[Array], units: Sequence[float]) -> Array:
    """Returns how far every value of every output of one image is away, in units."""
    if [item.shape for item in actual] != [item.shape for item in recorded]:
        raise BundleError("the outputs on record have other shapes than the contract")
    return np.concatenate(
        [
            np.abs(first.astype(np.float64) - second).ravel() / unit
            for first, second, unit in zip(actual, recorded, units)
        ]
    )


def figures(found: Sequence[Array], grain: float) -> Record:
    """Returns shares over all images, the largest distance, and the RMS of the worst image."""
    every = np.concatenate(found)
    return {
        "equal": float(np.mean(every == 0)),
        "within": float(np.mean(every <= grain * (1 + 1e-6))),
        "rms": max(float(np.sqrt(np.mean(item**2))) for item in found),
        "max": float(every.max()),
    }


def detections(outputs: list[Array], file: Record, thresholds: Sequence[float]) -> Detections:
    """Returns boxes in input pixels, scores and labels that reach their class's threshold."""
    boxes, scores, labels = decoder.detect(outputs, file)
    kept = scores >= np.array(thresholds)[labels]
    return boxes[kept], scores[kept], labels[kept]


def compare_detections(
    expected: Sequence[Record],
    actual: Sequence[Detections],
    thresholds: Sequence[float],
    limits: Limits,
) -> Record:
    """Returns how many detections were found and how far off, with a reason for each failure."""
    demanded = np.array(thresholds) + limits.score
    overlaps, offsets = [], []  # type: tuple[list[float], list[float]]
    missing = extra = 0
    for entry, (boxes, scores, labels) in zip(expected, actual):
        free = np.ones(len(scores), dtype=bool)
        for box, score, label in zip(entry["boxes"], entry["scores"], entry["labels"]):
            near = free & (labels == label) & (np.abs(scores - score) <= limits.score)
            iou = np.where(near, _iou(np.array(box), boxes.astype(np.float64)), 0.0)
            if iou.max(initial=0.0) >= limits.iou:
                match = int(iou.argmax())
                free[match] = False
                overlaps.append(float(iou[match]))
                offsets.append(abs(float(scores[match]) - score))
            else:
                missing += bool(score > demanded[label])
        extra += int(np.sum(free & (scores > demanded[labels])))
    total = sum(len(entry["scores"]) for entry in expected)
    overlap = float(np.median(overlaps)) if overlaps else None
    offset = float(np.median(offsets)) if offsets else None
    reasons = []
    if missing or extra:
        reasons.append(f"detections: {missing} of {total} missing, {extra} unexpected")
    if overlap is not None and overlap < MEDIAN_IOU:
        reasons.append(f"detections: median IoU {overlap:.3f}; legal: {MEDIAN_IOU} or more")
    if offset is not None and offset > MEDIAN_SCORE:
        reasons.append(f"detections: median score off by {offset:.3f}; legal: {MEDIAN_SCORE}")
    return {
        "expected": total,
        "found": len(overlaps),
        "missing": missing,
        "extra": extra,
        "median_iou": overlap,
        "median_score_difference": offset,
        "reasons": reasons,
    }


def _iou(box: Array, others: Array) -> Array:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return np.asarray(shared / np.maximum((box[2:] - box[:2]).prod() + areas - shared, 1e-12))


def real_logits(outputs: list[Array], file: Record) -> Array:
    """Returns the class logits ``(C,)`` of one image."""
    spec = file["outputs"][0]
    return np.asarray(decoder.dequantize(outputs[0], spec["scale"], spec["zero_point"])[0])


def compare_classes(expected: Sequence[Record], logits: Sequence[Array], margin: float) -> Record:
    """Returns in how many images the best class is the expected one, or ties within the margin."""
    leads = [float(row.max() - row[item["label"]]) for item, row in zip(expected, logits)]
    wrong = sum(lead > margin for lead in leads)
    reasons = [f"best class: another in {wrong} of {len(leads)} images"] if wrong else []
    found = sum(lead == 0 for lead in leads)
    return {"expected": len(leads), "found": found, "wrong": wrong, "reasons": reasons}


class Model(NamedTuple):
    """A file in its runtime: what that calls itself and the tensors, and what runs the model."""

    runtime: str
    tensors: list[Record]
    run: Any


def disagreements(file: Record, tensors: list[Record]) -> list[str]:
    """Returns a line for each property of a tensor that the contract states otherwise."""
    image = file["input"]
    shape = [image["height"], image["width"]]
    shape.insert(0 if image["layout"] == "NCHW" else 2, image["channels"])
    stated = [dict(image, name="input", shape=[1, *shape]), *file["outputs"]]
    if len(stated) != len(tensors):
        return [f"contract.json has {len(stated) - 1} outputs, the file {len(tensors) - 1}"]
    return [
        f"{spec['name']}: {key} is {spec[key]} in contract.json, {value} in the file"
        for spec, tensor in zip(stated, tensors)
        for key, value in tensor.items()
        if spec[key] != value
    ]


def open_model(path: Path, file: Record) -> Model:
    """Returns the model in the first runtime for its format that is installed.

    Raises:
        NoRuntimeError: None is.
        RefusedError: It refuses the file.
    """
    module, runtime = _runtime(ONNX if file["format"] == "onnx" else TFLITE)
    if file["format"] == "onnx":
        provider, tensors, call = _attempt(runtime, _open_onnx, module, str(path), file)
        runtime = f"{runtime}, {provider}"
    else:
        tensors, call = _attempt(runtime, _open_tflite, module, str(path))
    return Model(runtime, tensors, lambda tensor: _attempt(runtime, call, tensor))


def _attempt(runtime: str, action: Any, *arguments: Any) -> Any:  # noqa: ANN401 - as the action
    try:
        return action(*arguments)
    except Exception as refused:  # Errors of ONNX Runtime have no common base but Exception.
        raise RefusedError(f"refused by {runtime}: {refused}") from refused


def _runtime(candidates: Sequence[tuple[str, str]]) -> tuple[Any, str]:
    """Returns the first module that can be imported, and its name with its version."""
    reasons = []
    for module, package in candidates:
        try:
            imported = importlib.import_module(module)
            return imported, f"{package} {_version(imported, package)}"
        except Exception as missing:  # One built for another numpy raises nearly anything.
            reasons.append(f"{package}: {missing}")
    raise NoRuntimeError(f"no runtime is installed ({'; '.join(reasons)})")


def _version(module: Any, package: str) -> str:  # noqa: ANN401
    """Returns its version; ONNX Runtime comes in packages of many names (``onnxruntime-gpu``)."""
    try:
        return version(package)
    except PackageNotFoundError:
        return str(getattr(module, "__version__", "of unknown version"))


def _open_tflite(module: Any, path: str) -> tuple[list[Record], Any]:  # noqa: ANN401
    interpreter = module.Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    details = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    tensors = []
    for item in details:
        grid = item["quantization_parameters"]
        scales, zero_points = grid["scales"].tolist() or [None], grid["zero_points"].tolist()
        tensors.append(
            {
                "shape": item["shape"].tolist(),
                "dtype": np.dtype(item["dtype"]).name,
                "scale": scales[0],
                "zero_point": (zero_points or [None])[0],
            }
        )

    def call(tensor: Array) -> list[Array]:
        interpreter.set_tensor(details[0]["index"], tensor)
        interpreter.invoke()
        return [interpreter.get_tensor(item["index"]) for item in details[1:]]

    return tensors, call


def _open_onnx(module: Any, path: str, file: Record) -> tuple[str, list[Record], Any]:  # noqa: ANN401
    provider, session = "CPU", None
    if _for_tensorrt(file) and TENSORRT in module.get_available_providers():
        session = _on_tensorrt(module, path, file["precision"])
        provider = "TensorRT" if session else "CPU, for its TensorRT does not load"
    if session is None:
        options = _session_options(module)
        if file["precision"] == "int8":
            options.add_session_config_entry(SWITCHES[file["form"]], "1")
        session = module.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    tensors = [
        {
            "shape": [size if isinstance(size, int) else 0 for size in item.shape],
            "dtype": ONNX_DTYPES.get(item.type, item.type),
        }
        for item in [*inputs, *session.get_outputs()]
    ]
    return provider, tensors, lambda tensor: session.run(None, {inputs[0].name: tensor})


def _for_tensorrt(file: Record) -> bool:
    """Returns whether TensorRT is what the file is for.

    It would round float32 to TF32, uint8 activations are x86's, and non-maximum suppression is
    left to the CPU.
    """
    ends_in_detections = any(output["role"] == "labels" for output in file["outputs"])
    return (
        file["precision"] in ("int8", "float16")
        and file["form"] == "board"
        and not ends_in_detections
    )


def _on_tensorrt(module: Any, path: str, precision: str) -> Any:  # noqa: ANN401
    """Returns a session whose every operator TensorRT runs, None where TensorRT does not load.

    Wheels of ONNX Runtime for GPUs name the provider on machines without TensorRT, too.

    Raises:
        ValueError: It loads and does not take every operator.
    """
    enabled = {
        "trt_int8_enable": str(precision == "int8"),
        "trt_fp16_enable": str(precision == "float16"),
    }
    providers = [(TENSORRT, enabled), "CPUExecutionProvider"]
    options = _session_options(module)
    # Or ONNX Runtime fuses Q/DQ itself before TensorRT sees them.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        return module.InferenceSession(path, options, providers=providers)
    except Exception as refused:  # Errors of ONNX Runtime have no common base but Exception.
        session = module.InferenceSession(path, _session_options(module), providers=providers)
        if TENSORRT not in session.get_providers():
            return None
        raise ValueError(f"TensorRT does not take every operator: {refused}") from refused


def _session_options(module: Any) -> Any:  # noqa: ANN401
    options = module.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return options


def show(result: Record) -> str:
    """Returns the result as a small table with a verdict."""
    lines = [f"changed: {line}" for line in result["manifest"]]
    for file in result["files"]:
        lines.append(f"{file['file']}: {file['status']} ({file['runtime'] or 'not loaded'})")
        for kernels, row in file.get("kernels", {}).items():
            near = {"steps": "one step", "half": "1/100"}.get(file["measure"], "1/1000")
            lines.append(
                f"  from {kernels:<8} equal {row['equal']:7.2%}   within {near} "
                f"{row['within']:7.2%}   RMS {row['rms']:.3g}   max {row['max']:.3g}"
            )
        if file.get("kernels"):
            lines.append(f"  RMS allowed: {file['allowed']:.3g} {file['measure']}")
        if file.get("decisions"):
            lines.append("  {found} of {expected} decisions found".format(**file["decisions"]))
        lines += [f"  {reason}" for reason in file["reasons"]]
    return "\n".join([*lines, "passed" if result["passed"] else "FAILED"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what was measured and returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    here = Path(__file__).resolve().parent
    parser.add_argument("bundle", nargs="?", type=Path, default=here, help="default: beside this")
    parser.add_argument("--file", help="run only this file, such as int8.tflite")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        result = replay(options.bundle, options.file)
    except BundleError as unusable:
        print(f"error: {unusable}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=1) if options.json else show(result))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
