"""IDX files of images: their header, and one frame at a time."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import DataError

UBYTE = 0x08
"""Type byte of unsigned bytes."""


def read_frame(path: Path, frame: int) -> NDArray[np.uint8]:
    """Returns one image of an unpacked IDX file, uint8 ``(H, W)``; reads only that frame.

    Raises:
        DataError: The file is malformed or holds no such frame.
    """
    count, height, width = image_header(path)
    if not 0 <= frame < count:
        raise DataError(f"{path}: frame {frame}; legal: 0 to {count - 1}")
    with path.open("rb") as file:
        file.seek(16 + frame * height * width)
        pixels = file.read(height * width)
    if len(pixels) != height * width:
        raise DataError(f"{path}: truncated inside frame {frame}")
    return np.frombuffer(bytearray(pixels), np.uint8).reshape(height, width)


def image_header(path: Path) -> tuple[int, int, int]:
    """Returns (count, height, width) of an unpacked file.

    Raises:
        DataError: It cannot be read or is no IDX file of images.
    """
    try:
        with path.open("rb") as file:
            return parsed_header(path, file.read(16))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def parsed_header(path: Path, header: bytes) -> tuple[int, int, int]:
    """Returns (count, height, width) of a file's first 16 bytes.

    Raises:
        DataError: It is no IDX file of images.
    """
    if len(header) < 16 or header[:4] != bytes((0, 0, UBYTE, 3)):
        raise DataError(f"{path}: not an IDX file of 8-bit images (first bytes {header[:4]!r})")
    count, height, width = struct.unpack(">III", header[4:16])
    return count, height, width
