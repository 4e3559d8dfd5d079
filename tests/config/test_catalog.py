from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.config import catalog
from edgekd.config.catalog import catalog_folder
from edgekd.core.errors import EdgeKDError


def test_installed_catalogue_comes_before_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "edgekd"
    package.mkdir(parents=True)
    monkeypatch.setattr(catalog, "_PACKAGE", package)
    with pytest.raises(EdgeKDError, match=r"catalogue of devices is missing: .*_devices"):
        catalog_folder("devices")
    (package.parent / "devices").mkdir()
    assert catalog_folder("devices") == package.parent / "devices"
    (package / "_devices").mkdir()
    assert catalog_folder("devices") == package / "_devices"
    with pytest.raises(EdgeKDError, match="models"):
        catalog_folder("models")
