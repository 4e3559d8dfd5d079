"""The layers hold, and a bad import would be noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()",
         "--no-cache"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


def test_imports_run_downwards_and_boards_need_no_torch() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


BAD_IMPORTS = {
    "edgekd.export.write": "edgekd.quantize.graph",
    "edgekd.training.loop": "edgekd.distill.task",
    "edgekd.stages.bundle": "edgekd.stages.benchmark",
    "edgekd.metrics.detection": "torch",
    "edgekd.rules.check": "torch",
}


def test_every_bad_import_breaks_a_contract(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "edgekd", tmp_path / "edgekd")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for module, imported in BAD_IMPORTS.items():
        path = tmp_path / f"{module.replace('.', '/')}.py"
        path.write_text(f"{path.read_text()}\nimport {imported}\n")
    result = lint(tmp_path)
    assert result.returncode != 0
    missed = [m for m, i in BAD_IMPORTS.items() if f"{m} -> {i}" not in result.stdout]
    assert missed == []


def test_the_command_line_starts_without_torch() -> None:
    code = (
        "import sys, edgekd.cli, edgekd.config.device, edgekd.measure.predict;"
        "import edgekd.report.html;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
