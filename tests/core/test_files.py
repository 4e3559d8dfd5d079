from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edgekd.core.files import sha256_of, write_atomic


@pytest.mark.parametrize(
    ("data", "content"),
    [(b"\x00\r\n\xff", b"\x00\r\n\xff"), ("Größe\r\n", "Größe\r\n".encode())],
    ids=["bytes", "text"],
)
def test_content_is_written_as_given(tmp_path: Path, data: bytes | str, content: bytes) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_atomic(path, data)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_old_file_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_disk_before_the_name_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    seen: list[tuple[bool, str]] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        seen.append((is_folder, path.read_text()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_atomic(path, "new")
    assert seen == [(False, "old"), (True, "new")]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write_atomic(path, "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_longest_legal_file_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)
    write_atomic(path, "text")
    assert path.read_text() == "text"


def test_sha256_is_that_of_the_published_example(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    published = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(path) == published


def test_sha256_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        sha256_of(tmp_path / "absent")
