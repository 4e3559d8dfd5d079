"""The half page that a bundle begins with: what each file is for, and how good it is."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.bundle.contract import BundleContract, FileContract
from edgekd.bundle.tensorrt import trtexec_lines
from edgekd.config.decoders import decoder_files
from edgekd.core.results import ClassificationMetrics, DetectionMetrics, Latency, ModelRow
from edgekd.core.types import Format, Precision
from edgekd.report.recommendation import recommendation


def readme_text(
    contract: BundleContract, rows: Sequence[ModelRow], split: str, tensorrt_opset: int | None
) -> str:
    """Returns the bundle's ``README.md``.

    Args:
        contract: Of the bundle.
        rows: Accuracy and latency of what is in the bundle, and of what it is compared with.
        split: Of the data set, on which thresholds and accuracy were computed.
        tensorrt_opset: Operator set of the ONNX files, where TensorRT is to execute them.
    """
    models = "\n".join(f"| `{file.path}` | {_purpose(file)} |" for file in contract.files)
    origin = contract.created_from
    return f"""# {contract.name}

{contract.task.value.capitalize()} of {len(contract.classes)} classes for {contract.target}, made by
EdgeKD {origin.edgekd} from the recipe with the digest `{origin.recipe_sha256}`, which the files carry
too.

| File | What it is |
|---|---|
{models}
| `contract.json` | For each model: input, normalisation, outputs, scales, decoding{_thresholds(contract, split)} |
| `contract.schema.json` | JSON Schema of `contract.json` |
| `labels.txt` | Class names, one a line, in the order of the labels |
| `decoder.py` | Reference decoder from raw outputs to results; needs only numpy |
{_registered(contract)}| `golden/` | Input images, raw outputs of each model and kernel set, and the expected results |
| `replay.py` | Runs the models here and compares with `golden/` |
| `licences/` | Licences of the training data and of the teacher |
| `manifest.json` | Size and sha256 of every other file |

Copy the folder to the board and run it there, with numpy and a runtime for one of the formats:

    python3 replay.py
{_tensorrt(contract, rows, tensorrt_opset)}
## Accuracy and latency

Accuracy is {contract.task.metric_title} on the {split} split. Latency is of one inference, the median,
in milliseconds; what is measured and what is predicted stand in columns of their own.

| Model | Runtime | Precision | Size, bytes | Accuracy | Measured, ms | Predicted, ms |
|---|---|---|---:|---:|---|---|
{_table(rows)}
"""  # noqa: E501 - a table's row is one line


def _registered(contract: BundleContract) -> str:
    """Returns the lines of the decoders that are not in ``decoder.py``, which loads them."""
    names = {name for file in contract.files for name in decoder_files(file.decoding.decoder)}
    lines = [
        f"| `{name}` | What `decoder.py` reads these outputs with |\n"
        for name in sorted(names - {"decoder.py"})
    ]
    return "".join(lines)


def _tensorrt(contract: BundleContract, rows: Sequence[ModelRow], opset: int | None) -> str:
    """Returns the section on building engines, empty where TensorRT executes nothing."""
    if opset is None:
        return ""
    names = [file.path.removeprefix("models/") for file in contract.files]
    lines = "\n".join(f"| {v} | `{command}` |" for v, command in trtexec_lines(names, opset))
    return f"""
## TensorRT

These files were not executed on TensorRT: engines are built on the board that runs them.
`replay.py` runs the golden vectors on it where the board's ONNX Runtime has TensorRT, and says so
behind each file.

| TensorRT | Command |
|---|---|
{lines}

{recommendation(rows)}
"""


def _purpose(file: FileContract) -> str:
    runtime = "LiteRT (TensorFlow Lite)" if file.format is Format.TFLITE else "ONNX runtimes"
    if any(output.role == "labels" for output in file.outputs):
        return f"{file.precision.value} for {runtime}, ends in boxes, scores and labels after NMS"
    if file.precision is Precision.FLOAT16:
        return f"float16 for {runtime} that compute in it, such as TensorRT"
    if file.precision is not Precision.INT8:
        return f"{file.precision.value} for {runtime}: the baseline"
    if file.form == "host":
        return (
            "int8 for ONNX Runtime on an x86 host: the same scales, activations as uint8; "
            "without VNNI exact with the session option session.x64quantprecision = 1"
        )
    return f"int8 for {runtime} on the board: what ships"


def _thresholds(contract: BundleContract, split: str) -> str:
    chosen = f", score thresholds (greatest F1 at IoU 0.5 on the {split} split)"
    return chosen if contract.thresholds else ""


def _table(rows: Sequence[ModelRow]) -> str:
    return "\n".join(
        f"| {row.name} | {row.runtime} | {row.precision.value} | {row.size_bytes} "
        f"| {_accuracy(row.metrics)} | {_latency(row.measured)} | {_latency(row.predicted)} |"
        for row in rows
    )


def _accuracy(metrics: DetectionMetrics | ClassificationMetrics | None) -> str:
    if metrics is None:
        return "-"
    share = metrics.map if isinstance(metrics, DetectionMetrics) else metrics.top1
    return "-" if share < 0 else f"{share * 100:.2f}"


def _latency(latency: Latency | None) -> str:
    if latency is None:
        return "-"
    words = [latency.basis.value, latency.note, f"{latency.where}, threads {latency.threads}"]
    if latency.low_ms is not None and latency.high_ms is not None:
        words.insert(0, f"[{latency.low_ms:.3g}, {latency.high_ms:.3g}]")
    return f"{latency.median_ms:.3g} ({', '.join(word for word in words if word)})"
