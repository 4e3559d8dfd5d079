"""A distillation method: the loss, and beside it all there is to know before it runs."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from edgekd.config.learning import DEFAULT_METHODS, DistillSection, MethodConfig
from edgekd.core.errors import RecipeError, suggest
from edgekd.core.modules import import_all
from edgekd.core.types import Task
from edgekd.distill.batch_context import LevelPair

Loss = TypeVar("Loss", bound=type[nn.Module])

NEEDS = ("logits", "outputs", "dense-predictions", "features", "head", "detections", "labels")
"""What a method may read: of the teacher its class ``logits``; its raw ``outputs``, whatever they
mean, where the student's have the same shapes; its ``dense-predictions`` (classes and boxes at
every cell, as EdgeKD's own detectors give them); its ``features``; its own ``head``; its
``detections`` after suppression, all that an external detector gives. ``labels`` is annotation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A distillation method.

    Attributes:
        name: As in a recipe.
        module: Class of the loss. Its constructor takes the level pairs and the options by name;
            called with a `DistillationBatch` it returns a scalar.
        tasks: That it serves.
        needs: Some of `NEEDS`.
        weight: Default beside the task loss.
        options: Option to default.
        cost: What it costs in training, and what a cache of teacher outputs must hold.
        source: Authors and where published.
        summary: What it teaches, in one line.
    """

    name: str
    module: type[nn.Module]
    tasks: frozenset[Task]
    needs: frozenset[str]
    weight: float
    options: Mapping[str, float] = field(default_factory=dict)
    cost: str
    source: str
    summary: str


_METHODS: dict[str, Method] = {}
_LARGEST = {"mask": 0.95, "min_score": 1.0, "overlap": 1.0, "soft": 1.0}
_SMALLEST = {"temperature": 0.1}


def methods() -> Mapping[str, Method]:
    """Returns every method by name: EdgeKD's own, then those of plugins."""
    import_all("edgekd.distill.methods")
    return _METHODS


def register_method(
    name: str,
    *,
    tasks: Collection[Task | str],
    needs: Collection[str],
    weight: float = 1.0,
    options: Mapping[str, float] | None = None,
    cost: str = "",
    source: str = "",
    summary: str = "",
) -> Callable[[Loss], Loss]:
    """Returns a decorator that makes a loss a distillation method, as recipes name it.

    Args:
        name: As in a recipe.
        tasks: ``detection``, ``classification`` or both.
        needs: Some of `NEEDS`; what a method does not name may be missing from its batch.
        weight: Default beside the task loss.
        options: Option to default; each becomes a keyword of the constructor.
        cost: What it costs in training.
        source: Authors and where published.
        summary: What it teaches, in one line.

    Raises:
        RecipeError: The name is taken, or a need or a task does not exist.
    """
    unknown = [n for n in needs if n not in NEEDS] + [t for t in tasks if t not in list(Task)]
    if unknown:
        raise RecipeError(
            f"distillation method {name!r}: {unknown[0]!r} is unknown; legal needs: "
            f"{', '.join(NEEDS)}; legal tasks: {', '.join(Task)}"
        )

    def registered(module: Loss) -> Loss:
        taken = _METHODS.get(name)
        if taken is not None and taken.module.__module__ != module.__module__:
            raise RecipeError(
                f"distillation method {name!r} is {taken.module.__module__}."
                f"{taken.module.__name__} already; legal: another name"
            )
        _METHODS[name] = Method(
            name=name,
            module=module,
            tasks=frozenset(map(Task, tasks)),
            needs=frozenset(needs),
            weight=weight,
            options=dict(options or {}),
            cost=cost,
            source=source,
            summary=summary,
        )
        return module

    return registered


def unregister_method(name: str) -> None:
    """Forgets a method; one that is not there is no error."""
    _METHODS.pop(name, None)


def known_method(name: str) -> Method:
    """Returns the method of that name.

    Raises:
        RecipeError: There is none.
    """
    if name not in methods():
        raise RecipeError(f"unknown distillation method {name!r}{suggest(name, methods())}")
    return methods()[name]


def chosen_methods(section: DistillSection, cases: Sequence[str]) -> dict[str, MethodConfig]:
    """Returns a recipe's methods with their weights and all of their options.

    Args:
        section: Of the recipe.
        cases: Keys of `DEFAULT_METHODS`, for a recipe that names none.

    Raises:
        RecipeError: A method or an option is unknown, or a value is out of range.
    """
    named: Mapping[str, Any] | None = section.methods
    if named is None:
        named = {n: weight for case in cases for n, weight in DEFAULT_METHODS[case].items()}
    chosen = {}
    for name, value in named.items():
        given = dict(value) if isinstance(value, Mapping) else {"weight": value}
        weight = given.pop("weight", known_method(name).weight)
        chosen[name] = MethodConfig(weight=weight, options=method_options(name, given))
    return chosen


def registered_sources(names: Iterable[str]) -> dict[str, str]:
    """Returns the SHA-256 of the source of each method that is not EdgeKD's own, by its name.

    A method that a program registers itself belongs to no plugin's file.
    """
    modules = {name: known_method(name).module for name in names}
    return {
        name: hashlib.sha256(inspect.getsource(module).encode()).hexdigest()
        for name, module in modules.items()
        if not module.__module__.startswith("edgekd.")
    }


def method_options(name: str, given: Mapping[str, float]) -> dict[str, float]:
    """Returns all options of a method: those given, else their defaults.

    Raises:
        RecipeError: The method or an option is unknown, or a value is out of range.
    """
    known = known_method(name).options
    for option, value in given.items():
        if option not in known:
            hint = suggest(option, known) if known else "; it has none"
            raise RecipeError(f"distillation method {name!r} has no option {option!r}{hint}")
        low, high = _SMALLEST.get(option, 0.0), _LARGEST.get(option, 1000.0)
        if not low <= value <= high:
            raise RecipeError(
                f"distillation method {name!r}: {option} {value}: "
                f"must be between {low:g} and {high:g}"
            )
    return {**known, **given}


def build_method(name: str, options: Mapping[str, float], pairs: Sequence[LevelPair]) -> nn.Module:
    """Returns the module of a method, its initial weights from torch's global generator.

    Raises:
        RecipeError: The method, or an option of it, is unknown or out of range.
    """
    return known_method(name).module(pairs, **method_options(name, options))
