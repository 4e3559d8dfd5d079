"""The one codec between records and JSON or YAML: dataclasses as plain mappings, and back.

Nothing is coerced and nothing is ignored: a file that is accepted says exactly what was meant.
Records that share a field of a union carry their kind in the file: a class variable ``KIND``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import EdgeKDError, suggest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
Hint: TypeAlias = Any  # A type annotation as it is at run time, for which typing has no type.

_SCALARS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    Path: "a path",
    NoneType: "null",
}


class _MismatchError(Exception):
    """What is wrong, with the dotted key it is wrong at."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}" if key else problem)


def from_mapping(cls: type[T], data: object, where: str, error: type[EdgeKDError]) -> T:
    """Returns the dataclass ``cls`` filled from ``data``, converted and checked field by field.

    Understands nested dataclasses, ``tuple[X, ...]`` and ``tuple[X, Y]``, ``list[X]``, ``dict[K,
    X]`` with text or ``StrEnum`` keys, ``StrEnum``, ``Literal``, unions, arrays of numbers,
    ``Path``, ``bool``, ``int``, ``float`` and ``str``. A whole number is accepted as a ``float``;
    nothing else changes its type, and true and false are no numbers.

    Args:
        cls: A dataclass; a ``ValueError`` from its ``__post_init__`` is reported like any problem.
        data: What was read.
        where: Named first in every message: the file.
        error: Raised on any problem, with the dotted key, the value and what would be legal.
    """
    try:
        return cast(T, _record(cls, data, ""))
    except _MismatchError as mismatch:
        raise error(f"{where}: {mismatch}") from mismatch


def to_mapping(record: DataclassInstance) -> dict[str, Any]:
    """Returns a dataclass as plain dicts, lists, text and numbers, ready for JSON or YAML.

    ``from_mapping`` turns the result back into an equal record. Arrays become ``{"dtype", "shape",
    "values"}``, each float as the shortest text that names it.

    Raises:
        TypeError: A field holds something that neither format knows.
    """
    return _plain_record(record, "")


def _convert(hint: Hint, value: object, key: str) -> object:
    # From numpy 2.5 on NDArray is the name of a type and no longer the type itself.
    hint = getattr(hint, "__value__", hint)
    origin: Hint = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        return _union(get_args(hint), value, key)
    if origin is Literal:
        return _literal(get_args(hint), value, key)
    if origin is tuple:
        return _tuple(get_args(hint), value, key)
    if origin is list:
        return list(_tuple((get_args(hint)[0], Ellipsis), value, key))
    if origin is np.ndarray:
        return _array(value, key)
    if origin is dict:
        return _dict(get_args(hint), value, key)
    if dataclasses.is_dataclass(hint):
        return _record(hint, value, key)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(str(_literal(tuple(member.value for member in hint), value, key)))
    return _scalar(hint, value, key)


def _record(cls: Hint, value: object, key: str) -> object:
    arguments = _fields(cls, value, key)
    try:
        return cls(**arguments)
    except ValueError as invalid:
        raise _MismatchError(key, str(invalid)) from invalid


def _fields(cls: Hint, value: object, key: str) -> dict[str, Any]:
    """Returns the constructor's arguments for one mapping."""
    hints = _field_hints(cls)
    given = dict(_mapping(value, key))
    if hasattr(cls, "KIND"):
        given.pop("kind", None)
    for name in given:
        if name not in hints:
            raise _MismatchError(key, f"unknown key {name!r}{suggest(str(name), hints)}")
    missing = [name for name in _required(cls) if name not in given]
    if missing:
        raise _MismatchError(
            key, f"missing key {', '.join(map(repr, missing))}; legal: {', '.join(hints)}"
        )
    return {name: _convert(hints[name], entry, _below(key, name)) for name, entry in given.items()}


@cache
def _field_hints(cls: Hint) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


@cache
def _required(cls: Hint) -> tuple[str, ...]:
    return tuple(
        field.name
        for field in dataclasses.fields(cls)
        if field.init
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    )


