"""Device profiles: what a board can run, by which rules, and how fast its parts are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from edgekd.catalog import catalog_folder
from edgekd.errors import DeviceError, RecipeError, suggest
from edgekd.strict import from_mapping
from edgekd.types import Format, Precision
from edgekd.yamlfile import read_yaml


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Equal CPU cores. Operations are counted as two per multiply-accumulate.

    Attributes:
        uarch: Core, such as ``Cortex-A76``.
        int8_kernel: Instruction that int8 kernels are built on: ``mlal`` (8-bit multiplies widened
            to 16 bits), ``sdot`` (four products a lane), ``i8mm`` (matrix products).
        fp32_ops_per_cycle: Of one core. So are the other two.
        fp16_ops_per_cycle: None where the core computes no float16.
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
    source: str


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
class Memory:
    """Bandwidth in 10⁹ bytes a second.

    Attributes:
        theoretical_gb_s: Bus width times transfer rate.
        copied_gb_s: Bytes copied a second by one core, measured; the bus carries twice that. None
            where nobody published a measurement.
    """

    theoretical_gb_s: float
    copied_gb_s: float | None
    source: str


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
        peak_share: Share of the cores' theoretical rate that any kernel was seen to reach.
        basis: Why these.
    """

    kernels: str
    relatives: tuple[Relative, ...] = ()
    peak_share: float = 1.0
    basis: str

    def __post_init__(self) -> None:
        if not 0 < self.peak_share <= 1:
            raise ValueError(f"peak_share: {self.peak_share}; legal: more than 0, at most 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What executes one file format on the device.

    Attributes:
        name: ``tensorrt``, ``onnxruntime`` or ``litert``.
        version: The version that the profile's rules were written for.
        delegate: Execution provider or delegate.
        engine: What the operators run on.
        threads: CPU threads that the runtime is given; 1 where the GPU computes.
        precisions: What the runtime executes at full support.
        prediction: None where the device's peaks are not known.
    """

    name: str
    version: str
    delegate: str
    engine: Literal["cpu", "gpu"]
    threads: int
    precisions: tuple[Precision, ...]
    prediction: Prediction | None = None
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
        cpu: Fastest cluster first; empty where the CPU is not known beforehand.
        primary: The format that this device is shipped.
        runtimes: What executes each format that is allowed.
        refused: Every other pair of format and precision, with the reason.
        sources: What the short keys in the ``source`` fields stand for.
    """

    schema: Literal[1]
    id: str
    name: str
    description: str
    aliases: tuple[str, ...] = ()
    cpu: tuple[Cluster, ...] = ()
    gpu: Gpu | None = None
    memory: Memory | None = None
    power_mode: PowerMode
    primary: Format
    runtimes: dict[Format, Runtime]
    refused: tuple[Refusal, ...] = ()
    quantization: Quantization
    sources: dict[str, str]

    def __post_init__(self) -> None:
        if self.primary not in self.runtimes:
            raise ValueError(f"primary format {self.primary.value!r} has no entry in runtimes")
        for model_format, runtime in self.runtimes.items():
            parts = self.cpu if runtime.engine == "cpu" else self.gpu
            if runtime.prediction is not None and not (parts and self.memory):
                raise ValueError(
                    f"runtimes.{model_format.value}.prediction: no peaks of a {runtime.engine} "
                    "and its memory"
                )
        for model_format in Format:
            for precision in Precision:
                self._check_decided(model_format, precision)

    @property
    def runtime(self) -> Runtime:
        """The runtime of the primary format."""
        return self.runtimes[self.primary]

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
    return from_mapping(Device, read_yaml(path, DeviceError), str(path), DeviceError)
