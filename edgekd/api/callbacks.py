"""What follows a run while it works: the figures of every piece of long work, as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from edgekd.core.errors import RecipeError
from edgekd.core.progress import Figures, Meter, Progress


class Callback(Protocol):
    """Is told of everything that a progress bar shows; may end the run by raising an exception."""

    def on_update(self, title: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Takes one step of a piece of work.

        Args:
            title: Such as ``distill``, ``QAT`` or ``int8.onnx``.
            done: Units that are finished: steps, images.
            total: Units in all.
            figures: Those that matter now: ``loss``, ``img/s``; empty where there are none.
        """


class TensorBoardLogger:
    """Writes every figure as a scalar for TensorBoard, one tag a piece of work and figure.

    Needs the package ``tensorboard``: ``pip install edgekd[loggers]``.

    Args:
        folder: Gets the event file.

    Raises:
        RecipeError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as missing:
            raise RecipeError(
                f"TensorBoardLogger: {missing}; pip install 'edgekd[loggers]'"
            ) from missing
        self._writer = SummaryWriter(str(folder))

    def on_update(self, title: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Writes the figures."""
        for name, value in figures.items():
            self._writer.add_scalar(f"{title}/{name}", value, done)
        if done == total:
            self._writer.flush()


class MLflowLogger:
    """Logs every figure as a metric of the active MLflow run.

    Where it goes is MLflow's own setting (``MLFLOW_TRACKING_URI``), a local folder by default.
    Needs the package ``mlflow`` or ``mlflow-skinny``.

    Raises:
        RecipeError: MLflow is not installed.
    """

    def __init__(self) -> None:
        try:
            import mlflow
        except ImportError as missing:
            raise RecipeError(f"MLflowLogger: {missing}; pip install mlflow-skinny") from missing
        self._mlflow = mlflow

    def on_update(self, title: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Logs the figures."""
        if figures:
            # MLflow takes letters, digits, spaces and -_./: of the names that EdgeKD gives, all.
            named = {f"{title}/{name}": value for name, value in figures.items()}
            self._mlflow.log_metrics(named, step=done)


class CalledProgress:
    """Shows what another progress shows, and tells callbacks of it."""

    def __init__(self, shown: Progress, callbacks: Sequence[Callback]) -> None:
        self._shown, self._callbacks = shown, tuple(callbacks)

    @contextmanager
    def meter(self, title: str, total: int, start: int = 0) -> Iterator[Meter]:
        """Yields a meter that shows and tells."""
        with self._shown.meter(title, total, start) as meter:
            yield _CalledMeter(meter, self._callbacks, title, total)

    def note(self, line: str) -> None:
        """Shows the line."""
        self._shown.note(line)


class _CalledMeter:
    def __init__(self, meter: Meter, callbacks: Sequence[Callback], title: str, total: int) -> None:
        self._meter, self._callbacks = meter, callbacks
        self._title, self._total = title, total

    def update(self, done: int, figures: Figures | None = None) -> None:
        self._meter.update(done, figures)
        for callback in self._callbacks:
            callback.on_update(self._title, done, self._total, dict(figures or {}))


def require_callbacks(given: Sequence[Any]) -> tuple[Callback, ...]:
    """Returns the callbacks.

    Raises:
        RecipeError: One has no ``on_update``.
    """
    for callback in given:
        if not callable(getattr(callback, "on_update", None)):
            raise RecipeError(
                f"callback {callback!r}; legal: an object with on_update(title, done, total, "
                "figures)"
            )
    return tuple(given)
