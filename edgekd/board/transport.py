"""Three ways to run programs on a board: this computer, ssh, adb.

Each gives a `Workspace`: a fresh folder on the board that is removed at the end. Programs are
lists of arguments; where a shell on the board is unavoidable they are quoted, word by word.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgekd.core.errors import RunError

TIMEOUT_S = 600
"""Longest that one step on a board may take."""

PYTHON = "python3"
"""On a board, unless another is named."""

ANDROID_TEMPORARY = "/data/local/tmp"
"""Where adb's user may write and execute."""

# Never a question on the terminal: it would be asked once a step, and hang a script.
_SSH_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15")
_NO_CONNECTION = 255
_NOT_FOUND = 127

_logger = logging.getLogger(__name__)

Completed = subprocess.CompletedProcess[str]


class Workspace(ABC):
    """A folder on a board.

    Attributes:
        board: How messages name the board.
        python: Its Python.
    """

    python = PYTHON

    def __init__(self, board: str) -> None:
        self.board = board

    @abstractmethod
    def push(self, *sources: Path) -> None:
        """Copies files and folders into the folder, under their own names."""

    @abstractmethod
    def pull(self, name: str, target: Path) -> None:
        """Copies a file out of the folder."""

    @abstractmethod
    def _start(self, arguments: Sequence[str], timeout_s: float) -> Completed:
        """Returns what a program did, started in the folder."""

    def run(
        self,
        arguments: Sequence[str],
        *,
        accepted: Sequence[int] = (0,),
        timeout_s: float = TIMEOUT_S,
    ) -> Completed:
        """Returns what a program printed, started in the folder.

        Raises:
            RunError: The board is out of reach, the program is missing there, takes too long, or
                ends with another status than the accepted.
        """
        return _checked(self.board, self._start(arguments, timeout_s), accepted)


@contextmanager
def on_this_computer() -> Iterator[Workspace]:
    """Yields a temporary folder here."""
    with tempfile.TemporaryDirectory() as folder:
        yield _Here(Path(folder))


@contextmanager
def over_ssh(host: str, python: str = PYTHON) -> Iterator[Workspace]:
    """Yields a temporary folder on a host.

    The system's own ssh and scp connect, so that the user's configuration, keys and jump hosts
    serve.

    Args:
        host: As ``ssh`` takes it, such as ``pi@192.168.1.20``.
        python: The Python there that has the runtime, such as ``~/venv/bin/python``.

    Raises:
        RunError: The host is malformed or out of reach.
    """
    if host.startswith("-") or not host:
        raise RunError(f"host {host!r}; legal: a host as ssh takes it, such as pi@192.168.1.20")
    with _made(host, [], r"/[\w./-]+", lambda words: _ssh(host, words, TIMEOUT_S)) as folder:
        yield _Ssh(host, folder, python)


@contextmanager
def over_adb(serial: str | None = None) -> Iterator[Workspace]:
    """Yields a temporary folder on an Android device.

    Args:
        serial: As ``adb devices`` lists it; None for the only one that is connected.

    Raises:
        RunError: adb is not installed, or no such device answers.
    """
    if serial is not None and (serial.startswith("-") or not serial):
        raise RunError(f"adb serial {serial!r}; legal: one that `adb devices` lists")
    below, legal = ["-p", ANDROID_TEMPORARY], ANDROID_TEMPORARY + r"/[\w.-]+"
    with _made(
        _device(serial), below, legal, lambda words: _adb_shell(serial, words, TIMEOUT_S)
    ) as folder:
        yield _Adb(serial, folder)


@contextmanager
def _made(
    board: str, below: Sequence[str], legal: str, ask: Callable[[Sequence[str]], Completed]
) -> Iterator[str]:
    """Yields a fresh folder on a board, whose path matches ``legal``, and removes it at the end."""
    folder = _checked(board, ask(["mktemp", "-d", *below]), (0,)).stdout.strip()
    if not re.fullmatch(legal, folder):
        raise RunError(f"{board}: mktemp -d answered {folder!r}; legal: one absolute path")
    try:
        yield folder
    finally:
        # That it cannot be removed is no reason to lose a result or an error.
        try:
            _checked(board, ask(["rm", "-rf", folder]), (0,))
        except RunError as failed:
            _logger.warning("%s: %s is left behind: %s", board, folder, failed)


