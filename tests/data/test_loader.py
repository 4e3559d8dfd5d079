"""Batches come out the same however the worker processes are started."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch

from edgekd.data.dataset import load
from edgekd.data.loader import ViewStream, batches
from edgekd.sections import Augmentation


@pytest.mark.parametrize("jax_is_loaded", [False, True])
def test_a_worker_process_makes_the_same_batches(
    small_set: Path, monkeypatch: pytest.MonkeyPatch, jax_is_loaded: bool
) -> None:
    if jax_is_loaded:
        monkeypatch.setitem(sys.modules, "jax", types.ModuleType("jax"))
    else:
        monkeypatch.delitem(sys.modules, "jax", raising=False)
    stream = ViewStream(
        dataset=load(small_set, "train"),
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
