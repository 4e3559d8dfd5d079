"""Figures beside a progress bar are those that people read."""

from __future__ import annotations

import io

import pytest

from edgekd.core.progress import PlainProgress, duration, figure


@pytest.mark.parametrize(
    ("value", "shown"),
    [(15_800.4, "15,800"), (1.23456, "1.235"), (0.0, "0"), (1e-7, "1e-07"), (999.96, "1000")],
)
def test_figures(value, shown):
    assert figure(value) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(9, "9s"), (130, "2m10s"), (3720, "1h02m")])
def test_durations(seconds, shown):
    assert duration(seconds) == shown


def test_the_last_line_is_always_printed():
    stream = io.StringIO()
    with PlainProgress(stream, interval_s=1e9).meter("teacher cache", 3) as meter:
        for done in (1, 2, 3):
            meter.update(done, {"MiB": 15_800.0})
    assert stream.getvalue() == "teacher cache  3/3  MiB 15,800  done in 0s\n"
