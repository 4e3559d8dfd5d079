"""IDX files (MNIST and its kin): pairs of an image file and a label file, plain or gzipped."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import DataError
from edgekd.core.files import cache_folder
from edgekd.core.types import Dataset, Problem, Sample, Task
from edgekd.data.cleaning import ReadRequest
from edgekd.data.idx_file import UBYTE, image_header, parsed_header
from edgekd.data.reader import register_reader
from edgekd.data.splits import is_made, made_split, source_of

_SPLITS = {"train": "train", "t10k": "test", "test": "test", "val": "val", "valid": "val"}
_BLOCK = 1 << 20
_MOST_LABELS = 1 << 27


def image_files(root: Path) -> dict[str, Path]:
    """Returns split → image file for every ``<split>-images-idx3-ubyte[.gz]`` in ``root``."""
    found: dict[str, Path] = {}
    for path in sorted(root.glob("*-images[-.]idx3-ubyte*")):
        prefix = path.name.partition("-images")[0].rpartition("-")[2]
        if prefix in _SPLITS and path.name.removesuffix(".gz").endswith("idx3-ubyte"):
            # The plain file sorts before its .gz and needs no unpacking.
            found.setdefault(_SPLITS[prefix], path)
    return found


@register_reader("idx", finds=lambda root: bool(image_files(root)), describes="IDX files", order=40)
def read(request: ReadRequest) -> Dataset:
    """Returns one split of an IDX data set; pixels stay in the file and are read by frame.

    ``t10k`` files are ``test``. Without a ``val`` pair a fifth of the training frames is.

    Raises:
        DataError: The split is absent, or a file is malformed or truncated.
    """
    root, split = request.root, request.split
    files = image_files(root)
    packed = files[source_of(split, files, root)]
    labels = _labels(packed)
    images = _plain(packed, request.cache or default_cache())
    count, height, width = image_header(images)
    if len(labels) != count:
        raise DataError(f"{packed}: {count} images, but {len(labels)} labels beside it")
    if images.stat().st_size != 16 + count * height * width:
        raise DataError(f"{packed}: its size is not that of the {count} images it announces")
    frames, problems = list(range(count)), list[Problem]()
    if is_made(split, files):
        chosen, note = made_split([str(frame) for frame in frames], split, root)
        frames = [frame for frame in frames if str(frame) in chosen]
        problems.append(note)
    classes = 1 + max(int(_labels(path).max(initial=0)) for path in files.values())
    return Dataset(
        name=root.name,
        task=Task.CLASSIFICATION,
        split=split,
        format="idx",
        root=root,
        classes=tuple(str(label) for label in range(classes)),
        samples=_samples(frames, images, labels, (width, height)),
        problems=tuple(problems),
    )


def default_cache() -> Path:
    """Returns the folder where unpacked files are kept unless another is given."""
    return cache_folder() / "idx"


def _samples(
    frames: list[int], path: Path, labels: NDArray[np.int64], size: tuple[int, int]
) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            image_id=position,
            path=path,
            frame=frame,
            width=size[0],
            height=size[1],
            labels=labels[frame : frame + 1],
        )
        for position, frame in enumerate(frames, start=1)
    )


def _labels(images: Path) -> NDArray[np.int64]:
    """Returns the labels that belong to an image file, from the file of the matching name."""
    name = images.name.replace("-images", "-labels").replace("idx3", "idx1").removesuffix(".gz")
    path = images.with_name(name)
    if not path.exists():
        path = images.with_name(f"{name}.gz")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(8)
            if len(header) < 8 or header[:4] != bytes((0, 0, UBYTE, 1)):
                raise DataError(
                    f"{path}: not an IDX file of 8-bit labels (first bytes {header[:4]!r})"
                )
            (count,) = struct.unpack(">I", header[4:])
            if count > _MOST_LABELS:
                raise DataError(
                    f"{path}: announces {count} labels; at most {_MOST_LABELS} are read"
                )
            labels = file.read(count + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if len(labels) != count:
        raise DataError(f"{path}: does not hold the {count} labels that it announces")
    return np.frombuffer(labels, np.uint8).astype(np.int64)


def _plain(path: Path, cache: Path) -> Path:
    """Returns the file itself, or its unpacked copy in the cache, which is made once."""
    if path.suffix != ".gz":
        return path
    state = path.stat()
    identity = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    folder = cache / hashlib.sha256(identity.encode()).hexdigest()[:16]
    target = folder / path.name.removesuffix(".gz")
    if not target.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _unpack(path, target)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: cannot be unpacked into {folder}: {error}") from error
    return target


def _unpack(path: Path, target: Path) -> None:
    """Writes the unpacked file in one step, so that another process never sees half of it."""
    handle, name = tempfile.mkstemp(dir=target.parent)
    draft = Path(name)
    try:
        with gzip.open(path, "rb") as packed, os.fdopen(handle, "wb") as file:
            _copy(path, packed, file)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _copy(path: Path, packed: gzip.GzipFile, file: IO[bytes]) -> None:
    """Copies block by block, and never more than the header announces."""
    header = packed.read(16)
    count, height, width = parsed_header(path, header)
    file.write(header)
    missing = count * height * width
    while missing > 0 and (block := packed.read(min(_BLOCK, missing))):
        file.write(block)
        missing -= len(block)
    if missing > 0 or packed.read(1):
        raise DataError(f"{path}: does not hold the {count} images that it announces")
