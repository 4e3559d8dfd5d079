"""Pascal VOC: one XML file an image, in the official folders or in flat ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from edgekd.core.errors import DataError
from edgekd.core.types import Dataset, Problem
from edgekd.data.cleaning import AnnotatedImage, AnnotatedObject, ReadRequest, assemble_dataset
from edgekd.data.image import is_image
from edgekd.data.reader import register_reader
from edgekd.data.splits import inside, read_list, source_of, split_folders

_ANNOTATION_FOLDERS = ("Annotations", "annotations", "annotations/xmls", "xmls", ".", "images")
_IMAGE_FOLDERS = ("JPEGImages", "images", ".")
_LISTS = ("ImageSets/Main", "ImageSets")
_SECOND_COLUMN = re.compile(r"\s+(-1|0|1)$")
"""Of a per-class list of the official archive; names may hold spaces too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """One place of a data set: where its XML files and its images lie, and what a list keeps."""

    annotations: Path
    images: tuple[Path, ...]
    listed: Path | None = None


def home(root: Path) -> Path | None:
    """Returns the folder that holds the VOC folders: ``root``, else its only child that does.

    Raises:
        DataError: Several do.
    """
    found = homes(root)
    if len(found) > 1:
        listed = ", ".join(map(str, found))
        raise DataError(f"{root}: several Pascal VOC sets; name one of them: {listed}")
    return found[0] if found else None


def homes(root: Path) -> list[Path]:
    """Returns ``root`` where it holds the VOC folders, else those folders in it that do."""
    if _parts(root):
        return [root]
    return [path for path in sorted(root.glob("*")) if path.is_dir() and _parts(path)]


@register_reader("voc", finds=lambda root: bool(homes(root)), describes="Pascal VOC XML", order=30)
def read(request: ReadRequest) -> Dataset:
    """Returns one split of a VOC data set.

    Box corners are taken as they stand, without VOC's one-pixel offset, which most writers of the
    format do not apply. ``difficult`` objects become ignore regions of their class. The image of
    an XML file is the one of the same stem. Classes are those of all splits, in alphabetical order.

    Raises:
        DataError: The split is absent, or an XML file declares a document type or entities.
    """
    base = home(request.root)
    parts = _parts(base) if base is not None else {}
    source = source_of(request.split, parts, request.root)
    problems: list[Problem] = []
    images = list(_found(parts[source], request.root, problems))
    folders = dict.fromkeys(part.annotations for part in parts.values())
    return assemble_dataset(
        request,
        form="voc",
        root=request.root,
        images=images,
        categories=sorted({name for folder in folders for name in _class_names(folder)}),
        available=parts,
        problems=problems,
    )


def _parts(base: Path) -> dict[str, _Part]:
    """Returns split → where it lies; a set without splits is ``train``, none means not VOC."""
    annotations = _annotation_folder(base)
    if annotations is None:
        folders = split_folders(base)
        nested = {split: _annotation_folder(folder) for split, folder in folders.items()}
        return {
            split: _Part(annotations=folder, images=_image_folders(folders[split]))
            for split, folder in nested.items()
            if folder is not None
        }
    images = _image_folders(base)
    lists = _split_lists(base)
    if not lists:
        return {"train": _Part(annotations=annotations, images=images)}
    return {
        split: _Part(annotations=annotations, images=images, listed=path)
        for split, path in lists.items()
    }


def _annotation_folder(base: Path) -> Path | None:
    folders = (base / name for name in _ANNOTATION_FOLDERS)
    return next((folder for folder in folders if next(folder.glob("*.xml"), None)), None)


def _image_folders(base: Path) -> tuple[Path, ...]:
    return tuple(base / name for name in _IMAGE_FOLDERS if (base / name).is_dir())


