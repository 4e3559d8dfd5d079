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

That is ``edgedet``, the layout of EdgeKD's own files. ``contract["decoding"]["decoder"]`` names any
other of `DECODERS`, for detectors that other projects exported; each function below states the
layout that it reads. A decoder that is none of them lies beside this file, as ``decoder_NAME.py``.

Command line, for a machine with nothing but numpy:

    python decoder.py int8.tflite.contract.json outputs.npz    # prints the detections as JSON
    python decoder.py contract.json outputs.npz int8.tflite    # the same, in a bundle
"""

from __future__ import annotations

import collections
import importlib.machinery
import json
import os
import re
import sys
import types

import numpy as np

SIZE_PRIOR = 3.0
MAX_LOG_SIZE = 5.0
YOLOX_STRIDES = (8, 16, 32)
SSD_VARIANCES = (0.1, 0.2)
IN_THE_FILE = "in-the-file"


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


def decode_edgedet(levels, contract):
    """Returns boxes ``(N, 4)`` and, unlike the others, *logits* ``(N, C)`` of EdgeKD's own layout.

    Args:
        levels: Stride to role to reals: ``scores`` ``(H, W, C)``, ``boxes`` ``(H, W, 4)``.
        contract: Not needed: the strides say it all.
    """
    decoded = [decode_level(v["scores"], v["boxes"], s) for s, v in sorted(levels.items())]
    return np.concatenate([d[1] for d in decoded]), np.concatenate([d[0] for d in decoded])


def decode_yolov5(levels, contract):
    """Returns boxes ``(N, 4)`` and scores ``(N, C)`` of YOLOv5's exported layout.

    One output ``1 x N x (5 + C)``: centre x, centre y, width, height in input pixels, objectness,
    classes. The file has applied the sigmoids; a score is objectness times class.
    """
    rows = levels[0]["detections"]
    return corners(rows[:, :2], rows[:, 2:4]), rows[:, 4:5] * rows[:, 5:]


def decode_yolov8(levels, contract):
    """Returns boxes ``(N, 4)`` and scores ``(N, C)`` of the layout of YOLOv8, v9 and v11.

    One output ``1 x (4 + C) x N``: centre x, centre y, width, height in input pixels, classes with
    the sigmoid applied. There is no objectness.
    """
    rows = levels[0]["detections"].T
    return corners(rows[:, :2], rows[:, 2:4]), rows[:, 4:]


def decode_yolox(levels, contract):
    """Returns boxes ``(N, 4)`` and scores ``(N, C)`` of YOLOX's exported layout.

    One output ``1 x N x (5 + C)`` over the cells of strides 8, 16 and 32, each row by row: raw
    x, y, log w, log h, then objectness and classes, to which the official export has applied the
    sigmoid. ``centre = (raw + cell) * stride``, the cell counted at its upper left corner;
    ``size = exp(raw) * stride``; a score is objectness times class.
    """
    rows = levels[0]["detections"]
    places = yolox_cells(contract["input"]["height"], contract["input"]["width"])
    stride = places[:, 2:]
    boxes = corners((rows[:, :2] + places[:, :2]) * stride, np.exp(rows[:, 2:4]) * stride)
    return boxes, rows[:, 4:5] * rows[:, 5:]


def decode_ssd(levels, contract):
    """Returns boxes ``(N, 4)`` and scores ``(N, C)`` of an SSD whose file decodes its boxes.

    Two outputs: ``scores`` ``1 x N x (1 + C)``, a softmax with background first, and ``boxes``
    ``1 x N x 4``, left, top, right, bottom as shares of the input's size. UltraFace exports this.
    """
    return levels[0]["boxes"] * np.tile(input_size(contract), 2), levels[0]["scores"][:, 1:]


def decode_ssd_raw(levels, contract):
    """Returns boxes ``(N, 4)`` and scores ``(N, C)`` of an SSD whose file ends at its heads.

    Two outputs: ``scores`` ``1 x N x (1 + C)`` logits with background first, and ``boxes``
    ``1 x N x 4`` locations against the priors ``(cx, cy, w, h)`` of `ssd_priors`:
    ``centre = prior centre + 0.1 * location * prior size`` and
    ``size = prior size * exp(0.2 * location)``. The priors' strides and sizes are in
    ``contract["decoding"]["priors"]``.
    """
    places, size = levels[0]["boxes"], contract["input"]
    priors = ssd_priors(contract["decoding"]["priors"], size["height"], size["width"])
    centres = priors[:, :2] + SSD_VARIANCES[0] * places[:, :2] * priors[:, 2:]
    sizes = priors[:, 2:] * np.exp(SSD_VARIANCES[1] * places[:, 2:])
    boxes = corners(centres, sizes) * np.tile(input_size(contract), 2)
    return boxes, softmax(levels[0]["scores"])[:, 1:]


def decode_fastestdet(levels, contract):
    """Returns boxes ``(N, 4)`` and scores ``(N, C)`` of FastestDet's exported layout.

    One output ``1 x (1 + 4 + C) x H x W``: objectness, raw x, y, w, h, classes. The file has
    applied the sigmoid to the objectness and the softmax to the classes. As shares of the input,
    ``centre = (tanh(raw) + cell) / cells`` and ``size = sigmoid(raw)``; a score is
    ``objectness^0.6 * class^0.4``.
    """
    grid = levels[0]["detections"]
    height, width, columns = grid.shape
    rows, size = grid.reshape(-1, columns), input_size(contract)
    count = np.array([width, height], dtype=np.float32)
    centres = (np.tanh(rows[:, 1:3]) + cells(height, width)) / count * size
    sizes = size / (1 + np.exp(-rows[:, 3:5]))
    return corners(centres, sizes), rows[:, :1] ** 0.6 * rows[:, 5:] ** 0.4


def decode_fastestdet_raw(levels, contract):
    """Returns boxes ``(N, 4)`` and scores ``(N, C)`` of a FastestDet whose file ends at its heads.

    Three outputs: ``objectness`` ``1 x 1 x H x W`` logits, ``boxes`` ``1 x 4 x H x W`` as in
    `decode_fastestdet`, ``classes`` ``1 x C x H x W`` logits.
    """
    named = levels[0]
    objectness = 1 / (1 + np.exp(-named["objectness"]))
    grid = np.concatenate((objectness, named["boxes"], softmax(named["classes"])), axis=-1)
    return decode_fastestdet({0: {"detections": grid}}, contract)


def corners(centres, sizes):
    """Returns boxes ``(N, 4)`` xyxy for centres ``(N, 2)`` and (width, height) ``(N, 2)``."""
    return np.concatenate((centres - sizes / 2, centres + sizes / 2), axis=1)


def softmax(logits):
    """Returns shares that sum to 1 along the last axis."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def cells(height, width):
    """Returns (column, row) of every cell of a grid, row by row, float32 ``(H * W, 2)``."""
    rows, columns = np.indices((height, width), dtype=np.float32)
    return np.stack((columns, rows), axis=-1).reshape(-1, 2)


