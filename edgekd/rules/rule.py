"""What a conformance rule is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from edgekd.config.device import Device
from edgekd.core.errors import ModelError


class _FromFile(Protocol):
    @property
    def path(self) -> Path: ...


Graph = TypeVar("Graph", bound=_FromFile)
Level = Literal["error", "advice"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One place where a file breaks a rule of its runtime.

    Attributes:
        rule: Stable identifier, such as ``tflite/weight-range``.
        level: ``error`` where the file must not be shipped: the runtime refuses it or computes
            something else, or it leaks. ``advice`` where it would run faster or be handled easier.
        where: Tensor or node.
        message: What was found there, in one line.
        source: Where the rule is written.
    """

    rule: str
    level: Level
    where: str
    message: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Breach:
    """Where a rule is broken, and what was found there."""

    where: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule(Generic[Graph]):
    """A check over a whole graph."""

    id: str
    source: str
    check: Callable[[Graph, Device], Iterator[Breach]]
    level: Level = "error"


def apply_rules(rules: Iterable[Rule[Graph]], graph: Graph, device: Device) -> list[Finding]:
    """Returns what the rules find, rule by rule and in the order of execution.

    Raises:
        ModelError: The graph is not what the format says that a graph is, such as a convolution
            without weights, so that a rule has nothing to look at.
    """
    findings = []
    for rule in rules:
        try:
            breaches = list(rule.check(graph, device))
        except (LookupError, TypeError, ValueError, AttributeError) as malformed:
            raise ModelError(
                f"{graph.path}: malformed where {rule.id} looks: "
                f"{type(malformed).__name__}: {malformed}"
            ) from malformed
        findings += [
            Finding(
                rule=rule.id,
                level=rule.level,
                where=breach.where,
                message=breach.message,
                source=rule.source,
            )
            for breach in breaches
        ]
    return findings
