"""Plots as inline SVG: real text, colours left to the page's style sheet, the same bytes each time.

Every colour below is a placeholder that becomes a CSS variable, so that one drawing serves a light
page, a dark page and paper.
"""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from edgekd.core.files import cache_folder
from edgekd.core.results import Considered, Latency, OperatorCost
from edgekd.report.figures import METRIC_TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _MUTED, _GRID, _PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
_SERIES = tuple(f"#0a0c{index:02x}" for index in range(8))
_SHARES = tuple(f"#0a0d{index:02x}" for index in range(4))
_VARIABLES: dict[str, str] = {
    _INK: "--ink",
    _MUTED: "--muted",
    _GRID: "--rule",
    _PAPER: "--paper",
    **{colour: f"--series-{index}" for index, colour in enumerate(_SERIES)},
    **{colour: f"--share-{index}" for index, colour in enumerate(_SHARES)},
}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))

_STYLE: dict[str, Any] = {
    "svg.hashsalt": "edgekd",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.titlecolor": _INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
}


def curves_plot(stage: str, points: Sequence[Mapping[str, float]]) -> str:
    """Returns a stage's losses over its steps and, beside them, its validation accuracy.

    Empty text where the points hold neither.
    """
    losses = _names(points, lambda name: name == "loss" or name.startswith("term/"))
    accuracies = _names(points, lambda name: name in METRIC_TITLES)

    panels = [panel for panel in (losses, accuracies) if panel]
    if not panels:
        return ""

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, axes in zip(panels, grid, strict=True):
            for index, name in enumerate(panel):
                _draw_curve(axes, points, name, index)
            axes.set_xlabel("step")
            axes.set_title("Loss and its terms" if panel is losses else "Validation, points")
            axes.legend(fontsize=8)

    return _svg(f"curves-{stage}", (9, 2.9), draw, f"Training curves of the stage {stage}")


