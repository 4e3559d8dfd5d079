"""The student that a latency budget buys: width, depth and input size, chosen before training.

The same operators are predicted that the exported file will hold, by the same costs. How accurate a
student will be is not predicted: of those that keep to the budget the one with the most work is
taken, as long as width, depth and input grow in step (compound scaling, Tan and Le, arXiv
1905.11946: by 1.1, 1.2 and 1.15 a step).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from edgekd.config.device import Device
from edgekd.config.recipe import Recipe
from edgekd.core.errors import RecipeError, RunError
from edgekd.core.files import write_atomic
from edgekd.core.progress import Progress
from edgekd.core.results import Considered
from edgekd.core.serialize import from_mapping, to_mapping
from edgekd.core.types import Artifact, Precision, Task
from edgekd.measure.predict import LatencyModel, latency_model, predict_latency
from edgekd.modelfile.read import read_operators
from edgekd.nets.backbone import SCALES
from edgekd.nets.card import SMALL_PIXELS, Card, build
from edgekd.nets.operators import network_operators

WIDTHS = (0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)
STEPS = {"width": 1.1, "depth": 1.2, "input": 1.15}
APART = 3.5
"""Steps by which width, depth and input may be apart, while one is left that fits."""

DEEPEST = list(SCALES)[-1]

LARGE_SIDE = 512
"""Of an input that stands for all that are not of few pixels."""

SMALLEST_SIDE = 96
"""Pixels that no input is made smaller than; nor is it made larger than the recipe's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """A student as three numbers.

    Attributes:
        letter: Of the depth.
        scale: Of the input's sides, relative to the recipe's.
    """

    letter: str
    width: float
    height: int
    columns: int
    scale: float

    @property
    def spread(self) -> float:
        """Steps between what grew most and what grew least, against an n at the recipe's input.

        What may grow no further does not hold the others back.
        """
        ratios = {
            "width": self.width,
            "depth": _blocks(self.letter) / _blocks("n"),
            "input": self.scale,
        }
        steps = {name: math.log(ratio) / math.log(STEPS[name]) for name, ratio in ratios.items()}
        most = max(steps.values())
        spent = {"width": self.width == WIDTHS[-1], "depth": self.letter == DEEPEST}
        spent["input"] = self.scale == 1
        held = [n for name, n in steps.items() if not (spent[name] and n < most)]
        return most - min(held)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What was chosen for a budget, as the run directory keeps it.

    Attributes:
        recipe: Hash of the recipe that asked for it.
        allowed_ms: What a student's prediction might be at most: the budget, or less where the file
            of an earlier student took longer than predicted.
        considered: Every student, one of them chosen.
    """

    recipe: str
    allowed_ms: float
    considered: tuple[Considered, ...]

    def __post_init__(self) -> None:
        if sum(item.chosen for item in self.considered) != 1:
            raise ValueError("considered: exactly one is to be chosen")

    @property
    def chosen(self) -> Considered:
        """The student that was taken."""
        return next(item for item in self.considered if item.chosen)


def fitted_to_budget(
    recipe: Recipe,
    device: Device,
    task: Task,
    classes: tuple[str, ...],
    progress: Progress,
    allowed_ms: float | None = None,
) -> tuple[Recipe, tuple[Considered, ...], float]:
    """Returns a recipe with the student and input that its budget buys.

    The budget becomes a gate as well.

    Args:
        recipe: One with a budget.
        device: The target.
        task: Of the data.
        classes: Of the data.
        progress: Shows it.
        allowed_ms: What the student's prediction may be at most; None for the budget itself.

    Returns:
        The recipe, all students that were considered, and what was allowed.

    Raises:
        RecipeError: The student is not one of EdgeKD's families, nothing is predicted for the
            device, or the smallest student takes longer than is allowed.
    """
    budget = recipe.student.budget_ms
    if budget is None:
        raise RecipeError("student.budget_ms: there is none")
    allowed = budget if allowed_ms is None else allowed_ms
    known = _latency_model(recipe, device)
    precision = Precision.FLOAT32 if recipe.quantize.mode == "none" else Precision.INT8
    forms = sorted(_forms(recipe, task), key=lambda form: form.spread)
    in_step = [form for form in forms if form.spread <= APART]
    found: list[tuple[_Form, Considered]] = []
    with progress.meter("students for the budget", len(in_step)) as meter:
        for index, form in enumerate(forms):
            if index >= len(in_step) and any(item.fits for _, item in found):
                break  # The others are worse proportioned.
            found.append((form, _considered(recipe, form, classes, known, precision, allowed)))
            if index < len(in_step):
                meter.update(index + 1)
    chosen = _best(found, allowed, device)
    progress.note(
        f"student for {budget:g} ms on {device.id}: {chosen.architecture} at "
        f"{chosen.height}x{chosen.width}, predicted {chosen.median_ms:.2f} ms "
        f"[{chosen.low_ms:.2f}, {chosen.high_ms:.2f}], {chosen.macs / 1e6:.0f} M MACs "
        f"(of {len(found)} considered)"
    )
    fitted = replace(
        recipe,
        student=replace(recipe.student, architecture=chosen.architecture, budget_ms=None),
        input=replace(recipe.input, height=chosen.height, width=chosen.width),
        gates=replace(recipe.gates, budget_ms=budget),
    )
    marked = tuple(replace(item, chosen=item == chosen) for _, item in found)
    return fitted, marked, allowed


