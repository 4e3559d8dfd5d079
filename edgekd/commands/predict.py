"""Images in, boxes drawn and as JSON out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from edgekd.core.errors import (
    DataError,
    ModelError,
)
from edgekd.core.files import write_atomic
from edgekd.core.owned import claim
from edgekd.core.progress import Progress
from edgekd.core.types import Image, Sample, Task
from edgekd.data.image import is_image, read_image
from edgekd.measure.detector import FileModel
from edgekd.modelfile.memory import try_out
from edgekd.report.draw import draw_detections


def predict_images(
    model: Path, sources: Sequence[Path], out: Path, min_score: float, progress: Progress
) -> list[dict[str, Any]]:
    """Writes each image with its boxes drawn, and ``detections.json``; returns what that holds.

    Raises:
        ModelError: The file is no detector of ours.
        DataError: An image cannot be read, or there is none.
        RunError: ``out`` holds something else.
    """
    try_out(model)
    opened = FileModel(model)
    require_detector(model, opened)
    images = _images(sources)
    claim(out, "folder of predictions")
    rows = []
    with progress.meter("predict", len(images)) as meter:
        for done, path in enumerate(images, 1):
            pixels = read_picture(path, opened.contract.input.channels)
            detections = opened.detect(pixels, min_score)
            drawn = draw_detections(
                pixels, detections, opened.contract.classes, min_score=min_score
            )
            target = out / f"{done:04d}-{path.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(drawn[..., 0] if drawn.shape[2] == 1 else drawn).save(target)
            found = zip(detections.boxes, detections.scores, detections.labels, strict=True)
            rows.append(
                {
                    "image": str(path),
                    "drawn": str(target),
                    "detections": [
                        {
                            "class": opened.contract.classes[label],
                            "score": round(float(score), 4),
                            "box_xyxy": [round(float(v), 2) for v in box],
                        }
                        for box, score, label in found
                    ],
                }
            )
            meter.update(done)
    write_atomic(out / "detections.json", json.dumps(rows, indent=1))
    return rows


def require_detector(path: Path, model: FileModel) -> None:
    """Raises `ModelError` where a file detects nothing."""
    if model.contract.task is not Task.DETECTION:
        raise ModelError(f"{path}: a classifier draws no boxes; use `edgekd eval`")


def read_picture(path: Path, channels: int) -> Image:
    """Returns the pixels of an image file that belongs to no data set; raises as `read_image`."""
    return read_image(_sample(path), channels)


def _images(sources: Sequence[Path]) -> list[Path]:
    images: list[Path] = []
    for source in sources:
        if source.is_dir():
            images += sorted(p for p in source.iterdir() if is_image(p))
        elif source.exists():
            images.append(source)
        else:
            raise DataError(f"{source}: no such image or folder")
    if not images:
        raise DataError(f"no images in {', '.join(map(str, sources))}")
    return images


def _sample(path: Path) -> Sample:
    empty = np.zeros((0, 4), dtype=np.float32)
    none = np.zeros(0, dtype=np.int64)
    return Sample(
        image_id=1,
        path=path,
        boxes=empty,
        labels=none,
        areas=np.zeros(0, dtype=np.float32),
        ignore=empty,
        ignore_labels=none,
    )
