"""The built-in detection set: rendered traffic seen from a drone, the same on every machine.

It exists so that EdgeKD runs with nothing downloaded. It is a demo, not a benchmark.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from edgekd.core.errors import DataError
from edgekd.core.progress import Progress, SilentProgress
from edgekd.core.types import Boxes, Image
from edgekd.core.workers import cores, main_module_hidden, start_method
from edgekd.data.demo.scene import Scene

CLASSES = ("car", "truck", "cyclist", "pedestrian")
RENDERER = 1
"""Raised with every change that alters a pixel or a box, so that old sets are rendered anew."""

FIRST_VAL_INDEX = 1_000_000
"""Validation scenes start here, so that they stay the same however many train scenes there are."""


_FEW = 64
"""Scenes that are rendered sooner than worker processes start."""

_Annotated = tuple[int, int, list[list[float]], list[int]]
"""Width, height, boxes and labels."""


def render_scene(
    seed: int, index: int, width: int = 320, height: int = 240
) -> tuple[Image, Boxes, NDArray[np.int64]]:
    """Returns one scene: image (height, width, 3), boxes (N, 4) xyxy pixels and labels (N,).

    A box spans the object as if nothing covered it, clipped to the image; every object shows at
    least 30 % of itself. Labels index ``CLASSES``. The same arguments give the same scene.
    """
    scene = Scene(np.random.Generator(np.random.PCG64([seed, index])), width, height)
    image, boxes, names = scene.render()
    labels = np.array([CLASSES.index(name) for name in names], np.int64)
    return image, np.array(boxes, np.float32).reshape(-1, 4), labels


def write_demo_set(
    folder: Path,
    *,
    train: int = 640,
    val: int = 160,
    seed: int = 2026,
    progress: Progress | None = None,
) -> Path:
    """Returns ``folder`` holding the demo set in COCO layout, rendered only where it is not there.

    Args:
        folder: Gets ``train/*.png``, ``val/*.png``, ``annotations/{train,val}.json`` and
            ``demo.json`` (what it was rendered from). It appears complete or not at all.
        train: Number of training images.
        val: Number of validation images.
        seed: Of the whole set.
        progress: Shows the scenes being rendered.

    Raises:
        DataError: ``folder`` exists and is not a demo set.
    """
    wanted = {"renderer": RENDERER, "seed": seed, "train": train, "val": val}
    if _holds(folder, wanted):
        return folder
    draft = folder.parent / f".{folder.name}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with (progress or SilentProgress()).meter("rendering", train + val) as meter:
            done = count(1)

            def rendered() -> None:
                meter.update(next(done))

            _write_split(draft, "train", seed, range(train), rendered)
            indices = range(FIRST_VAL_INDEX, FIRST_VAL_INDEX + val)
            _write_split(draft, "val", seed, indices, rendered)
        (draft / "demo.json").write_text(json.dumps(wanted, indent=1))
        _publish(draft, folder, wanted)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _holds(folder: Path, wanted: dict[str, int]) -> bool:
    record = folder / "demo.json"
    if record.is_file():
        found = json.loads(record.read_text())
        if isinstance(found, dict) and found.keys() == wanted.keys():
            return found == wanted
    if folder.exists():
        raise DataError(
            f"{folder} exists and holds no demo.json of ours; give a folder that does not exist"
        )
    return False


def _publish(draft: Path, folder: Path, wanted: dict[str, int]) -> None:
    # Another process may have published the same set while this one was rendering.
    if _holds(folder, wanted):
        return
    if folder.exists():
        outdated = draft.with_name(f"{draft.name}.outdated")
        folder.rename(outdated)
        shutil.rmtree(outdated)
    draft.rename(folder)


def _write_split(
    root: Path, split: str, seed: int, indices: range, rendered: Callable[[], None]
) -> None:
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    scenes = [(root / split / f"{n:06d}.png", seed, index) for n, index in enumerate(indices, 1)]
    for image_id, (width, height, boxes, labels) in enumerate(_written(scenes), 1):
        name = scenes[image_id - 1][0].name
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
            across, down = right - left, bottom - top
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [left, top, across, down],
                    "area": across * down,
                    "iscrowd": 0,
                }
            )
        rendered()
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content))


def _written(scenes: Sequence[tuple[Path, int, int]]) -> Iterator[_Annotated]:
    """Yields what is in each scene, in order, once its image is written; by every core."""
    if len(scenes) < _FEW or cores() == 1:
        yield from map(_write_scene, scenes)
        return
    context = multiprocessing.get_context(start_method())
    with ProcessPoolExecutor(cores(), mp_context=context) as pool:
        with main_module_hidden():
            found = pool.map(_write_scene, scenes, chunksize=8)
        yield from found


def _write_scene(scene: tuple[Path, int, int]) -> _Annotated:
    path, seed, index = scene
    pixels, boxes, labels = render_scene(seed, index)
    Pillow.fromarray(pixels).save(path, compress_level=1)
    return pixels.shape[1], pixels.shape[0], boxes.tolist(), labels.tolist()
