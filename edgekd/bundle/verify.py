"""Replays a bundle's golden vectors, here or on a board that ssh reaches."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from edgekd.board.transport import PYTHON, last_line, over_ssh
from edgekd.bundle.manifest import MANIFEST
from edgekd.config.decoders import registered_decoders
from edgekd.core.errors import RunError
from edgekd.core.files import write_atomic
from edgekd.modelfile.memory import try_out
from edgekd.standalone import standalone_file
from edgekd.standalone.replay import BundleError, changed_files, read_manifest, replay


def verify(bundle: Path, host: str | None = None, python: str = PYTHON) -> dict[str, Any]:
    """Returns what ``replay.py`` measured: ``passed``, and a record for each file.

    The code that runs is always this package's and never the bundle's copy of it, because a bundle
    may come from anywhere.

    Args:
        bundle: The folder.
        host: Where to run, as ``ssh`` takes it, such as ``pi@192.168.1.20``; None for here. It
            needs Python with numpy and a runtime. Whatever is copied there is removed.
        python: Of the host.

    Raises:
        RunError: The bundle is unreadable, no file in it can be run there, or the host is out of
            reach or lacks something.
        ModelError: A file in it crashes its runtime here.
    """
    try:
        listed = read_manifest(bundle)
        if not changed_files(bundle, listed):
            if host is not None:
                return _on_host(bundle, listed, host, python)
            for name in listed:
                if name.endswith((".onnx", ".tflite")):
                    try_out(bundle / name)
        return replay(bundle)
    except BundleError as unusable:
        raise RunError(str(unusable)) from unusable


def _on_host(
    bundle: Path, listed: dict[str, dict[str, Any]], host: str, python: str
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as staged:
        _stage(bundle, listed, Path(staged))
        with over_ssh(host, python) as work:
            work.push(*sorted(Path(staged).iterdir()))
            command = [work.python, "replay.py", "bundle", "--json"]
            found = work.run(command, accepted=(0, 1))
    try:
        result: dict[str, Any] = json.loads(found.stdout)
    except ValueError as broken:
        raise RunError(f"{host}: replay.py returned no result: {last_line(found)}") from broken
    return result


def _stage(bundle: Path, listed: dict[str, dict[str, Any]], staged: Path) -> None:
    """Copies what the manifest lists and nothing else: scp would follow a link to anywhere.

    The bytes that are copied are the very ones that are hashed.

    Raises:
        BundleError: A file has changed since it was looked at first.
    """
    for name, entry in listed.items():
        content = (bundle / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != entry.get("sha256"):
            raise BundleError(f"{bundle / name}: changes while it is read")
        write_atomic(staged / "bundle" / name, content)
    manifest = json.dumps({"schema": 1, "files": listed})
    write_atomic(staged / "bundle" / MANIFEST, manifest)
    shutil.copyfile(standalone_file("replay.py"), staged / "replay.py")
    for name, source in registered_decoders().items():
        shutil.copyfile(source, staged / name)
