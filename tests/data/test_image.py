from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from edgekd.core.errors import DataError, ModelError
from edgekd.core.types import InputContract, Sample
from edgekd.data.image import image_size, letterbox, read_image, to_input


def sample(path: Path, frame: int | None = None) -> Sample:
    return Sample(
        image_id=1,
        path=path,
        frame=frame,
        boxes=np.empty((0, 4), np.float32),
        labels=np.empty(0, np.int64),
        areas=np.empty(0, np.float32),
        ignore=np.empty((0, 4), np.float32),
        ignore_labels=np.empty(0, np.int64),
    )


def contract(**changes: Any) -> InputContract:
    values: dict[str, Any] = {
        "height": 40,
        "width": 64,
        "channels": 3,
        "layout": "NCHW",
        "dtype": "float32",
    }
    return InputContract(**(values | changes))


def test_colour_becomes_grey_by_luma_and_grey_becomes_colour(tmp_path: Path) -> None:
    Pillow.new("RGB", (5, 3), (255, 0, 0)).save(tmp_path / "red.png")
    Pillow.new("L", (5, 3), 77).save(tmp_path / "grey.png")
    red = read_image(sample(tmp_path / "red.png"), 1)
    grey = read_image(sample(tmp_path / "grey.png"), 3)
    assert red.shape == (3, 5, 1)
    assert red.dtype == np.uint8
    assert (red == 76).all()  # 0.299 of 255
    assert grey.shape == (3, 5, 3)
    assert (grey == 77).all()


def test_a_palette_image_reads_as_its_colours(tmp_path: Path) -> None:
    Pillow.new("RGB", (4, 4), (10, 200, 30)).convert("P", palette=Pillow.Palette.ADAPTIVE).save(
        tmp_path / "p.png"
    )
    pixels = read_image(sample(tmp_path / "p.png"), 3)
    assert np.abs(pixels.astype(int) - (10, 200, 30)).max() <= 8


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    wide = np.array([[0, 257, 32896, 65535]], np.uint16)
    Pillow.fromarray(wide).save(tmp_path / "wide.png")
    assert read_image(sample(tmp_path / "wide.png"), 1)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured_in_pixels_and_in_size(
    tmp_path: Path, orientation: int
) -> None:
    upright = np.zeros((20, 30), np.uint8)
    upright[:10, :10] = 255  # bright in the top left corner
    turn = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    image = Pillow.fromarray(upright)
    stored = image if turn is None else image.transpose(Pillow.Transpose(turn))
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    pixels = read_image(sample(tmp_path / "turned.jpg"), 1)
    assert pixels.shape == (20, 30, 1)
    assert pixels[2:8, 2:8].min() > 200
    assert pixels[12:, 12:].max() < 50
    assert image_size(tmp_path / "turned.jpg") == (30, 20)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.jpg"):
        read_image(sample(tmp_path / "cut.jpg"), 3)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"odd\.jpg"):
        image_size(tmp_path / "odd.jpg")


def test_an_image_of_absurd_size_is_refused_before_decoding(tmp_path: Path) -> None:
    header = struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54)
    bitmap = struct.pack("<IiiHHIIiiII", 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "bomb.bmp").write_bytes(header + bitmap)
    with pytest.raises(DataError, match=r"bomb\.bmp"):
        read_image(sample(tmp_path / "bomb.bmp"), 3)


def test_the_size_comes_from_the_header_alone(tmp_path: Path) -> None:
    Pillow.new("RGB", (3000, 2000)).save(tmp_path / "large.png")
    image_size(tmp_path / "large.png")
    tracemalloc.start()
    assert image_size(tmp_path / "large.png") == (3000, 2000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    whole = (tmp_path / "large.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:60])
    assert image_size(tmp_path / "cut.png") == (3000, 2000)
    assert peak < 1_000_000


def test_letterbox_centres_and_pads() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    fitted, placed = letterbox(image, contract())
    assert fitted.shape == (40, 64, 3)
    assert placed == (0.4, 0.4, 12.0, 0.0)
    assert (fitted[:, 12:52] == 200).all()
    assert (fitted[:, :12] == 128).all()
    assert (fitted[:, 52:] == 128).all()


def test_letterbox_scales_are_those_of_whole_pixels() -> None:
    _, (scale_x, scale_y, left, top) = letterbox(np.zeros((301, 477, 1), np.uint8), contract())
    assert (scale_x, scale_y) == (63 / 477, 40 / 301)
    assert (left, top) == (0.0, 0.0)


def test_letterbox_keeps_an_edge_where_the_mapping_says() -> None:
    image = np.zeros((120, 90, 1), np.uint8)
    image[:, 45:] = 255
    fitted, (scale_x, _, left, _) = letterbox(image, contract(channels=1, height=60, width=60))
    row = fitted[30, int(left) : int(left) + round(90 * scale_x), 0].astype(float) / 255
    assert left + len(row) - row.sum() == pytest.approx(45 * scale_x + left, abs=0.05)


def test_letterbox_antialiases() -> None:
    stripes = np.zeros((400, 640, 1), np.uint8)
    stripes[:, ::2] = 255
    fitted, _ = letterbox(stripes, contract(channels=1))
    assert np.abs(fitted.astype(int) - 127).max() < 10


def test_stretch_fills_the_input() -> None:
    fitted, placed = letterbox(np.full((10, 10, 3), 9, np.uint8), contract(resize="stretch"))
    assert placed == (6.4, 4.0, 0.0, 0.0)
    assert (fitted == 9).all()


def test_float_input_is_normalised_in_the_layout_asked_for() -> None:
    image = np.zeros((40, 64, 3), np.uint8)
    image[3, 5] = (0, 128, 255)
    planes = to_input(image, contract())
    assert planes.shape == (1, 3, 40, 64)
    assert planes.dtype == np.float32
    assert planes.flags.c_contiguous
    assert planes[0, :, 3, 5].tolist() == [-1.0, 0.0, 127 / 128]
    pixels = to_input(image, contract(layout="NHWC", mean=0.0, std=255.0))
    assert pixels.shape == (1, 40, 64, 3)
    assert pixels[0, 3, 5].tolist() == pytest.approx([0.0, 128 / 255, 1.0])


@pytest.mark.parametrize(
    ("dtype", "zero_point", "expected"),
    [("int8", 0, [-128, 0, 127]), ("uint8", 128, [0, 128, 255]), ("int8", 100, [-28, 100, 127])],
)
def test_integer_input_is_quantized_and_clipped(
    dtype: str, zero_point: int, expected: list[int]
) -> None:
    image = np.array([[[0, 128, 255]]], np.uint8)
    quantized = to_input(
        image, contract(height=1, width=1, dtype=dtype, scale=1 / 128, zero_point=zero_point)
    )
    assert quantized.dtype == np.dtype(dtype)
    assert quantized.ravel().tolist() == expected


def test_an_integer_input_without_a_scale_is_refused() -> None:
    with pytest.raises(ModelError, match="scale"):
        to_input(np.zeros((40, 64, 3), np.uint8), contract(dtype="int8"))


def test_an_image_that_was_not_letterboxed_is_refused() -> None:
    with pytest.raises(DataError, match="40, 64, 3"):
        to_input(np.zeros((64, 40, 3), np.uint8), contract())
