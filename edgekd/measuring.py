"""The latency of a file: predicted for a target, measured here, on a board, or on many at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from edgekd.benchmark.on_board import (
    BoardMeasurement,
    Protocol,
    measure,
    measure_with_benchmark_model,
    measure_with_trtexec,
)
from edgekd.benchmark.predict import predict_latency
from edgekd.board.transport import on_this_computer, over_adb, over_ssh
from edgekd.device import load_device
from edgekd.errors import EdgeKDError, RecipeError
from edgekd.modelfile import read_operators
from edgekd.modelfile.memory import try_out
from edgekd.strict import from_mapping
from edgekd.types import Latency
from edgekd.yamlfile import read_yaml


def predict_file_latency(model: Path, target: str) -> Latency:
    """Returns the latency of a file that is predicted for a target.

    Raises:
        ModelError: The file cannot be read.
        DeviceError: No such target.
        RecipeError: There is no prediction for the target.
    """
    device = load_device(target)
    predicted = predict_latency(read_operators(model), device)
    if predicted is None:
        raise RecipeError(
            f"no latency prediction for {device.id!r}: its profile holds no peaks; measure "
            "there, or here without --target"
        )
    return predicted


def measure_file(
    model: Path,
    protocol: Protocol,
    *,
    host: str | None = None,
    adb: str | None = None,
    program: Path | None = None,
    trtexec: bool = False,
    options: Sequence[str] = (),
) -> BoardMeasurement:
    """Returns the latency of a file, measured here or on a board.

    Args:
        model: The file.
        protocol: How.
        host: Over ssh; None for here.
        adb: Serial of an Android device, empty for the only one; None for none.
        program: TFLite's benchmark_model for that device, None for one that it has.
        trtexec: Whether TensorRT's program times it on the host.
        options: Passed on to benchmark_model or trtexec.

    Raises:
        ModelError: The file cannot be read or run.
        RunError: The board is out of reach or lacks something.
    """
    read_operators(model)  # A damaged file must not pass for one without a contract.
    if adb is not None:
        with over_adb(adb or None) as work:
            return measure_with_benchmark_model(work, model, protocol, program, options)
    if host is None:
        try_out(model)
        with on_this_computer() as work:
            return measure(work, model, protocol)
    with over_ssh(host) as work:
        if trtexec:
            return measure_with_trtexec(work, model, protocol, options)
        return measure(work, model, protocol)


def prediction_line(latency: Latency) -> str:
    """Returns one line for people."""
    return (
        f"predicted for {latency.where}: {latency.median_ms:.2f} ms "
        f"[{latency.low_ms:.2f}, {latency.high_ms:.2f}] ({latency.note}; {latency.runtime}, "
        f"{latency.threads} threads)"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One board of a farm: a host over ssh, or an Android device.

    Attributes:
        host: As ``ssh`` takes it.
        trtexec: Whether TensorRT's program times the file there.
        adb: Serial of an Android device, as ``adb devices`` lists it.
        benchmark_model: TFLite's program for that device; null for one that it has.
        threads: Of the runtime.
        options: Passed on to benchmark_model or trtexec.
    """

    host: str | None = None
    trtexec: bool = False
    adb: str | None = None
    benchmark_model: Path | None = None
    threads: int = 1
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.host is None) == (self.adb is None):
            raise ValueError("expected one of host and adb")
        if self.trtexec and self.host is None:
            raise ValueError("trtexec: needs a host")
        if self.threads < 1:
            raise ValueError(f"threads: {self.threads}; legal: 1 and more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Farm:
    """Boards by name."""

    boards: dict[str, Place]

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
        name: replace(place, benchmark_model=path.parent / place.benchmark_model)
        for name, place in farm.boards.items()
        if place.benchmark_model
    }
    return Farm(boards=farm.boards | beside)


def measure_farm(
    model: Path, farm: Farm, protocol: Protocol
) -> dict[str, BoardMeasurement | EdgeKDError]:
    """Returns what every board measured, or why it did not, all of them at once.

    A board that fails takes no other with it.
    """

    def one(place: Place) -> BoardMeasurement | EdgeKDError:
        try:
            return measure_file(
                model,
                replace(protocol, threads=place.threads),
                host=place.host,
                adb=place.adb,
                program=place.benchmark_model,
                trtexec=place.trtexec,
                options=place.options,
            )
        except EdgeKDError as failed:
            return failed

    # A thread a board: each only waits for its ssh or adb.
    with ThreadPoolExecutor(len(farm.boards)) as pool:
        return dict(zip(farm.boards, pool.map(one, farm.boards.values()), strict=True))
