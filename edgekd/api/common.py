"""What several functions take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.core.errors import RecipeError
from edgekd.core.progress import Progress, SilentProgress, default_progress
from edgekd.core.results import ClassificationMetrics, DetectionMetrics

Source = str | Path
Section = Mapping[str, Any]
Metrics = DetectionMetrics | ClassificationMetrics


def chosen_progress(asked: Progress | bool) -> Progress:
    """Returns what shows long work: the usual, nothing, or what the caller gave.

    Raises:
        RecipeError: It is none of these.
    """
    if asked is True:
        return default_progress()
    if asked is False:
        return SilentProgress()
    if not hasattr(asked, "meter"):
        raise RecipeError(f"progress {asked!r}; legal: True, False, an object with meter and note")
    return asked
