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


def test_a_script_without_a_guard_is_not_run_again_by_its_workers(
    small_set: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import importlib.util, sys, types\n"
        "sys.modules['jax'] = types.ModuleType('jax')\n"
        "from pathlib import Path\n"
        f"spec = importlib.util.spec_from_file_location('this_test', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print('run')\n"
        f"module.check(Path({str(small_set)!r}))\n"
        "import __main__; print(Path(__main__.__file__).name)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["run", "script.py"]


if __name__ == "__main__":
    check(Path(sys.argv[1]))
