"""COCO instances JSON, in the dialects met in the wild."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from edgekd.core.errors import DataError
from edgekd.core.types import Dataset, Problem
from edgekd.data.cleaning import AnnotatedImage, AnnotatedObject, ReadRequest, assemble_dataset
from edgekd.data.reader import register_reader
from edgekd.data.splits import inside, source_of, split_folders, split_named_by

Entry = dict[str, Any]

_HEAD_BYTES = 1 << 16
_KEY = re.compile(rb'"(images|annotations?|categories)"\s*:')


def annotation_files(root: Path) -> dict[str, Path]:
    """Returns split → JSON file; a lone file that names no split counts as ``train``.

    Looked for in ``annotations/``, in ``root`` and in the folders named after a split.

    Raises:
        DataError: Several files claim the same split.
    """
    if root.is_file():
        return {split_named_by(root.stem) or "train": root} if _is_coco(root) else {}
    claims: dict[str, list[Path]] = {}
    for path in sorted((*root.glob("annotations/*.json"), *root.glob("*.json"))):
        if _is_coco(path):
            claims.setdefault(split_named_by(path.stem) or "", []).append(path)
    for split, folder in split_folders(root).items():
        for path in sorted(folder.glob("*.json")):
            if _is_coco(path):
                claims.setdefault(split, []).append(path)
    unnamed = claims.pop("", [])
    if unnamed and not claims:
        claims = {"train": unnamed}
    return {split: _single(split, paths) for split, paths in claims.items()}


@register_reader(
    "coco",
    finds=lambda root: bool(annotation_files(root)),
    describes="COCO instances JSON in annotations/, or that file itself",
    order=20,
)
def read(request: ReadRequest) -> Dataset:
    """Returns one split of a COCO data set.

    ``annotation`` and ``filename`` are read as ``annotations`` and ``file_name``. Crowds become
    ignore regions of their class. Identifiers in the file only join its tables: they may start
    anywhere and are not kept.

    Raises:
        DataError: The split is absent, the JSON is malformed, or a path leaves the data set.
    """
    files = annotation_files(request.root)
    source = source_of(request.split, files, request.root)
    path = files[source]
    root = _image_root(request.root)
    document = _document(path)
    names = {entry.get("id"): str(entry.get("name")) for entry in document["categories"]}
    objects, problems = _objects(document, names, path)
    folders = _image_folders(root, path, source)
    images = [
        _found(entry, tuple(objects[entry["id"]]), folders, root, path)
        for entry in document["images"]
    ]
    return assemble_dataset(
        request,
        form="coco",
        root=root,
        images=images,
        categories=[names[key] for key in sorted(names, key=lambda key: (str(type(key)), key))],
        available=files,
        problems=problems,
    )


def _is_coco(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and _KEY.search(head) is not None


def _single(split: str, paths: list[Path]) -> Path:
    # The official archive holds captions and keypoints beside the instances of the same split.
    instances = [path for path in paths if path.stem.startswith("instances")]
    candidates = instances or paths
    if len(candidates) > 1:
        listed = ", ".join(str(path) for path in candidates)
        raise DataError(f"several files annotate split {split!r}: {listed}; keep one of them")
    return candidates[0]


def _image_root(root: Path) -> Path:
    if not root.is_file():
        return root
    return root.parent.parent if root.parent.name == "annotations" else root.parent


def _image_folders(root: Path, path: Path, source: str) -> list[Path]:
    """Returns the folders that images may lie in, the most specific first."""
    stated = [
        folder
        for base in (root, root / "images")
        for split, folder in split_folders(base).items()
        if split == source
    ]
    dated = sorted(
        (*root.glob(f"{source}20[0-9][0-9]"), *root.glob(f"images/{source}20[0-9][0-9]"))
    )
    # CVAT names the folder after the file: instances_default.json, images/default.
    name = path.stem.removeprefix("instances_")
    named = [root / "images" / name, root / name]
    return [*stated, *dated, *named, root / "images", root, path.parent]


def _document(path: Path) -> dict[str, list[Entry]]:
    """Returns the images, annotations and categories of a file, each a list of mappings."""
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    if isinstance(raw, dict) and "annotations" not in raw and "annotation" in raw:
        raw["annotations"] = raw["annotation"]
    tables: dict[str, list[Entry]] = {}
    for key in ("images", "annotations", "categories"):
        entries = raw.get(key) if isinstance(raw, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{path}: {key!r} is not a list of objects; legal: COCO instances JSON")
        tables[key] = entries
    return tables


def _objects(
    document: dict[str, list[Entry]], names: dict[Any, str], path: Path
) -> tuple[dict[int | str, list[AnnotatedObject]], list[Problem]]:
    """Returns image id → its objects, and the annotations that belong to none."""
    objects: dict[int | str, list[AnnotatedObject]] = {}
    for entry in document["images"]:
        identifier = entry.get("id")
        if not isinstance(identifier, int | str) or identifier in objects:
            raise DataError(f"{path}: image id {identifier!r} is missing, malformed or used twice")
        objects[identifier] = []
    problems: list[Problem] = []
    for entry in document["annotations"]:
        image_id = entry.get("image_id")
        found = _object(entry, names)
        if found is None:
            kind, detail = "malformed-annotation", f"annotation {str(entry)[:200]}"
        elif not isinstance(image_id, int | str) or image_id not in objects:
            kind, detail = "annotation-without-image", f"image_id {image_id!r} is no image"
        else:
            objects[image_id].append(found)
            continue
        problems.append(Problem(kind=kind, path=path, detail=detail))
    return objects, problems


def _object(entry: Entry, names: dict[Any, str]) -> AnnotatedObject | None:
    category = entry.get("category_id")
    try:
        left, top, width, height = (float(value) for value in entry["bbox"])
        area = float(entry.get("area") or 0.0)
        name = names.get(category, f"id {category}")
    except (KeyError, TypeError, ValueError):
        return None
    return AnnotatedObject(
        category=name,
        box=(left, top, left + width, top + height),
        area=area,
        ignored=bool(entry.get("iscrowd")),
    )


def _found(
    entry: Entry, objects: tuple[AnnotatedObject, ...], folders: list[Path], root: Path, path: Path
) -> AnnotatedImage:
    stated = entry.get("file_name", entry.get("filename"))
    if not isinstance(stated, str) or not stated:
        raise DataError(f"{path}: image {entry['id']!r} has no file_name")
    candidates = [inside(folder, stated, path) for folder in folders]
    present = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
    return AnnotatedImage(
        name=str(present.relative_to(root).as_posix()),
        path=present,
        annotation=path,
        shared=True,
        width=_side(entry.get("width")),
        height=_side(entry.get("height")),
        objects=objects,
    )


def _side(value: object) -> int:
    return int(value) if isinstance(value, int | float) and value > 0 else 0
