"""JSON Schema of a record, read off its dataclass, so that the two cannot disagree."""

from __future__ import annotations

import dataclasses
import inspect
from enum import StrEnum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Schema: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_SCALARS: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
}


def json_schema(record: type[DataclassInstance]) -> Schema:
    """Returns the JSON Schema that every ``strict.to_mapping`` of such a record validates against.

    Every field is required and no other is legal. Descriptions are the docstrings.

    Raises:
        TypeError: A field's type has no JSON form.
    """
    return {"$schema": DIALECT, **_object(record)}


def _object(record: type[DataclassInstance]) -> Schema:
    hints = get_type_hints(record)
    properties = {field.name: _property(hints[field.name]) for field in dataclasses.fields(record)}
    return {
        "title": record.__name__,
        "description": inspect.getdoc(record),
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _property(hint: Any) -> Schema:  # noqa: ANN401 - typing has no type for a type annotation
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _object(hint)
    if origin is UnionType:
        return {"anyOf": [_property(member) for member in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return {"type": "array", "items": _property(arguments[0])}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"enum": [member.value for member in hint]}
    if hint in _SCALARS:
        return _SCALARS[hint]
    raise TypeError(f"{hint} has no JSON form")
