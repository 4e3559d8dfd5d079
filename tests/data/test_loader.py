"""Batches come out the same however the worker processes are started."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from edgekd.config.sections import Augmentation
from edgekd.data.dataset import load
from edgekd.data.loader import ViewStream, batches


def check(folder: Path) -> None:
    stream = ViewStream(
        dataset=load(folder, "train"),
        size=(64, 96),
        channels=3,
        augmentation=Augmentation(),
        seed=1,
    )
    own, theirs = (list(batches(stream, batch_size=4, start=1, steps=3, workers=n)) for n in (0, 1))
    assert len(own) == len(theirs) == 2
    for a, b in zip(own, theirs, strict=True):
        torch.testing.assert_close(a.images, b.images, rtol=0, atol=0)
        torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=0)


def test_a_forked_worker_makes_the_same_batches(small_set: Path) -> None:
    # In a process of its own: another test may have loaded JAX into this one.
    command = [sys.executable, __file__, str(small_set)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_beside_jax_a_worker_is_not_forked_and_makes_the_same_batches(
    small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jax", types.ModuleType("jax"))
    check(small_set)


if __name__ == "__main__":
    check(Path(sys.argv[1]))