def considered_plot(target: str, items: Sequence[Considered]) -> str:
    """Returns the work of every student that was considered against its predicted latency."""
    groups = (
        ("over the budget", [i for i in items if not i.fits], "o", _GRID, 4),
        ("within the budget", [i for i in items if i.fits and not i.chosen], "o", _SERIES[0], 4),
        ("chosen", [i for i in items if i.chosen], "D", _SERIES[1], 9),
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for label, group, marker, colour, size in groups:
            times, work = [i.median_ms for i in group], [i.macs / 1e6 for i in group]
            axes.plot(
                times,
                work,
                linestyle="none",
                marker=marker,
                markersize=size,
                color=colour,
                label=label,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain_ticks(axes)
        axes.set_xlabel(f"latency in ms, predicted for {target}")
        axes.set_ylabel("million multiply-accumulates")
        axes.legend(loc="upper left", fontsize=8.5)

    chosen = next((i for i in items if i.chosen), None)
    said = f"; chosen: {chosen.architecture}, {chosen.median_ms:.3g} ms" if chosen else ""
    alternative = f"Work against predicted latency of {len(items)} students{said}"
    return _svg("considered", (9, 3.4), draw, alternative)


def latency_plot(where: str, metric: str, models: Sequence[tuple[str, float, float]]) -> str:
    """Returns accuracy against latency measured at one place; a model is (name, ms, points)."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, (name, milliseconds, accuracy) in enumerate(models):
            axes.plot(
                milliseconds,
                accuracy,
                linestyle="none",
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=8,
                color=_SERIES[index % len(_SERIES)],
                label=_short(name),
            )
        times = [milliseconds for _, milliseconds, _ in models]
        if max(times) > 8 * min(times) > 0:
            axes.set_xscale("log")
            _plain_ticks(axes)
        axes.margins(0.12)
        axes.set_xlabel(f"median latency in ms, measured on {_short(where, 60)}")
        axes.set_ylabel(f"{METRIC_TITLES[metric]}, points")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)

    said = "; ".join(f"{name}: {ms:.3g} ms, {points:.2f} points" for name, ms, points in models)
    alternative = f"Accuracy against latency measured on {where}. {said}"
    return _svg(f"latency-{where}", (9, 3.4), draw, alternative)


def everywhere_plot(metric: str, models: Mapping[str, Sequence[Latency]]) -> str:
    """Returns predicted latencies with their 90 % intervals: a line a device, a colour a model."""
    least: dict[str, float] = {}
    for latencies in models.values():
        for one in latencies:
            least[one.where] = min(one.median_ms, least.get(one.where, math.inf))
    devices = sorted(least, key=lambda name: (least[name], name))
    thickness = 0.8 / len(models)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, (name, latencies) in enumerate(models.items()):
            places = [
                devices.index(one.where) + (index + 0.5) * thickness - 0.4 for one in latencies
            ]
            times = [one.median_ms for one in latencies]
            spans = [
                (
                    one.median_ms - (one.low_ms or one.median_ms),
                    (one.high_ms or one.median_ms) - one.median_ms,
                )
                for one in latencies
            ]
            axes.errorbar(
                times,
                places,
                xerr=[list(side) for side in zip(*spans, strict=True)],
                linestyle="none",
                elinewidth=1,
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=4,
                color=_SERIES[index % len(_SERIES)],
                label=_short(name, 60),
            )
        axes.set_xscale("log")
        _plain_ticks(axes)
        axes.set_yticks(range(len(devices)), [_short(name) for name in devices])
        axes.set_ylim(len(devices) - 0.5, -0.5)
        axes.set_xlabel("latency in ms, predicted, with the 90 % interval")
        axes.legend(
            title=metric,
            title_fontsize=8.5,
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            fontsize=8.5,
        )

    height = 1.4 + 0.2 * len(models) + len(devices) * max(0.24, 0.09 * len(models))
    said = "; ".join(f"{name}: {least[name]:.3g} ms" for name in devices)
    alternative = f"Predicted latency on every device profile, the fastest file of each: {said}"
    return _svg("everywhere", (9, height), draw, alternative)


def operators_plot(target: str, model: str, costs: Sequence[OperatorCost], shown: int = 15) -> str:
    """Returns what the dearest operators of a model are predicted to take, and all others."""
    names = [
        f"{c.native} {'x'.join(map(str, c.output))} {c.precision.value}" for c in costs[:shown]
    ]
    times = [cost.ms for cost in costs[:shown]]
    if costs[shown:]:
        names.append(f"{len(costs) - shown} others")
        times.append(sum(cost.ms for cost in costs[shown:]))
    total = sum(cost.ms for cost in costs)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        colours = [_SERIES[0]] * min(shown, len(costs)) + [_GRID]
        bars = axes.barh(range(len(times)), times, 0.7, color=colours[: len(times)])
        labels = [f"{ms:.3g} ms, {ms / total:.0%}" for ms in times]
        axes.bar_label(bars, labels, padding=3, fontsize=8)
        axes.set_yticks(range(len(names)), [_short(name, 60) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.margins(x=0.2)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"ms of {model}, predicted for {_short(target, 60)}")

    said = "; ".join(f"{name}: {ms:.3g} ms" for name, ms in zip(names, times, strict=True))
    size = (9, 0.9 + 0.26 * len(names))
    return _svg("operators", size, draw, f"Predicted latency by operator of {model}. {said}")


def change_plot(changes: Mapping[str, Mapping[str, float]]) -> str:
    """Returns bars of the change in points per class, one colour for each entry of ``changes``."""
    classes = list(dict.fromkeys(name for change in changes.values() for name in change))
    thickness = 0.8 / len(changes)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, (title, change) in enumerate(changes.items()):
            places = [classes.index(name) + (index + 0.5) * thickness - 0.4 for name in change]
            bars = axes.barh(
                places,
                list(change.values()),
                thickness * 0.9,
                color=_SERIES[index],
                label=_short(title, 90),
            )
            axes.bar_label(bars, fmt="%+.2f", padding=3, fontsize=8)
        axes.axvline(0, color=_MUTED, linewidth=1)
        axes.set_yticks(range(len(classes)), [_short(name) for name in classes])
        axes.set_ylim(len(classes) - 0.5, -0.5)
        axes.margins(x=0.15)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("change in points, int8 minus float")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=8.5)

    height = 1.1 + 0.2 * len(changes) + len(classes) * max(0.3, 0.22 * len(changes))
    return _svg("change", (9, height), draw, "Change of accuracy per class, int8 minus float")


def histogram_plot(histograms: Mapping[str, Mapping[str, float]]) -> str:
    """Returns one stacked bar per pair: the share of values that differ by 0, 1, 2, >2 steps."""
    steps = list(dict.fromkeys(step for shares in histograms.values() for step in shares))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        left = [0.0] * len(histograms)
        for index, step in enumerate(steps):
            widths = [100 * shares.get(step, 0.0) for shares in histograms.values()]
            colour = _SHARES[min(index, len(_SHARES) - 1)]
            axes.barh(
                range(len(left)), widths, 0.62, left, color=colour, edgecolor=_PAPER, label=step
            )
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(histograms)), [_short(name) for name in histograms])
        axes.set_ylim(len(histograms) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("share of values in %")
        axes.legend(
            title="difference in quantization steps",
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=len(steps),
            fontsize=8.5,
            title_fontsize=8.5,
        )

    size = (9, 1.2 + 0.46 * len(histograms))
    return _svg("histogram", size, draw, "Differences in quantization steps, as in the table below")


def _short(text: str, limit: int = 40) -> str:
    """Returns the text with lines of ``limit`` letters at most; tables hold the names in full."""
    lines = text.split("\n")
    return "\n".join(line if len(line) <= limit else f"{line[: limit - 1]}…" for line in lines)


def _names(points: Sequence[Mapping[str, float]], wanted: Callable[[str], bool]) -> list[str]:
    return list(dict.fromkeys(name for point in points for name in point if wanted(name)))


def _draw_curve(axes: Axes, points: Sequence[Mapping[str, float]], name: str, index: int) -> None:
    known = [(point["step"], point[name]) for point in points if "step" in point and name in point]
    is_accuracy = name in METRIC_TITLES
    axes.plot(
        [step for step, _ in known],
        [value * (100 if is_accuracy else 1) for _, value in known],
        color=_SERIES[index % len(_SERIES)],
        linestyle=_DASHES[index % len(_DASHES)],
        linewidth=1.8 if name == "loss" or is_accuracy else 1.3,
        marker="o" if is_accuracy else "",
        markersize=4,
        label=_short(METRIC_TITLES.get(name, name.removeprefix("term/"))),
    )


def _plain_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _svg(
    name: str, size: tuple[float, float], draw: Callable[[Figure], None], alternative: str
) -> str:
    """Returns what ``draw`` puts on a figure of ``size`` inches, as an element for an HTML page."""
    # Where its list of fonts goes, and not the user's own settings, which would change the drawing.
    os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        with warnings.catch_warnings():
            # The browser draws the text, with a font that has the letter.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _embedded(buffer.getvalue(), re.sub(r"\W+", "-", name), alternative)


def _embedded(document: str, name: str, alternative: str) -> str:
    svg = document[document.index("<svg") :]
    # A style element inside a drawing would reach the whole page.
    svg = re.sub(r"<(metadata|style).*?</\1>", "", svg, flags=re.DOTALL)
    # A page holds many drawings, and ids must be unique in a page.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    # The page's own typeface; matplotlib can only name those that it has itself.
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--typeface)", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alternative)}" ', 1)
