"""How long work shows itself: a bar in a terminal, plain lines elsewhere, nothing in tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

Figures = Mapping[str, float]


class Meter(Protocol):
    """One piece of long work."""

    def update(self, done: int, figures: Figures | None = None) -> None:
        """Says that ``done`` of the total is finished, and the figures that matter now."""


class Progress(Protocol):
    """Opens meters; the library only ever sees this."""

    def meter(self, title: str, total: int, start: int = 0) -> AbstractContextManager[Meter]:
        """Returns a context that shows one piece of work of ``total`` units."""

    def note(self, line: str) -> None:
        """Shows one line that stays."""


class _SilentMeter:
    def update(self, done: int, figures: Figures | None = None) -> None:
        """Shows nothing."""


class SilentProgress:
    """Shows nothing: the default in the library and in tests."""

    @contextmanager
    def meter(self, title: str, total: int, start: int = 0) -> Iterator[Meter]:
        """Yields a meter that shows nothing."""
        yield _SilentMeter()

    def note(self, line: str) -> None:
        """Shows nothing."""


class PlainProgress:
    """One line at most every ``interval_s`` seconds, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, interval_s: float = 10.0) -> None:
        self.stream = stream if stream is not None else sys.stderr
        self.interval_s = interval_s

    @contextmanager
    def meter(self, title: str, total: int, start: int = 0) -> Iterator[Meter]:
        """Yields a meter that prints lines such as ``distill 120/800 loss 1.234 eta 2m10s``."""
        yield _PlainMeter(self, title, total, start)

    def note(self, line: str) -> None:
        """Prints the line."""
        print(line, file=self.stream, flush=True)


class _PlainMeter:
    def __init__(self, progress: PlainProgress, title: str, total: int, start: int) -> None:
        self._progress, self._title, self._total = progress, title, total
        self._first, self._begun = start, time.monotonic()
        self._shown = self._begun

    def update(self, done: int, figures: Figures | None = None) -> None:
        now = time.monotonic()
        if now - self._shown < self._progress.interval_s and done < self._total:
            return
        self._shown = now
        rate = (now - self._begun) / max(1, done - self._first)
        parts = [self._title, f"{done}/{self._total}", *_figures(figures)]
        if done < self._total:
            parts.append(f"eta {duration(rate * (self._total - done))}")
        else:
            parts.append(f"done in {duration(now - self._begun)}")
        self._progress.note("  ".join(parts))


class BarProgress:
    """Rich progress bars on a terminal."""

    def __init__(self) -> None:
        import rich.console
        import rich.progress

        self._console = rich.console.Console(stderr=True)
        self._columns = (
            rich.progress.TextColumn("{task.description:<22}"),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(compact=True),
            rich.progress.TextColumn("[dim]{task.fields[figures]}"),
        )

    @contextmanager
    def meter(self, title: str, total: int, start: int = 0) -> Iterator[Meter]:
        """Yields a meter behind one bar."""
        import rich.progress

        with rich.progress.Progress(*self._columns, console=self._console) as bars:
            task = bars.add_task(title, total=total, completed=start, figures="")

            class _BarMeter:
                def update(self, done: int, figures: Figures | None = None) -> None:
                    text = "  ".join(_figures(figures))
                    bars.update(task, completed=done, figures=text)

            yield _BarMeter()

    def note(self, line: str) -> None:
        """Prints the line above the bar."""
        self._console.print(line, markup=False, highlight=False)


def default_progress() -> Progress:
    """Returns bars on a terminal, plain lines elsewhere."""
    return BarProgress() if sys.stderr.isatty() else PlainProgress()


def _figures(figures: Figures | None) -> list[str]:
    return [f"{name} {figure(value)}" for name, value in (figures or {}).items()]


def figure(value: float) -> str:
    """Returns four digits, and every digit before the point: ``1.234``, ``15,800``."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Returns ``1h02m``, ``2m10s`` or ``9s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"
