"""The proof that a float16 file is its float32 twin, rounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from edgekd.core.results import Check
from edgekd.modelfile.onnx_graph import load_onnx
from edgekd.modelfile.runner import OnnxRunner
from edgekd.proof.intermediates import run_in_memory

MARK = 1.25
"""Largest RMS distance of an output from its float32 twin, over what rounding alone costs there.

On published networks rounding costs from 0.1 % (a ResNet's logits) to 1.3 % (FastestDet's boxes) of
an output's RMS, so a bound on the distance itself would be too tight or too wide. The file itself
stays below 1: a runtime fuses operators, so that it rounds less often than after every node.
"""


def check_half_parameters(half: Path, whole: Path) -> Check:
    """Returns whether every float16 weight is the float32 one, rounded to nearest."""
    rounded, given = _constants(half), _constants(whole)
    wrong = [name for name, value in given.items() if not _is_rounded(name, value, rounded)]
    return Check(
        name=f"parity/parameters/{half.name}",
        passed=not wrong,
        figure=f"{len(given) - len(wrong)} of {len(given)} constants are float32's, rounded",
        criterion="every weight is the float32 one, rounded to nearest",
        failing_operator=wrong[0] if wrong else None,
    )


def _is_rounded(name: str, value: NDArray[Any], rounded: dict[str, NDArray[Any]]) -> bool:
    # The weights are those of a module one level further down; the exporter's own constants,
    # such as a resize's factors, have no such prefix and stay in float32.
    if name in rounded:
        return np.array_equal(rounded[name], value)
    wanted, found = value.astype(np.float16), rounded.get(f"net.{name}")
    # Of weights that rounding makes equal the exporter keeps one.
    kept = rounded.values() if found is None else [found]
    return any(k.dtype == np.float16 and np.array_equal(k, wanted) for k in kept)


def check_half_outputs(half: Path, whole: Path, images: NDArray[np.float32]) -> Check:
    """Returns whether float16 is as near to float32 as rounding lets it be, in ONNX Runtime.

    The measure is the float32 graph with a rounding to float16 after every node; it owes nothing to
    how the float16 file was written.

    Args:
        half: The float16 file.
        whole: Its float32 twin.
        images: ``(N, C, H, W)``.
    """
    runners = OnnxRunner(half), OnnxRunner(whole)
    found, wanted = ([runner.run(image[None]) for image in images] for runner in runners)
    rounded = _rounded_outputs(whole, images)
    distances, costs = (
        {
            info.name: _distance([o[i] for o in outputs], [o[i] for o in wanted])
            for i, info in enumerate(runners[1].outputs)
        }
        for outputs in (found, rounded)
    )
    ratios = {name: _ratio(distances[name], costs[name]) for name in distances}
    worst = max(ratios, key=lambda name: ratios[name])
    passed = ratios[worst] <= MARK
    return Check(
        name=f"parity/end-to-end/{half.name}",
        passed=passed,
        figure=f"ONNX Runtime: {100 * distances[worst]:.3f} % RMS from {whole.name} in {worst}, "
        f"{ratios[worst]:.2f} of what rounding costs there",
        criterion=f"every output within {MARK:g} of what rounding every value to float16 costs",
        failing_operator=None if passed else worst,
        details={"relative_rms": distances, "relative_rms_of_rounding": costs},
    )


def _rounded_outputs(whole: Path, images: NDArray[np.float32]) -> list[list[NDArray[Any]]]:
    model = onnx.shape_inference.infer_shapes(load_onnx(whole))
    _round(model.graph)
    return run_in_memory(model, None, images)


def _round(graph: GraphProto) -> None:
    """Rounds every float32 value of a graph to float16 and back, but for a resize's factors."""
    real = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    factors = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:]}
    for stored in graph.initializer:
        if stored.data_type == TensorProto.FLOAT and stored.name not in factors:
            value = numpy_helper.to_array(stored).astype(np.float16).astype(np.float32)
            stored.CopyFrom(numpy_helper.from_array(value, stored.name))
    nodes: list[NodeProto] = []
    entrances = {entrance.name: f"{entrance.name}/rounded" for entrance in graph.input}
    for name, new in entrances.items():
        nodes += _casts(name, new)
    for node in graph.node:
        node.input[:] = [entrances.get(name, name) for name in node.input]
        names = [name for name in node.output if name in real - factors]
        node.output[:] = [f"{name}/exact" if name in names else name for name in node.output]
        nodes.append(node)
        for name in names:
            nodes += _casts(f"{name}/exact", name)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)


def _casts(source: str, target: str) -> list[NodeProto]:
    between = f"{target}/half"
    return [
        helper.make_node("Cast", [source], [between], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [between], [target], to=TensorProto.FLOAT),
    ]


def _constants(path: Path) -> dict[str, NDArray[Any]]:
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    stored = (t for t in load_onnx(path).graph.initializer if t.data_type in floats)
    return {t.name: numpy_helper.to_array(t) for t in stored}


def _distance(found: list[NDArray[Any]], wanted: list[NDArray[Any]]) -> float:
    """Returns the RMS difference over the RMS of what is wanted."""
    a, b = np.concatenate(found).astype(np.float64), np.concatenate(wanted).astype(np.float64)
    size = float(np.sqrt((b**2).mean())) or 1.0
    return float(np.sqrt(((a - b) ** 2).mean())) / size


def _ratio(distance: float, cost: float) -> float:
    """Returns how many times ``cost`` the distance is; infinite where either is not a number."""
    if not np.isfinite([distance, cost]).all():
        return float("inf")
    return distance / max(cost, float(np.finfo(np.float16).eps))
