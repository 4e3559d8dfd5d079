from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekd.config.learning import FitOptions
from edgekd.config.sections import Augmentation
from edgekd.core.errors import ModelError
from edgekd.core.progress import SilentProgress
from edgekd.data.dataset import load
from edgekd.data.loader import Batch, ViewStream
from edgekd.training.loop import WeightAverage, fit, rate_at

CPU = torch.device("cpu")


class MeanTask:
    """Learns the mean grey value of the images."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.model = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.model.bias, 5.0)
        self.seen: list[float] = []

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.seen.append(float(batch.images.sum()))
        wanted = batch.images.mean(dim=(1, 2, 3))
        return {"mean": (self.model(torch.ones(len(wanted), 1))[:, 0] - wanted).square().mean()}


def stream(small_set: Path) -> ViewStream:
    return ViewStream(
        dataset=load(small_set, "train"),
        size=(32, 32),
        channels=3,
        augmentation=Augmentation(),
        seed=0,
    )


def run(task: MeanTask, small_set: Path, folder: Path, **options: object) -> list[dict[str, float]]:
    return fit(
        task,
        stream(small_set),
        FitOptions(**{"steps": 12, "batch_size": 4, "workers": 0, **options}),
        folder=folder,
        title="test",
        progress=SilentProgress(),
        device=CPU,
    )


class Killed(Exception):
    pass


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_an_interrupted_run_ends_with_the_tensors_of_an_uninterrupted_one(
    small_set: Path, tmp_path: Path, ema: float
) -> None:
    whole = MeanTask()
    run(whole, small_set, tmp_path / "whole", ema=ema)

    class Interrupted(MeanTask):
        def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
            if len(self.seen) == 7:
                raise Killed
            return super().losses(batch)

    first = Interrupted()
    with pytest.raises(Killed):
        run(first, small_set, tmp_path / "cut", ema=ema, checkpoint_s=0.0)
    second = MeanTask()
    run(second, small_set, tmp_path / "cut", ema=ema)
    assert second.seen == whole.seen[7:]
    assert torch.equal(second.model.weight, whole.model.weight)
    assert torch.equal(second.model.bias, whole.model.bias)


def test_a_checkpoint_of_other_options_is_refused(small_set: Path, tmp_path: Path) -> None:
    run(MeanTask(), small_set, tmp_path, checkpoint_s=0.0)
    with pytest.raises(ModelError, match="other training options"):
        run(MeanTask(), small_set, tmp_path, learning_rate=0.5)


def test_a_pickle_is_not_loaded_as_a_checkpoint(small_set: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('ran code from a checkpoint')",))

    torch.save({"step": Bomb()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="not a checkpoint"):
        run(MeanTask(), small_set, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(small_set: Path, tmp_path: Path) -> None:
    class Broken(MeanTask):
        def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
            return {"bad": super().losses(batch)["mean"] * float("nan")}

    with pytest.raises(ModelError, match="not finite"):
        run(Broken(), small_set, tmp_path)


def test_training_reduces_the_loss_and_reports_it(small_set: Path, tmp_path: Path) -> None:
    curve = run(MeanTask(), small_set, tmp_path, steps=100, learning_rate=0.1, ema=0.0)
    assert curve[-1]["step"] == 100
    assert curve[-1]["loss"] < curve[0]["loss"] / 4
    assert set(curve[0]) == {"step", "loss", "term/mean"}


def test_the_rate_rises_linearly_and_falls_to_its_end() -> None:
    options = FitOptions(steps=100, warmup=0.1, final_rate=0.05)
    assert rate_at(0, options) == pytest.approx(0.1)
    assert rate_at(9, options) == pytest.approx(1.0)
    assert rate_at(55, options) == pytest.approx(0.525)
    assert rate_at(99, options) == pytest.approx(0.05, abs=1e-3)


def test_the_average_follows_the_weights_and_copies_integers() -> None:
    model = torch.nn.BatchNorm1d(1)
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        model.weight.fill_(3.0)
    model.num_batches_tracked.fill_(7)
    average.update(model, step=1000)
    assert average.state["weight"].item() == pytest.approx(2.0)
    assert average.state["num_batches_tracked"].item() == 7


def test_every_pass_shows_every_image_once(small_set: Path) -> None:
    from edgekd.data.loader import _KeyStream

    keys = [
        k for batch in _KeyStream(images=5, batch_size=3, seed=1, start=0, steps=5) for k in batch
    ]
    assert sorted(i for e, i in keys if e == 0) == list(range(5))
    assert [e for e, _ in keys] == [0] * 5 + [1] * 5 + [2] * 5
    resumed = [k for b in _KeyStream(images=5, batch_size=3, seed=1, start=2, steps=5) for k in b]
    assert resumed == keys[6:]


class Notes(SilentProgress):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize(("native", "told"), [(True, 0), (False, 1)])
def test_emulated_bfloat16_is_said_to_be_slow(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool, told: int
) -> None:
    monkeypatch.setattr("edgekd.training.precision.has_bfloat16", lambda _device: native)
    notes = Notes()
    fit(
        MeanTask(),
        stream(small_set),
        FitOptions(steps=1, batch_size=2, workers=0, precision="bfloat16"),
        folder=tmp_path,
        title="test",
        progress=notes,
        device=CPU,
    )
    assert sum("auto takes what is fast" in line for line in notes.lines) == told
