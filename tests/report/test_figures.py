from __future__ import annotations

import pytest

from edgekd.core.results import Interval
from edgekd.report import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.04567, "0.046"), (0.9996, "1.00"), (9.994, "9.99"), (9.996, "10.0"),
     (99.94, "99.9"), (99.96, "100"), (12345.6, "12346")],
)  # fmt: skip
def test_three_digits_count(value: float, text: str) -> None:
    assert figures.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (1_048_733, "1.05 M"), (4_120_114_176, "4.12 G")],
)
def test_counts_carry_decimal_prefixes(value: int, text: str) -> None:
    assert figures.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1023, "1023 B"), (1024, "1.00 KiB"), (1_205_440, "1.15 MiB")]
)
def test_sizes_carry_binary_prefixes(value: int, text: str) -> None:
    assert figures.size(value) == text


def test_empty_bin_is_not_a_negative_accuracy() -> None:
    assert figures.share_points(-1.0) == "-"
    assert figures.share_points(0.0) == "0.00"


@pytest.mark.parametrize(
    ("low", "high", "metric", "said"),
    [
        (0.01, 0.03, "map", "better"),
        (-0.03, -0.01, "top1", "worse"),
        (-0.01, 0.02, "map", "no difference shown"),
        (0.0, 0.02, "map", "no difference shown"),
        (1.0, 2.0, "joules", "differs"),
    ],
)
def test_verdict_needs_an_interval_clear_of_zero(
    low: float, high: float, metric: str, said: str
) -> None:
    assert figures.verdict(Interval(value=(low + high) / 2, low=low, high=high), metric) == said


def test_difference_is_in_points_and_never_minus_zero() -> None:
    interval = Interval(value=-0.00001, low=-0.0123, high=0.01)
    assert figures.interval_text(interval, "map") == "+0.00 points [-1.23, +1.00]"
    assert (
        figures.interval_text(Interval(value=2.0, low=1.5, high=3.0), "joules") == "+2 [+1.5, +3]"
    )
