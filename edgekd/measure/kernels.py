"""The catalogue of what is known of runtimes' kernels, and of latencies measured on devices.

``devices/kernels/<id>.json`` holds the efficiencies of one runtime's kernels, learnt from boards;
``devices/latencies/<id>.json`` the latencies of networks on one board, which sharpen them there.
Both are written by ``benchmarks/latency/learn.py``; calibrations of one's own have the second form.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from edgekd.config.catalog import catalog_folder
from edgekd.core.errors import DeviceError, suggest
from edgekd.core.files import write_atomic
from edgekd.core.serialize import from_mapping, to_mapping
from edgekd.core.types import Precision
from edgekd.measure.costs import CLASSES, Efficiencies, Kernels, Speed, check_figure

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelFacts:
    """A runtime's kernels of one precision.

    Attributes:
        fills: How they fill, by the instructions that they are built on (``mlal``, ``sdot``,
            ``i8mm``) or ``gpu``.
        share: By class: the share of a speed that they reach.
        covariance: Between devices, of the logarithms of those shares, in the order of `CLASSES`.
        scatter: As in `Costs`.
        learnt_from: What was measured where.
    """

    fills: dict[str, Kernels]
    share: dict[str, float]
    covariance: tuple[tuple[float, ...], ...]
    scatter: float
    learnt_from: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_classes("share", self.share, whole=True)
        size = len(CLASSES)
        if np.shape(self.covariance) != (size, size):
            raise ValueError(f"covariance: expected {size} rows of {size} numbers")

    @property
    def efficiencies(self) -> Efficiencies:
        """The same as numbers to compute with."""
        share = np.array([self.share[name] for name in CLASSES])
        covariance = np.array(self.covariance)
        return Efficiencies(mean=-np.log(share), covariance=covariance, scatter=self.scatter)


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelSet:
    """A runtime's kernels.

    Attributes:
        folds: Operators of a file that run inside the convolution behind them.
    """

    schema: Literal[1]
    id: str
    name: str
    folds: tuple[str, ...] = ()
    precisions: dict[Precision, KernelFacts]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencySample:
    """One network's latency.

    Attributes:
        ms: Of one inference at batch 1.
        work: By class; those without work are left out.
    """

    network: str
    ms: float
    work: dict[str, float]

    def __post_init__(self) -> None:
        check_figure("ms", self.ms)
        _check_classes("work", self.work, whole=False)

    def vector(self) -> list[float]:
        """Returns the work in the order of `CLASSES`."""
        return [self.work.get(name, 0.0) for name in CLASSES]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencySamples:
    """Latencies of one precision.

    Attributes:
        speed: Of what they were measured on, as it was clocked then.
        fills: By which the work was counted.
        error: Standard deviation of the logarithm of one of them.
    """

    speed: Speed
    fills: Kernels
    error: float
    networks: tuple[LatencySample, ...]

    def __post_init__(self) -> None:
        check_figure("error", self.error)

    def teach(self, known: Efficiencies) -> Efficiencies:
        """Returns what is known after them."""
        if not self.networks:
            return known
        work = np.array([sample.vector() for sample in self.networks])
        times = np.array([sample.ms for sample in self.networks])
        return known.learnt(self.speed, work, times, self.error)


@dataclass(frozen=True, kw_only=True, slots=True)
class Latencies:
    """Latencies measured in one runtime on one device.

    Attributes:
        device: For people.
        kernels: Id of the kernel set that ran.
        statistic: ``median``, ``mean`` or ``min``; a prediction from them is of the same.
    """

    schema: Literal[1]
    id: str
    device: str
    kernels: str
    runtime: str
    threads: int
    statistic: Literal["median", "mean", "min"]
    source: str
    precisions: dict[Precision, LatencySamples]


def load_kernels(name: str) -> KernelSet:
    """Returns a kernel set of the catalogue.

    Raises:
        DeviceError: There is none of that name, or its file is malformed.
    """
    found: KernelSet = _load(catalog_folder("devices") / "kernels", name, KernelSet)
    return found


def load_latencies(name: str) -> Latencies:
    """Returns published latencies of the catalogue.

    Raises:
        DeviceError: There are none of that name, or the file is malformed.
    """
    found: Latencies = _load(catalog_folder("devices") / "latencies", name, Latencies)
    return found


def calibration_folder(device: str) -> Path:
    """Returns where one's own latencies of a device are: ``$XDG_DATA_HOME/edgekd/latencies``."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "edgekd" / "latencies" / device


def load_calibrations(device: str, kernels: str) -> list[Latencies]:
    """Returns what was measured with one's own board, by the number of threads.

    Raises:
        DeviceError: A file is malformed.
    """
    found = [_read(path, Latencies) for path in sorted(calibration_folder(device).glob("*.json"))]
    return [latencies for latencies in found if latencies.kernels == kernels]


def keep_sample(
    device: str, about: Latencies, precision: Precision, sample: LatencySample
) -> tuple[Path, int]:
    """Adds a latency to one's own of a device, in place of an older one of the same network.

    Args:
        device: Id of the profile.
        about: How it was measured; its ``precisions`` hold the readings' frame alone.
        precision: Of the network.
        sample: The latency.

    Returns:
        The file, and how many networks of the precision it holds now.

    Raises:
        DeviceError: The file is malformed.
    """
    path = calibration_folder(device) / f"{about.id}.json"
    frame, kept = about.precisions[precision], dict[Precision, LatencySamples]()
    older: tuple[LatencySample, ...] = ()
    if path.is_file():
        kept = dict(_read(path, Latencies).precisions)
        same = kept.get(precision)
        if same and (same.speed, same.fills) == (frame.speed, frame.fills):
            older = tuple(one for one in same.networks if one.network != sample.network)
    kept[precision] = replace(frame, networks=(*older, sample))
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_mapping(replace(about, precisions=kept)), indent=1)
    write_atomic(path, text + "\n")
    return path, len(kept[precision].networks)


@cache
def _load(folder: Path, name: str, kind: type[T]) -> T:
    known = sorted(path.stem for path in folder.glob("*.json"))
    if name not in known:
        raise DeviceError(f"{folder}: no {name!r} in it{suggest(name, known)}")
    return _read(folder / f"{name}.json", kind)


def _read(path: Path, kind: type[T]) -> T:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as broken:
        raise DeviceError(f"{path}: not readable: {broken}") from broken
    return from_mapping(kind, document, str(path), DeviceError)


def _check_classes(where: str, given: dict[str, float], *, whole: bool) -> None:
    for name, value in given.items():
        if name not in CLASSES:
            raise ValueError(f"{where}: unknown class {name!r}{suggest(name, CLASSES)}")
        check_figure(f"{where}.{name}", value)
    missing = [name for name in CLASSES if name not in given]
    if whole and missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}")
