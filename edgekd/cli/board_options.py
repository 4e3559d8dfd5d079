"""The options that say where a file is measured: here, on a host, on an Android device."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgekd.commands.latency import Place

Command = Callable[..., Any]

python_option = click.option(
    "--python",
    default="python3",
    show_default=True,
    help="With --host: the Python there that has the runtime, such as ~/venv/bin/python.",
)

_WHERE = (
    click.option("--host", help="On this host, over ssh, such as pi@192.168.1.20. [this computer]"),
    python_option,
    click.option("--adb", is_flag=False, flag_value="", help="On the Android device."),
)
_HOW = (
    click.option("--trtexec", is_flag=True, help="With --host: in TensorRT, by its own program."),
    click.option(
        "--benchmark-model",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="With --adb: TFLite's program for the device. [the one in /data/local/tmp]",
    ),
)


def board_options(command: Command) -> Command:
    """Adds --host and --adb with what times files there; the command gets them as ``place``."""
    return _with_place(command, (*_WHERE, *_HOW))


def probed_board_options(command: Command) -> Command:
    """Adds --host and --adb alone; the command gets them as ``place``."""
    return _with_place(command, _WHERE)


def _with_place(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    @wraps(command)
    def placed(
        *args: object,
        host: str | None,
        python: str,
        adb: str | None,
        trtexec: bool = False,
        benchmark_model: Path | None = None,
        **others: object,
    ) -> object:
        place = _place(host, python, adb, trtexec, benchmark_model)
        return command(*args, place=place, **others)

    found: Command = placed
    for option in reversed(options):
        found = option(found)
    return found


def _place(
    host: str | None, python: str, adb: str | None, trtexec: bool, benchmark_model: Path | None
) -> Place:
    from edgekd.commands.latency import Place

    if host is not None and adb is not None:
        raise click.UsageError("--host and --adb exclude each other")
    if trtexec and host is None:
        raise click.UsageError("--trtexec needs --host: TensorRT runs on the board")
    if benchmark_model and adb is None:
        raise click.UsageError("--benchmark-model needs --adb: it runs on the device")
    return Place(
        host=host, python=python, adb=adb, trtexec=trtexec, benchmark_model=benchmark_model
    )
