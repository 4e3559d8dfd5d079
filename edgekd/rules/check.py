"""Checks an exported file against the written rules of the runtime that will execute it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from edgekd.config.device import Device
from edgekd.core.errors import ModelError, RecipeError, suggest
from edgekd.modelfile.read import read_operators
from edgekd.rules.rule import Finding, Level, apply_rules

DELEGATES = {"gpu": ".tflite", "qnn": ".onnx"}
"""Accelerators whose rules are asked for by name, and the files that they are for."""

_PROFILE = "the device's profile"
_EXTERNAL = "ONNX external data"


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleInfo:
    """What is known of a rule without a file.

    Attributes:
        summary: What it finds, in one line.
    """

    id: str
    level: Level
    source: str
    summary: str


_KEEPABLE = ("conv_2d", "depthwise_conv_2d", "fully_connected", "add", "mul", "pad")
"""TFLite operators that a layer which is kept in float may consist of."""


def check_conformance(
    path: Path, device: Device, delegates: Iterable[str] = (), *, keeps_float: bool = False
) -> list[Finding]:
    """Returns every place where a file breaks a rule of its format or of the device's runtime.

    An empty list means that no rule here is broken; it does not mean that the file was run.

    Args:
        path: An ``.onnx`` or ``.tflite`` file.
        device: Whose runtime executes it.
        delegates: Accelerators, of `DELEGATES`, whose rules apply too.
        keeps_float: Whether layers of the int8 file were trained in float.

    Raises:
        ModelError: The file cannot be read, or a delegate takes files of another kind.
    """
    if keeps_float:
        islands = (*device.quantization.float_islands, *_KEEPABLE)
        device = replace(device, quantization=replace(device.quantization, float_islands=islands))
    suffix = path.suffix.lower()
    for name in delegates:
        if DELEGATES.get(name) != suffix:
            legal = [known for known, wanted in DELEGATES.items() if wanted == suffix]
            raise ModelError(f"{path}: no rules of the delegate {name!r}{suggest(name, legal)}")
    if suffix == ".onnx":
        return _check_onnx(path, device, delegates)
    if suffix == ".tflite":
        return _check_tflite(path, device, delegates)
    raise ModelError(f"{path}: expected a model file ending in .onnx or .tflite")


def every_rule() -> tuple[RuleInfo, ...]:
    """Returns every rule that a file can be held against."""
    from edgekd.rules.delegates import GPU_DELEGATE_RULES, QNN_RULES
    from edgekd.rules.onnx import ONNX_RULES
    from edgekd.rules.tensorrt import TENSORRT_RULES
    from edgekd.rules.tflite import TFLITE_RULES

    own = (
        RuleInfo(
            id="device/precision",
            level="error",
            source=_PROFILE,
            summary="Files in a precision that the device refuses.",
        ),
        RuleInfo(
            id="onnx/external-data",
            level="error",
            source=_EXTERNAL,
            summary="Tensors whose values lie in another file.",
        ),
    )
    families = (TFLITE_RULES, ONNX_RULES, TENSORRT_RULES, GPU_DELEGATE_RULES, QNN_RULES)
    listed = (
        RuleInfo(
            id=rule.id,
            level=rule.level,
            source=rule.source,
            summary=_summary(rule.check.__doc__ or ""),
        )
        for family in families
        for rule in family
    )
    return own + tuple(listed)


def _summary(text: str) -> str:
    """Returns what a check yields, as a sentence of its own."""
    first = " ".join(text.split("\n\n")[0].split()).removeprefix("Yields ")
    return first[:1].upper() + first[1:]


def _check_onnx(path: Path, device: Device, delegates: Iterable[str]) -> list[Finding]:
    from edgekd.modelfile.onnx_graph import external_tensors, load_onnx, read_onnx
    from edgekd.rules.delegates import QNN_RULES
    from edgekd.rules.onnx import ONNX_RULES
    from edgekd.rules.tensorrt import TENSORRT_RULES

    external = external_tensors(load_onnx(path))
    if external:
        return [
            Finding(
                rule="onnx/external-data",
                level="error",
                where=name,
                message="its values lie in another file; a board is given one file",
                source=_EXTERNAL,
            )
            for name in external
        ]
    graph = read_onnx(path)
    findings = _check_precision(path, device) + apply_rules(ONNX_RULES, graph, device)
    if device.runtime.name == "tensorrt":
        findings += apply_rules(TENSORRT_RULES, graph, device)
    if "qnn" in delegates:
        findings += apply_rules(QNN_RULES, graph, device)
    return findings


def _check_tflite(path: Path, device: Device, delegates: Iterable[str]) -> list[Finding]:
    from edgekd.modelfile.tflite_graph import read_tflite
    from edgekd.rules.delegates import GPU_DELEGATE_RULES
    from edgekd.rules.tflite import TFLITE_RULES

    graph = read_tflite(path)
    findings = _check_precision(path, device) + apply_rules(TFLITE_RULES, graph, device)
    if "gpu" in delegates:
        findings += apply_rules(GPU_DELEGATE_RULES, graph, device)
    return findings


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
