"""The training loop. It knows nothing of distillation or quantization.

It moves the parameters of `TrainingTask.model` down the sum of `TrainingTask.losses`, keeps a
moving average of them, and can be stopped anywhere: started again with the same arguments it goes
on from its last checkpoint and ends with the same tensors (same threads and versions, on a CPU).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgekd.config.learning import FitOptions
from edgekd.core.errors import ModelError
from edgekd.core.progress import Progress
from edgekd.data.loader import Batch, ViewStream, batches
from edgekd.training.allocator import keep_freed_memory
from edgekd.training.checkpoint import load_checkpoint, save_checkpoint
from edgekd.training.precision import autocast, resolved, warn_of_emulation

Point = dict[str, float]


class TrainingTask(Protocol):
    """What the loop trains."""

    @property
    def model(self) -> nn.Module:
        """Holds every parameter that is trained, saved and averaged."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Returns named scalar terms, already weighted; the loop minimises their sum."""


def fit(
    task: TrainingTask,
    stream: ViewStream,
    options: FitOptions,
    *,
    folder: Path,
    title: str,
    progress: Progress,
    device: torch.device,
    on_step: Callable[[int], None] | None = None,
) -> list[Point]:
    """Trains ``task.model`` in place and returns the training curve.

    Args:
        task: What to train; its model must be on ``device``.
        stream: Training views.
        options: How to train.
        folder: Holds the checkpoint; a checkpoint made with other options is refused.
        title: Shown beside the progress.
        progress: Shows loss, rate and images per second.
        device: Where the model is.
        on_step: Called before every step with its number.

    Returns:
        Means over each fiftieth of the run: ``step``, ``loss``, and ``term/<name>`` of every term.

    Raises:
        ModelError: The loss is not finite, or the checkpoint belongs to another run.
    """
    keep_freed_memory()
    warn_of_emulation(device, options.precision, progress)
    precision = resolved(device, options.precision)
    optimizer = torch.optim.AdamW(_groups(task.model, options.weight_decay), options.learning_rate)
    average = WeightAverage(task.model, options.ema) if options.ema else None
    run = _Run(folder / "checkpoint.pt", task.model, optimizer, average, options)
    start, curve = run.restore()
    meanwhile = _Means(every=max(1, options.steps // 50))
    with progress.meter(title, options.steps, start) as meter:
        saved, began = time.monotonic(), time.monotonic()
        for step, batch in _numbered(stream, options, start):
            if on_step:
                on_step(step)
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * rate_at(step, options)
            terms = train_step(task, batch.to(device), optimizer, options, precision)
            if average:
                average.update(task.model, step)
            done = step + 1
            meanwhile.add(terms)
            if done % meanwhile.every == 0 or done == options.steps:
                curve.append({"step": float(done), **meanwhile.take()})
            per_second = (done - start) * options.batch_size / (time.monotonic() - began)
            meter.update(done, {"loss": meanwhile.recent, "img/s": per_second})
            if time.monotonic() - saved > options.checkpoint_s and done < options.steps:
                run.save(done, curve)
                saved = time.monotonic()
    if average:
        average.copy_to(task.model)
    return curve


def train_step(
    task: TrainingTask,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    options: FitOptions,
    precision: str,
) -> dict[str, float]:
    """Takes one step and returns ``loss``, and ``term/<name>`` of every term in it."""
    with autocast(batch.images.device, precision):
        terms = task.losses(batch)
    loss = torch.stack([t.float() for t in terms.values()]).sum()
    values = {"loss": float(loss.detach())}
    values |= {f"term/{name}": float(term.detach()) for name, term in terms.items()}
    if not math.isfinite(values["loss"]):
        raise ModelError(f"the loss is not finite: {values}; a lower learning_rate may help")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, options.clip)
    optimizer.step()
    return values


def rate_at(step: int, options: FitOptions) -> float:
    """Returns the share of the peak rate at ``step``: linear warm-up, then a half cosine."""
    warm = max(1, round(options.steps * options.warmup))
    if step < warm:
        return (step + 1) / warm
    along = (step - warm) / max(1, options.steps - warm)
    return options.final_rate + (1 - options.final_rate) * (1 + math.cos(math.pi * along)) / 2


class WeightAverage:
    """Exponential moving average of parameters and floating-point buffers.

    The decay rises from 0, so that the average of a short run is not its random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average towards the model's present weights."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    def copy_to(self, model: nn.Module) -> None:
        """Puts the average into the model."""
        model.load_state_dict(self.state)


@dataclass(frozen=True, slots=True)
class _Run:
    """What a checkpoint holds."""

    path: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    options: FitOptions

    def save(self, step: int, curve: list[Point]) -> None:
        state: dict[str, Any] = {
            "step": step,
            "curve": curve,
            "options": shaping(self.options),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state if self.average else {},
        }
        save_checkpoint(self.path, state)

    def restore(self) -> tuple[int, list[Point]]:
        state = load_checkpoint(self.path)
        if state is None:
            return 0, []
        if state.get("options") != shaping(self.options):
            raise ModelError(
                f"{self.path}: made with other training options "
                f"({state.get('options')}); delete it to start this stage afresh"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            for name, value in state["average"].items():
                self.average.state[name].copy_(value)
        return int(state["step"]), list(state["curve"])


def shaping(options: FitOptions) -> dict[str, Any]:
    """Returns the options that shape the result, not those that only shape the speed."""
    return {k: v for k, v in asdict(options).items() if k not in ("checkpoint_s", "workers")}


class _Means:
    """Means of the terms since the last point, and a smoothed loss to show."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.recent = float("nan")
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, terms: dict[str, float]) -> None:
        self._count += 1
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        loss = terms["loss"]
        self.recent = loss if math.isnan(self.recent) else 0.95 * self.recent + 0.05 * loss

    def take(self) -> dict[str, float]:
        means = {name: value / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _numbered(stream: ViewStream, options: FitOptions, start: int) -> Iterator[tuple[int, Batch]]:
    chosen = batches(
        stream,
        batch_size=options.batch_size,
        start=start,
        steps=options.steps,
        workers=options.workers,
    )
    yield from enumerate(chosen, start)
