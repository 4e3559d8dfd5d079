"""The short form of benchmarks/reliability: a run that is struck ends as one that is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "reliability" / "faults.py"


@pytest.mark.slow
def test_killed_full_and_unreadable_runs_end_as_if_nothing_had_been(tmp_path: Path) -> None:
    faults = {"--kills": 6, "--full": 2, "--unreadable": 2, "--moments": 1}
    options = [part for name, count in faults.items() for part in (name, str(count))]
    out = tmp_path / "faults.json"
    command = [sys.executable, str(SCRIPT), "--work", str(tmp_path / "work"), "--out", str(out)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(out.read_text())
    assert result["struck"] == {"kill": 6, "full": 2, "unreadable": 2, "moment": 1}
    assert result["different"] == {}
    assert result["things"] > 200
