"""How numbers are written, the same in the terminal and in HTML."""

from __future__ import annotations

from edgekd.core.results import ClassificationMetrics, DetectionMetrics, Interval, Latency
from edgekd.core.types import Task

Metrics = DetectionMetrics | ClassificationMetrics

NONE = "-"

# Every accuracy is kept in [0, 1], higher is better, and shown in points from 0 to 100.
METRIC_TITLES: dict[str, str] = {
    "map": "mAP@[.5:.95]",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "ar1": "AR1",
    "ar10": "AR10",
    "ar100": "AR100",
    "top1": "Top-1",
    "top5": "Top-5",
}

SIZES = ("ap_small", "ap_medium", "ap_large")

TASK_METRICS: dict[Task, tuple[str, ...]] = {
    Task.DETECTION: tuple(name for name in METRIC_TITLES if not name.startswith("top")),
    Task.CLASSIFICATION: ("top1", "top5"),
}


def points(metrics: Metrics | None, name: str) -> str:
    """Returns an accuracy in points, ``34.21``, or ``-`` where there is none to speak of."""
    return NONE if metrics is None else share_points(float(getattr(metrics, name)))


def share_points(value: float) -> str:
    """Returns a share in points, ``34.21``; ``-`` for -1, which stands for no annotated object."""
    return NONE if value < 0 else f"{value * 100:.2f}"


def significant(value: float) -> str:
    """Returns the number with three digits that count, never in exponent form."""
    size = abs(value)
    if size == 0 or size >= 99.95:
        return f"{value:.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.9995 else f"{value:.3f}"


def count(value: int) -> str:
    """Returns a count with its decimal prefix: ``950``, ``1.23 M``, ``4.10 G``."""
    for prefix, unit in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= unit:
            return f"{significant(value / unit)} {prefix}"
    return str(value)


def size(size_bytes: int) -> str:
    """Returns a file's size with its binary prefix: ``312 B``, ``4.81 MiB``."""
    for prefix, unit in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= unit:
            return f"{significant(size_bytes / unit)} {prefix}"
    return f"{size_bytes} B"


def milliseconds(value: float | None) -> str:
    """Returns a time with three digits that count, ``-`` for None."""
    return NONE if value is None else significant(value)


def predicted_range(latency: Latency) -> str:
    """Returns a prediction's interval, ``[2.20, 4.50]``, or ``no interval``."""
    if latency.low_ms is None or latency.high_ms is None:
        return "no interval"
    return f"[{significant(latency.low_ms)}, {significant(latency.high_ms)}]"


def predicted_label(latency: Latency) -> str:
    """Returns what must stand beside a prediction: ``predicted, uncalibrated``."""
    return f"predicted, {latency.note}" if latency.note else "predicted"


def difference(value: float, metric: str) -> str:
    """Returns a signed difference, in points for an accuracy and as it stands otherwise."""
    if metric not in METRIC_TITLES:
        return f"{value:+.3g}"
    # Rounded first, so that -0.001 reads +0.00 rather than -0.00.
    return f"{round(value * 100, 2) + 0.0:+.2f}"


def interval_text(interval: Interval, metric: str) -> str:
    """Returns ``-0.42 points [-0.80, -0.05]`` for an accuracy, without the unit otherwise."""
    unit = " points" if metric in METRIC_TITLES else ""
    low, high = difference(interval.low, metric), difference(interval.high, metric)
    return f"{difference(interval.value, metric)}{unit} [{low}, {high}]"


def verdict(interval: Interval, metric: str) -> str:
    """Returns what a paired interval allows to be said: better, worse or nothing."""
    if interval.low <= 0 <= interval.high:
        return "no difference shown"
    if metric not in METRIC_TITLES:
        return "differs"
    return "better" if interval.low > 0 else "worse"
