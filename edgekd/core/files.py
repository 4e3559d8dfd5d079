"""Writing a file whole or not at all, and naming its content."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replaces ``path`` by ``data``; a reader sees the old file or the new one, never a part.

    Text is written as UTF-8 with its line ends untouched. Missing parent folders are made. The
    content reaches the disk before the name does, so a power cut cannot leave an empty file
    behind; when writing fails the old file stays and nothing else is left in the folder.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    content = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are private (0600), and the umask should decide who may read these.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def cache_folder() -> Path:
    """Returns where EdgeKD keeps what it can make again: ``$XDG_CACHE_HOME/edgekd``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgekd"


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of the file's bytes, 64 lower-case hexadecimal digits.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Elsewhere a folder cannot be opened, and the rename is durable itself.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
