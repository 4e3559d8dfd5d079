"""YOLO text labels, described by a ``data.yaml`` or by Darknet's ``obj.data``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from edgekd.core.errors import DataError
from edgekd.core.types import Dataset, Problem
from edgekd.data.cleaning import AnnotatedImage, AnnotatedObject, ReadRequest, assemble_dataset
from edgekd.data.image import is_image
from edgekd.data.reader import register_reader
from edgekd.data.splits import inside, read_list, source_of

Description = dict[str, object]

_SPLIT_KEYS = {"train": "train", "valid": "val", "val": "val", "test": "test"}


def description_file(root: Path) -> Path | None:
    """Returns the file that describes a YOLO data set, None where ``root`` holds none.

    ``data.yaml`` goes first, then a lone other YAML with ``names``, then a lone ``*.data``.
    """
    for name in ("data.yaml", "data.yml"):
        if (root / name).is_file():
            return root / name
    others = [path for path in sorted(root.glob("*.y*ml")) if _has_names(path)]
    candidates = others or sorted(root.glob("*.data"))
    return candidates[0] if len(candidates) == 1 else None


@register_reader(
    "yolo",
    finds=lambda root: description_file(root) is not None,
    describes="a data.yaml with YOLO labels",
    order=10,
)
def read(request: ReadRequest) -> Dataset:
    """Returns one split of a YOLO data set.

    The labels of ``…/images/….jpg`` lie in ``…/labels/….txt``, else beside the image. A line is
    ``class cx cy w h``, or ``class x y x y x y …`` (a polygon, read as its box), in fractions.

    Raises:
        DataError: The split is absent, the description is malformed, or a path leaves the root.
    """
    root = request.root
    path = description_file(root)
    if path is None:
        raise DataError(f"{root}: no data.yaml and no single *.data file")
    description = _describe(path)
    names = _names(description, path)
    stated = {_SPLIT_KEYS[key]: entry for key, entry in description.items() if key in _SPLIT_KEYS}
    stated = {split: entry for split, entry in stated.items() if entry}
    source = source_of(request.split, stated, root)
    base = _base(description, path)
    problems: list[Problem] = []
    files = _image_paths(stated[source], base, path)
    found = [_found(image, names, root, problems) for image in files]
    images = [image for image in found if image is not None] + _orphans(files, root)
    return assemble_dataset(
        request,
        form="yolo",
        root=root,
        images=images,
        categories=names.values(),
        available=stated,
        problems=problems,
    )


def _has_names(path: Path) -> bool:
    try:
        return "names" in _describe(path)
    except DataError:  # some other program's YAML, with tags of its own
        return False


def _describe(path: Path) -> Description:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".data":
            pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
            return {key.strip(): value.strip() for key, _, value in pairs}
        content = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}


def _names(description: Description, path: Path) -> dict[int, str]:
    """Returns class index → name, in the order of the indices."""
    names = description.get("names")
    if isinstance(names, str):
        names = read_list(_located(names, path.parent, path))
    if isinstance(names, list):
        names = dict(enumerate(names))
    # Aliases in YAML can nest lists to any size, so nothing but plain names is turned into text.
    if isinstance(names, dict) and all(
        isinstance(index, int) and isinstance(name, str | int) for index, name in names.items()
    ):
        return {index: str(names[index]) for index in sorted(names)}
    raise DataError(f"{path}: names is malformed; legal: a list, or a mapping of index to name")


def _base(description: Description, path: Path) -> Path:
    """Returns the folder that the entries are relative to."""
    stated = description.get("path")
    if not isinstance(stated, str) or path.suffix == ".data":
        return path.parent
    if Path(stated).is_absolute() and Path(stated).resolve() == path.parent.resolve():
        return path.parent
    folder = inside(path.parent, stated, path)
    return folder if folder.is_dir() else path.parent


def _located(entry: str, base: Path, path: Path) -> Path:
    """Returns the file or folder that an entry names.

    Roboflow writes ``../train/images`` for a folder beside the YAML and Darknet writes
    ``data/train.txt`` for a file beside ``obj.data``: the first part is the author's working
    folder, and without it the entry is inside the data set.
    """
    first, _, rest = entry.partition("/")
    if rest and first in ("..", "data") and (shortened := inside(base, rest, path)).exists():
        return shortened
    located = inside(base, entry, path)
    if not located.exists():
        raise DataError(f"{path}: {entry!r} is not there; looked for {located}")
    return located


def _image_paths(entry: object, base: Path, path: Path) -> list[Path]:
    """Returns the image files of a split: an entry is a folder, a list file, or several of them."""
    entries = entry if isinstance(entry, list) else [entry]
    images: dict[Path, None] = {}
    for item in entries:
        if not isinstance(item, str):
            raise DataError(
                f"{path}: a split entry is a {type(item).__name__}; legal: a folder or a .txt list"
            )
        located = _located(item, base, path)
        if located.is_dir():
            found: Iterable[Path] = sorted(filter(is_image, located.rglob("*")))
        else:
            found = [_listed(line, located, base) for line in read_list(located)]
        images.update(dict.fromkeys(found))
    return list(images)


def _listed(line: str, source: Path, base: Path) -> Path:
    """Returns the image that a line of a list file names, whether it is there or not."""
    line = line.removeprefix("./")
    first, _, rest = line.partition("/")
    candidates = [inside(source.parent, line, source), inside(base, line, source)]
    if first == "data" and rest:
        candidates.append(inside(source.parent, rest, source))
    return next((path for path in candidates if path.is_file()), candidates[-1])


def _label_file(image: Path, root: Path) -> Path:
    parts = list(image.relative_to(root).parts)
    folders = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")


def _found(
    image: Path, names: dict[int, str], root: Path, problems: list[Problem]
) -> AnnotatedImage | None:
    label = _label_file(image, root)
    annotated = label.is_file()
    lines: list[str] = []
    if annotated:
        try:
            lines = read_list(label)
        except DataError as error:
            problems.append(Problem(kind="unreadable-annotation", path=label, detail=str(error)))
            return None
    objects = []
    for line in lines:
        item = _object(line, names)
        if item is None:
            detail = f"{line[:200]!r}; legal: class cx cy w h"
            problems.append(Problem(kind="malformed-annotation", path=label, detail=detail))
        else:
            objects.append(item)
    return AnnotatedImage(
        name=image.relative_to(root).as_posix(),
        path=image,
        annotation=label,
        annotated=annotated,
        normalised=True,
        objects=tuple(objects),
    )


def _object(line: str, names: dict[int, str]) -> AnnotatedObject | None:
    try:
        index, *values = line.split()
        category = names.get(int(index), f"index {int(index)}")
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    if len(numbers) == 4:
        x, y, width, height = numbers
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        box = (min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2]))
    else:
        return None
    return AnnotatedObject(category=category, box=box)


def _orphans(images: Iterable[Path], root: Path) -> list[AnnotatedImage]:
    """Returns the label files that no image belongs to, in the label folders of ``images``."""
    folders = {(image.parent, _label_file(image, root).parent) for image in images}
    orphans = []
    for image_folder, label_folder in sorted(folders):
        if label_folder == root:  # lists and notes lie here too
            continue
        stems = {path.stem for path in image_folder.glob("*") if is_image(path)}
        for label in sorted(label_folder.glob("*.txt")):
            if label.stem not in stems and label.name != "classes.txt":
                expected = image_folder / f"{label.stem}.jpg"
                name = expected.relative_to(root).as_posix()
                orphans.append(AnnotatedImage(name=name, path=expected, annotation=label))
    return orphans