def _union(members: tuple[Any, ...], value: object, key: str) -> object:
    if value is None and NoneType in members:
        return None
    kinds = [member for member in members if member is not NoneType]
    if len(kinds) == 1 and value is not None:
        return _convert(kinds[0], value, key)
    tagged = {kind.KIND: kind for kind in kinds if hasattr(kind, "KIND")}
    if tagged:
        name = _mapping(value, key).get("kind")
        if name not in tagged:
            raise _MismatchError(_below(key, "kind"), f"{name!r}{suggest(str(name), tagged)}")
        return _record(tagged[name], value, key)
    for kind in kinds:
        try:
            return _convert(kind, value, key)
        except _MismatchError:
            continue
    raise _unexpected(key, " or ".join(map(_described, members)), value)


def _literal(legal: tuple[Any, ...], value: object, key: str) -> object:
    for option in legal:
        if option == value and type(option) is type(value):
            return option
    raise _MismatchError(
        key, f"illegal value {_shown(value)}{suggest(str(value), map(str, legal))}"
    )


def _tuple(items: tuple[Any, ...], value: object, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _unexpected(key, "a list", value)
    repeated = len(items) == 2 and items[1] is Ellipsis
    if not repeated and len(items) != len(value):
        raise _unexpected(key, f"a list of {len(items)} values", value)
    hints = [items[0]] * len(value) if repeated else items
    return tuple(
        _convert(hint, entry, f"{key}[{index}]")
        for index, (hint, entry) in enumerate(zip(hints, value, strict=True))
    )


def _array(value: object, key: str) -> NDArray[Any]:
    given: Mapping[Any, Any] = _mapping(value, key)
    try:
        kind = np.dtype(given["dtype"])
        if kind.kind not in "fiu":
            raise _MismatchError(key, f"an array of {kind}; legal: arrays of numbers")
        return np.array(given["values"], kind).reshape(given["shape"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _MismatchError(key, f"not an array: {error}") from error


def _dict(kinds: tuple[Any, ...], value: object, key: str) -> dict[Any, Any]:
    key_hint, value_hint = kinds
    return {
        _convert(key_hint, name, key): _convert(value_hint, entry, _below(key, name))
        for name, entry in _mapping(value, key).items()
    }


def _mapping(value: object, key: str) -> Mapping[Any, object]:
    if not isinstance(value, Mapping):
        raise _unexpected(key, "a mapping of keys to values", value)
    return value


def _scalar(kind: Hint, value: object, key: str) -> object:
    if kind not in _SCALARS:
        raise TypeError(f"{key}: a field of type {kind} cannot be read from a file")
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number and math.isfinite(cast(float, value)):
        return float(cast(float, value))
    if kind not in (Path, float) and type(value) is kind:
        return value
    raise _unexpected(key, _SCALARS[kind], value)


def _plain_record(record: DataclassInstance, key: str) -> dict[str, Any]:
    kind = {"kind": record.KIND} if hasattr(record, "KIND") else {}
    names = [field.name for field in dataclasses.fields(record)]
    return kind | {name: _plain(getattr(record, name), _below(key, name)) for name in names}


def _plain(value: object, key: str) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain_record(value, key)
    if isinstance(value, Mapping):
        return {_name(n, key): _plain(entry, _below(key, n)) for n, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain_array(value, key)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{key}[{index}]") for index, entry in enumerate(value)]
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, PurePath):
        return value.as_posix()
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{key}: {_shown(value)} of type {type(value).__name__} has no plain form")


def _name(name: object, key: str) -> str:
    # json would write 1 as "1" in silence, and the record would come back changed.
    if not isinstance(name, str):
        raise TypeError(f"{key}: a mapping with the key {name!r}; legal: text")
    return str(name)


def _plain_array(values: NDArray[Any], key: str) -> dict[str, object]:
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{key}: an array of {values.dtype}; legal: arrays of numbers")
    flat = values.ravel()
    # The shortest text that names the same float32 is 0.3, not 0.30000001192092896.
    plain = [float(str(item)) for item in flat] if values.dtype.kind == "f" else flat.tolist()
    return {"dtype": str(values.dtype), "shape": list(values.shape), "values": plain}


def _unexpected(key: str, expected: str, value: object) -> _MismatchError:
    return _MismatchError(key, f"expected {expected}, got {_shown(value)}")


def _below(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _described(hint: Hint) -> str:
    return _SCALARS.get(hint, getattr(hint, "__name__", str(hint)))


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
