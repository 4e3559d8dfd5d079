"""Raw network outputs to detections: the reference decoder. One file, needs only numpy.

This is the code behind every mAP figure and every drawn box, and it is copied as it is beside the
exported files, so that firmware has the very decoder that was measured. It runs on Python 3.8 and
numpy 1.21 and newer.

    tensors  --dequantize-->  logits, raw boxes  --decode-->  boxes in input pixels
             --suppress-->  detections  --unletterbox-->  boxes in pixels of the original image

A cell at (row, column) of a level with stride s has its centre at
((column + 0.5) s, (row + 0.5) s). Its raw values (dx, dy, log w, log h) mean

    centre x = (column + 0.5 + dx) s        width  = SIZE_PRIOR s exp(log w)
    centre y = (row + 0.5 + dy) s           height = SIZE_PRIOR s exp(log h)

Logarithmic sizes keep an int8 step a constant *relative* error, which is what IoU sees.

Command line, for a machine with nothing but numpy:

    python decoder.py contract.json outputs.npz   # prints the detections as JSON
"""

from __future__ import annotations

import json
import sys

import numpy as np

SIZE_PRIOR = 3.0
MAX_LOG_SIZE = 5.0


def dequantize(tensor, scale, zero_point):
    """Returns reals for an integer tensor; a float tensor passes through."""
    if scale is None:
        return np.asarray(tensor, dtype=np.float32)
    return (tensor.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def decode_level(scores, boxes, stride):
    """Returns class logits ``(H*W, C)`` and boxes ``(H*W, 4)`` xyxy in input pixels.

    Args:
        scores: ``(H, W, C)`` logits.
        boxes: ``(H, W, 4)`` raw (dx, dy, log w, log h).
        stride: Pixels per cell.
    """
    height, width = boxes.shape[:2]
    columns = np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5)
    rows = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
    centre_x = (columns + boxes[..., 0]) * stride
    centre_y = (rows + boxes[..., 1]) * stride
    half = np.exp(np.clip(boxes[..., 2:], -MAX_LOG_SIZE, MAX_LOG_SIZE)) * (SIZE_PRIOR * stride / 2)
    corners = np.stack(
        (
            centre_x - half[..., 0],
            centre_y - half[..., 1],
            centre_x + half[..., 0],
            centre_y + half[..., 1],
        ),
        axis=-1,
    )
    return scores.reshape(-1, scores.shape[-1]), corners.reshape(-1, 4).astype(np.float32)


def decode(outputs, contract, min_score=0.001, max_candidates=1000):
    """Returns boxes ``(N, 4)`` in input pixels, scores ``(N,)`` and labels ``(N,)``, before NMS.

    Args:
        outputs: One tensor with batch 1 for each entry of ``contract["outputs"]``, in its order.
        contract: The parsed ``contract.json`` (its ``outputs`` give role, stride, layout, scale).
        min_score: Candidates under it are dropped.
        max_candidates: Best candidates kept over all levels.
    """
    levels = {}  # type: dict[int, dict[str, np.ndarray]]
    for tensor, spec in zip(outputs, contract["outputs"]):
        real = dequantize(tensor, spec["scale"], spec["zero_point"])[0]
        if spec["layout"] == "NCHW":
            real = real.transpose(1, 2, 0)
        levels.setdefault(spec["stride"], {})[spec["role"]] = real
    decoded = [decode_level(v["scores"], v["boxes"], s) for s, v in sorted(levels.items())]
    logits = np.concatenate([d[0] for d in decoded])
    boxes = np.concatenate([d[1] for d in decoded])
    threshold = np.log(min_score / (1 - min_score))
    cells, labels = np.nonzero(logits > threshold)
    best = logits[cells, labels]
    order = np.argsort(-best, kind="stable")[:max_candidates]
    scores = 1 / (1 + np.exp(-best[order]))
    return boxes[cells[order]], scores.astype(np.float32), labels[order].astype(np.int64)


def suppress(boxes, scores, labels, iou=0.6, limit=100):
    """Returns indices kept by greedy per-class non-maximum suppression, best first.

    Args:
        boxes: ``(N, 4)`` xyxy, in order of falling score.
        scores: ``(N,)``, falling.
        labels: ``(N,)``.
        iou: Overlap above which the worse of two boxes of a class is dropped.
        limit: Detections kept.
    """
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    kept = []
    alive = np.ones(len(scores), dtype=bool)
    for index in range(len(scores)):
        if not alive[index]:
            continue
        kept.append(index)
        if len(kept) == limit:
            break
        rest = (
            index + 1 + np.flatnonzero(alive[index + 1 :] & (labels[index + 1 :] == labels[index]))
        )
        low = np.maximum(boxes[rest, :2], boxes[index, :2])
        high = np.minimum(boxes[rest, 2:], boxes[index, 2:])
        overlap = np.clip(high - low, 0, None).prod(axis=1)
        union = areas[rest] + areas[index] - overlap
        alive[rest[overlap > iou * union]] = False
    return np.asarray(kept, dtype=np.int64)


def unletterbox(boxes, scale_x, scale_y, left, top, width, height):
    """Returns boxes in pixels of the original image, clipped to it.

    Args:
        boxes: ``(N, 4)`` xyxy in input pixels.
        scale_x: Input pixels per original pixel, horizontally.
        scale_y: Input pixels per original pixel, vertically.
        left: Padding at the left, input pixels.
        top: Padding at the top, input pixels.
        width: Of the original image.
        height: Of the original image.
    """
    offset = np.array([left, top, left, top], dtype=np.float32)
    scale = np.array([scale_x, scale_y, scale_x, scale_y], dtype=np.float32)
    limit = np.array([width, height, width, height], dtype=np.float32)
    return np.clip((boxes - offset) / scale, 0, limit).astype(np.float32)


def detect(outputs, contract, min_score=0.001, iou=0.6, limit=100):
    """Returns boxes in input pixels, scores and labels after NMS, best first."""
    boxes, scores, labels = decode(outputs, contract, min_score)
    kept = suppress(boxes, scores, labels, iou, limit)
    return boxes[kept], scores[kept], labels[kept]


def main(arguments):
    """Prints as JSON the detections in the tensors of an ``.npz`` saved in the outputs' order."""
    contract_path, tensors_path = arguments
    with open(contract_path, encoding="utf-8") as stream:
        contract = json.load(stream)
    with np.load(tensors_path) as archive:
        outputs = [archive[spec["name"]] for spec in contract["outputs"]]
    boxes, scores, labels = detect(outputs, contract, min_score=0.05)
    rows = [
        {"box": [round(float(v), 3) for v in box], "score": round(float(score), 6), "label": int(k)}
        for box, score, k in zip(boxes, scores, labels)
    ]
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
