from __future__ import annotations

import re
from xml.dom.minidom import parseString

import pytest

from edgekd.core.results import Basis, Latency, OperatorCost
from edgekd.core.types import Precision
from edgekd.report import plots

CURVES = [{"step": 0.0, "loss": 2.0, "term/box": 1.0}, {"step": 9.0, "loss": 1.0, "map": 0.3}]

MODELS = [("slow", 50.0, 40.0), ("fast", 2.0, 35.0)]
CHANGES = {"ONNX": {"car": -0.5, "bus": 0.25}, "TFLite": {"car": 0.0}}
SHARES = {"pair": {"0": 0.9, "1": 0.1, "2": 0.0, ">2": 0.0}}


def guess(where: str, ms: float) -> Latency:
    return Latency(
        basis=Basis.PREDICTED, where=where, runtime="litert", runtime_version="2", delegate="cpu",
        threads=4, median_ms=ms, low_ms=ms / 2, high_ms=ms * 2,
    )  # fmt: skip


def cost(ms: float) -> OperatorCost:
    return OperatorCost(
        name="c", native="CONV_2D", precision=Precision.INT8, output=(1, 2, 2, 8), ms=ms,
        share=0.1, cheaper="",
    )  # fmt: skip


EVERYWHERE = {"int8": [guess("fast", 1.0), guess("slow", 9.0)], "float": [guess("slow", 4.0)]}
COSTS = [cost(3.0), *(cost(0.5) for _ in range(20))]
DRAWINGS = {
    "curves": lambda: plots.curves_plot("distill", CURVES),
    "latency": lambda: plots.latency_plot("a PC", "map", MODELS),
    "change": lambda: plots.change_plot(CHANGES),
    "histogram": lambda: plots.histogram_plot(SHARES),
    "everywhere": lambda: plots.everywhere_plot("mAP", EVERYWHERE),
    "operators": lambda: plots.operators_plot("raspberry-pi", "int8", COSTS),
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


def test_a_device_is_named_once_with_its_fastest_file_and_the_fastest_comes_first() -> None:
    svg = DRAWINGS["everywhere"]()
    assert "the fastest file of each: fast: 1 ms; slow: 4 ms" in svg
    assert svg.count(">slow</text>") == 1
    assert svg.index(">fast</text>") < svg.index(">slow</text>")


def test_operators_beyond_the_dearest_are_summed_and_shares_are_of_all() -> None:
    svg = DRAWINGS["operators"]()
    assert "6 others: 3 ms" in svg
    assert svg.count("3 ms, 23%") == 2
    assert "others" not in plots.operators_plot("raspberry-pi", "int8", COSTS[:15])
