"""How well costs by kernel class predict TFLite on boards and for networks they never saw.

    python benchmarks/latency/tflite.py

Published latencies of `published.py`; the questions are those of `leaving_out.py`.
"""

from __future__ import annotations

from leaving_out import report
from published import PRECISIONS, runs


def main() -> None:
    """Writes ``tflite.json`` and prints its tables."""
    report(
        "tflite",
        [
            [run for run in runs(kernels) if run.precision is precision]
            for kernels in ("ruy", "xnnpack")
            for precision in PRECISIONS.values()
        ],
    )


if __name__ == "__main__":
    main()
