"""The proof that an exported file computes what was trained.

Three questions, each with a criterion:

* *parameters*: are the numbers in the file the trained ones? Every one of them must be.
* *operators*: fed with the runtime's own integers, does each operator give what exact arithmetic
  with the trained parameters gives? At least 99.9 % of values within one step, in every operator.
  And does whatever only moves integers (slices, transposes, pads, concatenations) leave every one
  of them as it was? There nothing is rounded, so nothing may differ.
* *end to end*: is the trained graph no further from any runtime, but for chance, than the two
  runtimes furthest apart are from each other? Runtimes round differently, and depth multiplies it;
  equality to a step from end to end is not to be had, and not asking at all is how faults hide.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.core.results import Check
from edgekd.proof.alignment import Alignment, parameter_differences
from edgekd.proof.arithmetic import gather
from edgekd.proof.exact import ReplayedOperator
from edgekd.proof.integer_graph import IntegerGraph, IntegerOperator

WITHIN_ONE = 0.999
FLOAT_STEP = 1e-5
"""What counts as one step in a float tensor, relative to its largest value."""
MARGIN, LIMIT, STANDARD_ERRORS = 1.05, 1.25, 3.0
"""Of the end-to-end criterion. The trained graph computes all but as ONNX Runtime does, so that
their distances to a third runtime are equal but for chance. A distance larger by `MARGIN` fails
where that is more than what images differ in explains; one larger by `LIMIT` fails in any case."""
ROUNDING = 1 / math.sqrt(12)
"""Steps RMS that rounding to a grid makes by itself."""

FLOAT32_RMS = 4.0
"""Steps RMS by which float32 sums near a half may take a trained graph from exact arithmetic; 0.1
to 2.3 between trained networks and runtimes that agree in every operator."""

Steps = Sequence[NDArray[np.int16]]
"""One array of quantization steps for each output of the network."""


def check_parameters(trained: IntegerGraph, shipped: IntegerGraph, pairs: Alignment) -> Check:
    """Returns whether every weight, scale, zero point and bias in the file is the trained one."""
    found = parameter_differences(trained, shipped, pairs)
    weights = sum(p.weight is not None and not p.weight.is_float for p, _ in pairs)
    return Check(
        name=f"parity/parameters/{shipped.source}",
        passed=not found,
        figure=(
            f"{len(pairs)} operators, {weights} int8 weights byte-equal, scales, zero points and "
            f"biases equal{_kept(trained)}"
            if not found
            else f"{len(found)} differences: {found[0].what}"
        ),
        criterion="every parameter of the file is the trained one",
        failing_operator=found[0].operator if found else None,
        details={"differences": [f"{d.operator}: {d.what}" for d in found[:50]]},
    )


def check_operators(
    trained: IntegerGraph,
    shipped: IntegerGraph,
    pairs: Alignment,
    integers: Mapping[str, NDArray[Any]],
    runtime: str,
) -> Check:
    """Returns whether every operator, replayed exactly from the runtime's own inputs, agrees.

    Args:
        trained: Gives the parameters.
        shipped: Gives the names of tensors in the file.
        pairs: From `align`.
        integers: The runtime's value of every tensor of ``shipped``, as stored; floats of a layer
            that is kept in float.
        runtime: For messages.
    """
    images = _by_address(shipped, pairs, integers)
    shares: dict[str, float] = {}
    counts = np.zeros(4, dtype=np.int64)
    for operator, partner in pairs:
        found = _distances(operator, trained, pairs, images)
        counts += found
        shares[f"{operator.name} ({partner.name})"] = float(found[:2].sum() / found.sum())
    moved = _moved(shipped, pairs, integers, images)
    failing_operator = next((name for name, share in shares.items() if share < WITHIN_ONE), None)
    failing_operator = failing_operator or next(
        (name for name, share in moved.items() if share < 1), None
    )
    worst = min(shares, key=lambda name: shares[name])
    total = max(1, int(counts.sum()))
    exact = sum(share == 1 for share in moved.values())
    return Check(
        name=f"parity/operators/{shipped.source}",
        passed=failing_operator is None,
        figure=(
            f"{runtime}: {100 * counts[0] / total:.3f} % equal, "
            f"{100 * counts[:2].sum() / total:.4f} % within one step; worst operator "
            f"{100 * shares[worst]:.3f} %; {exact} of {len(moved)} moves exact"
        ),
        criterion=f"in every operator {100 * WITHIN_ONE:.1f} % of values within one step, moves "
        "exact",
        failing_operator=failing_operator,
        details={
            "within_one": shares,
            "moved": moved,
            "histogram": {runtime: _histogram(counts)},
        },
    )


def _kept(graph: IntegerGraph) -> str:
    names = [operator.name for operator in graph.kept]
    return f"; {len(names)} operators in float as trained: {', '.join(names)}" if names else ""


def _by_address(
    shipped: IntegerGraph, pairs: Alignment, integers: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """Returns ``(B, N)``: what the runtime computed, every element at its address."""
    names = [shipped.input, *(partner.output for _, partner in pairs)]
    batch = len(integers[shipped.input])
    kind = np.float64 if shipped.kept else np.int8
    images = np.empty((batch, sum(pairs.shipped[name].size for name in names)), kind)
    for name in names:
        images[:, pairs.shipped[name].ravel()] = integers[name].reshape(batch, -1)
    return images


def _distances(
    operator: IntegerOperator, trained: IntegerGraph, pairs: Alignment, images: NDArray[Any]
) -> NDArray[np.int64]:
    """Returns how many values are 0, 1, 2 and more steps from exact arithmetic."""
    step = ReplayedOperator(operator, trained, pairs.trained)
    made = step.made
    counts = np.zeros(4, dtype=np.int64)
    for values in images:
        expected = step.replay(values).astype(np.float64)
        distance = np.abs(values[made] - expected)
        if operator.grid is None:  # A step is what the order of float32 sums makes.
            distance = np.ceil(distance / (FLOAT_STEP * np.abs(expected).max(initial=1e-30)))
        counts += np.bincount(distance.clip(max=3).astype(np.int64), minlength=4)
    return counts


def _moved(
    shipped: IntegerGraph,
    pairs: Alignment,
    integers: Mapping[str, NDArray[Any]],
    images: NDArray[Any],
) -> dict[str, float]:
    """Returns for every move the share of values that arrived where they belong, unchanged.

    One of floats, such as a pad in front of a layer that is kept in float, is seen in that layer.
    """
    shares = {}
    for move in shipped.moves:
        if move.output not in integers or integers[move.output].dtype != np.int8:
            continue
        places, grid = pairs.shipped[move.output], shipped.grids[move.output]
        got = zip(images, integers[move.output], strict=True)
        equal = [np.mean(gather(values, places, grid) == tensor) for values, tensor in got]
        shares[move.name] = float(np.mean(equal))
    return shares


Group = tuple[Steps, Mapping[str, Steps]]
"""Outputs of a fake-quantized graph, and by name those of the runtimes that round where it does."""


def check_end_to_end(groups: Sequence[Group]) -> Check:
    """Returns whether a trained graph is as close to its runtimes as runtimes are to each other.

    Args:
        groups: One for each way of rounding, all of the same images; at least one of them holds
            two runtimes.
    """
    squares: dict[str, NDArray[np.float64]] = {}
    histograms: dict[str, Any] = {}
    for trained, runtimes in groups:
        everyone = {"trained": trained, **runtimes}
        for a, b in itertools.combinations(everyone, 2):
            joined = np.concatenate(
                [
                    np.abs(x - y).reshape(len(x), -1)
                    for x, y in zip(everyone[a], everyone[b], strict=True)
                ],
                axis=1,
            )
            squares[f"{a} - {b}"] = (joined.astype(np.float64) ** 2).mean(axis=1)
            counts = np.bincount(joined.clip(max=3).ravel(), minlength=4)
            histograms[f"{a} - {b}"] = _histogram(counts)
    distances = {pair: float(np.sqrt(square.mean())) for pair, square in squares.items()}
    own = {k: v for k, v in distances.items() if k.startswith("trained - ")}
    between = {k: v for k, v in distances.items() if k not in own}
    furthest = max(own, key=lambda k: own[k])
    widest = max(between, key=lambda k: between[k])
    surely = _surely_above_zero(squares[furthest] - MARGIN**2 * squares[widest])
    passed = own[furthest] <= LIMIT * between[widest] and not surely
    return Check(
        name="parity/end-to-end",
        passed=passed,
        figure=f"{furthest}: {own[furthest]:.3f} steps RMS; {widest}: {between[widest]:.3f}",
        criterion="no further from any runtime, but for chance, than the two furthest runtimes are "
        f"from each other: at most {LIMIT:g} times as far, and not surely over {MARGIN:g} times",
        failing_operator=None if passed else furthest,
        details={"rms_steps": distances, "histogram": histograms},
    )


def check_against_exact(groups: Sequence[Group], exact: Sequence[Steps]) -> Check:
    """Returns whether runtimes are as close to exact arithmetic as the graph that was trained.

    For where a single runtime executes the files. The trained graph is exact arithmetic up to the
    rounding of float32 sums near a half, which later layers multiply; a runtime may be that far,
    too.

    Args:
        groups: One for each way of rounding, all of the same images.
        exact: For each, what `edgekd.proof.exact.exact_outputs` makes of the trained graph.
    """
    own = 0.0
    runtimes: dict[str, float] = {}
    for (trained, given), reference in zip(groups, exact, strict=True):
        own = max(own, _rms(trained, reference))
        runtimes |= {name: _rms(steps, reference) for name, steps in given.items()}
    furthest = max(runtimes, key=lambda name: runtimes[name])
    allowed = max(LIMIT * own, ROUNDING)
    passed = runtimes[furthest] <= allowed and own <= FLOAT32_RMS
    return Check(
        name="parity/end-to-end",
        passed=passed,
        figure=f"from exact arithmetic, in steps RMS: {furthest} {runtimes[furthest]:.3f}; the "
        f"trained graph {own:.3f}",
        criterion=f"a runtime at most {LIMIT:g} times as far as the trained graph, or "
        f"{ROUNDING:.2f}; the trained graph at most {FLOAT32_RMS:g}",
        failing_operator=None if passed else furthest if own <= FLOAT32_RMS else "trained",
        details={"rms_steps": {"trained": own, **runtimes}},
    )


def _rms(steps: Steps, others: Steps) -> float:
    distances = [(a.astype(np.float64) - b).ravel() for a, b in zip(steps, others, strict=True)]
    return float(np.sqrt(np.mean(np.concatenate(distances) ** 2)))


def _surely_above_zero(values: NDArray[np.float64]) -> bool:
    """Returns whether the mean of ``(N,)`` values is, by more than `STANDARD_ERRORS`."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return bool(values.mean() > STANDARD_ERRORS * error)


def _histogram(counts: NDArray[np.int64]) -> dict[str, float]:
    total = max(1, int(counts.sum()))
    return {key: float(n) / total for key, n in zip(("0", "1", "2", ">2"), counts, strict=True)}
