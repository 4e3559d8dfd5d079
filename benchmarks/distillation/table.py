"""The rows in ``results/`` as the Markdown tables of README.md.

python benchmarks/distillation/table.py hit-uav-grid
python benchmarks/distillation/table.py mnist
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def rows(table: str) -> list[dict[str, Any]]:
    """Returns the rows of a table, the best float figure first."""
    found = [json.loads(p.read_text(encoding="utf-8")) for p in (RESULTS / table).glob("*.json")]
    return sorted(found, key=lambda row: -headline(row["float32"]))


def headline(figures: Mapping[str, Any]) -> float:
    """Returns the figure that rows are judged by, in points."""
    return float(figures["map"] if "map" in figures else figures["top1"])


def shown(interval: Mapping[str, float] | None) -> str:
    """Returns a difference with its 95 % interval."""
    if interval is None:
        return ""
    return f"{interval['value']:+.2f} ({interval['low']:+.2f} to {interval['high']:+.2f})"


def unusual_base(row: Mapping[str, Any]) -> str:
    """Returns what a row is compared with where that is not the student without a teacher."""
    base = row.get("base", "no-kd")
    return "" if base.startswith("no-kd") else f" over `{base}`"


def cells(row: Mapping[str, Any]) -> list[str]:
    """Returns one row's cells."""
    floating = row["float32"]
    apart = []
    if "map" in floating:
        per_class = floating["per_class"]
        apart = [f"{floating['map_all']:.2f}", *(f"{v:.2f}" for v in per_class.values())]
    return [
        f"`{row['row']}`",
        f"{headline(floating):.2f}",
        shown(row.get("minus_base")) + unusual_base(row),
        f"{headline(row['int8_ptq']):.2f}",
        shown(row["int8_minus_float"]),
        shown(row.get("int8_minus_base_int8")),
        *apart,
        f"{row['steps']:,}",
    ]


def mnist() -> None:
    """Prints the errors of every row of ``mnist.json``, its seeds side by side."""
    found = json.loads((RESULTS / "mnist.json").read_text(encoding="utf-8"))
    by_row: dict[str, list[dict[str, Any]]] = {"teacher": [found["teacher"]]}
    for row in found["rows"]:
        by_row.setdefault(row["row"], []).append(row)
    print("| row | errors of 10,000, each seed | mean | published | threes right, % |")
    print("|---|---|---|---|---|")
    for name, seeds in by_row.items():
        errors = [row["errors"] for row in seeds]
        threes = ", ".join(f"{row['threes_right']:.1f}" for row in seeds)
        mean = f"{sum(errors) / len(errors):.0f}"
        published = found["published"][name]
        print(f"| {name} | {', '.join(map(str, errors))} | {mean} | {published} | {threes} |")


def main(table: str) -> None:
    """Prints one table of trained rows."""
    found = rows(table)
    detects = "map" in found[0]["float32"]
    figure = "mAP" if detects else "top-1"
    apart = ["mAP all", *found[0]["float32"]["per_class"]] if detects else []
    titles = ["row", figure, "minus its base", f"int8 {figure}", "int8 minus float"]
    titles += ["int8 minus base's int8", *apart, "steps"]
    print("| " + " | ".join(titles) + " |")
    print("|" + "---|" * len(titles))
    for row in found:
        print("| " + " | ".join(cells(row)) + " |")


if __name__ == "__main__":
    mnist() if sys.argv[1] == "mnist" else main(sys.argv[1])
