"""Reads what the vendors' own timing programs print: TFLite's benchmark_model and trtexec."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekd.core.errors import RunError


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Latency of one inference in milliseconds, as a program printed it.

    Attributes:
        runs: Inferences that were timed.
        mean_ms: None where it is not printed. So are the others.
        percentiles_ms: By percent: ``5``, ``90``, ``95``, ``99``.
        first_ms: Of the first inference, before warm-up.
        delegate: What the program says computed.
        warnings: What it says against its own figures.
        memory_bytes: Peak of the process.
    """

    runs: int | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    mean_ms: float | None = None
    median_ms: float | None = None
    percentiles_ms: dict[str, float]
    std_ms: float | None = None
    first_ms: float | None = None
    delegate: str = ""
    warnings: tuple[str, ...] = ()
    memory_bytes: int | None = None

    @property
    def headline(self) -> tuple[str, float]:
        """The statistic that is there, the median before the mean, by name; never mixed."""
        if self.median_ms is not None:
            return "median", self.median_ms
        assert self.mean_ms is not None  # noqa: S101 - the parsers see to it
        return "mean", self.mean_ms


def read_benchmark_model(text: str) -> Timing:
    """Returns what TFLite's ``benchmark_model`` measured.

    Three generations print differently: a mean alone (to 2020), with the first inference (to
    2023), with median and percentiles (since). Values are microseconds, in scientific notation
    where they are large; what is not printed is not computed from what is.

    Raises:
        RunError: The text holds no inference time; its last line is quoted.
    """
    # The first such line is the warm-up's. One run alone prints ``curr`` and no more.
    lines = re.findall(r"count=\d+[^\n]*", text)
    stats = dict(re.findall(r"(\w+)=([\d.eE+-]+)", lines[-1])) if lines else {}
    summary = re.findall(r"Inference timings in us:([^\n]*)", text, re.IGNORECASE)
    named = _named(summary[-1]) if summary else {}
    mean = stats.get("avg") or named.get("Inference (avg)") or named.get("Inference")
    mean = mean or named.get("no stats") or stats.get("curr")
    if mean is None:
        raise RunError(f"benchmark_model printed no inference time: {_last(text)}")
    percentiles = {p: _ms(v) for p, v in stats.items() for p in re.findall(r"^p(\d+)$", p)}
    memory = re.search(r"Peak memory footprint \(MB\):[^\n]*overall=([\d.]+)", text)
    return Timing(
        runs=int(stats["count"]) if "count" in stats else None,
        min_ms=_optional(stats.get("min")),
        max_ms=_optional(stats.get("max")),
        mean_ms=_ms(mean),
        median_ms=_optional(stats.get("median")),
        percentiles_ms=percentiles,
        std_ms=_optional(stats.get("std")),
        first_ms=_optional(named.get("First inference")),
        delegate=_delegates(text),
        warnings=_fallbacks(text),
        memory_bytes=int(float(memory.group(1)) * 1e6) if memory else None,
    )


def read_trtexec(text: str) -> Timing:
    """Returns the GPU compute time that ``trtexec`` measured, of versions 8 to 11.

    Latency with transfers is left alone: whether a frame is copied depends on the application,
    and version 11 copies nothing unless it is told to.

    Raises:
        RunError: It failed, or the text holds no summary; its last complaint is quoted.
    """
    found = re.search(r"GPU Compute Time: ([^\n]*)", text)
    if found is None or "&&&& FAILED" in text:
        errors = re.findall(r"\[E\] ([^\n]*)", text)
        raise RunError(f"trtexec: {errors[-1] if errors else _last(text)}")
    stats = dict(re.findall(r"(min|max|mean|median) = ([\d.]+) ms", found.group(1)))
    percentiles = re.findall(r"percentile\((\d+)%\) = ([\d.]+) ms", found.group(1))
    traced = re.findall(r"Average on (\d+) runs", text)
    return Timing(
        runs=sum(map(int, traced)) or None,
        min_ms=float(stats["min"]),
        max_ms=float(stats["max"]),
        mean_ms=float(stats["mean"]),
        median_ms=float(stats["median"]),
        percentiles_ms={p: float(v) for p, v in percentiles},
        delegate="tensorrt",
        warnings=tuple(
            dict.fromkeys(re.findall(r"\[W\] (\* [^\n]*|GPU compute time[^\n]*)", text))
        ),
    )


def _named(summary: str) -> dict[str, str]:
    """Returns ``Init: 38467, no stats: 79760.9`` by name."""
    return dict(re.findall(r"([A-Za-z][\w ()]*?): ([\d.eE+-]+)", summary))


def _delegates(text: str) -> str:
    """Returns what computed: delegates with the share of nodes that each took over."""
    pattern = (
        r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\) node, "
        r"yielding (\d+) partitions"
    )
    taken = [
        f"{name} {part}/{whole} nodes, {pieces} partitions"
        for part, whole, name, pieces in re.findall(pattern, text)
    ]
    if taken:
        return "; ".join(dict.fromkeys(taken))
    return "xnnpack" if "XNNPACK delegate for CPU" in text else "builtin"


def _fallbacks(text: str) -> tuple[str, ...]:
    """Returns what the program says of operators that a delegate left to the CPU."""
    pattern = (
        r"(Following operations are not supported by [^\n]*|[\w_]+: OP is supported, but[^\n]*"
        r"|\d+ operations will run on the GPU, and the remaining[^\n]*)"
    )
    return tuple(dict.fromkeys(re.findall(pattern, text)))


def _ms(microseconds: str) -> float:
    return float(microseconds) / 1e3


def _optional(microseconds: str | None) -> float | None:
    return None if microseconds is None else _ms(microseconds)


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it says nothing"
