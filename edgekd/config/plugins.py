"""Plugins: Python files and installed packages that register methods, decoders and readers.

A file is named in the recipe (``plugins: [my_loss.py]``) or with ``--plugin``; a package has an
entry point in the group ``edgekd.plugins``. Both are code and are run. `verify`, `inspect`,
`report`, `bundle`, `eval` and `predict` run the files that their own command line names, and never
what a run directory, a bundle or a model file refers to.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from edgekd.core.errors import RecipeError

GROUP = "edgekd.plugins"
"""Of entry points: each names a module, or a function that is called without arguments."""

_LOADED: dict[str, str] = {}


def load_plugins(files: Sequence[Path] = ()) -> dict[str, str]:
    """Runs every installed plugin and these files, each once; returns what they are.

    A file that defines a function ``register`` has it called after it was run, so that its top can
    do without importing edgekd.

    Args:
        files: Python files.

    Returns:
        Name of a file or of a package to the file's SHA-256 or to the package's version.

    Raises:
        RecipeError: A plugin is missing or fails.
    """
    found = {}
    for point in entry_points(group=GROUP):
        name, version = _origin(point)
        _once(f"package {name}, {point.name}", version, _point_loader(point))
        found[name] = version
    for path in files:
        if not path.is_file():
            raise RecipeError(f"plugin {path}: no such file; legal: a Python file")
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        _once(str(path.resolve()), sha256, _file_loader(path.resolve()))
        found[path.name] = sha256
    return found


def require_loaded(files: Sequence[Path], why: str) -> None:
    """Raises `RecipeError` where a plugin was not run, for a command that runs none by itself."""
    missing = [str(path) for path in files if str(path.resolve()) not in _LOADED]
    if missing:
        raise RecipeError(
            f"{why} {', '.join(missing)}, which is code and is not run unasked; name it with "
            "--plugin"
        )


def _once(name: str, version: str, load: Callable[[], None]) -> None:
    if _LOADED.get(name) == version:
        return
    try:
        load()
    except RecipeError as refused:
        raise RecipeError(f"plugin {name}: {refused}") from refused
    except Exception as error:
        raise RecipeError(f"plugin {name}: fails, {type(error).__name__}: {error}") from error
    _LOADED[name] = version


def _origin(point: EntryPoint) -> tuple[str, str]:
    distribution = point.dist
    return (distribution.name, distribution.version) if distribution else (point.value, "")


def _point_loader(point: EntryPoint) -> Callable[[], None]:
    def load() -> None:
        found = point.load()
        if not isinstance(found, ModuleType):
            found()

    return load


def _file_loader(path: Path) -> Callable[[], None]:
    def load() -> None:
        # The same for every version of the file, so that a new one replaces what it registers.
        name = f"edgekd_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        specification = importlib.util.spec_from_file_location(name, path)
        if specification is None or specification.loader is None:
            raise RecipeError("not a Python file")
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
        register = getattr(module, "register", None)
        if callable(register):
            register()

    return load