def input_size(contract):
    """Returns (width, height) of the input in pixels, float32."""
    return np.array([contract["input"]["width"], contract["input"]["height"]], dtype=np.float32)


def yolox_cells(height, width):
    """Returns (column, row, stride) of each of YOLOX's predictions ``(N, 3)`` for an input size."""
    grids = [np.insert(cells(height // s, width // s), 2, s, axis=1) for s in YOLOX_STRIDES]
    return np.concatenate(grids)


def ssd_priors(priors, height, width):
    """Returns square priors ``(N, 4)``: centre x, centre y, width, height, as shares of the input.

    Level by level, row by row, and in a cell size by size. As UltraFace has it, a level divides the
    input evenly into ``ceil(input / stride)`` cells, and no prior is larger than the input.

    Args:
        priors: ``strides``, pixels a cell of each level, and ``sizes``, for each level the sides in
            pixels. UltraFace: ``[8, 16, 32, 64]`` and ``[[10, 16, 24], [32, 48], [64, 96],
            [128, 192, 256]]``.
        height: Of the input, pixels.
        width: Of the input, pixels.
    """
    levels = []
    for stride, sizes in zip(priors["strides"], priors["sizes"]):
        rows, columns = -(-height // stride), -(-width // stride)
        centres = (cells(rows, columns) + 0.5) / np.array([columns, rows], dtype=np.float32)
        sides = np.array([[s / width, s / height] for s in sizes], dtype=np.float32)
        pairs = (centres.repeat(len(sizes), axis=0), np.tile(sides, (len(centres), 1)))
        levels.append(np.concatenate(pairs, axis=1))
    return np.clip(np.concatenate(levels), 0, 1)


Decoder = collections.namedtuple("Decoder", "read outputs")
"""``read`` takes (levels, contract), and returns boxes and scores; ``outputs`` takes (classes,
height, width, priors), and returns the shape of every output by its role, maps as NCHW. A letter
stands for any size, the same wherever it recurs."""


def _objectness_and_classes(classes, height, width, priors):
    return {"detections": (1, "N", 5 + classes)}


def _classes_alone(classes, height, width, priors):
    return {"detections": (1, 4 + classes, "N")}


def _yolox(classes, height, width, priors):
    return {"detections": (1, len(yolox_cells(height, width)), 5 + classes)}


def _ssd(classes, height, width, priors):
    return {"scores": (1, "N", 1 + classes), "boxes": (1, "N", 4)}


def _ssd_raw(classes, height, width, priors):
    count = len(ssd_priors(priors, height, width))
    return {"scores": (1, count, 1 + classes), "boxes": (1, count, 4)}


def _fastestdet(classes, height, width, priors):
    return {"detections": (1, 5 + classes, "H", "W")}


def _fastestdet_raw(classes, height, width, priors):
    channels = {"objectness": 1, "boxes": 4, "classes": classes}
    return {role: (1, channels[role], "H", "W") for role in channels}


DECODERS = {
    "edgedet": Decoder(decode_edgedet, None),
    "yolov5": Decoder(decode_yolov5, _objectness_and_classes),
    "yolov8": Decoder(decode_yolov8, _classes_alone),
    "yolox": Decoder(decode_yolox, _yolox),
    "ssd": Decoder(decode_ssd, _ssd),
    "ssd-raw": Decoder(decode_ssd_raw, _ssd_raw),
    "fastestdet": Decoder(decode_fastestdet, _fastestdet),
    "fastestdet-raw": Decoder(decode_fastestdet_raw, _fastestdet_raw),
}
"""Every way to read a detector's outputs. The outputs of ``edgedet`` follow from its strides."""


def function_of(name):
    """Returns the function that reads a decoder's outputs, of `DECODERS` or of a file beside this.

    Raises:
        ValueError: There is neither.
    """
    if name in DECODERS:
        return DECODERS[name].read
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), file_of(name))
    if not re.match(r"^[a-z][a-z0-9-]*$", name) or not os.path.isfile(path):
        raise ValueError("decoder {!r}; legal: {}".format(name, ", ".join(DECODERS)))
    loader = importlib.machinery.SourceFileLoader("decoder_" + name, path)
    module = types.ModuleType(loader.name)
    loader.exec_module(module)
    DECODERS[name] = Decoder(getattr(module, function_name(name)), None)
    return DECODERS[name].read


def file_of(name):
    """Returns the name of the file that holds a decoder which is not in this one."""
    return "decoder_" + name.replace("-", "_") + ".py"


def function_name(name):
    """Returns what the function that reads a decoder's outputs is called in its file."""
    return "decode_" + name.replace("-", "_")


def decode(outputs, contract, min_score=0.001, max_candidates=1000):
    """Returns boxes ``(N, 4)`` in input pixels, scores ``(N,)`` and labels ``(N,)``, before NMS.

    Args:
        outputs: One tensor with batch 1 for each entry of ``contract["outputs"]``, in its order.
        contract: Of the file, parsed (its ``outputs`` give role, stride, layout, scale): the
            ``.contract.json`` beside it or, in a bundle, its entry of ``files`` in
            ``contract.json``. Layouts of other projects have stride 0; where they have one output,
            its role is ``detections``.
        min_score: Candidates under it are dropped.
        max_candidates: Best candidates kept over all levels.

    Raises:
        ValueError: The contract names none of `DECODERS`, and none of a file beside this one.
    """
    name = contract.get("decoding", {}).get("decoder", "edgedet")
    read = function_of(name)
    levels = {}  # type: dict[int, dict[str, np.ndarray]]
    for tensor, spec in zip(outputs, contract["outputs"]):
        real = dequantize(tensor, spec["scale"], spec["zero_point"])[0]
        if spec["layout"] == "NCHW":
            real = real.transpose(1, 2, 0)
        levels.setdefault(spec["stride"], {})[spec["role"]] = real
    boxes, values = read(levels, contract)
    # Logits are ranked as they are: only what is kept costs an exponential, and none tie at 1.
    are_logits = name == "edgedet"
    threshold = _logit(min_score) if are_logits else min_score
    rows, labels = np.nonzero(values > threshold)
    best = values[rows, labels]
    order = np.argsort(-best, kind="stable")[:max_candidates]
    scores = 1 / (1 + np.exp(-best[order])) if are_logits else best[order]
    return boxes[rows[order]], scores.astype(np.float32), labels[order].astype(np.int64)


def _logit(score):
    """Returns the logit of a probability; 0 and 1 are infinitely far away."""
    if not 0 < score < 1:
        return -np.inf if score <= 0 else np.inf
    return np.log(score / (1 - score))


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
    """Returns boxes in input pixels, scores and labels after NMS, best first.

    A file whose decoder is `IN_THE_FILE` has done all that itself, with a threshold of its own.
    """
    if contract.get("decoding", {}).get("decoder") == IN_THE_FILE:
        named = {spec["role"]: t for spec, t in zip(contract["outputs"], outputs)}
        kept = np.flatnonzero(named["scores"] > min_score)[:limit]
        return named["boxes"][kept], named["scores"][kept], named["labels"][kept]
    boxes, scores, labels = decode(outputs, contract, min_score)
    kept = suppress(boxes, scores, labels, iou, limit)
    return boxes[kept], scores[kept], labels[kept]


def _of_file(files, named):
    """Returns the entry of a bundle's contract for the file that is named."""
    found = {entry["path"].rsplit("/", 1)[-1]: entry for entry in files}
    name = named[0].rsplit("/", 1)[-1] if named else ""
    if name not in found:
        sys.exit("name the file that made the outputs: " + ", ".join(found))
    return found[name]


def main(arguments):
    """Prints as JSON the detections in an ``.npz`` of a file's outputs, saved by their names."""
    if len(arguments) not in (2, 3):
        sys.exit("usage: python decoder.py CONTRACT.json OUTPUTS.npz [FILE OF THE BUNDLE]")
    contract_path, tensors_path = arguments[:2]
    with open(contract_path, encoding="utf-8") as stream:
        contract = json.load(stream)
    if "files" in contract:
        contract = _of_file(contract["files"], arguments[2:])
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
