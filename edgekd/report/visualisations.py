"""Validation images with what each model saw in them, as pictures that a page can hold."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image as Pictures

from edgekd.core.errors import RunError
from edgekd.core.results import SampleVisualisation
from edgekd.core.types import Detections, Image
from edgekd.report.draw import class_colour, draw_detections

MIN_SCORE = 0.3
_LARGEST_SIDE = 960


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One drawn image: its title, what it shows in words, and a ``data:`` URI."""

    title: str
    summary: str
    uri: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """The panels of one image and the colours of the classes in them, as ``#rrggbb``."""

    name: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, str], ...]


def gallery(visualisation: SampleVisualisation, names: Mapping[str, str]) -> Gallery:
    """Returns annotated objects and each model's detections, drawn side by side.

    Args:
        visualisation: The image and what was seen in it.
        names: Titles for the keys of its ``detections``; a key without one is its own title.

    Raises:
        RunError: The image cannot be read any more.
        ModelError: A label has no class name.
    """
    image, scale = _read(visualisation)
    seen = {names.get(key, key): found for key, found in visualisation.detections.items()}
    panels = [
        _panel("Annotated", image, visualisation.truth, visualisation, scale, show_scores=False)
    ]
    panels += [
        _panel(title, image, found, visualisation, scale, show_scores=True)
        for title, found in seen.items()
    ]
    return Gallery(
        name=visualisation.image.name,
        panels=tuple(panels),
        legend=_legend(visualisation),
    )


def _read(visualisation: SampleVisualisation) -> tuple[Image, float]:
    """Returns the pixels, shrunk where they would only make the page heavy, and by how much."""
    try:
        with Pictures.open(visualisation.image) as picture:
            pixels = picture.convert("RGB")
    except OSError as error:
        raise RunError(
            f"{visualisation.image}: cannot read the image: {error}; legal: the data set where the "
            "run found it"
        ) from error
    width = pixels.width
    pixels.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return np.array(pixels), pixels.width / width


def _panel(
    title: str,
    image: Image,
    found: Detections,
    visualisation: SampleVisualisation,
    scale: float,
    *,
    show_scores: bool,
) -> Panel:
    scaled = replace(found, boxes=found.boxes * np.float32(scale))
    drawn = draw_detections(
        image, scaled, visualisation.classes, min_score=MIN_SCORE, show_scores=show_scores
    )
    labels = found.labels[found.scores >= MIN_SCORE]
    counts = Counter(visualisation.classes[int(label)] for label in labels)
    said = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
    return Panel(title=title, summary=said or "nothing", uri=_data_uri(drawn))


def _legend(visualisation: SampleVisualisation) -> tuple[tuple[str, str], ...]:
    everything = (visualisation.truth, *visualisation.detections.values())
    labels = {
        int(label) for found in everything for label in found.labels[found.scores >= MIN_SCORE]
    }
    return tuple(
        (visualisation.classes[label], "#{:02x}{:02x}{:02x}".format(*class_colour(label)))
        for label in sorted(labels)
    )


def _data_uri(image: Image) -> str:
    buffer = io.BytesIO()
    # Full colour resolution (subsampling 0), or thin coloured lines turn grey.
    Pictures.fromarray(image).save(buffer, "JPEG", quality=85, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