class _Here(Workspace):
    python = sys.executable

    def __init__(self, folder: Path) -> None:
        super().__init__("this computer")
        self._folder = folder

    def push(self, *sources: Path) -> None:
        for source in sources:
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, self._folder / source.name)

    def _start(self, arguments: Sequence[str], timeout_s: float) -> Completed:
        return _program(self.board, arguments, timeout_s, cwd=self._folder)

    def pull(self, name: str, target: Path) -> None:
        shutil.copyfile(self._folder / name, target)


class _Ssh(Workspace):
    def __init__(self, host: str, folder: str, python: str) -> None:
        super().__init__(host)
        self._folder, self.python = folder, python

    def push(self, *sources: Path) -> None:
        # Absolute, so that no file name passes for an option or for a host.
        paths = [str(source.resolve()) for source in sources]
        self._copy([*paths, f"{self.board}:{self._folder}/"])

    def _start(self, arguments: Sequence[str], timeout_s: float) -> Completed:
        return _ssh(self.board, arguments, timeout_s, folder=self._folder)

    def pull(self, name: str, target: Path) -> None:
        self._copy([f"{self.board}:{self._folder}/{name}", str(target.resolve())])

    def _copy(self, paths: Sequence[str]) -> None:
        command = ["scp", "-q", "-r", *_SSH_OPTIONS, "--", *paths]
        _checked(self.board, _program(self.board, command, TIMEOUT_S), (0,))


class _Adb(Workspace):
    def __init__(self, serial: str | None, folder: str) -> None:
        super().__init__(_device(serial))
        self._serial, self._folder = serial, folder

    def push(self, *sources: Path) -> None:
        paths = [str(source.resolve()) for source in sources]
        self._adb(["push", *paths, f"{self._folder}/"])

    def _start(self, arguments: Sequence[str], timeout_s: float) -> Completed:
        return _adb_shell(self._serial, arguments, timeout_s, folder=self._folder)

    def pull(self, name: str, target: Path) -> None:
        self._adb(["pull", f"{self._folder}/{name}", str(target.resolve())])

    def _adb(self, words: Sequence[str]) -> None:
        command = ["adb", *_serial_option(self._serial), *words]
        _checked(self.board, _program(self.board, command, TIMEOUT_S), (0,))


def _ssh(
    host: str, arguments: Sequence[str], timeout_s: float, folder: str | None = None
) -> Completed:
    command = ["ssh", *_SSH_OPTIONS, "--", host, _line(arguments, folder)]
    return _program(host, command, timeout_s)


def _adb_shell(
    serial: str | None, arguments: Sequence[str], timeout_s: float, folder: str | None = None
) -> Completed:
    command = ["adb", *_serial_option(serial), "shell", "-n", _line(arguments, folder)]
    return _program(_device(serial), command, timeout_s)


def _device(serial: str | None) -> str:
    return serial or "adb device"


def _serial_option(serial: str | None) -> list[str]:
    return ["-s", serial] if serial else []


def _line(arguments: Sequence[str], folder: str | None) -> str:
    """Returns the command line that the board's shell reads; its home folder may begin it."""
    program, *others = arguments
    home = "~/" if program.startswith("~/") else ""
    line = " ".join([home + shlex.quote(program.removeprefix("~/")), *map(shlex.quote, others)])
    return f"cd {shlex.quote(folder)} && {line}" if folder else line


def _program(
    board: str, arguments: Sequence[str], timeout_s: float, cwd: Path | None = None
) -> Completed:
    program = Path(arguments[0]).name
    try:
        return subprocess.run(  # noqa: S603 - a list, and the only shell is the board's own
            arguments,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
            cwd=cwd,
        )
    except FileNotFoundError as missing:
        hint = {
            "ssh": "install an OpenSSH client",
            "scp": "install an OpenSSH client",
            "adb": "install Android's platform tools",
        }.get(program, "install it")
        raise RunError(f"{program} is not installed here: {hint}") from missing
    except subprocess.TimeoutExpired as late:
        raise RunError(f"{board}: {program} took longer than {timeout_s:g} s") from late


def _checked(board: str, done: Completed, accepted: Sequence[int]) -> Completed:
    program = Path(done.args[0]).name
    if program == "ssh" and done.returncode == _NO_CONNECTION:
        raise RunError(f"{board}: cannot be reached over ssh: {last_line(done)}")
    if done.returncode in accepted:
        return done
    if done.returncode == _NOT_FOUND:
        raise RunError(f"{board}: a program is missing there: {last_line(done)}")
    raise RunError(f"{board}: {program} failed ({done.returncode}): {last_line(done)}")


def last_line(done: Completed) -> str:
    """Returns the last thing that a program complained of."""
    lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines()
    return lines[-1] if lines else "it says nothing"
