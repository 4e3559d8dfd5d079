from __future__ import annotations

import re
from xml.dom.minidom import parseString

import pytest

from edgekd.report import plots

CURVES = [{"step": 0.0, "loss": 2.0, "term/box": 1.0}, {"step": 9.0, "loss": 1.0, "map": 0.3}]

MODELS = [("slow", 50.0, 40.0), ("fast", 2.0, 35.0)]
CHANGES = {"ONNX": {"car": -0.5, "bus": 0.25}, "TFLite": {"car": 0.0}}
SHARES = {"pair": {"0": 0.9, "1": 0.1, "2": 0.0, ">2": 0.0}}

DRAWINGS = {
    "curves": lambda: plots.curves_plot("distill", CURVES),
    "latency": lambda: plots.latency_plot("a PC", "map", MODELS),
    "change": lambda: plots.change_plot(CHANGES),
    "histogram": lambda: plots.histogram_plot(SHARES),
}


def demand_sound(svg: str) -> None:
    parseString(svg)  # noqa: S318 (the drawing is our own)


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing_is_sound_and_takes_its_colours_from_the_page(name: str) -> None:
    svg = DRAWINGS[name]()
    demand_sound(svg)
    assert "<style" not in svg
    assert "var(--ink)" in svg
    assert re.search(r"var\(--(series|share)-0\)", svg)
    assert not re.search(r"(fill|stroke): #", svg)
    assert "DejaVu" not in svg
    assert DRAWINGS[name]() == svg


@pytest.mark.parametrize("name", ["交通", "$\\frac$", "<b>&\"'", "long " * 40, "%+d"])
def test_any_name_can_be_drawn(name: str) -> None:
    demand_sound(plots.change_plot({name: {name: 1.0, "car": -1.0}}))
    demand_sound(plots.latency_plot(name, "top1", [(name, 1.0, 50.0)]))


def test_change_is_written_at_its_bar() -> None:
    svg = DRAWINGS["change"]()
    for text in (">-0.50<", ">+0.25<", ">+0.00<"):
        assert text in svg


def test_accuracy_curve_is_apart_from_the_losses() -> None:
    both = plots.curves_plot("distill", CURVES)
    assert "Loss and its terms" in both
    assert "Validation, points" in both
    assert "Validation" not in plots.curves_plot("distill", CURVES[:1])
    assert plots.curves_plot("distill", []) == ""
