"""Records on disk: whole or made again, whatever happens between two writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.core.errors import RunError
from edgekd.teacher.record_store import RecordField, RecordStore

SLOTS = [RecordField("float16", (3, 2)), RecordField("float32", (4,))]


def record(number: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(number)
    return rng.normal(size=(3, 2)).astype(np.float16), rng.normal(size=4).astype(np.float32)


def filled(folder: Path, numbers: tuple[int, ...] = (0, 1, 5)) -> RecordStore:
    store = RecordStore(folder, SLOTS)
    for number in numbers:
        store.keep(number, record(number))
    return store


def test_records_come_back_as_they_went_in_and_gaps_are_known(tmp_path: Path) -> None:
    filled(tmp_path)
    store = RecordStore(tmp_path, SLOTS)  # Another process.
    for number in (0, 1, 5):
        for found, wanted in zip(store.read(number), record(number), strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert store.missing(range(8)) == [2, 3, 4, 6, 7]
    assert store.size_bytes == 3 * (3 * 2 * 2 + 4 * 4)
    with pytest.raises(RunError, match="record 3 is damaged or missing"):
        store.read(3)


@pytest.mark.parametrize("file", ["records.bin", "checksums.bin"])
def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path, file: str) -> None:
    filled(tmp_path)
    path = tmp_path / file
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 6] ^= 1  # In record 1 of 6 that the file has room for, or in its checksum.
    path.write_bytes(bytes(blob))
    assert RecordStore(tmp_path, SLOTS).missing([0, 1, 5]) == [1]


@pytest.mark.parametrize("lost", range(1, 40, 3))
def test_a_record_cut_short_by_a_crash_is_made_again(tmp_path: Path, lost: int) -> None:
    store = filled(tmp_path)
    path = tmp_path / "records.bin"
    path.write_bytes(path.read_bytes()[:-lost])
    assert 5 in store.missing([0, 1, 5])
    assert 0 not in store.missing([0, 1, 5])
    store.keep(5, record(5))
    assert store.missing([5]) == []


def test_a_folder_begun_but_without_its_form_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "records.bin").touch()
    assert filled(tmp_path).missing([0, 1, 5]) == []


def test_a_record_of_zeros_is_not_a_hole(tmp_path: Path) -> None:
    store = RecordStore(tmp_path, [RecordField("float32", (2,))])
    store.keep(1, (np.zeros(2, np.float32),))
    assert store.missing([0, 1]) == [0]


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(RunError, match="delete the folder"):
        RecordStore(tmp_path, [RecordField("float16", (3, 3)), SLOTS[1]])
