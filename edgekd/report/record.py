"""The JSON face of a run record, and the way back. Other faces are drawn from the same record."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import NoReturn

from edgekd.core.errors import RunError
from edgekd.core.results import RunRecord
from edgekd.core.serialize import from_mapping, to_mapping

SCHEMA = 2

_SINCE_1 = {
    "exhibits": "visualisations",
    "setbacks": "regressions",
    "exhibit": "visualisation",
    "culprit": "failing_operator",
    "mark": "criterion",
}
"""Keys that schema 1 spelt otherwise."""


def to_json(record: RunRecord) -> str:
    """Returns the record as JSON; `from_json` gives the same record back.

    Keys stand in the order of the fields, and dictionaries keep their own order, which is part of
    the record (classes, stages). The same record gives the same text.

    Raises:
        RunError: A number is NaN or infinite, or a value has no form in JSON; names the field.
    """
    try:
        plain = to_mapping(record)
    except TypeError as formless:
        raise RunError(f"run record: {formless}") from formless
    for where, value in _numbers(plain, "record"):
        if not math.isfinite(value):
            raise RunError(f"run record: {where} is {value}; legal: finite numbers")
    document = {"schema": SCHEMA, "record": plain}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> RunRecord:
    """Returns the record that `to_json` wrote.

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
    return from_mapping(RunRecord, record, "run record", RunError)


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


def _numbers(value: object, where: str) -> Iterator[tuple[str, float]]:
    """Yields every float of a plain document with its place."""
    if isinstance(value, float):
        yield where, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, f"{where}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{where}[{index}]")


def _refuse_constant(name: str) -> NoReturn:
    raise RunError(f"run record: a number is {name}; legal: finite numbers")
