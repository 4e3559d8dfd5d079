"""Modules that are found by lying in a folder."""

from __future__ import annotations

import importlib
import pkgutil


def import_all(package: str) -> None:
    """Imports every module in a package, so that what they register is there."""
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{found.name}")
