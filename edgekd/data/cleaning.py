"""What every detection reader goes through: annotations as found → checked samples and problems."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.core.errors import DataError
from edgekd.core.types import Dataset, Problem, Sample, Task
from edgekd.data.image import image_size
from edgekd.data.splits import is_made, made_split, source_of, subset_file, subset_names

IGNORE_NAMES = frozenset({"dontcare", "don't care", "ignore", "ignored", "ignored regions"})
"""Categories that are no class but a region to leave out; compared in lower case."""

EVERY_CLASS = -1
_CLIP_TOLERANCE = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadRequest:
    """What is asked of a reader.

    Attributes:
        root: Folder of the data set; for COCO also one JSON file.
        split: ``train``, ``val`` or ``test``.
        ignore_classes: Category names to treat as ignore regions, beside `IGNORE_NAMES`.
        subset: List of the images to keep; by default the one ``<split>_subset*.txt`` in root.
        require_images: False keeps samples whose image is not there, for work on annotations only.
        cache: Folder for unpacked files; None for the user's cache folder.
    """

    root: Path
    split: str
    ignore_classes: tuple[str, ...] = ()
    subset: Path | None = None
    require_images: bool = True
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedObject:
    """One annotation as the file states it.

    Attributes:
        category: Name; an unknown one where the file refers to no category.
        box: Left, top, right, bottom.
        area: Pixels², 0 where the file states none.
        ignored: Whether it is a region to leave out, such as a crowd.
    """

    category: str
    box: tuple[float, float, float, float]
    area: float = 0.0
    ignored: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedImage:
    """One image as the annotations state it.

    Attributes:
        name: Path under the root, unique in the split.
        path: Where the image should be.
        annotation: File that annotates it; for one that nothing annotates the file expected.
        annotated: Whether that file exists.
        shared: Whether that file annotates many images.
        width: Pixels as annotated, 0 where not stated.
        height: Pixels as annotated, 0 where not stated.
        normalised: Whether boxes are fractions of the image.
    """

    name: str
    path: Path
    annotation: Path
    annotated: bool = True
    shared: bool = False
    width: int = 0
    height: int = 0
    normalised: bool = False
    objects: tuple[AnnotatedObject, ...] = ()


def assemble_dataset(
    request: ReadRequest,
    *,
    form: str,
    root: Path,
    images: Sequence[AnnotatedImage],
    categories: Iterable[str],
    available: Iterable[str],
    problems: Sequence[Problem] = (),
) -> Dataset:
    """Returns the split with every annotation checked, in the order of the image names.

    Args:
        request: Split, subset and ignore classes wanted.
        form: Name of the format.
        root: Folder that every image lies in.
        images: What the reader found in the split that `source_of` names.
        categories: Names of all categories, in label order, ignore categories included.
        available: Splits that the data set has of its own.
        problems: What the reader itself met.

    Raises:
        DataError: No class or no image is left.
    """
    classes, ignored = _classes(categories, request.ignore_classes, root)
    chosen, notes = _chosen(request, root, images, frozenset(available))
    found = list(problems) + notes
    samples: list[Sample] = []
    for image in sorted(chosen, key=lambda image: image.name):
        size = _checked_size(image, request.require_images, found)
        if size is not None:
            samples.append(_sample(image, size, classes, ignored, len(samples) + 1, found))
    if not samples:
        kinds = ", ".join(f"{kind} {count}" for kind, count in _kinds(found).items())
        first = f"; {found[0].path.name}: {found[0].detail}" if found else ""
        raise DataError(
            f"{root}: split {request.split!r} has no usable image ({kinds or 'empty'}{first})"
        )
    return Dataset(
        name=root.name,
        task=Task.DETECTION,
        split=request.split,
        format=form,
        root=root,
        classes=tuple(classes),
        samples=tuple(samples),
        problems=tuple(found),
    )


def _kinds(problems: Iterable[Problem]) -> Counter[str]:
    return Counter(problem.kind for problem in problems)


def _classes(
    categories: Iterable[str], ignore_classes: tuple[str, ...], root: Path
) -> tuple[dict[str, int], frozenset[str]]:
    """Returns class name → label, and the names of the ignore categories."""
    names = list(dict.fromkeys(categories))
    extra = {name.lower() for name in ignore_classes}
    unknown = extra - {name.lower() for name in names}
    if unknown:
        raise DataError(
            f"{root}: ignore class {sorted(unknown)[0]!r} is no category; legal: {', '.join(names)}"
        )
    ignored = frozenset(name for name in names if name.lower() in IGNORE_NAMES | extra)
    kept = [name for name in names if name not in ignored]
    if not kept:
        raise DataError(f"{root}: no class is left of the categories {names}")
    return {name: label for label, name in enumerate(kept)}, ignored


def _chosen(
    request: ReadRequest, root: Path, images: Sequence[AnnotatedImage], available: frozenset[str]
) -> tuple[list[AnnotatedImage], list[Problem]]:
    """Returns the images that the subset list and the made split keep, with notes of both."""
    chosen, notes = list(images), list[Problem]()
    source = source_of(request.split, available, root)
    listed = request.subset or subset_file(root, source)
    if listed is not None:
        names = {image.name: image.path.name for image in chosen}
        kept, reports = subset_names(listed, names, root)
        chosen = [image for image in chosen if image.name in kept]
        notes += reports
    if is_made(request.split, available):
        members, note = made_split([image.name for image in chosen], request.split, root)
        chosen = [image for image in chosen if image.name in members]
        notes.append(note)
    return chosen, notes


def _checked_size(
    image: AnnotatedImage, require_images: bool, problems: list[Problem]
) -> tuple[int, int] | None:
    """Returns (width, height) of the image, or None where it is dropped; reports what is wrong."""
    stated = (image.width, image.height)
    if not require_images:
        if min(stated) <= 0:
            raise DataError(f"{image.annotation}: states no size for {image.name}; images needed")
        return stated
    if not image.path.is_file():
        problems.append(_missing(image))
        return None
    try:
        size = image_size(image.path)
    except DataError as error:
        problems.append(Problem(kind="unreadable-image", path=image.path, detail=str(error)))
        return None
    if not image.annotated:
        detail = f"no annotation {image.annotation.name}; kept as an image without objects"
        problems.append(Problem(kind="image-without-annotation", path=image.path, detail=detail))
    if min(stated) > 0 and stated != size:
        detail = f"annotated as {stated[0]} x {stated[1]}, the image is {size[0]} x {size[1]}"
        problems.append(Problem(kind="size-mismatch", path=image.path, detail=detail))
    return size


def _missing(image: AnnotatedImage) -> Problem:
    if image.annotated and not image.shared:
        detail = f"no image {image.path.name}"
        return Problem(kind="annotation-without-image", path=image.annotation, detail=detail)
    return Problem(
        kind="missing-image", path=image.path, detail=f"listed in {image.annotation.name}"
    )


def _sample(
    image: AnnotatedImage,
    size: tuple[int, int],
    classes: dict[str, int],
    ignored: frozenset[str],
    image_id: int,
    problems: list[Problem],
) -> Sample:
    objects: list[tuple[tuple[float, ...], int, float]] = []
    regions: list[tuple[tuple[float, ...], int]] = []
    for item in image.objects:
        if item.category not in classes and item.category not in ignored:
            detail = f"{image.name}: category {item.category!r}"
            problems.append(Problem(kind="unknown-class", path=image.annotation, detail=detail))
            continue
        box = _checked_box(item, image, size, problems)
        if box is None:
            continue
        label = classes.get(item.category, EVERY_CLASS)
        if item.ignored or label == EVERY_CLASS:
            regions.append((box, label))
        else:
            area = item.area if item.area > 0 else (box[2] - box[0]) * (box[3] - box[1])
            objects.append((box, label, area))
    return Sample(
        image_id=image_id,
        path=image.path,
        width=size[0],
        height=size[1],
        boxes=np.array([box for box, _, _ in objects], np.float32).reshape(-1, 4),
        labels=np.array([label for _, label, _ in objects], np.int64),
        areas=np.array([area for _, _, area in objects], np.float32),
        ignore=np.array([box for box, _ in regions], np.float32).reshape(-1, 4),
        ignore_labels=np.array([label for _, label in regions], np.int64),
    )


def _checked_box(
    item: AnnotatedObject, image: AnnotatedImage, size: tuple[int, int], problems: list[Problem]
) -> tuple[float, ...] | None:
    """Returns the box in pixels inside the image, or None where it is dropped."""
    width, height = size
    box: tuple[float, ...] = item.box
    if image.normalised:
        box = tuple(value * side for value, side in zip(box, (width, height) * 2, strict=True))
    clipped = (
        min(max(box[0], 0.0), width),
        min(max(box[1], 0.0), height),
        min(max(box[2], 0.0), width),
        min(max(box[3], 0.0), height),
    )
    kind = _box_problem(box, clipped, size)
    if kind is not None:
        shown = ", ".join(f"{value:g}" for value in box)
        detail = f"{image.name}: {item.category} ({shown}) in {width} x {height}"
        problems.append(Problem(kind=kind, path=image.annotation, detail=detail))
    return clipped if kind in (None, "clipped-box") else None


def _box_problem(
    box: tuple[float, ...], clipped: tuple[float, ...], size: tuple[int, int]
) -> str | None:
    if not all(math.isfinite(value) for value in box):
        return "degenerate-box"
    if box[2] <= box[0] or box[3] <= box[1]:
        return "degenerate-box"
    if box[0] >= size[0] or box[1] >= size[1] or box[2] <= 0 or box[3] <= 0:
        return "outside-box"
    overhang = max(abs(before - after) for before, after in zip(box, clipped, strict=True))
    return "clipped-box" if overhang > _CLIP_TOLERANCE else None
