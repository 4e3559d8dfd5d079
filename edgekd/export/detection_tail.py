"""The optional float tail: an ONNX file that ends in detections instead of raw outputs.

Computes what `edgekd.standalone.decoder.detect` computes, so that a file with the tail finds what
was measured without it. Two things are cheaper here and change no result: only the candidates are
decoded, not every cell, and suppression sees ranks in place of scores.

    scores_S, boxes_S  --TopK-->  candidates  --decode-->  corners
                       --NonMaxSuppression-->  ranks kept  --sort, limit-->  boxes, scores, labels

Opset 11 is the lowest: Clip with bounds as inputs, TopK with ``largest`` and ScatterElements
appear there, and nothing used has changed its meaning since. Written for what TensorRT parses from
8.5 on (its 8.4 has no NonZero, and pads what NonMaxSuppression returns): Mod, OneHot and a TopK
whose K is computed are avoided because TensorRT 8 does not take them.

Two boxes whose IoU is the threshold to the last bit of float32 may be judged differently:
NonMaxSuppression compares a quotient, the decoder a product. Equal logits keep the decoder's order
because ONNX demands it of TopK.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekd.core.errors import ExportError
from edgekd.core.types import OutputContract
from edgekd.modelfile.contract import KEY
from edgekd.standalone.decoder import MAX_LOG_SIZE, SIZE_PRIOR

OUTPUT_NAMES = ("boxes", "scores", "labels")
TAIL_OUTPUTS = (
    OutputContract(
        name="boxes", role="boxes", stride=0, shape=(0, 4), layout="any", dtype="float32"
    ),
    OutputContract(
        name="scores", role="scores", stride=0, shape=(0,), layout="any", dtype="float32"
    ),
    OutputContract(name="labels", role="labels", stride=0, shape=(0,), layout="any", dtype="int64"),
)
"""Contract of the three outputs; a length of 0 stands for the number of detections."""
LOWEST_OPSET = 11
MAX_CANDIDATES = 1000  # What the decoder keeps before suppression; TensorRT's TopK ends at 3840.
_PREFIX = "detection_tail/"


def with_detection_tail(
    model: onnx.ModelProto,
    outputs: Sequence[OutputContract],
    *,
    min_score: float = 0.05,
    iou: float = 0.6,
    limit: int = 100,
    keep_raw: bool = False,
) -> onnx.ModelProto:
    """Returns a copy of the model that computes detections, best first, in float32.

    Its outputs are ``boxes`` ``(K, 4)`` float32 xyxy in input pixels, ``scores`` ``(K,)`` float32
    in [0, 1] and ``labels`` ``(K,)`` int64, with K at most ``limit`` and 0 where nothing is found.
    A contract in the metadata describes the raw outputs and is therefore left out.

    Args:
        model: An edgedet detector with a batch of 1: float, Q/DQ or its host form.
        outputs: The raw outputs, float32 NCHW, scores and boxes of every stride, in any order.
        min_score: Candidates under it are dropped, in (0, 1).
        iou: Overlap above which the worse of two boxes of a class is dropped, in [0, 1].
        limit: Detections kept over all classes, at least 1.
        keep_raw: Whether the raw outputs follow the three new ones.

    Raises:
        ExportError: A setting, the contract or the model's opset does not allow a tail.
    """
    _check_settings(min_score, iou, limit)
    levels = _levels(outputs)
    _check_model(model, outputs)
    tailed = onnx.ModelProto()
    tailed.CopyFrom(model)
    tail = _Tail(tailed.graph)
    candidates = _add_candidates(tail, levels)
    eligible = _add_eligible(tail, candidates, levels[0].classes, min_score)
    kept = _add_suppression(tail, candidates, eligible, iou, limit)
    tail.add("boxes", "Gather", candidates.corners, kept, axis=0)
    logits = tail.add("kept_logits", "Gather", candidates.logits, kept, axis=0)
    tail.add("scores", "Sigmoid", logits)
    tail.add("labels", "Gather", candidates.labels, kept, axis=0)
    _replace_outputs(tailed, keep_raw=keep_raw)
    return tailed


@dataclass(frozen=True, kw_only=True, slots=True)
class _Level:
    stride: int
    scores: str
    boxes: str
    classes: int
    height: int
    width: int

    @property
    def cells(self) -> int:
        return self.height * self.width


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidates:
    """Names of the tensors that hold the best ``count`` (cell, class) pairs, best first."""

    count: int
    logits: str
    labels: str
    corners: str


class _Tail:
    """Appends constants and nodes to a graph under names that nothing else uses."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Returns the name of a new initializer."""
        full = _PREFIX + name
        self._graph.initializer.append(numpy_helper.from_array(values, full))
        return full

    def add(self, name: str, operator: str, *inputs: str, **attributes: int | Sequence[int]) -> str:
        """Returns the name of a new node's output: ``name`` itself for an output of the model."""
        output = name if name in OUTPUT_NAMES else _PREFIX + name
        node = helper.make_node(operator, inputs, (output,), _PREFIX + name, **attributes)
        self._graph.node.append(node)
        return output

    def add_best(self, name: str, values: str, count: str) -> tuple[str, str]:
        """Returns the names of the ``count`` largest values, falling, and of their indices."""
        outputs = _PREFIX + name, f"{_PREFIX}{name}_indices"
        inputs = (values, count)
        node = helper.make_node("TopK", inputs, outputs, _PREFIX + name, axis=0, largest=1)
        self._graph.node.append(node)
        return outputs


