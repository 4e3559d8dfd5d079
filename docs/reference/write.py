"""Writes the pages of this folder from the code, which they are tested against.

python docs/reference/write.py
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import click
import yaml

from edgekd.cli import main
from edgekd.config.commented import key_meanings, legal_values
from edgekd.config.device import list_devices
from edgekd.config.recipe import Recipe
from edgekd.core import errors
from edgekd.core.serialize import to_mapping
from edgekd.data.reader import readers
from edgekd.distill.method import methods
from edgekd.modelfile.operator_table import OPERATOR, OPERATORS, OperatorEntry
from edgekd.rules.check import every_rule
from edgekd.standalone import decoder

FOLDER = Path(__file__).parent
NOTE = "<!-- Written by docs/reference/write.py from the code. -->\n\n"


def recipe() -> str:
    """Returns every key of a recipe."""
    return (
        "# Recipe\n\n"
        "A recipe is a YAML file with a section for each stage. `edgekd init DATASET` writes one with "
        "every key; a key that\nis left out has the default below, an unknown one is an error. On the "
        "command line `--set quantize.mode=ptq` sets any key;\nin Python a section is a keyword that "
        "takes a mapping. Paths are relative to the recipe's folder.\n\n"
        + "\n".join(_section(Recipe, to_mapping(Recipe()), ""))
    )


def _section(kind: type[Any], values: dict[str, Any], above: str) -> Iterator[str]:
    hints, meanings = get_type_hints(kind), key_meanings(kind)
    nested = []
    rows = []
    for name, value in values.items():
        hint = hints[name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            nested.append((name, hint, value))
            continue
        legal = legal_values(hint)
        meaning = _cell(meanings.get(name, "")) + (f" Legal: {legal}." if legal else "")
        rows.append(f"| `{above}{name}` | `{_plain(value)}` | {meaning} |")
    if rows:
        yield "| key | default | meaning |\n|---|---|---|"
        yield from rows
    for name, hint, value in nested:
        heading = "##" if not above else "###"
        summary = " ".join((hint.__doc__ or "").strip().split("\n\n")[0].split())
        yield f"\n{heading} `{above}{name}`\n\n{summary}\n"
        yield from _section(hint, value, f"{above}{name}.")


def commands() -> str:
    """Returns every command with its arguments and options."""
    parts = [
        "# Commands\n\n`edgekd COMMAND --help` says the same. `--json` prints a result for programs.\n"
    ]
    for path, command in _leaves(main, "edgekd"):
        parts.append(f"## `{path}`\n\n{_help(command)}\n")
        rows = []
        for parameter in command.params:
            if isinstance(parameter, click.Argument):
                rows.append(f"| `{parameter.human_readable_name}` | |")
                continue
            record = parameter.get_help_record(click.Context(command)) if isinstance(
                parameter, click.Option
            ) else None  # fmt: skip
            if record:
                rows.append(f"| `{_cell(record[0])}` | {_cell(record[1])} |")
        if rows:
            parts.append("| | |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _leaves(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _leaves(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _help(command: click.Command) -> str:
    return inspect.cleandoc((command.help or "").replace("\b\n", "")).strip()


def exit_codes() -> str:
    """Returns the exit codes and the errors behind them."""
    rows = [
        "| 0 | everything was done and passed |",
        "| 1 | the command worked and its finding is bad: `verify`, `bench` and `doctor` say what |",
    ]
    kinds = [
        k for k in vars(errors).values() if inspect.isclass(k) and k.__module__ == errors.__name__
    ]
    for code in sorted({kind.exit_code for kind in kinds}):
        names = [k for k in kinds if k.exit_code == code and k is not errors.EdgeKDError]
        listed = "; ".join(f"`{k.__name__}`: {_first(k.__doc__).rstrip('.')}" for k in names)
        rows.append(f"| {code} | {listed} |")
    rows.append("| 130 | interrupted; the same command goes on from the last checkpoint |")
    return (
        "# Exit codes and errors\n\nAn error is one line that names the file, the value and what would be "
        "legal. In Python it is an exception of the\nname below, all of them `edgekd.EdgeKDError`.\n\n"
        "| exit code | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"
    )


def distillation_methods() -> str:
    """Returns every distillation method."""
    rows = [
        f"| `{m.name}` | {m.summary} | {', '.join(sorted(m.tasks))} | {', '.join(sorted(m.needs))} "
        f"| {m.weight:g} | {_options(m.options)} | {m.cost} | {m.source} |"
        for m in methods().values()
    ]
    return (
        "# Distillation methods\n\n`distill.methods` maps a method to its weight, or to a mapping of "
        "`weight` and options. What a need is, and how to add a\nmethod: [Extending](../extending.md)."
        "\n\n| method | teaches | for | needs | weight | options | costs | source |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _options(options: Any) -> str:
    return ", ".join(f"`{name}` {value:g}" for name, value in options.items())


def rules() -> str:
    """Returns every rule of a runtime."""
    rows = [
        f"| `{r.id}` | {r.level} | {_cell(r.summary)} | {_cell(r.source)} |" for r in every_rule()
    ]
    return (
        "# Rules\n\nWhat `edgekd inspect` and the proofs look for in a file. An `error` ends `inspect` with exit "
        "code 3.\n\n| rule | level | finds | source |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def devices() -> str:
    """Returns every device profile."""
    rows = [
        f"| `{d.id}` | {d.name} | {d.primary.value}, {d.runtime.name} | "
        f"{', '.join(f.value for f in d.runtimes)} | {', '.join(d.aliases)} |"
        for d in list_devices()
    ]
    return (
        "# Devices\n\n`--target` takes an id, an alias, or the path of a profile of your own; "
        "[The device decides](../devices.md) says what a profile\nholds.\n\n"
        "| id | board | ships | formats | aliases |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def formats() -> str:
    """Returns every data format, decoder and operator."""
    data = [f"| `{r.name}` | {r.describes} |" for r in readers().values()]
    boxes = [f"| `{n}` | {_first(d.read.__doc__)} |" for n, d in decoder.DECODERS.items()]
    made = [
        f"| {e.name} | {_names(e.torch)} | {_files(e, 'onnx')} | {_files(e, 'tflite')} |"
        for e in OPERATORS
        if e.torch and (e.scale != "none" or e.parts)
    ]
    return (
        "# Formats, decoders, operators\n\n## Data sets\n\nRecognised in this order.\n\n| `data.format` | "
        "holds |\n|---|---|\n"
        + "\n".join(data)
        + "\n\n## Decoders\n\n`network.decoder`, or `decoder` on "
        "the card of an external detector.\n\n| decoder | returns |\n|---|---|\n"
        + "\n".join(boxes)
        + "\n\n## Operators\n\nWhat a network of your own may be made of; batch norm is folded away. "
        "The conditions (borders of zeros, resizes by\nwhole multiples, an activation directly behind "
        "what it bounds) are in [Limits](../limits.md).\n\n| operator | torch | ONNX | TFLite |\n"
        "|---|---|---|---|\n" + "\n".join(made) + "\n"
    )


def _files(entry: OperatorEntry, kind: str) -> str:
    """Returns what an operator is in a file: for one that is rewritten, its parts."""
    parts = [OPERATOR[operator] for _, operator, *_ in entry.parts] or [entry]
    return ", ".join(filter(None, (_names(getattr(part, kind)) for part in parts)))


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _plain(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).split("\n")[0]


def _first(text: str | None) -> str:
    """Returns the first paragraph of a docstring, as one line of a table."""
    return _cell(" ".join((text or "").strip().split("\n\n")[0].split()))


def _cell(text: str) -> str:
    plain = re.sub(r"``([^`]+)``", r"`\1`", " ".join(text.split()))
    return plain.replace("|", "\\|")


PAGES = {
    "recipe.md": recipe,
    "commands.md": commands,
    "exit-codes.md": exit_codes,
    "methods.md": distillation_methods,
    "rules.md": rules,
    "devices.md": devices,
    "formats.md": formats,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(NOTE + page(), encoding="utf-8")
