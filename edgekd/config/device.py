"""Device profiles: what a board can run, by which rules, and how fast its parts are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from edgekd.config.catalog import catalog_folder
from edgekd.config.yaml import read_yaml
from edgekd.core.errors import DeviceError, RecipeError, suggest
from edgekd.core.serialize import from_mapping
from edgekd.core.types import Format, Precision

RULES = ("threads", "primary", "runtimes", "refused", "quantization")
"""What a profile may take from another: never a fact of the board."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Equal CPU cores. Operations are counted as two per multiply-accumulate.

    Attributes:
        uarch: Core, such as ``Cortex-A76``.
        int8_kernel: Instruction that int8 kernels are built on: ``mlal`` (8-bit multiplies widened
            to 16 bits), ``sdot`` (four products a lane), ``i8mm`` (matrix products).
        fp32_ops_per_cycle: Of one core. So are the other two.
        fp16_ops_per_cycle: None where the core computes no float16.
        reached: Share of those rates that any kernel was seen to reach.
        source: Where the rates and the clock come from.
    """

    name: str
    cores: int
    uarch: str
    clock_ghz: float
    int8_kernel: Literal["mlal", "sdot", "i8mm"]
    fp32_ops_per_cycle: float
    fp16_ops_per_cycle: float | None
    int8_ops_per_cycle: float
    reached: float = 1.0
    source: str

    def __post_init__(self) -> None:
        if not 0 < self.reached <= 1:
            raise ValueError(f"reached: {self.reached}; legal: more than 0, at most 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A GPU's dense peaks in the profile's power mode: 10¹² operations a second, two per MAC.

    Attributes:
        int8_tops: None where the GPU has no int8 arithmetic.
    """

    name: str
    clock_ghz: float
    fp32_tflops: float
    fp16_tflops: float
    int8_tops: float | None
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """What computes beside the CPU and is told, but neither predicted nor shipped to.

    Attributes:
        through: Delegates and execution providers that reach it; empty where nothing does.
        precisions: That it computes in; a scheme beyond them stands in the note.
    """

    name: str
    kind: Literal["gpu", "dsp", "npu", "dla"]
    through: tuple[str, ...]
    precisions: tuple[Precision, ...]
    note: str = ""
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bandwidth in 10⁹ bytes a second.

    Attributes:
        theoretical_gb_s: Bus width times transfer rate; None where the bus is not known.
        copied_gb_s: Bytes copied a second by one core, measured; the bus carries twice that. None
            where nobody published a measurement.
    """

    theoretical_gb_s: float | None
    copied_gb_s: float | None
    source: str

    def __post_init__(self) -> None:
        if self.theoretical_gb_s is None and self.copied_gb_s is None:
            raise ValueError("one of theoretical_gb_s and copied_gb_s is needed")


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerMode:
    """The clock and power setting that every figure of the profile is for."""

    name: str
    note: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Relative:
    """Published latencies that a prediction leans on.

    Attributes:
        latencies: Id in ``devices/latencies``.
        transfer: Standard deviation of the logarithm by which an operator may take longer here
            than there, clocks and cores allowed for; 0 where they are of this very board.
    """

    latencies: str
    transfer: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.transfer <= 1:
            raise ValueError(f"transfer: {self.transfer}; legal: 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What turns a list of operators into a latency.

    Attributes:
        kernels: Id in ``devices/kernels``.
        relatives: Latencies to learn from, the least alike first.
        basis: Why these.
    """

    kernels: str
    relatives: tuple[Relative, ...] = ()
    basis: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What executes one file format on the device.

    Attributes:
        name: ``tensorrt``, ``onnxruntime`` or ``litert``.
        version: The version that the profile's rules were written for.
        delegate: Execution provider or delegate.
        engine: What the operators run on.
        precisions: What the runtime executes at full support.
    """

    name: str
    version: str
    delegate: str
    engine: Literal["cpu", "gpu"]
    precisions: tuple[Precision, ...]
    source: str

    def __post_init__(self) -> None:
        if Precision.FLOAT32 not in self.precisions:
            raise ValueError("precisions: every runtime executes float32")


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A format, or one precision of it, that must not be shipped to the device, and why."""

    format: Format
    precision: Precision | None = None
    reason: str

    def covers(self, model_format: Format, precision: Precision) -> bool:
        """Returns whether the refusal speaks of this pair."""
        return self.format is model_format and self.precision in (None, precision)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightScheme:
    """How weights become integers."""

    granularity: Literal["per-channel", "per-tensor"]
    symmetry: Literal["symmetric", "affine"]
    low: int
    high: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedOutput:
    """Scale and zero point that the runtime prescribes for an operator's int8 output."""

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """The int8 scheme that the device's main runtime executes; training simulates exactly this.

    Attributes:
        activation_symmetry: Symmetric means a zero point of 0 on every activation.
        activation_dtype_onnx: Storage type of activations in the ONNX file.
        scale_floor: Smallest scale, so that a dead channel's bias still fits in int32.
        float_islands: Operator kinds that are better left in float.
        fuses_residual: Whether the runtime makes one operator of a convolution and the addition
            behind it, which it does only where nothing is rounded between the two.
        fixed_outputs: By operator: ``logistic``, ``softmax``, ``tanh``, ``l2_norm``,
            ``log_softmax``.
        opset: Highest ONNX operator set that the runtime parses.
    """

    activation_symmetry: Literal["symmetric", "affine"]
    activation_dtype_onnx: Literal["int8", "uint8"]
    weight: WeightScheme
    scale_floor: float
    float_islands: tuple[str, ...] = ()
    fuses_residual: bool = False
    fixed_outputs: dict[str, FixedOutput] = field(default_factory=dict)
    opset: int
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One board or phone in one power mode.

    Attributes:
        id: The profile's file name without ``.yaml``.
        aliases: Other names that ``load_device`` finds it by.
        like: A profile of the catalogue whose rules (`RULES`) hold here where none are given.
        cpu: Fastest cluster first; empty where the CPU is not known beforehand.
        threads: That runtimes on the CPU are given.
        primary: The format that this device is shipped.
        runtimes: What executes each format that is allowed.
        predictions: How latency is predicted, by format; none where the peaks are not known.
        refused: Every other pair of format and precision, with the reason.
        sources: What the short keys in the ``source`` fields stand for.
    """

    schema: Literal[1]
    id: str
    name: str
    description: str
    aliases: tuple[str, ...] = ()
    like: str | None = None
    cpu: tuple[Cluster, ...] = ()
    gpu: Gpu | None = None
    accelerators: tuple[Accelerator, ...] = ()
    memory: Memory | None = None
    power_mode: PowerMode
    threads: int
    primary: Format
    runtimes: dict[Format, Runtime]
    predictions: dict[Format, Prediction] = field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()
    quantization: Quantization
    sources: dict[str, str]

    def __post_init__(self) -> None:
        if self.primary not in self.runtimes:
            raise ValueError(f"primary format {self.primary.value!r} has no entry in runtimes")
        for model_format in self.predictions:
            if model_format not in self.runtimes:
                raise ValueError(f"predictions.{model_format.value}: nothing executes that here")
            engine = self.runtimes[model_format].engine
            if not ((self.cpu if engine == "cpu" else self.gpu) and self.memory):
                raise ValueError(
                    f"predictions.{model_format.value}: no peaks of a {engine} and its memory"
                )
        for model_format in Format:
            for precision in Precision:
                self._check_decided(model_format, precision)

    @property
    def runtime(self) -> Runtime:
        """The runtime of the primary format."""
        return self.runtimes[self.primary]

    def threads_in(self, runtime: Runtime) -> int:
        """Returns the CPU threads that a runtime is given; 1 where the GPU computes."""
        return self.threads if runtime.engine == "cpu" else 1

    def allows(self, model_format: Format, precision: Precision) -> bool:
        """Returns whether the device executes files of this format in this precision."""
        runtime = self.runtimes.get(model_format)
        return runtime is not None and precision in runtime.precisions

    def require(self, model_format: Format, precision: Precision) -> None:
        """Returns where the device executes the pair.

        Raises:
            RecipeError: It does not; the message carries the profile's reason and what is legal.
        """
        if self.allows(model_format, precision):
            return
        reason = next(item.reason for item in self.refused if item.covers(model_format, precision))
        legal = ", ".join(
            f"{name.value} {kind.value}"
            for name, runtime in self.runtimes.items()
            for kind in runtime.precisions
        )
        raise RecipeError(
            f"device {self.id!r} refuses {model_format.value} {precision.value}: {reason}; "
            f"legal: {legal}"
        )

    def _check_decided(self, model_format: Format, precision: Precision) -> None:
        refused = any(item.covers(model_format, precision) for item in self.refused)
        if refused == self.allows(model_format, precision):
            verb = "both allowed and" if refused else "neither allowed nor"
            raise ValueError(f"{model_format.value} {precision.value} is {verb} refused")


def load_device(id_or_path: str | Path) -> Device:
    """Returns a profile by id, by alias, or from a YAML file of one's own.

    Raises:
        DeviceError: No profile goes by that name, or the file is malformed.
    """
    text = str(id_or_path)
    if text.endswith((".yaml", ".yml")):
        return _read(Path(id_or_path))
    named = _named(catalog_folder("devices"))
    if text not in named:
        raise DeviceError(f"unknown device {text!r}{suggest(text, named)}")
    return named[text]


def list_devices() -> tuple[Device, ...]:
    """Returns every profile of the catalogue, ordered by id.

    Raises:
        DeviceError: A profile is malformed, or two answer to one name.
    """
    return tuple(
        device for name, device in _named(catalog_folder("devices")).items() if name == device.id
    )


@cache
def _named(folder: Path) -> Mapping[str, Device]:
    """Returns the profiles of a folder by id and by alias."""
    named: dict[str, Device] = {}
    for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem):
        device = _read(path)
        if device.id != path.stem:
            raise DeviceError(
                f"{path}: id: expected the file's name {path.stem!r}, got {device.id!r}"
            )
        for name in (device.id, *device.aliases):
            if name in named:
                raise DeviceError(f"{path}: {name!r} is already a name of {named[name].id!r}")
            named[name] = device
    return named


def _read(path: Path) -> Device:
    facts = read_yaml(path, DeviceError)
    if isinstance(facts, dict) and isinstance(facts.get("like"), str):
        facts = _with_rules(facts, path)
    return from_mapping(Device, facts, str(path), DeviceError)


def _with_rules(facts: dict[str, Any], path: Path) -> dict[str, Any]:
    """Returns a profile with the rules of the one that it is like, and their sources."""
    folder, name = catalog_folder("devices"), facts["like"]
    legal = sorted(item.stem for item in folder.glob("*.yaml"))
    if name not in legal or name == path.stem:
        raise DeviceError(f"{path}: like: {name!r} is no other profile{suggest(name, legal)}")
    other = read_yaml(folder / f"{name}.yaml", DeviceError)
    if not isinstance(other, dict) or "like" in other:
        raise DeviceError(f"{path}: like: {name!r} has no rules of its own")
    given = {key: other[key] for key in RULES if key in other and key not in facts}
    sources = facts.get("sources")
    if isinstance(sources, dict) and isinstance(other.get("sources"), dict):
        facts = {**facts, "sources": {**other["sources"], **sources}}
    return {**given, **facts}
