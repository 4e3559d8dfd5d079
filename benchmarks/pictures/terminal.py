"""The table that a run ends with, as the README shows it: drawn from the demo's own report.

python benchmarks/pictures/terminal.py [--out docs/terminal.svg]
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from rich.console import Console

from edgekd.report.record import from_json
from edgekd.report.terminal import print_report

ROOT = Path(__file__).parents[2]
COLUMNS = 100


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "terminal.svg")
    options = parser.parse_args()
    report = ROOT / "benchmarks" / "demo" / "report.json"
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    print_report(from_json(report.read_text(encoding="utf-8")), console)
    svg = console.export_svg(title="edgekd compress", unique_id="edgekd")
    options.out.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
