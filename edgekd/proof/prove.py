"""All proofs of a run's files, in one place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule

from edgekd.config.device import Device, load_device
from edgekd.core.errors import ProofError
from edgekd.core.exported import FLOAT16_ONNX, FLOAT_ONNX
from edgekd.core.results import Check
from edgekd.core.types import Artifact, Format, Precision, arithmetic_of
from edgekd.modelfile.runner import Kernels, OnnxRunner, TfliteRunner
from edgekd.proof.alignment import Alignment, align
from edgekd.proof.coverage import (
    check_asked_coverage,
    check_onnx_coverage,
    check_tflite_coverage,
)
from edgekd.proof.detection_tail import check_tail
from edgekd.proof.exact import exact_outputs
from edgekd.proof.float16 import check_half_outputs, check_half_parameters
from edgekd.proof.integer_graph import IntegerGraph
from edgekd.proof.intermediates import onnx_intermediates, tflite_intermediates
from edgekd.proof.parity import (
    Group,
    Steps,
    check_against_exact,
    check_end_to_end,
    check_operators,
    check_parameters,
)
from edgekd.proof.read_onnx import onnx_integer_graph
from edgekd.proof.read_tflite import tflite_graph
from edgekd.proof.read_torch import integer_graph
from edgekd.rules.check import check_conformance

Pixels = NDArray[np.uint8]

_ORT = "onnxruntime"
_LITERT: dict[str, Kernels] = {
    "LiteRT XNNPACK": "default",
    "LiteRT builtin": "builtin",
    "LiteRT reference": "reference",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Placements:
    """The converted graph with folded weights, as the target rounds and as every tensor is rounded.

    The target's own ONNX file is held against the first, every other file against the second.
    """

    target: GraphModule
    complete: GraphModule


def prove(
    artifacts: Sequence[Artifact], trained: Placements | None, device: Device, images: Pixels
) -> tuple[Check, ...]:
    """Returns every check of every file, failed ones included.

    Args:
        artifacts: What was exported.
        trained: What the int8 files are held against; None where there is none.
        device: Whose rules the files must keep.
        images: ``(N, H, W, C)`` letterboxed real images.
    """
    checks: list[Check] = []
    groups: list[Group] = []
    exact: list[Steps] = []
    keeps = False
    artifacts = [a for a in artifacts if a.form != "peer"]  # Nobody trained what it holds.
    bare = [a for a in artifacts if not a.has_tail]
    integer = [a for a in bare if a.precision is Precision.INT8]
    onnx_alone = all(a.format is Format.ONNX for a in integer)
    for graph, files in _by_placement(integer, trained) if trained else ():
        reference = integer_graph(graph)
        keeps = keeps or bool(reference.kept)
        steps: dict[str, Steps] = {}
        for artifact in files:
            checks += _prove_file(artifact, reference, device, images)
            steps |= _runtime_steps(artifact, reference, images)
        groups.append((_trained_steps(graph, reference, images), steps))
        if onnx_alone:
            made = exact_outputs(reference, _as_int8(images).transpose(0, 3, 1, 2))
            exact.append([values.astype(np.int16) for values in made])
    checks += _half_precision(bare, images)
    checks += [_conformance(a, device, keeps_float=keeps) for a in bare]
    checks += [check_tail(a, images) for a in artifacts if a.has_tail]
    if exact:  # By one runtime nothing can be said about how far two may be apart.
        checks.append(check_against_exact(groups, exact))
    elif any(len(steps) > 1 for _, steps in groups):
        checks.append(check_end_to_end(groups))
    return tuple(checks)


def _half_precision(artifacts: Sequence[Artifact], images: Pixels) -> Iterator[Check]:
    """Yields the checks of a float16 file against its float32 twin."""
    by_name = {artifact.path.name: artifact.path for artifact in artifacts}
    if FLOAT16_ONNX.name in by_name:
        half, whole = by_name[FLOAT16_ONNX.name], by_name[FLOAT_ONNX.name]
        yield check_half_parameters(half, whole)
        yield check_half_outputs(half, whole, _as_float(images))


def _by_placement(
    artifacts: Sequence[Artifact], trained: Placements
) -> Iterator[tuple[GraphModule, list[Artifact]]]:
    """Yields each graph with the files that are held against it."""
    own = [a for a in artifacts if a.format is Format.ONNX and a.form == "board"]
    if trained.target is trained.complete:
        yield trained.target, list(artifacts)
        return
    for graph, files in (
        (trained.target, own),
        (trained.complete, [a for a in artifacts if a not in own]),
    ):
        if files:
            yield graph, files


def require_passed(checks: Sequence[Check]) -> None:
    """Raises `ProofError` naming the first failed proof and the operator that breaks it."""
    failed = [check for check in checks if not check.passed]
    if failed:
        first = failed[0]
        where = f" at {first.failing_operator}" if first.failing_operator else ""
        raise ProofError(
            f"{len(failed)} of {len(checks)} proofs failed; first {first.name}{where}: "
            f"{first.figure} (demanded: {first.criterion})"
        )


def _prove_file(
    artifact: Artifact, reference: IntegerGraph, device: Device, images: Pixels
) -> list[Check]:
    path, declared = artifact.path, device.quantization.float_islands
    arithmetic = arithmetic_of(artifact.precision, artifact.form)
    indices: dict[str, int] = {}
    if artifact.format is Format.ONNX:
        shipped = onnx_integer_graph(path)
    else:
        shipped, indices = tflite_graph(path)

    def coverage(kept: Collection[str]) -> Check:
        if artifact.format is Format.TFLITE:
            return check_tflite_coverage(path, declared, kept)
        runtime = device.runtimes[Format.ONNX].name if artifact.form == "board" else _ORT
        if runtime == _ORT:
            return check_onnx_coverage(path, declared, kept, arithmetic)
        return check_asked_coverage(path, declared, runtime, kept)

    try:
        pairs = align(reference, shipped)
    except ProofError as error:
        wiring = Check(
            name=f"parity/parameters/{path.name}",
            passed=False,
            figure=str(error),
            criterion="the file's operators are wired as the trained ones",
            failing_operator=str(error),
        )
        return [wiring, coverage(())]
    if artifact.format is Format.ONNX:
        floats = [operator.output for operator in shipped.operators if operator.grid is None]
        integers = onnx_intermediates(
            path, list(shipped.grids), floats, _as_float(images), arithmetic
        )
        runtime = "ONNX Runtime"
    else:
        integers = tflite_intermediates(path, indices, _as_int8(images))
        runtime = "LiteRT reference kernels"
    return [
        check_parameters(reference, shipped, pairs),
        check_operators(reference, shipped, pairs, integers, runtime),
        coverage(_kept(reference, pairs)),
    ]


def _kept(reference: IntegerGraph, pairs: Alignment) -> frozenset[str]:
    """Returns the names, in the file, of what was trained in float."""
    trained = {operator.name for operator in reference.kept}
    return frozenset(partner.name for operator, partner in pairs if operator.name in trained)


def _runtime_steps(artifact: Artifact, reference: IntegerGraph, images: Pixels) -> dict[str, Steps]:
    """Returns the outputs in steps of every runtime that executes the file as shipped."""
    result: dict[str, Steps] = {}
    if artifact.format is Format.ONNX:
        arithmetic = arithmetic_of(artifact.precision, artifact.form)
        runner = OnnxRunner(artifact.path, arithmetic=arithmetic)
        reals = [runner.run(image[None]) for image in _as_float(images)]
        stacked = [np.concatenate(values) for values in zip(*reals, strict=True)]
        return {f"ONNX Runtime ({artifact.path.name})": _to_steps(stacked, reference)}
    for name, kernels in _LITERT.items():
        lite = TfliteRunner(artifact.path, kernels=kernels)
        rows = [lite.run(image[None]) for image in _as_int8(images)]
        stacked = [np.concatenate(values) for values in zip(*rows, strict=True)]
        result[name] = [_nchw(v).astype(np.int16) for v in stacked]
    return result


@torch.no_grad()
def _trained_steps(trained: GraphModule, reference: IntegerGraph, images: Pixels) -> Steps:
    outputs = [trained(torch.from_numpy(image[None])) for image in _as_float(images)]
    stacked = [torch.cat(values).numpy() for values in zip(*outputs, strict=True)]
    return _to_steps(stacked, reference)


def _to_steps(reals: Sequence[NDArray[np.float32]], reference: IntegerGraph) -> Steps:
    steps = []
    for values, name in zip(reals, reference.outputs, strict=True):
        grid = reference.grids[name]
        steps.append((np.rint(values / grid.scale) + grid.zero_point).astype(np.int16))
    return steps


def _conformance(artifact: Artifact, device: Device, *, keeps_float: bool) -> Check:
    device = load_device("host") if artifact.form == "host" else device
    found = check_conformance(artifact.path, device, keeps_float=keeps_float)
    findings = [f for f in found if f.level == "error"]
    first = findings[0] if findings else None
    return Check(
        name=f"conformance/{artifact.path.name}",
        passed=first is None,
        figure=f"{len(findings)} broken rules" + (f": {first.message}" if first else ""),
        criterion=f"the rules of {device.id}'s runtimes",
        failing_operator=first.rule if first else None,
        details={"findings": [f"{f.level} {f.rule}: {f.message}" for f in found[:50]]},
    )


def _as_float(images: Pixels) -> NDArray[np.float32]:
    return ((images.astype(np.float32) - 128.0) / 128.0).transpose(0, 3, 1, 2)


def _as_int8(images: Pixels) -> NDArray[np.int8]:
    return (images.astype(np.int16) - 128).astype(np.int8)


def _nchw(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.transpose(0, 3, 1, 2) if values.ndim == 4 else values
