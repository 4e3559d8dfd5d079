"""Where the catalogues of YAML files lie: in the wheel, or in a source checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgekd.core.errors import EdgeKDError

_PACKAGE = Path(__file__).resolve().parents[1]


def catalog_folder(kind: Literal["devices", "models"]) -> Path:
    """Returns the folder of one catalogue: ``edgekd/_<kind>`` in a wheel, else ``<repo>/<kind>``.

    Raises:
        EdgeKDError: Neither folder exists.
    """
    installed = _PACKAGE / f"_{kind}"
    checkout = _PACKAGE.parent / kind
    for folder in (installed, checkout):
        if folder.is_dir():
            return folder
    raise EdgeKDError(
        f"the catalogue of {kind} is missing: neither {installed} nor {checkout} is a folder; "
        "reinstall edgekd"
    )
