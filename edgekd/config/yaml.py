"""Reads a YAML file by the rules of YAML 1.2."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from edgekd.core.errors import EdgeKDError

try:  # Ten times faster; absent where PyYAML was built without libyaml.
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]


def read_yaml(path: Path, error: type[EdgeKDError]) -> dict[str, Any]:
    """Returns the mapping that a YAML file holds.

    ``no`` and ``on`` are text, ``1e-3`` is a number and ``010`` is ten, as YAML 1.2 has it; a key
    given twice in one mapping is an error.

    Args:
        path: Encoded in UTF-8.
        error: Raised where the file cannot be read, is no YAML or holds no mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Yaml12Loader)  # noqa: S506  (it is a SafeLoader)
    except (OSError, UnicodeDecodeError) as unreadable:
        raise error(f"{path}: cannot be read: {unreadable}") from unreadable
    except yaml.MarkedYAMLError as malformed:
        line = f":{malformed.problem_mark.line + 1}" if malformed.problem_mark else ""
        raise error(f"{path}{line}: not valid YAML: {malformed.problem}") from malformed
    except yaml.YAMLError as malformed:
        raise error(f"{path}: not valid YAML: {malformed}") from malformed
    if not isinstance(data, dict):
        raise error(f"{path}: expected a mapping of keys to values, got {data!r:.60}")
    return data


def parse_yaml_value(text: str, error: type[EdgeKDError]) -> Any:  # noqa: ANN401 - any plain value
    """Returns the plain value that ``text`` stands for in YAML 1.2: a number, text, list, mapping.

    Args:
        text: One value, such as ``1e-3`` or ``{logits: 1.0}``.
        error: Raised where it is no YAML.
    """
    try:
        return yaml.load(text, Loader=_Yaml12Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as malformed:
        raise error(f"{text!r}: not a YAML value") from malformed


class _Yaml12Loader(SafeLoader):
    """The YAML 1.2 core schema with decimal numbers only; refuses duplicate keys."""

    # PyYAML resolves by YAML 1.1, where `no` is false, `1e-3` is text and `1:30` is ninety.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Returns the mapping of one node, every key of which is given once."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


def _decimal(loader: _Yaml12Loader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)))


_RESOLVERS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        list("-+.0123456789"),
    ),
}
for _tag, (_pattern, _first) in _RESOLVERS.items():
    _Yaml12Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first
    )
_Yaml12Loader.add_constructor("tag:yaml.org,2002:int", _decimal)