def _add_candidates(tail: _Tail, levels: Sequence[_Level]) -> _Candidates:
    """Adds what finds and decodes the best pairs; of equal logits the first (cell, class) wins."""
    classes = levels[0].classes
    total = classes * sum(level.cells for level in levels)
    count = min(MAX_CANDIDATES, total)
    by_class = _add_joined(tail, "scores", [level.scores for level in levels], levels, classes)
    by_cell = tail.add("scores_by_cell", "Transpose", by_class, perm=(1, 0))
    flat = tail.add("logits", "Reshape", by_cell, tail.constant("flat", _integers(total)))
    wanted = tail.constant("candidates", _integers(count))
    logits, pairs = tail.add_best("candidate_logits", flat, wanted)
    width = tail.constant("classes", _integers(classes))
    cells = tail.add("candidate_cells", "Div", pairs, width)
    labels = tail.add("candidate_labels", "Sub", pairs, tail.add("class_zero", "Mul", cells, width))
    corners = _add_corners(tail, levels, cells)
    return _Candidates(count=count, logits=logits, labels=labels, corners=corners)


def _add_joined(
    tail: _Tail, role: str, names: Sequence[str], levels: Sequence[_Level], channels: int
) -> str:
    """Adds what puts the cells of all levels side by side, ``(channels, cells)``."""
    rows = []
    for name, level in zip(names, levels, strict=True):
        shape = tail.constant(f"{role}_{level.stride}_shape", _integers(channels, level.cells))
        rows.append(tail.add(f"{role}_{level.stride}_flat", "Reshape", name, shape))
    return tail.add(f"all_{role}", "Concat", *rows, axis=1)


def _add_corners(tail: _Tail, levels: Sequence[_Level], cells: str) -> str:
    """Adds the decoding of the boxes at ``cells``: ``(count, 4)`` xyxy in input pixels."""
    boxes = _add_joined(tail, "boxes", [level.boxes for level in levels], levels, 4)
    raw = tail.add("candidate_boxes", "Gather", boxes, cells, axis=1)
    offsets = tail.add("offsets", "Gather", raw, tail.constant("xy", _integers(0, 1)), axis=0)
    log_sizes = tail.add("log_sizes", "Gather", raw, tail.constant("wh", _integers(2, 3)), axis=0)
    every_centre = tail.constant("centres", np.concatenate([_centres(x) for x in levels], axis=1))
    centres = tail.add("candidate_centres", "Gather", every_centre, cells, axis=1)
    every_stride = tail.constant("strides", _per_cell(levels, 1.0))
    strides = tail.add("candidate_strides", "Gather", every_stride, cells, axis=0)
    middle = tail.add("middle", "Mul", tail.add("moved", "Add", centres, offsets), strides)
    low = tail.constant("lowest_log_size", np.array(-MAX_LOG_SIZE, np.float32))
    high = tail.constant("highest_log_size", np.array(MAX_LOG_SIZE, np.float32))
    growth = tail.add("growth", "Exp", tail.add("clipped", "Clip", log_sizes, low, high))
    every_prior = tail.constant("half_priors", _per_cell(levels, SIZE_PRIOR / 2))
    priors = tail.add("candidate_half_priors", "Gather", every_prior, cells, axis=0)
    half = tail.add("half", "Mul", growth, priors)
    left_top = tail.add("left_top", "Sub", middle, half)
    right_bottom = tail.add("right_bottom", "Add", middle, half)
    sides = tail.add("sides", "Concat", left_top, right_bottom, axis=0)
    return tail.add("corners", "Transpose", sides, perm=(1, 0))


