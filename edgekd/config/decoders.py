"""Decoders that a user registers: how the outputs of a detector are read."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import RecipeError, suggest
from edgekd.standalone import decoder, standalone_file

Shape = tuple[int | str, ...]
Levels = Mapping[int, Mapping[str, NDArray[np.float32]]]
Read = Callable[[Levels, Mapping[str, Any]], tuple[NDArray[np.float32], NDArray[np.float32]]]
Outputs = Callable[[int, int, int, Mapping[str, Any] | None], Mapping[str, Shape]]

_FILES: dict[str, Path] = {}


def register_decoder(name: str, read: Read, *, outputs: Outputs) -> None:
    """Makes a function a decoder, as recipes and cards of external detectors name it.

    The file that defines it goes to the board as it is, beside the exported files and in the
    bundle: at its top it may import numpy and the standard library, and nothing else.

    Args:
        name: Small letters, digits and hyphens, such as ``my-yolo``.
        read: A function called ``decode_my_yolo``. It takes the outputs as reals, without the batch
            dimension and maps as ``(H, W, C)``, by stride (0) and role, and the file's contract,
            and returns boxes ``(N, 4)``, xyxy in input pixels, and scores ``(N, C)`` in [0, 1].
        outputs: Takes the number of classes, the input's height and width in pixels, and the prior
            boxes or None; returns the shape of every output by its role, in the file's order, maps
            as NCHW. A letter stands for any size.

    Raises:
        RecipeError: The name is taken or illegal, or the function's file cannot run on a board.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise RecipeError(f"decoder {name!r}; legal: small letters, digits and hyphens")
    taken = decoder.DECODERS.get(name)
    if taken is not None and taken.read.__module__ != read.__module__:
        raise RecipeError(f"decoder {name!r} is there already; legal: another name")
    wanted = decoder.function_name(name)
    if read.__name__ != wanted:
        raise RecipeError(
            f"decoder {name!r}: its function is called {read.__name__!r}; legal: {wanted!r}, the "
            "name by which it is found on a board"
        )
    _FILES[name] = _standalone(name, read)
    decoder.DECODERS[name] = decoder.Decoder(read, outputs)


def unregister_decoder(name: str) -> None:
    """Forgets a decoder that was registered; one that was not is no error."""
    if _FILES.pop(name, None):
        del decoder.DECODERS[name]


def require_decoder(name: str | None) -> None:
    """Raises `RecipeError` where there is no decoder of that name; None and ``none`` are legal."""
    if name not in (None, "none", *decoder.DECODERS):
        raise RecipeError(f"decoder {name!r}{suggest(str(name), decoder.DECODERS)}")


def shapes_fit(shapes: Sequence[tuple[int, ...]], expected: Sequence[Shape]) -> bool:
    """Returns whether shapes are those expected, a letter being any size, the same each time."""
    letters: dict[str, int] = {}
    return [len(shape) for shape in shapes] == [len(shape) for shape in expected] and all(
        (letters.setdefault(wanted, actual) if isinstance(wanted, str) else wanted) == actual
        for shape, pattern in zip(shapes, expected, strict=True)
        for actual, wanted in zip(shape, pattern, strict=True)
    )


def shape_text(shape: Shape) -> str:
    """Returns a shape as messages show it, such as ``1 x N x 85``."""
    return " x ".join(map(str, shape))


def decoder_files(name: str) -> dict[str, Path]:
    """Returns what a machine with numpy alone needs to read the outputs: file name to source."""
    files = {"decoder.py": standalone_file("decoder.py")}
    if name in _FILES:
        files[decoder.file_of(name)] = _FILES[name]
    return files


def registered_decoders() -> dict[str, Path]:
    """Returns the files of every decoder that there is."""
    files = decoder_files("edgedet")
    return files | {decoder.file_of(name): path for name, path in _FILES.items()}


def _standalone(name: str, read: Read) -> Path:
    """Returns the file that defines a function, which numpy alone can run."""
    source = inspect.getsourcefile(read)
    if source is None or not Path(source).is_file():
        raise RecipeError(
            f"decoder {name!r}: {read.__name__} is defined in no file, and one has to go to the "
            "board; legal: a function at the top of a .py file"
        )
    path = Path(source)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not any(isinstance(n, ast.FunctionDef) and n.name == read.__name__ for n in tree.body):
        raise RecipeError(f"decoder {name!r}: {path} has no {read.__name__} at its top")
    for module in _imported(tree):
        if module != "numpy" and module not in sys.stdlib_module_names:
            raise RecipeError(
                f"{path}: imports {module!r}, but it goes to the board for its decoder {name!r}; "
                "legal at its top: numpy and the standard library (import edgekd in a function "
                "called register)"
            )
    return path


def _imported(tree: ast.Module) -> list[str]:
    """Returns the packages that a file imports at its top."""
    names = []
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            names += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            names.append(statement.module or ".")
    return [name.partition(".")[0] for name in names]
