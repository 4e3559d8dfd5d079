"""A run's report.json as the Markdown table of benchmarks/README.md.

python benchmarks/table.py benchmarks/bccd/report.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgekd.core.results import DetectionMetrics
from edgekd.report.record import from_json


def main(path: Path) -> None:
    """Prints rows, comparisons and proofs."""
    record = from_json(path.read_text(encoding="utf-8"))
    print("| model | runtime | mAP | AP50 | parameters | MACs | size | measured here, median |")
    print("|---|---|---|---|---|---|---|---|")
    for row in record.rows:
        metrics = row.metrics
        if not isinstance(metrics, DetectionMetrics):
            raise SystemExit(f"{path}: {row.key} is not a detector's row")
        latency = f"{row.measured.median_ms:.2f} ms" if row.measured else ""
        print(
            f"| {row.name} | {row.runtime} | {100 * metrics.map:.2f} | "
            f"{100 * metrics.ap50:.2f} | "
            f"{row.parameters / 1e3:,.0f} k | {row.macs / 1e6:.0f} M | "
            f"{row.size_bytes / 1024:,.0f} KiB | {latency} |"
        )
    print("\n| difference | mAP points | 95 % paired interval |\n|---|---|---|")
    names = {row.key: row.name for row in record.rows}
    for item in record.comparisons:
        value, low, high = (
            100 * v for v in (item.interval.value, item.interval.low, item.interval.high)
        )
        pair = f"{names[item.of]} minus {names[item.minus]}"
        print(f"| {pair} | {value:+.2f} | {low:+.2f} to {high:+.2f} |")
    passed = sum(check.passed for check in record.checks)
    print(f"\nProofs: {passed} of {len(record.checks)} passed.")
    for check in record.checks:
        print(f"- `{check.name}`: {check.figure}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