def _add_eligible(tail: _Tail, candidates: _Candidates, classes: int, min_score: float) -> str:
    """Adds ``(1, classes, count)``: whether a candidate is of a class and scores enough."""
    threshold = tail.constant("threshold", _threshold(min_score))
    certain = tail.add("certain", "Greater", candidates.logits, threshold)
    every = tail.constant("every_class", np.arange(classes, dtype=np.int64).reshape(1, -1, 1))
    of_class = tail.add("of_class", "Equal", candidates.labels, every)
    return tail.add("eligible", "And", of_class, certain)


def _add_suppression(
    tail: _Tail, candidates: _Candidates, eligible: str, iou: float, limit: int
) -> str:
    """Adds per-class suppression and returns the ranks kept, ``(K,)``, best first.

    The score that suppression sees is the candidate's place, counted down to 1. Equal scores are
    thus taken in the decoder's order whatever a runtime does with ties.
    """
    count = candidates.count
    falling = tail.constant("falling", np.arange(count, 0, -1, dtype=np.float32))
    zero = tail.constant("no_place", np.array(0, np.float32))
    places = tail.add("places", "Where", eligible, falling, zero)
    shape = tail.constant("corners_shape", _integers(1, count, 4))
    corners = tail.add("corners_of_image", "Reshape", candidates.corners, shape)
    most = tail.constant("limit", _integers(limit))
    overlap = tail.constant("iou", np.array([iou], np.float32))
    lowest = tail.constant("lowest_place", np.array([0.5], np.float32))
    chosen = tail.add("chosen", "NonMaxSuppression", corners, places, most, overlap, lowest)
    rank = tail.constant(
        "rank", np.array(2, np.int64)
    )  # A row of `chosen` is (image, class, candidate).
    ranks = tail.add("ranks", "Gather", chosen, rank, axis=1)
    # They come class by class; marking them in a row of ranks and reading it out sorts them.
    ones = tail.constant("ones", np.ones(count, np.float32))
    zeros = tail.constant("zeros", np.zeros(count, np.float32))
    marks = tail.add("marks", "Gather", ones, ranks, axis=0)
    marked = tail.add("marked", "ScatterElements", zeros, ranks, marks, axis=0)
    flat = tail.constant("any_length", _integers(-1))
    ascending = tail.add("ascending", "Reshape", tail.add("found", "NonZero", marked), flat)
    return tail.add("kept", "Slice", ascending, tail.constant("begin", _integers(0)), most)