def fastest_ms(artifacts: Sequence[Artifact], device: Device) -> float | None:
    """Returns the least latency that is predicted for any file that ships; None without one."""
    shipped = [a for a in artifacts if a.form == "board" and not a.has_tail]
    found = [predict_latency(read_operators(a.path), device) for a in shipped]
    return min((one.median_ms for one in found if one is not None), default=None)


def keep_choice(folder: Path, choice: Choice | None) -> None:
    """Writes what was chosen into the run directory; nothing, where there was no budget."""
    path = folder / "budget.json"
    if choice is None:
        path.unlink(missing_ok=True)
        return
    write_atomic(path, json.dumps(to_mapping(choice), indent=1) + "\n")


def kept_choice(folder: Path) -> Choice | None:
    """Returns what `keep_choice` wrote, None where it wrote nothing.

    Raises:
        RunError: The file is malformed.
    """
    path = folder / "budget.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as broken:
        raise RunError(f"{path}: not readable: {broken}") from broken
    return from_mapping(Choice, found, str(path), RunError)


def _latency_model(recipe: Recipe, device: Device) -> LatencyModel:
    architecture = recipe.student.architecture
    if not architecture.startswith(("edgedet-", "edgecls-")):
        raise RecipeError(
            f"student.budget_ms: {architecture!r} has one size; a budget chooses among edgedet-* "
            "or edgecls-*"
        )
    known = latency_model(device, device.primary)
    if known is None:
        raise RecipeError(
            f"student.budget_ms: no latency is predicted for {device.id!r}; choose the student, "
            "and hold it to a latency with --max-latency"
        )
    return known


def _forms(recipe: Recipe, task: Task) -> Iterator[_Form]:
    height, width = recipe.input.height, recipe.input.width
    unit = recipe.student.strides[-1] if task is Task.DETECTION else 32
    # In the ratio of the sides, as near as the unit allows: 512x640 in steps of 32 rows.
    short = min(height, width)
    sizes = {(height, width): 1.0}
    for side in range(short - unit, max(SMALLEST_SIDE, unit) - 1, -unit):
        scale = side / short
        sides = tuple(max(unit, round(n * scale / unit) * unit) for n in (height, width))
        sizes.setdefault((sides[0], sides[1]), scale)
    for (rows, columns), scale in sizes.items():
        for letter in SCALES:
            for multiplier in WIDTHS:
                yield _Form(
                    letter=letter, width=multiplier, height=rows, columns=columns, scale=scale
                )


def _blocks(letter: str) -> int:
    """Returns the blocks of a backbone: one more a stage than its depth."""
    return sum(depth + 1 for depth in SCALES[letter].depth)


def _considered(
    recipe: Recipe,
    form: _Form,
    classes: tuple[str, ...],
    known: LatencyModel,
    precision: Precision,
    budget: float,
) -> Considered:
    family = recipe.student.architecture.partition("-")[0]
    card = Card(
        architecture=f"{family}-{form.letter}{form.width:g}",
        classes=classes,
        height=form.height,
        width=form.columns,
        channels=recipe.input.channels,
        strides=recipe.student.strides if family == "edgedet" else (),
    )
    operators = network_operators(_blank(card), card.input_shape, precision)
    median, low, high = known.interval(operators)
    return Considered(
        architecture=card.architecture,
        height=card.height,
        width=card.width,
        macs=sum(operator.macs for operator in operators),
        parameters=sum(operator.parameters for operator in operators),
        median_ms=median,
        low_ms=low,
        high_ms=high,
        fits=median <= budget,
    )


def _blank(card: Card) -> nn.Module:
    """Returns the network without weights, one for all inputs that are not of few pixels."""
    if max(card.height, card.width) <= SMALL_PIXELS:
        return _built(card)
    return _built(replace(card, height=LARGE_SIDE, width=LARGE_SIDE))


@lru_cache(maxsize=len(SCALES) * len(WIDTHS))
def _built(card: Card) -> nn.Module:
    with torch.device("meta"):
        return build(card)


def _best(found: list[tuple[_Form, Considered]], budget: float, device: Device) -> Considered:
    fitting = [pair for pair in found if pair[1].fits]
    if not fitting:
        least = min((item for _, item in found), key=lambda item: item.median_ms)
        raise RecipeError(
            f"student.budget_ms {budget:g}: the smallest student, {least.architecture} at "
            f"{least.height}x{least.width}, is predicted to take {least.median_ms:.2f} ms on "
            f"{device.id}"
        )
    nearest = max(APART, min(form.spread for form, _ in fitting))
    within = [item for form, item in fitting if form.spread <= nearest]
    return max(within, key=lambda item: item.macs)
