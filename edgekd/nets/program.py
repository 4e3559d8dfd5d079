"""A network that a program gave as an object: kept as an exported program, without its code.

The file is PyTorch's own archive (``.pt2``). PyTorch unpickles parts of such a file, so that one
from elsewhere could run code; here a file that holds anything but plain tensors and operators of
ATen is refused before PyTorch sees it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.core.errors import ModelError
from edgekd.core.files import write_atomic
from edgekd.core.quiet import quietly

SUFFIX = ".pt2"
_OPERATOR = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.\w+")
_SYMBOL = re.compile(r"'[su]\d+'")
_WORDS = {"Symbol", "Integer", "Float", "Add", "Mul", "Pow", "Mod", "FloorDiv", "CleanDiv"} | {
    "Max", "Min", "positive", "nonnegative", "integer", "True", "False",
}  # fmt: skip
"""Of which sizes are written; PyTorch evaluates these expressions as Python."""


class ProgramNet(nn.Module):
    """An exported program as a network, which can be put into training mode and back."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401 - whatever the network returns
        """Returns what the network returns for ``(B, C, H, W)``."""
        return self.graph(x)

    def train(self, mode: bool = True) -> ProgramNet:
        """Switches batch norm and dropout, which an exported program holds as operators."""
        with quietly():
            from torchao.quantization.pt2e import (
                move_exported_model_to_eval,
                move_exported_model_to_train,
            )

            if mode != self.training:
                (move_exported_model_to_train if mode else move_exported_model_to_eval)(self.graph)
        self.training = mode
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ProgramNet:
        """Returns a copy; torch complains of itself while it copies a graph."""
        with quietly():
            other = ProgramNet(copy.deepcopy(self.graph, memo))
        other.training = self.training
        return other


def keep_program(net: nn.Module, shape: tuple[int, ...], folder: Path) -> Path:
    """Returns the file in ``folder`` that holds a network: its operators and its weights.

    Named after the content: the same network with the same weights is the same file, which is then
    not written again. Kept as the network computes in ``eval`` mode.

    Args:
        net: Any that `torch.export` takes; it stays as it is.
        shape: ``(1, C, H, W)`` of its input; the batch becomes dynamic.
        folder: Exists.

    Raises:
        ModelError: `torch.export` refuses the network.
    """
    program = exported(net, shape)
    path = folder / f"{type(net).__name__.lower()}-{content_hash(program)[:12]}{SUFFIX}"
    if not path.exists():
        draft = folder / f".{path.name}.draft{SUFFIX}"
        try:
            with quietly():
                torch.export.save(program, draft)
            write_atomic(path, draft.read_bytes())
        finally:
            draft.unlink(missing_ok=True)
    return path


def exported(net: nn.Module, shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    """Returns the exported program of a copy of a network, in ``eval`` mode and float32.

    Raises:
        ModelError: `torch.export` refuses it.
    """
    batch = torch.export.Dim("batch", min=1, max=1024)
    example = torch.zeros(2, *shape[1:])
    try:
        with quietly(), torch.no_grad():
            taken = copy.deepcopy(net).cpu().float().eval()
            return torch.export.export(taken, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:
        raise ModelError(
            f"{type(net).__name__} cannot be exported by torch.export with an input of "
            f"{'x'.join(map(str, shape))}: {error}"
        ) from error


def content_hash(program: torch.export.ExportedProgram) -> str:
    """Returns the SHA-256 of the operators and the weights; where the code lies does not matter."""
    digest = hashlib.sha256(program.graph_module.code.encode())
    for name, value in sorted({**program.state_dict, **program.constants}.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_program(path: Path) -> ProgramNet:
    """Returns the network in a ``.pt2`` file, in ``eval`` mode.

    Raises:
        ModelError: The file is damaged, or holds anything but tensors and operators of ATen.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            strange = next(_strange(archive), None)
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not a whole exported program ({error})") from error
    if strange:
        raise ModelError(
            f"{path}: holds {strange}; legal: tensors and operators of ATen, as EdgeKD writes them"
        )
    try:
        with quietly():
            program = torch.export.load(path)
            # Guards are code in the file, and all that they say is the shape of the input.
            graph = program.module(check_guards=False)
    except Exception as error:
        raise ModelError(f"{path}: not a whole exported program ({error})") from error
    net = ProgramNet(graph)
    net.training = False
    return net


def _strange(archive: zipfile.ZipFile) -> Iterator[str]:
    """Yields what is in an archive that could run code when PyTorch reads it."""
    for name in archive.namelist():
        place = name.partition("/")[2]
        if place.endswith("_config.json"):
            yield from _payloads(json.loads(archive.read(name)))
        elif place.startswith("data/sample_inputs/"):
            yield from _pickled(archive, name)
        elif place.startswith("models/"):
            if place != "models/model.json":
                yield name
            yield from _program(json.loads(archive.read(name)))


def _payloads(listed: dict[str, Any]) -> Iterator[str]:
    for name, payload in listed["config"].items():
        plain = re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"])
        if payload["use_pickle"] or not plain:
            yield f"{name!r} as something else than a plain tensor"


def _pickled(archive: zipfile.ZipFile, name: str) -> Iterator[str]:
    try:
        with archive.open(name) as stream:
            torch.load(stream, weights_only=True)
    except Exception:  # Of damaged bytes torch and pickle raise many kinds.
        yield f"pickled code in {name!r}"


def _program(held: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """Yields operators that are not of ATen, and expressions that are no arithmetic."""
    if isinstance(held, list):
        for item in held:
            yield from _program(item)
    elif isinstance(held, dict):
        for key, value in held.items():
            expression = key == "expr_str" and isinstance(value, str)
            operator = key == "target" and isinstance(value, str)
            if operator and not _OPERATOR.fullmatch(value):
                yield f"the operator {value!r}"
            elif expression and not _is_arithmetic(value):
                yield f"the expression {value!r}"
            elif not operator and not expression:
                yield from _program(value)


def _is_arithmetic(expression: str) -> bool:
    rest = _SYMBOL.sub("", expression)
    words = set(re.findall(r"[^\W\d]\w*", rest))
    return words <= _WORDS and re.fullmatch(r"[\w\s+*/%(),.<>=-]*", rest) is not None
