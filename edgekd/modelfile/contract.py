"""The contract that sits inside every exported file: input, outputs, labels, decoding.

ONNX carries it in ``metadata_props``, TFLite in its own metadata table, both under `KEY`, so that a
file can be evaluated, drawn or integrated without anything beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekd.core.errors import ModelError
from edgekd.core.serialize import from_mapping, to_mapping
from edgekd.core.types import (
    Arithmetic,
    Form,
    Format,
    InputContract,
    OutputContract,
    Precision,
    Priors,
    Task,
    arithmetic_of,
)
from edgekd.standalone.decoder import MAX_LOG_SIZE, SIZE_PRIOR

KEY = "edgekd_contract"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """How `edgekd.standalone.decoder` reads the outputs.

    Attributes:
        decoder: One of its `DECODERS`; `IN_THE_FILE` where a file ends in detections; or ``none``
            for a classifier, or where nobody said how.
        size_prior: Constant of ``edgedet``.
        max_log_size: Constant of ``edgedet``.
        priors: Of ``ssd-raw``.
        min_score: Detections under it are not in the outputs of a file that ends in detections.
    """

    decoder: str
    size_prior: float = SIZE_PRIOR
    max_log_size: float = MAX_LOG_SIZE
    priors: Priors | None = None
    min_score: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """What a model file expects and returns.

    Attributes:
        form: See `edgekd.core.types.Form`.
        recipe: sha256 of the recipe that made the file.
        float_layers: Layers of an int8 file that were kept in float.
    """

    schema: Literal[1] = 1
    task: Task
    target: str
    precision: Precision
    form: Form
    classes: tuple[str, ...]
    input: InputContract
    outputs: tuple[OutputContract, ...]
    decoding: Decoding
    recipe: str
    edgekd: str
    float_layers: tuple[str, ...] = ()

    @property
    def arithmetic(self) -> Arithmetic:
        """What ONNX Runtime must compute in, so that what runs is what was trained."""
        return arithmetic_of(self.precision, self.form)


def dump_contract(contract: Contract) -> str:
    """Returns the contract as JSON with sorted keys."""
    return json.dumps(to_mapping(contract), sort_keys=True, indent=1)


def parse_contract(text: str, where: str) -> Contract:
    """Returns the contract in ``text``.

    Raises:
        ModelError: Not JSON, or not a contract of this schema.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{where}: its contract is not JSON ({error})") from error
    return from_mapping(Contract, data, where, ModelError)


def exact_arithmetic(path: Path) -> Arithmetic:
    """Returns what any model file must be computed in: its contract's, where it has one."""
    try:
        return read_contract(path).arithmetic
    except ModelError:
        return "any"


def read_contract(path: Path) -> Contract:
    """Returns the contract in an exported file.

    Raises:
        ModelError: The file is not a model, or EdgeKD did not export it.
    """
    text = _onnx_text(path) if format_of(path) is Format.ONNX else _tflite_text(path)
    if text is None:
        raise ModelError(
            f"{path}: carries no {KEY!r}, so it is not an EdgeKD export and its outputs cannot be "
            "decoded"
        )
    return parse_contract(text, str(path))


def format_of(path: Path) -> Format:
    """Returns the format by suffix.

    Raises:
        ModelError: Another suffix, or no such file.
    """
    if path.suffix not in (".onnx", ".tflite"):
        raise ModelError(f"{path}: a model file ends in .onnx or .tflite")
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    return Format(path.suffix[1:])


def _onnx_text(path: Path) -> str | None:
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise ModelError(f"{path}: not a whole ONNX file ({error})") from error
    return next((p.value for p in model.metadata_props if p.key == KEY), None)


def _tflite_text(path: Path) -> str | None:
    from ai_edge_litert import schema_py_generated as schema

    blob = path.read_bytes()
    if blob[4:8] != b"TFL3":
        raise ModelError(f"{path}: not a TFLite file (no TFL3 identifier)")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(blob, 0))
        for entry in model.metadata or []:
            if entry.name.decode() == KEY:
                return bytes(model.buffers[entry.buffer].data).decode()
    except Exception as error:
        raise ModelError(f"{path}: not a whole TFLite file ({error})") from error
    return None
