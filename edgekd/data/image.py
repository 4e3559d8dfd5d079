"""Pixels: reading an image, fitting it to a model's input, and packing the input tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps

from edgekd.core.errors import DataError, ModelError
from edgekd.core.types import Image, InputContract, Sample
from edgekd.data.idx_file import read_frame

MAX_PIXELS = 89_478_485
"""Largest image that is decoded: a quarter of a GiB as RGB, Pillow's own warning level."""

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
"""File name endings, in lower case, that count as an image."""

# Named so that Pillow never tries the rest: its EPS reader, for one, runs Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")

Tensor = NDArray[np.float32] | NDArray[np.int8] | NDArray[np.uint8]
_Result = TypeVar("_Result")


def is_image(path: Path) -> bool:
    """Returns whether the file name ends like an image's."""
    return path.suffix.lower() in EXTENSIONS


def read_image(sample: Sample, channels: int) -> Image:
    """Returns the sample's pixels, upright, uint8 ``(H, W, channels)``.

    Colour becomes grey by ITU-R 601 luma, grey becomes colour by repetition, 16-bit grey is
    scaled from 0..65535 to 0..255.

    Args:
        sample: Names the file, and the frame where the file holds many.
        channels: 1 for grey, 3 for RGB.

    Raises:
        DataError: The file is missing, corrupt, truncated, too large or of an unsupported kind.
    """
    if channels not in (1, 3):
        raise DataError(f"channels is {channels}; legal: 1 (grey), 3 (RGB)")
    if sample.frame is not None:
        grey = read_frame(sample.path, sample.frame)[..., None]
        return grey if channels == 1 else np.repeat(grey, 3, axis=2)
    return _opened(sample.path, lambda image: _pixels(image, channels))


def image_size(path: Path) -> tuple[int, int]:
    """Returns (width, height) of the upright image, from the file's header only.

    Raises:
        DataError: The file is missing, not an image or too large.
    """
    return _opened(path, _upright_size)


def letterbox(
    image: Image, contract: InputContract
) -> tuple[Image, tuple[float, float, float, float]]:
    """Returns the image fitted to the contract, and (scale_x, scale_y, left, top).

    A point of the original lies at ``x * scale_x + left, y * scale_y + top`` in the result. The
    scales are those of the resized image in whole pixels, so that the mapping is exact.

    Args:
        image: uint8 ``(H, W, C)``.
        contract: Gives the size, the rule and the padding.
    """
    height, width, channels = image.shape
    if contract.resize == "stretch":
        resized = _resized(image, contract.width, contract.height)
        return resized, (contract.width / width, contract.height / height, 0.0, 0.0)
    scale = min(contract.width / width, contract.height / height)
    inner_width = max(1, round(width * scale))
    inner_height = max(1, round(height * scale))
    left = (contract.width - inner_width) // 2
    top = (contract.height - inner_height) // 2
    canvas = np.full((contract.height, contract.width, channels), contract.pad_value, np.uint8)
    inner = _resized(image, inner_width, inner_height)
    canvas[top : top + inner_height, left : left + inner_width] = inner
    return canvas, (inner_width / width, inner_height / height, float(left), float(top))


def to_input(image: Image, contract: InputContract) -> Tensor:
    """Returns the input tensor, batch of one, in the contract's layout and number format.

    Args:
        image: uint8 ``(height, width, channels)`` exactly as the contract says, from `letterbox`.
        contract: Gives normalisation, quantization and layout.

    Raises:
        DataError: The image has another shape than the contract.
        ModelError: The contract asks for integers and gives no scale or zero point.
    """
    expected = (contract.height, contract.width, contract.channels)
    if image.shape != expected:
        raise DataError(f"image is {image.shape}; the model's input is {expected}")
    batch: NDArray[Any] = _pixel_table(contract)[image][None]
    if contract.layout == "NCHW":
        return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
    return batch


def _pixel_table(contract: InputContract) -> NDArray[Any]:
    """Returns what each of the 256 pixel values becomes: one look-up instead of arithmetic."""
    real = (np.arange(256, dtype=np.float64) - contract.mean) / contract.std
    if contract.dtype == "float32":
        return real.astype(np.float32)
    if contract.scale is None or contract.zero_point is None:
        raise ModelError(f"the {contract.dtype} input has no scale or no zero point")
    kind = np.dtype(np.int8 if contract.dtype == "int8" else np.uint8)
    limits = np.iinfo(kind)
    steps: NDArray[np.float64] = np.rint(real / contract.scale) + contract.zero_point
    return np.clip(steps, limits.min, limits.max).astype(kind)


def _resized(image: Image, width: int, height: int) -> Image:
    if image.shape[:2] == (height, width):
        return image
    grey = image.shape[2] == 1
    source = PillowImage.fromarray(image[:, :, 0] if grey else image)
    result = np.asarray(source.resize((width, height), PillowImage.Resampling.BILINEAR))
    return result[..., None] if grey else result


def _opened(path: Path, use: Callable[[PillowImage.Image], _Result]) -> _Result:
    try:
        with PillowImage.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{path}: {image.width} x {image.height} pixels; at most {MAX_PIXELS} are read"
                )
            return use(image)
    except DataError:
        raise
    except Exception as error:
        # On corrupt data Pillow's decoders raise nearly every built-in exception.
        raise DataError(f"{path}: cannot be read as an image: {error}") from error


def _upright_size(image: PillowImage.Image) -> tuple[int, int]:
    # Asked for EXIF that precedes no pixels, Pillow's PNG reader would decode them all.
    known = image.format != "PNG" or "exif" in image.info
    orientation = image.getexif().get(0x0112, 1) if known else 1
    # Orientations 5 to 8 lie on their side (EXIF 2.3, tag 0x0112).
    sideways = orientation in (5, 6, 7, 8)
    return (image.height, image.width) if sideways else (image.width, image.height)


def _pixels(image: PillowImage.Image, channels: int) -> Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        upright = _from_sixteen_bits(upright)
    if upright.mode == "F":
        raise DataError(f"{getattr(image, 'filename', '')}: floating-point pixels; legal: integers")
    converted = upright.convert("L" if channels == 1 else "RGB")
    return np.array(converted, dtype=np.uint8).reshape(converted.height, converted.width, channels)


def _from_sixteen_bits(image: PillowImage.Image) -> PillowImage.Image:
    wide = np.asarray(image, dtype=np.float64)
    return PillowImage.fromarray(np.rint(np.clip(wide / 257.0, 0, 255)).astype(np.uint8))
