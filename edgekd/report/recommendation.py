"""Which of a run's files to take, by what is predicted for the target."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.core.results import Latency, ModelRow
from edgekd.core.types import Precision


def recommendation(rows: Sequence[ModelRow]) -> str:
    """Returns which of int8 and float16 to take, by what is predicted for the target.

    Int8 has to win: where float16 is as fast, it is the safer file.
    """
    files = [row for row in rows if row.path and row.key.endswith("-onnx")]
    by_precision = {row.precision: row.predicted for row in files if row.predicted}
    int8, half = by_precision.get(Precision.INT8), by_precision.get(Precision.FLOAT16)
    if int8 is None or half is None:
        return ""
    if int8.median_ms >= half.median_ms:
        chosen = "Take float16: int8 is not predicted to be faster"
    elif (int8.high_ms or 0) < (half.low_ms or 0):
        chosen = "Take int8: it is predicted to be faster"
    else:
        chosen = "Measure both: int8 is predicted to be faster, but the intervals overlap"
    return f"{chosen} ({_shown(int8)} against {_shown(half)} ms, {int8.note})."


def _shown(latency: Latency) -> str:
    return f"{latency.median_ms:.3g} [{latency.low_ms:.3g}, {latency.high_ms:.3g}]"
