"""The latency of a file: predicted for a target, measured here, on a board, or on many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from edgekd.board.cores import instructions
from edgekd.board.transport import PYTHON, on_this_computer, over_adb, over_ssh
from edgekd.config.device import Device, load_device
from edgekd.config.yaml import read_yaml
from edgekd.core.errors import EdgeKDError, RecipeError, RunError
from edgekd.core.files import sha256_of
from edgekd.core.results import Latency, OperatorCost
from edgekd.core.serialize import from_mapping
from edgekd.core.types import Format
from edgekd.measure.advice import operator_costs
from edgekd.measure.board_programs import measure_with_benchmark_model, measure_with_trtexec
from edgekd.measure.costs import CLASSES, work_of_all
from edgekd.measure.kernels import (
    Latencies,
    LatencySample,
    LatencySamples,
    keep_sample,
    load_kernels,
)
from edgekd.measure.on_board import BoardMeasurement, Protocol, measure
from edgekd.measure.predict import (
    engine_speed,
    kernel_fills,
    latency_model,
    predict_everywhere,
    predict_latency,
)
from edgekd.modelfile.memory import try_out
from edgekd.modelfile.operators import ModelOperators
from edgekd.modelfile.read import read_operators

LITERT = frozenset({"litert", "tflite-runtime", "tflite benchmark_model"})
"""Names of one runtime."""

CALIBRATION_ERROR = 0.03
"""Standard deviation of the logarithm of one's own median: two runs on a quiet board."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a file is measured, and with what: by default here, in its own runtime.

    Attributes:
        host: Over ssh, as ``ssh`` takes it.
        python: The Python there that has the runtime.
        trtexec: Whether TensorRT's program times the file there.
        adb: Serial of an Android device, as ``adb devices`` lists it; empty for the only one.
        benchmark_model: TFLite's program for that device; null for one that it has.
        options: Passed on to benchmark_model or trtexec.
    """

    host: str | None = None
    python: str = PYTHON
    trtexec: bool = False
    adb: str | None = None
    benchmark_model: Path | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.host is not None and self.adb is not None:
            raise ValueError("expected one of host and adb")
        if self.trtexec and self.host is None:
            raise ValueError("trtexec: needs a host")


HERE = Place()


def predict_file_latency(model: Path, target: str, threads: int | None = None) -> Latency:
    """Returns the latency of a file that is predicted for a target.

    Raises:
        ModelError: The file cannot be read.
        DeviceError: No such target.
        RecipeError: There is no prediction for the target.
    """
    device = load_device(target)
    network = read_operators(model)
    predicted = predict_latency(network, device, threads=threads)
    if predicted is None:
        raise _unpredicted(device, network)
    return predicted


def predict_file_everywhere(model: Path) -> tuple[Latency, ...]:
    """Returns the latency on every profile that executes the file and predicts one, least first.

    Raises:
        ModelError: The file cannot be read.
    """
    return predict_everywhere(read_operators(model))


def everywhere_lines(found: Sequence[Latency]) -> list[str]:
    """Returns one line for each profile, for people."""
    lines = [f"{'predicted for':<22}{'ms':>9}  {'90 % interval':<20}{'runtime':<26}rests on"]
    for one in found:
        interval = f"[{one.low_ms:.2f}, {one.high_ms:.2f}]"
        ran = f"{one.runtime}, {one.threads} thread{'s' if one.threads > 1 else ''}"
        lines.append(f"{one.where:<22}{one.median_ms:>9.2f}  {interval:<20}{ran:<26}{one.note}")
    return lines


def explain(model: Path, target: str, threads: int | None = None) -> list[OperatorCost]:
    """Returns what every operator of a file is predicted to take on a target, dearest first.

    Raises:
        ModelError: The file cannot be read.
        DeviceError: No such target.
        RecipeError: There is no prediction for the target.
    """
    device, network = load_device(target), read_operators(model)
    known = latency_model(device, network.format, threads=threads)
    if known is None:
        raise _unpredicted(device, network)
    return operator_costs(network.operators, known)


def explanation_lines(costs: Sequence[OperatorCost], shown: int = 12) -> list[str]:
    """Returns the dearest operators as lines for people."""
    lines = [f"{'ms':>8} {'share':>6}  {'operator':<20}{'output':<18}{'in':<9}cheaper"]
    for cost in costs[:shown]:
        output = "x".join(map(str, cost.output))
        lines.append(
            f"{cost.ms:>8.3f} {cost.share:>6.1%}  {cost.native:<20}{output:<18}"
            f"{cost.precision.value:<9}{cost.cheaper}"
        )
    rest = costs[shown:]
    if rest:
        share = sum(cost.share for cost in rest)
        lines.append(f"{sum(c.ms for c in rest):>8.3f} {share:>6.1%}  {len(rest)} more")
    return lines


def calibrate(
    models: Sequence[Path],
    target: str,
    protocol: Protocol,
    place: Place = HERE,
) -> Iterator[tuple[Path, float, float, Path, int]]:
    """Measures files on a board and keeps what they took for the target's later predictions.

    Yields:
        The file; what was predicted and what was measured, in ms; where it was kept, and how many
        networks of its precision are kept there.

    Raises:
        ModelError: A file cannot be read or run.
        DeviceError: No such target.
        RecipeError: There is no prediction for the target, so that nothing can be calibrated.
        RunError: The board is out of reach, was slowed down, or ran other kernels than the profile
            speaks of.
    """
    device = load_device(target)
    for model in models:
        network = read_operators(model)
        before = predict_latency(network, device, threads=protocol.threads)
        if before is None:
            raise _unpredicted(device, network)
        found = measure_file(model, protocol, place)
        median = found.timing.median_ms
        if found.invalid or median is None:
            why = "; ".join(found.invalid) or "the program told no median"
            raise RunError(f"{found.where}: {why}: no latency to keep")
        _check_kernels(found, before, device, network.format)
        about, sample = _sample(network, device, found, median)
        path, count = keep_sample(device.id, about, network.precision, sample)
        yield model, before.median_ms, median, path, count


def _check_kernels(
    found: BoardMeasurement, wanted: Latency, device: Device, model_format: Format
) -> None:
    """Raises where a latency is of other kernels, or of another kind of core, than predicted."""
    has = instructions(found.before.flags) or "neither SDOT nor NEON"
    speaks = device.cpu[0].int8_kernel if device.cpu else ""
    cpu = device.runtimes[model_format].engine == "cpu"
    if cpu and found.before.flags and has != speaks:
        raise RunError(
            f"{found.where}: its cores compute int8 with {has}, the profile {device.id!r} is of "
            f"cores with {speaks}; take a profile of this board, or make one: edgekd devices new"
        )
    names = (found.runtime, wanted.runtime)
    same = names[0] == names[1] or LITERT.issuperset(names)
    if not same or found.delegate != wanted.delegate:
        raise RunError(
            f"{found.where}: ran {found.runtime} with {found.delegate}; the profile {device.id!r} "
            f"speaks of {wanted.runtime} with {wanted.delegate}, of which this says nothing"
        )


def _sample(
    network: ModelOperators, device: Device, found: BoardMeasurement, median: float
) -> tuple[Latencies, LatencySample]:
    """Returns how a latency was measured, and the latency with its work."""
    runtime = device.runtimes[network.format]
    kernels = device.predictions[network.format].kernels
    facts = load_kernels(kernels).precisions[network.precision]
    fills = kernel_fills(device, runtime, facts)
    work = work_of_all(network.operators, fills).sum(0)
    frame = LatencySamples(
        speed=engine_speed(device, runtime, network.precision, found.threads),
        fills=fills,
        error=CALIBRATION_ERROR,
        networks=(),
    )
    about = Latencies(
        schema=1,
        id=f"{kernels}-{found.threads}",
        device=found.where,
        kernels=kernels,
        runtime=f"{found.runtime} {found.runtime_version}",
        threads=found.threads,
        statistic="median",
        source="measured by edgekd devices calibrate",
        precisions={network.precision: frame},
    )
    sample = LatencySample(
        network=f"{network.path.name} {sha256_of(network.path)[:12]}",
        ms=median,
        work={name: float(w) for name, w in zip(CLASSES, work, strict=True) if w},
    )
    return about, sample


def _unpredicted(device: Device, network: ModelOperators) -> RecipeError:
    """Returns why there is no prediction: the device refuses the file, or nothing is known."""
    try:
        device.require(network.format, network.precision)
    except RecipeError as refused:
        return refused
    return RecipeError(
        f"no latency prediction for {device.id!r}: its profile holds no peaks; measure "
        "there, or here without --target"
    )


def measure_file(model: Path, protocol: Protocol, place: Place = HERE) -> BoardMeasurement:
    """Returns the latency of a file, measured here or on a board.

    Raises:
        ModelError: The file cannot be read or run.
        RunError: The board is out of reach or lacks something.
    """
    read_operators(model)  # A damaged file must not pass for one without a contract.
    if place.adb is not None:
        with over_adb(place.adb or None) as work:
            program, options = place.benchmark_model, place.options
            return measure_with_benchmark_model(work, model, protocol, program, options)
    if place.host is None:
        try_out(model)
        with on_this_computer() as work:
            return measure(work, model, protocol)
    with over_ssh(place.host, place.python) as work:
        if place.trtexec:
            return measure_with_trtexec(work, model, protocol, place.options)
        return measure(work, model, protocol)


def prediction_line(latency: Latency) -> str:
    """Returns one line for people."""
    return (
        f"predicted for {latency.where}: {latency.median_ms:.2f} ms "
        f"[{latency.low_ms:.2f}, {latency.high_ms:.2f}] ({latency.note}; {latency.runtime}, "
        f"{latency.threads} thread{'s' if latency.threads > 1 else ''})"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Board(Place):
    """One board of a farm.

    Attributes:
        threads: Of the runtime.
    """

    threads: int = 1

    def __post_init__(self) -> None:
        Place.__post_init__(self)
        if self.host is None and self.adb is None:
            raise ValueError("expected one of host and adb")
        if self.threads < 1:
            raise ValueError(f"threads: {self.threads}; legal: 1 and more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Farm:
    """Boards by name."""

    boards: dict[str, Board]

    def __post_init__(self) -> None:
        if not self.boards:
            raise ValueError("boards: at least one")


def read_farm(path: Path) -> Farm:
    """Returns the boards of a YAML file; paths in it are relative to the file.

    Raises:
        RecipeError: The file is missing or malformed.
    """
    farm = from_mapping(Farm, read_yaml(path, RecipeError), str(path), RecipeError)
    beside = {
        name: replace(board, benchmark_model=path.parent / board.benchmark_model)
        for name, board in farm.boards.items()
        if board.benchmark_model
    }
    return Farm(boards=farm.boards | beside)


def measure_farm(
    model: Path, farm: Farm, protocol: Protocol
) -> dict[str, BoardMeasurement | EdgeKDError]:
    """Returns what every board measured, or why it did not, all of them at once.

    A board that fails takes no other with it.
    """

    def one(board: Board) -> BoardMeasurement | EdgeKDError:
        try:
            return measure_file(model, replace(protocol, threads=board.threads), board)
        except EdgeKDError as failed:
            return failed

    # A thread a board: each only waits for its ssh or adb.
    with ThreadPoolExecutor(len(farm.boards)) as pool:
        return dict(zip(farm.boards, pool.map(one, farm.boards.values()), strict=True))
