"""Checks an exported file against the written rules of the runtime that will execute it."""

from __future__ import annotations

from pathlib import Path

from edgekd.device import Device
from edgekd.errors import ModelError, RecipeError
from edgekd.export.rules import Finding, apply_rules
from edgekd.modelfile import read_operators

_PROFILE = "the device's profile"


def check_conformance(path: Path, device: Device) -> list[Finding]:
    """Returns every place where a file breaks a rule of its format or of the device's runtime.

    An empty list means that no rule here is broken; it does not mean that the file was run.

    Raises:
        ModelError: The file cannot be read.
    """
    if path.suffix.lower() == ".onnx":
        findings = _check_onnx(path, device)
    elif path.suffix.lower() == ".tflite":
        findings = _check_tflite(path, device)
    else:
        raise ModelError(f"{path}: expected a model file ending in .onnx or .tflite")
    return findings


def _check_onnx(path: Path, device: Device) -> list[Finding]:
    from edgekd.export.onnx_rules import ONNX_RULES, TENSORRT_RULES
    from edgekd.modelfile.onnx_graph import external_tensors, load_onnx, read_onnx

    external = external_tensors(load_onnx(path))
    if external:
        return [
            Finding(
                rule="onnx/external-data",
                level="error",
                where=name,
                message="its values lie in another file; a board is given one file",
                source="ONNX external data",
            )
            for name in external
        ]
    graph = read_onnx(path)
    findings = _check_precision(path, device) + apply_rules(ONNX_RULES, graph, device)
    if device.runtime.name == "tensorrt":
        findings += apply_rules(TENSORRT_RULES, graph, device)
    return findings


def _check_tflite(path: Path, device: Device) -> list[Finding]:
    from edgekd.export.tflite_rules import TFLITE_RULES
    from edgekd.modelfile.tflite_graph import read_tflite

    return _check_precision(path, device) + apply_rules(TFLITE_RULES, read_tflite(path), device)


def _check_precision(path: Path, device: Device) -> list[Finding]:
    model = read_operators(path)
    try:
        device.require(model.format, model.precision)
    except RecipeError as refused:
        return [
            Finding(
                rule="device/precision",
                level="error",
                where=path.name,
                message=str(refused),
                source=_PROFILE,
            )
        ]
    return []
