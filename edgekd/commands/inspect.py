"""What a model file holds, and the rules of its runtime that it breaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgekd.config.device import load_device
from edgekd.core.errors import (
    DeviceError,
    ModelError,
    RecipeError,
)
from edgekd.core.serialize import to_mapping
from edgekd.modelfile.contract import KEY, Contract, read_contract
from edgekd.modelfile.read import read_operators
from edgekd.rules.check import check_conformance
from edgekd.rules.rule import Finding
from edgekd.rules.sarif import sarif

SHOWN = 3
"""Places of one rule that an inspection shows people."""


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
