from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image as Pictures

from edgekd.core.results import SampleVisualisation
from edgekd.core.types import Detections
from edgekd.report.draw import class_colour
from edgekd.report.visualisations import Gallery, gallery


def shown(path: Path, size: tuple[int, int]) -> Gallery:
    Pictures.new("L", size).save(path)
    width, height = size
    box = np.array([[width / 4, height / 4, width / 2, height / 2]], np.float32)
    truth = Detections(boxes=box, scores=np.ones(1, np.float32), labels=np.array([1]))
    weak = Detections(boxes=box, scores=np.full(1, 0.2, np.float32), labels=np.array([0]))
    visualisation = SampleVisualisation(
        image=path, classes=("person", "car"), truth=truth, detections={"student": weak}
    )
    return gallery(visualisation, {"student": "Student S"})


def pixels(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    return np.array(Pictures.open(io.BytesIO(data)))


def test_large_image_is_shrunk_together_with_its_boxes(tmp_path: Path) -> None:
    drawn = pixels(shown(tmp_path / "large.png", (3840, 2160)).panels[0].uri)
    assert drawn.shape == (540, 960, 3)
    edge = drawn[270, 300:420].astype(int)
    assert np.abs(edge - class_colour(1)).max() < 40


def test_panels_say_what_they_show_and_the_legend_lists_only_that(tmp_path: Path) -> None:
    found = shown(tmp_path / "small.png", (320, 240))
    assert [(panel.title, panel.summary) for panel in found.panels] == [
        ("Annotated", "1 car"),
        ("Student S", "nothing"),
    ]
    assert found.legend == (("car", "#e69f00"),)
