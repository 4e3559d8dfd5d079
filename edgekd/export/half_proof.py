"""The proof that a float16 file is its float32 twin, rounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgekd.modelfile.onnx_graph import load_onnx
from edgekd.modelfile.runner import OnnxRunner
from edgekd.types import Check

MARK = 0.01
"""Largest RMS distance of an output from its float32 twin, relative to that output's own RMS."""


def check_half_parameters(half: Path, whole: Path) -> Check:
    """Returns whether every float16 weight is the float32 one, rounded to nearest."""
    rounded, given = _constants(half), _constants(whole)
    wrong = [name for name, value in given.items() if not _is_rounded(name, value, rounded)]
    return Check(
        name=f"parity/parameters/{half.name}",
        passed=not wrong,
        figure=f"{len(given) - len(wrong)} of {len(given)} constants are float32's, rounded",
        mark="every weight is the float32 one, rounded to nearest",
        culprit=wrong[0] if wrong else None,
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
    """Returns whether float16 gives what float32 gives, in ONNX Runtime, on real images.

    Args:
        half: The float16 file.
        whole: Its float32 twin.
        images: ``(N, C, H, W)``.
    """
    runners = OnnxRunner(half), OnnxRunner(whole)
    found, wanted = ([runner.run(image[None]) for image in images] for runner in runners)
    distances = {
        info.name: _distance([o[i] for o in found], [o[i] for o in wanted])
        for i, info in enumerate(runners[1].outputs)
    }
    worst = max(distances, key=lambda name: distances[name])
    return Check(
        name=f"parity/end-to-end/{half.name}",
        passed=distances[worst] <= MARK,
        figure=f"ONNX Runtime: {100 * distances[worst]:.3f} % RMS from {whole.name} in {worst}",
        mark=f"every output within {100 * MARK:g} % RMS of its float32 twin",
        culprit=worst if distances[worst] > MARK else None,
        details={"relative_rms": distances},
    )


def _constants(path: Path) -> dict[str, NDArray[Any]]:
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    stored = (t for t in load_onnx(path).graph.initializer if t.data_type in floats)
    return {t.name: numpy_helper.to_array(t) for t in stored}


def _distance(found: list[NDArray[Any]], wanted: list[NDArray[Any]]) -> float:
    a, b = np.concatenate(found).astype(np.float64), np.concatenate(wanted).astype(np.float64)
    size = float(np.sqrt((b**2).mean())) or 1.0
    return float(np.sqrt(((a - b) ** 2).mean())) / size
