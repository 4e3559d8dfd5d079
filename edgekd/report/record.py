"""The JSON face of a run record, and the way back. Other faces are drawn from the same record."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    NoReturn,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import RunError
from edgekd.core.results import ClassificationMetrics, DetectionMetrics, RunRecord

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA = 2

_SINCE_1 = {
    "exhibits": "visualisations",
    "setbacks": "regressions",
    "exhibit": "visualisation",
    "culprit": "failing_operator",
    "mark": "criterion",
}
"""Keys that schema 1 spelt otherwise."""

_Plain = TypeVar("_Plain")

# Only records that share a field of a union carry their kind in the file.
_KINDS: dict[str, type] = {
    "detection": DetectionMetrics,
    "classification": ClassificationMetrics,
}
_KIND_OF = {record: kind for kind, record in _KINDS.items()}


def to_json(record: RunRecord) -> str:
    """Returns the record as JSON; :func:`from_json` gives the same record back.

    Keys stand in the order of the fields, and dictionaries keep their own order, which is part of
    the record (classes, stages). The same record gives the same text. Arrays are written as
    ``{"dtype", "shape", "values"}``.

    Raises:
        RunError: A number is NaN or infinite, or a value has no form in JSON; names the field.
    """
    document = {"schema": SCHEMA, "record": _encode(record, "record")}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> RunRecord:
    """Returns the record that :func:`to_json` wrote.

    Raises:
        RunError: The text is not JSON, has another schema version, or a field is missing, unknown
            or of the wrong kind; names the field.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise RunError(f"run record is not JSON: {error}") from error
    if not isinstance(document, dict) or "schema" not in document:
        raise RunError(f"run record has no schema version; legal: {SCHEMA}")
    record = document.get("record")
    if document["schema"] == 1:
        record = _from_schema_1(record)
    elif document["schema"] != SCHEMA:
        raise RunError(
            f"run record has schema version {document['schema']!r}, which this version of EdgeKD "
            f"cannot read; legal: 1, {SCHEMA}"
        )
    return cast(RunRecord, _decode(RunRecord, record, "record"))


def _from_schema_1(record: object) -> object:
    """Returns a record with the keys that it has today."""
    if not isinstance(record, dict):
        return record
    renamed = _renamed(record)
    for name in ("checks", "regressions"):
        entries = renamed.get(name)
        if isinstance(entries, list):
            renamed[name] = [_renamed(e) if isinstance(e, dict) else e for e in entries]
    return renamed


def _renamed(record: dict[str, object]) -> dict[str, object]:
    return {_SINCE_1.get(key, key): value for key, value in record.items()}


def _encode(value: object, where: str) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _encode_record(value, where)
    if isinstance(value, np.ndarray):
        return _encode_array(value, where)
    if isinstance(value, dict):
        return {_key(key, where): _encode(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item, f"{where}[{index}]") for index, item in enumerate(value)]
    return _encode_scalar(value, where)


def _encode_record(value: DataclassInstance, where: str) -> dict[str, object]:
    kind = _KIND_OF.get(type(value))
    tag = {} if kind is None else {"kind": kind}
    return tag | {
        item.name: _encode(getattr(value, item.name), f"{where}.{item.name}")
        for item in fields(value)
    }


def _encode_array(value: NDArray[Any], where: str) -> dict[str, object]:
    if value.dtype.kind not in "fiu":
        _refuse(where, f"an array of {value.dtype}", "arrays of numbers")
    if not np.isfinite(value).all():
        _refuse(where, "an array with NaN or infinity", "finite numbers")
    flat = value.ravel()
    # The shortest text that names the same float32 is 0.3, not 0.30000001192092896.
    values = [float(str(item)) for item in flat] if value.dtype.kind == "f" else flat.tolist()
    return {"dtype": str(value.dtype), "shape": list(value.shape), "values": values}


def _encode_scalar(value: object, where: str) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(where, repr(value), "finite numbers")
    if value is not None and not isinstance(value, str | bool | int | float):
        _refuse(where, f"{value!r} ({type(value).__name__})", "what JSON can hold")
    return value


def _key(key: object, where: str) -> str:
    # json would write 1 as "1" in silence, and the record would come back changed.
    if not isinstance(key, str):
        _refuse(where, f"a dictionary with the key {key!r}", "keys that are text")
    return str(key)


def _decode(kind: object, value: object, where: str) -> object:
    # From numpy 2.5 on NDArray is the name of a type and no longer the type itself.
    kind = getattr(kind, "__value__", kind)
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _decode_union(kind, value, where)
    if origin in (tuple, list):
        item_kind = get_args(kind)[0]
        items = _demand(list, value, where)
        return origin(_decode(item_kind, item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        item_kind = get_args(kind)[1]
        pairs = _demand(dict, value, where).items()
        return {key: _decode(item_kind, item, f"{where}.{key}") for key, item in pairs}
    if origin is np.ndarray:
        return _decode_array(_demand(dict, value, where), where)
    plain = cast(type, kind)
    if is_dataclass(plain):
        return _decode_record(plain, _demand(dict, value, where), where)
    return _decode_scalar(plain, value, where)


def _decode_union(kind: object, value: object, where: str) -> object:
    options = get_args(kind)
    if value is None and NoneType in options:
        return None
    kinds = [option for option in options if option is not NoneType]
    if len(kinds) == 1:
        return _decode(kinds[0], value, where)
    tagged = dict(_demand(dict, value, where))
    name = tagged.pop("kind", None)
    if name not in _KINDS:
        _refuse(f"{where}.kind", repr(name), ", ".join(_KINDS))
    return _decode(_KINDS[name], tagged, where)


def _decode_record(kind: type, value: dict[str, object], where: str) -> object:
    hints = _hints(kind)
    # A field with a default may be younger than the file.
    needed = {item.name for item in fields(kind) if not _has_default(item)}
    for name in (needed - value.keys()) | (value.keys() - hints.keys()):
        state = "missing" if name in hints else "unknown"
        _refuse(f"{where}.{name}", state, ", ".join(hints))
    return kind(
        **{name: _decode(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    )


def _has_default(item: Field[Any]) -> bool:
    return item.default is not MISSING or item.default_factory is not MISSING


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode_array(value: dict[str, Any], where: str) -> NDArray[Any]:
    try:
        kind = np.dtype(value["dtype"])
        if kind.kind not in "fiu":
            _refuse(f"{where}.dtype", repr(value["dtype"]), "a number's type")
        return np.array(value["values"], dtype=kind).reshape(value["shape"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"run record: {where} is not an array: {error}") from error


def _decode_scalar(kind: type, value: object, where: str) -> object:
    if issubclass(kind, Enum):
        legal = [member.value for member in kind]
        if value not in legal:
            _refuse(where, repr(value), ", ".join(legal))
        return kind(value)
    if kind is Path:
        return Path(_demand(str, value, where))
    if kind is float and type(value) is int:
        return float(value)
    return _demand(kind, value, where)


def _demand(kind: type[_Plain], value: object, where: str) -> _Plain:
    # isinstance alone would take True for an int.
    if not isinstance(value, kind) or type(value) is not kind:
        _refuse(where, f"{value!r} ({type(value).__name__})", kind.__name__)
    return value


def _refuse_constant(name: str) -> NoReturn:
    _refuse("a number", name, "finite numbers")


def _refuse(where: str, found: str, legal: str) -> NoReturn:
    raise RunError(f"run record: {where} is {found}; legal: {legal}")
