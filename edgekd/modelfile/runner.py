"""Runs a model file in the runtime that a board would use: ONNX Runtime or LiteRT."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import ModelError
from edgekd.core.quiet import quietly
from edgekd.core.types import Arithmetic

Kernels = Literal["default", "builtin", "reference"]

_ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}
SESSION_SWITCHES: dict[Arithmetic, tuple[str, ...]] = {
    "any": (),
    "int8": ("session.qdqisint8allowed",),
    # Takes effect without VNNI alone: it makes the weights uint8, too, and the kernel slower.
    "uint8": ("session.x64quantprecision",),
}
"""Session options of ONNX Runtime, each set to ``1``."""

_RESOLVERS = {
    "default": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorInfo:
    """One input or output of a model file.

    Attributes:
        dtype: As numpy names it.
        shape: None for an open dimension.
        scale: ``real = (integer - zero_point) * scale``; None for a float tensor, and in every
            ONNX file, whose scales belong to nodes and not to tensors.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    scale: float | None = None
    zero_point: int | None = None


class Runner(Protocol):
    """A loaded model with one input, ready to run."""

    @property
    def path(self) -> Path:
        """The model file."""

    @property
    def runtime(self) -> str:
        """``onnxruntime``, ``litert`` or ``tflite-runtime``."""

    @property
    def runtime_version(self) -> str:
        """Version of the installed package."""

    @property
    def delegate(self) -> str:
        """Execution provider or kernels that compute."""

    @property
    def threads(self) -> int:
        """CPU threads that the runtime uses."""

    @property
    def input(self) -> TensorInfo:
        """What ``run`` is given."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What ``run`` returns, in the order of the file."""

    def run(self, inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Returns the outputs for one input, in the order of ``outputs``.

        Raises:
            ModelError: The input's type or shape is not the file's.
        """


class OnnxRunner:
    """ONNX Runtime on the CPU.

    Args:
        path: An ``.onnx`` file.
        threads: Threads inside one operator; operators run one after another.
        arithmetic: See `edgekd.core.types.Arithmetic`.

    Raises:
        ModelError: ONNX Runtime is not installed, or refuses the file.
    """

    runtime = "onnxruntime"

    def __init__(self, path: Path, threads: int = 1, arithmetic: Arithmetic = "any") -> None:
        self.path, self.threads = path, threads
        self.delegate = "cpu-int8" if arithmetic == "int8" else "cpu"
        ort = _onnxruntime()
        self.runtime_version: str = ort.__version__
        options = session_options(arithmetic)
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as refused:  # Its errors have no common base but Exception.
            raise ModelError(f"{path}: refused by ONNX Runtime: {refused}") from refused
        self.input = _only_input(path, [_onnx_info(item) for item in self._session.get_inputs()])
        self.outputs = tuple(_onnx_info(item) for item in self._session.get_outputs())

    def run(self, inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Returns the outputs for one input, in the order of the graph's outputs.

        Raises:
            ModelError: The input's type or shape is not the file's, or an operator fails.
        """
        _check_input(self.path, self.input, inputs)
        try:
            return list(self._session.run(None, {self.input.name: inputs}))
        except Exception as failed:  # As above.
            raise ModelError(f"{self.path}: fails in ONNX Runtime: {failed}") from failed


class TfliteRunner:
    """LiteRT, or the older tflite-runtime where LiteRT is not installed.

    Args:
        path: A ``.tflite`` file.
        threads: CPU threads.
        kernels: ``default`` computes with XNNPACK what it can; ``builtin`` with the optimised
            kernels alone; ``reference`` with the plain ones that define the specification.

    Raises:
        ModelError: Neither runtime is installed, or it refuses the file.
    """

    def __init__(self, path: Path, threads: int = 1, kernels: Kernels = "default") -> None:
        self.path, self.threads = path, threads
        self.delegate = "xnnpack" if kernels == "default" else kernels
        module, self.runtime, self.runtime_version = _tflite()
        try:
            with quietly():
                self._interpreter = module.Interpreter(
                    model_content=path.read_bytes(),
                    num_threads=threads,
                    experimental_op_resolver_type=module.OpResolverType[_RESOLVERS[kernels]],
                )
                self._interpreter.allocate_tensors()
        except (OSError, ValueError, RuntimeError) as refused:
            raise ModelError(f"{path}: refused by {self.runtime}: {refused}") from refused
        inputs = self._interpreter.get_input_details()
        # In the order of the subgraph's outputs; a signature would order them by name.
        outputs = self._interpreter.get_output_details()
        self.input = _only_input(path, [_tflite_info(item) for item in inputs])
        self.outputs = tuple(_tflite_info(item) for item in outputs)
        self._input_index = inputs[0]["index"]
        self._output_indices = [item["index"] for item in outputs]

    def run(self, inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Returns copies of the outputs for one input, in the order of the subgraph's outputs.

        Raises:
            ModelError: The input's type or shape is not the file's, or an operator fails.
        """
        _check_input(self.path, self.input, inputs)
        try:
            self._interpreter.set_tensor(self._input_index, inputs)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as failed:
            raise ModelError(f"{self.path}: fails in {self.runtime}: {failed}") from failed
        return [self._interpreter.get_tensor(index) for index in self._output_indices]


def session_options(arithmetic: Arithmetic) -> Any:  # noqa: ANN401 - ONNX Runtime is untyped
    """Returns options of ONNX Runtime that compute in an arithmetic and print errors alone.

    Raises:
        ModelError: ONNX Runtime is not installed.
    """
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for key in SESSION_SWITCHES[arithmetic]:
        options.add_session_config_entry(key, "1")
    return options


def open_runner(
    path: Path, *, threads: int = 1, arithmetic: Arithmetic = "any", kernels: Kernels = "default"
) -> Runner:
    """Returns the runner for a file, by its ending; each option concerns one of the runtimes.

    Raises:
        ModelError: The file ends in neither ``.onnx`` nor ``.tflite``, or cannot be loaded.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if path.suffix.lower() == ".onnx":
        return OnnxRunner(path, threads, arithmetic)
    if path.suffix.lower() == ".tflite":
        return TfliteRunner(path, threads, kernels)
    raise ModelError(f"{path}: expected a model file ending in .onnx or .tflite")


def load_runtime(path: Path) -> None:
    """Imports the runtime that opens such a file, and opens nothing.

    Raises:
        ModelError: It is not installed.
    """
    _onnxruntime() if path.suffix.lower() == ".onnx" else _tflite()


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as missing:
        raise ModelError("onnxruntime is not installed: pip install onnxruntime") from missing
    module: ModuleType = onnxruntime
    return module


def _tflite() -> tuple[ModuleType, str, str]:
    """Returns the module that holds the interpreter, the runtime's name and its version."""
    try:
        from ai_edge_litert import interpreter
    except ImportError:
        pass
    else:
        return interpreter, "litert", version("ai-edge-litert")
    try:
        from tflite_runtime import interpreter
    except ImportError as missing:
        raise ModelError(
            "no TFLite runtime is installed: pip install ai-edge-litert (or tflite-runtime)"
        ) from missing
    return interpreter, "tflite-runtime", version("tflite-runtime")


def _onnx_info(item: Any) -> TensorInfo:  # noqa: ANN401  (an untyped record of the runtime)
    shape = tuple(size if isinstance(size, int) else None for size in item.shape)
    return TensorInfo(name=item.name, dtype=_ONNX_DTYPES.get(item.type, item.type), shape=shape)


def _tflite_info(item: dict[str, Any]) -> TensorInfo:
    parameters = item["quantization_parameters"]
    quantized = parameters["scales"].size == 1
    return TensorInfo(
        name=item["name"],
        dtype=np.dtype(item["dtype"]).name,
        shape=tuple(int(size) for size in item["shape"]),
        scale=float(parameters["scales"][0]) if quantized else None,
        zero_point=int(parameters["zero_points"][0]) if quantized else None,
    )


def _only_input(path: Path, inputs: list[TensorInfo]) -> TensorInfo:
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs)
        raise ModelError(f"{path}: expected a model with one input, got {len(inputs)}: {names}")
    return inputs[0]


def _check_input(path: Path, expected: TensorInfo, given: NDArray[Any]) -> None:
    fits = len(given.shape) == len(expected.shape) and all(
        size in (None, actual) for size, actual in zip(expected.shape, given.shape, strict=True)
    )
    if given.dtype.name != expected.dtype or not fits:
        raise ModelError(
            f"{path}: input {expected.name!r} is {expected.dtype} {expected.shape}, "
            f"got {given.dtype.name} {given.shape}"
        )
