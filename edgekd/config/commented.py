"""A recipe as YAML with a comment above every key: what it means and what is legal.

The comments are the sections' own docstrings, so that there is one place to keep right.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from edgekd.config.recipe import Recipe
from edgekd.core.serialize import to_mapping

WIDTH = 100


def commented_recipe(recipe: Recipe) -> str:
    """Returns the recipe as YAML, every key with its comment; it loads as an equal recipe."""
    return "\n".join(_section(type(recipe), to_mapping(recipe), "")) + "\n"


def _section(kind: type[Any], values: dict[str, Any], indent: str) -> Iterator[str]:
    hints, meanings = get_type_hints(kind), key_meanings(kind)
    for name, value in values.items():
        section = hints[name]
        nested = isinstance(section, type) and dataclasses.is_dataclass(section)
        if nested:
            yield from ([""] if not indent else [])
            yield from _comment(meanings.get(name) or _summary(section), indent)
            yield f"{indent}{name}:"
            yield from _section(section, value, f"{indent}  ")
            continue
        legal = legal_values(section)
        meaning = meanings.get(name, "")
        yield from _comment(f"{meaning} Legal: {legal}." if legal else meaning, indent)
        text = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=10**6)
        yield textwrap.indent(text.rstrip("\n"), indent)


def _comment(text: str, indent: str) -> list[str]:
    if not text:
        return []
    lead = f"{indent}# "
    plain = text.replace("``", "").replace("`", "")
    return textwrap.wrap(
        plain, WIDTH, initial_indent=lead, subsequent_indent=lead, break_on_hyphens=False
    )


def _summary(kind: type[Any]) -> str:
    """Returns the first paragraph of a section's docstring."""
    return " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split())


def key_meanings(kind: type[Any]) -> dict[str, str]:
    """Returns what every key of a section means, by the ``Attributes`` of its docstring."""
    # Python 3.13 keeps docstrings without their indentation.
    _, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?= {4}\w+: )", f"\n{attributes}"):
        match = re.match(r"\s*(\w+): (.*)", entry, re.DOTALL)
        if match:
            found[match[1]] = " ".join(match[2].split("\n\n")[0].split())
    return found


def legal_values(hint: Any) -> str:  # noqa: ANN401 - a type annotation
    """Returns the values that a key may have where they are few, nothing where they are many."""
    origin = get_origin(hint)
    if origin is Literal:
        return ", ".join(map(str, get_args(hint)))
    if origin in (Union, UnionType):
        parts = [legal_values(part) for part in get_args(hint) if part is not NoneType]
        return f"{parts[0]}, null" if len(parts) == 1 and parts[0] else ""
    if hint is bool:
        return "true, false"
    if origin is tuple and get_args(hint):
        inner = legal_values(get_args(hint)[0])
        return f"a list of {inner}" if inner else ""
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return ", ".join(member.value for member in hint)
    return ""
