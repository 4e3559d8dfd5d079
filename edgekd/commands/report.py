"""A finished run's report again, or held against other gates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekd.config.recipe import Recipe, override
from edgekd.core.errors import (
    EdgeKDError,
    RunError,
)
from edgekd.core.results import RunRecord
from edgekd.report.gates import judge
from edgekd.report.html import write_html
from edgekd.run.directory import finished_record


def reopened_report(run: Path, limits: dict[str, Any]) -> RunRecord:
    """Returns the record of a finished run and rewrites its HTML.

    Args:
        run: Its folder.
        limits: Recipe keys of other gates to hold the run against; then nothing is written.

    Raises:
        RunError: The run has no report yet.
        RecipeError: A limit is not legal.
    """
    record = finished_record(run)
    if limits:
        return replace(record, gates=judge(record, override(Recipe(), limits).gates))
    try:
        write_html(record, run / "report" / "report.html")
    except (EdgeKDError, LookupError, TypeError, ValueError, AttributeError) as damaged:
        raise RunError(f"{run / 'report' / 'report.json'}: cannot be drawn: {damaged}") from damaged
    return record