def _integers(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def _centres(level: _Level) -> NDArray[np.float32]:
    """Returns ``(2, cells)``: x and y of the centres, in cells."""
    rows, columns = np.indices((level.height, level.width), np.float32).reshape(2, -1)
    return np.stack((columns, rows)) + np.float32(0.5)


def _per_cell(levels: Sequence[_Level], factor: float) -> NDArray[np.float32]:
    """Returns ``(cells,)``: ``factor`` times the stride of a cell's level."""
    return np.concatenate([np.full(x.cells, factor * x.stride, np.float32) for x in levels])


def _threshold(min_score: float) -> NDArray[np.float32]:
    """Returns the logit of ``min_score``, rounded down.

    A float32 logit exceeds it exactly where it exceeds the decoder's float64 threshold.
    """
    exact = np.log(min_score / (1 - min_score))
    nearest = np.float32(exact)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.array(below if float(nearest) > exact else nearest, np.float32)


def _replace_outputs(model: onnx.ModelProto, *, keep_raw: bool) -> None:
    """Declares the detections as outputs and drops a contract, which speaks of others; in place."""
    graph = model.graph
    raw = list(graph.output)
    del graph.output[:]
    for name, kind, shape in zip(
        OUTPUT_NAMES,
        (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64),
        (["detections", 4], ["detections"], ["detections"]),
        strict=True,
    ):
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    (graph.output if keep_raw else graph.value_info).extend(raw)
    kept = [entry for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def _check_settings(min_score: float, iou: float, limit: int) -> None:
    if not 0 < min_score < 1:
        raise ExportError(f"detection tail: min_score {min_score}: legal is above 0 and below 1")
    if not 0 <= iou <= 1:
        raise ExportError(f"detection tail: iou {iou}: legal is 0 to 1")
    if limit < 1:
        raise ExportError(f"detection tail: limit {limit}: legal is 1 and above")


def _levels(outputs: Sequence[OutputContract]) -> tuple[_Level, ...]:
    """Returns the levels, finest first, after checking that they are what the decoder reads."""
    by_stride: dict[int, dict[str, OutputContract]] = {}
    for spec in outputs:
        if (spec.layout, spec.dtype, len(spec.shape)) != ("NCHW", "float32", 4):
            raise ExportError(
                f"detection tail: output {spec.name!r} is {spec.dtype} {spec.layout} {spec.shape}: "
                "legal are float32 scores and boxes in NCHW"
            )
        if spec.shape[0] != 1:
            raise ExportError(
                f"detection tail: output {spec.name!r} has a batch of {spec.shape[0]}: legal is 1"
            )
        roles = by_stride.setdefault(spec.stride, {})
        if spec.role in roles:
            raise ExportError(f"detection tail: two {spec.role} outputs have stride {spec.stride}")
        roles[spec.role] = spec
    levels = tuple(_level(stride, roles) for stride, roles in sorted(by_stride.items()))
    if len({level.classes for level in levels}) != 1:
        raise ExportError(
            f"detection tail: the levels have {[x.classes for x in levels]} classes: legal is one "
            "number of classes, in at least one level"
        )
    return levels


def _level(stride: int, roles: dict[str, OutputContract]) -> _Level:
    if set(roles) != {"scores", "boxes"}:
        raise ExportError(
            f"detection tail: stride {stride} has {', '.join(sorted(roles))}: legal is one scores "
            "and one boxes output for every stride"
        )
    scores, boxes = roles["scores"], roles["boxes"]
    _, classes, height, width = scores.shape
    if boxes.shape != (1, 4, height, width):
        raise ExportError(
            f"detection tail: output {boxes.name!r} is {boxes.shape}: legal beside {scores.name!r} "
            f"is {(1, 4, height, width)}"
        )
    return _Level(
        stride=stride,
        scores=scores.name,
        boxes=boxes.name,
        classes=classes,
        height=height,
        width=width,
    )


def _check_model(model: onnx.ModelProto, outputs: Sequence[OutputContract]) -> None:
    opset = next((x.version for x in model.opset_import if x.domain in ("", "ai.onnx")), 0)
    if opset < LOWEST_OPSET:
        raise ExportError(
            f"detection tail: the model's opset is {opset}: legal is {LOWEST_OPSET} and above"
        )
    taken = [n for n in _names(model.graph) if n in OUTPUT_NAMES or n.startswith(_PREFIX)]
    if taken:
        raise ExportError(
            f"detection tail: the model already has a value {taken[0]!r}: legal is a model whose "
            f"values are not named {', '.join(OUTPUT_NAMES)} or {_PREFIX}..."
        )
    declared = {item.name: item.type.tensor_type for item in model.graph.output}
    for spec in outputs:
        if spec.name not in declared:
            raise ExportError(
                f"detection tail: the model has no output {spec.name!r}: legal are "
                f"{', '.join(sorted(declared))}"
            )
        # A symbolic dimension has no value; what the contract says of it is then believed.
        shape = [d.dim_value or None for d in declared[spec.name].shape.dim]
        fits = len(shape) == 4 and all(
            n in (None, m) for n, m in zip(shape, spec.shape, strict=True)
        )
        if not fits or declared[spec.name].elem_type != TensorProto.FLOAT:
            raise ExportError(
                f"detection tail: the model's output {spec.name!r} has shape {shape}: the contract "
                f"says {spec.shape} float32"
            )


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Returns the name of every value in the graph."""
    for part in (graph.input, graph.initializer):
        yield from (item.name for item in part)
    for node in graph.node:
        yield from node.output
