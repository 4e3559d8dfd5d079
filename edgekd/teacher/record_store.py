"""Fixed-size records on disk, written once each and safe against a crash at any moment.

A store is one file of records and one of checksums. A record counts as kept when its checksum is
there and fits: a process killed between the two writes, a page lost with the power and two runs
that fill the same store at once all end in a record that is either whole or made again.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import RunError
from edgekd.core.files import write_atomic
from edgekd.core.serialize import from_mapping

Arrays = tuple[NDArray[np.generic], ...]

_SUM_BYTES = 4
_MOST_ELEMENTS = 1 << 30


@dataclass(frozen=True, slots=True)
class RecordField:
    """One array of a record.

    Attributes:
        dtype: As numpy names it.
        shape: Without a batch dimension.
    """

    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        try:
            np.dtype(self.dtype)
        except TypeError as error:
            raise ValueError(f"dtype {self.dtype!r}: {error}") from error
        if min(self.shape, default=0) < 0 or math.prod(self.shape) > _MOST_ELEMENTS:
            raise ValueError(
                f"shape {list(self.shape)}; legal: sizes from 0, at most {_MOST_ELEMENTS} values"
            )

    @property
    def size_bytes(self) -> int:
        """Bytes that the array takes."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)


class RecordStore:
    """Records by number, each a tuple of arrays of the same shapes.

    Opening a file for each access keeps a store usable in worker processes however they start.

    Args:
        folder: Made where it does not exist.
        slots: What a record holds.

    Raises:
        RunError: The folder holds records of another form.
    """

    def __init__(self, folder: Path, slots: Sequence[RecordField]) -> None:
        self.folder, self.slots = folder, tuple(slots)
        self._record_bytes = sum(slot.size_bytes for slot in slots)
        self._records, self._sums = folder / "records.bin", folder / "checksums.bin"
        form = json.dumps([asdict(slot) for slot in slots])
        card = folder / "form.json"
        if not card.exists():
            folder.mkdir(parents=True, exist_ok=True)
            self._records.touch()
            self._sums.touch()
            write_atomic(card, form)
        elif card.read_text(encoding="utf-8") != form:
            raise RunError(
                f"{card}: holds {card.read_text(encoding='utf-8')}, expected {form}; "
                "delete the folder to fill it again"
            )

    @classmethod
    def existing(cls, folder: Path) -> RecordStore | None:
        """Returns the store in a folder, None where there is none yet.

        Raises:
            RunError: What is there is not the form of a store.
        """
        card = folder / "form.json"
        if not card.exists():
            return None
        try:
            entries = json.loads(card.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{card}: not the form of a teacher cache ({error})") from error
        if not isinstance(entries, list):
            raise RunError(f"{card}: not the form of a teacher cache (no list)")
        return cls(
            folder, [from_mapping(RecordField, entry, str(card), RunError) for entry in entries]
        )

    def keep(self, number: int, arrays: Arrays) -> None:
        """Writes one record."""
        parts = [
            np.ascontiguousarray(array, dtype=slot.dtype).reshape(slot.shape)
            for array, slot in zip(arrays, self.slots, strict=True)
        ]
        blob = b"".join(part.tobytes() for part in parts)
        _write_at(self._records, number * self._record_bytes, blob)
        _write_at(self._sums, number * _SUM_BYTES, _checksum(blob))

    def read(self, number: int) -> Arrays:
        """Returns one record.

        Raises:
            RunError: It was never kept, or is damaged.
        """
        blob = self._blob(number)
        if blob is None:
            raise RunError(
                f"{self._records}: record {number} is damaged or missing; the same command "
                "fills the gap when it is started again"
            )
        arrays, offset = [], 0
        for slot in self.slots:
            part = np.frombuffer(blob, slot.dtype, offset=offset, count=_count(slot))
            arrays.append(part.reshape(slot.shape))
            offset += slot.size_bytes
        return tuple(arrays)

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Returns those of the records that are not kept whole."""
        return [number for number in numbers if self._blob(number) is None]

    @property
    def size_bytes(self) -> int:
        """Bytes of the records kept so far."""
        sums = np.fromfile(self._sums, dtype=np.uint32)
        return int(np.count_nonzero(sums)) * self._record_bytes

    def _blob(self, number: int) -> bytes | None:
        """Returns a record's bytes where they fit their checksum."""
        known = _read_at(self._sums, number * _SUM_BYTES, _SUM_BYTES)
        if len(known) < _SUM_BYTES or not any(known):
            return None
        blob = _read_at(self._records, number * self._record_bytes, self._record_bytes)
        return blob if _checksum(blob) == known else None


def _count(slot: RecordField) -> int:
    return int(np.prod(slot.shape, dtype=np.int64))


def _checksum(blob: bytes) -> bytes:
    """Returns the CRC-32, never zero: zero is what a hole in the file reads as."""
    return (zlib.crc32(blob) or 1).to_bytes(_SUM_BYTES, "little")


def _write_at(path: Path, offset: int, blob: bytes) -> None:
    with path.open("r+b", buffering=0) as stream:
        stream.seek(offset)
        rest = memoryview(blob)
        while rest:
            rest = rest[stream.write(rest) :]


def _read_at(path: Path, offset: int, count: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(count)