def _split_lists(base: Path) -> dict[str, Path]:
    """Returns split → list file; ``trainval`` stands for ``train`` only where that is absent."""
    for folder in (base / name for name in _LISTS):
        names = (("train", "train"), ("val", "val"), ("test", "test"), ("train", "trainval"))
        found: dict[str, Path] = {}
        for split, name in names:
            if (folder / f"{name}.txt").is_file():
                found.setdefault(split, folder / f"{name}.txt")
        if found:
            return found
    return {}


def _found(part: _Part, root: Path, problems: list[Problem]) -> Iterator[AnnotatedImage]:
    images = {
        path.stem: path
        for folder in reversed(part.images)
        for path in sorted(folder.glob("*"))
        if is_image(path)
    }
    known = {path.stem for path in part.annotations.glob("*.xml")} | set(images)
    if part.listed is not None:
        lines = read_list(part.listed)
        stems = [line if line in known else _SECOND_COLUMN.sub("", line) for line in lines]
    else:
        stems = sorted(known)
    for stem in dict.fromkeys(stems):
        annotation = inside(part.annotations, f"{stem}.xml", part.listed or part.annotations)
        expected = part.images[0] if part.images else part.annotations
        image = images.get(stem, expected / f"{stem}.jpg")
        found = _image(image, annotation, root, problems)
        if found is not None:
            yield found


def _image(
    image: Path, annotation: Path, root: Path, problems: list[Problem]
) -> AnnotatedImage | None:
    name = image.relative_to(root).as_posix()
    if not annotation.is_file():
        return AnnotatedImage(name=name, path=image, annotation=annotation, annotated=False)
    try:
        tree = _parsed(annotation)
    except ElementTree.ParseError as error:
        problem = Problem(kind="unreadable-annotation", path=annotation, detail=str(error))
        problems.append(problem)
        return None
    objects = []
    for element in tree.iter("object"):
        item = _object(element)
        if item is None:
            shown = ElementTree.tostring(element, encoding="unicode")[:200]
            detail = f"no name or no numbers in bndbox: {shown}"
            problems.append(Problem(kind="malformed-annotation", path=annotation, detail=detail))
        else:
            objects.append(item)
    width, height = (_whole(tree.findtext(f"size/{side}")) for side in ("width", "height"))
    return AnnotatedImage(
        name=name,
        path=image,
        annotation=annotation,
        width=width,
        height=height,
        objects=tuple(objects),
    )


def _object(element: ElementTree.Element) -> AnnotatedObject | None:
    category = (element.findtext("name") or "").strip()
    corners = [element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        left, top, right, bottom = (float(corner or "") for corner in corners)
    except ValueError:
        return None
    if not category:
        return None
    difficult = (element.findtext("difficult") or "").strip() == "1"
    return AnnotatedObject(category=category, box=(left, top, right, bottom), ignored=difficult)


def _whole(text: str | None) -> int:
    try:
        return int(float(text or 0))
    except (ValueError, OverflowError):
        return 0


def _class_names(folder: Path) -> set[str]:
    """Returns the categories of every XML file; one that does not parse is its split's report."""
    names: set[str] = set()
    for path in folder.glob("*.xml"):
        with suppress(ElementTree.ParseError):
            objects = _parsed(path).iter("object")
            names.update((element.findtext("name") or "").strip() for element in objects)
    return names - {""}


class _Builder(ElementTree.TreeBuilder):
    """Builds a tree and refuses a DOCTYPE, the only place where entities can be declared."""

    def doctype(self, name: str, _public: str | None, _system: str | None) -> None:
        raise _DoctypeError(name)


class _DoctypeError(Exception):
    pass


def _parsed(path: Path) -> ElementTree.Element:
    try:
        # Safe without defusedxml: the builder refuses any DOCTYPE, and so every entity.
        parser = ElementTree.XMLParser(target=_Builder())  # noqa: S314
        return ElementTree.parse(path, parser).getroot()  # noqa: S314
    except _DoctypeError as error:
        raise DataError(
            f"{path}: declares the document type {error}; legal: XML without DOCTYPE and entities"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
