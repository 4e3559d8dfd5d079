"""``manifest.json``: the size and the sha256 of every other file of a bundle."""

from __future__ import annotations

import json
from pathlib import Path

from edgekd.core.files import sha256_of, write_atomic

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Writes the manifest of everything that lies in the folder, sorted by path.

    Raises:
        OSError: A file cannot be read, or the manifest not be written.
    """
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": sha256_of(path),
            "size_bytes": path.stat().st_size,
        }
        for path in paths
    }
    document = {"schema": 1, "files": files}
    write_atomic(folder / MANIFEST, json.dumps(document, indent=1, sort_keys=True) + "\n")
