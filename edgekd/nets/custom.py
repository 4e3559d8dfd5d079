"""A network of the user's own: made by a function in a Python file, put behind EdgeKD's input.

The function is code and is run, which is why it is only ever taken from the command line or the
recipe, never from a checkpoint. Its weights are read without unpickling code.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.fx
from torch import Tensor, nn

from edgekd.core.errors import ModelError
from edgekd.nets.card import CustomCard
from edgekd.nets.program import SUFFIX, load_program


class CustomModel(nn.Module):
    """The user's network, taking (pixel - 128) / 128 in RGB or grey as all of EdgeKD does.

    Its own normalisation and colour order become one 1x1 convolution in front of it: an operator
    that every target executes in int8, exact also where the network pads with zeros, and the input
    byte stays the camera's pixel.

    Attributes:
        strides: Empty: its levels, if any, are known to its decoder alone.
        taps: Empty.
    """

    strides: tuple[int, ...] = ()
    taps: tuple[str, ...] = ()

    def __init__(self, net: nn.Module, own: CustomCard, channels: int) -> None:
        super().__init__()
        self.net = net
        self.adapter = _adapter(own, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the network's outputs as a tuple, for ``x`` of ``(B, C, H, W)``."""
        outputs = self.net(x if self.adapter is None else self.adapter(x))
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def is_custom(source: str) -> bool:
    """Returns whether a source is ``my_model.py:function`` or an exported program, ``.pt2``."""
    return ".py:" in source or source.endswith(SUFFIX)


def file_of(source: str) -> Path:
    """Returns the file that a custom network comes from."""
    return Path(source if source.endswith(SUFFIX) else source.rpartition(":")[0])


def custom_network(source: str) -> nn.Module:
    """Returns the network that a source names.

    Raises:
        ModelError: The file or the function is missing, fails, or returns something else.
    """
    return load_program(Path(source)) if source.endswith(SUFFIX) else call_factory(source)


def call_factory(source: str) -> nn.Module:
    """Returns what the function in ``my_model.py:function`` returns, called without arguments.

    Raises:
        ModelError: The file or the function is missing, fails, or returns something else.
    """
    text, _, name = source.rpartition(":")
    path = Path(text)
    if not path.is_file():
        raise ModelError(f"{source}: {path} is not a file; expected my_model.py:function")
    function = getattr(_module(path), name, None)
    if not callable(function):
        raise ModelError(f"{source}: {path.name} has no function {name!r}")
    try:
        net = function()
    except Exception as error:
        raise ModelError(
            f"{source}: the function raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(net, nn.Module):
        raise ModelError(f"{source}: returned a {type(net).__name__}, expected a torch.nn.Module")
    return net


def place_of(node: torch.fx.Node) -> str:
    """Returns an operator of an exported graph and where the user's code has it.

    Such as ``softmax in 'head.act' (my_model.py, line 64)``, from what `torch.export` notes down.
    """
    name = str(node.target).removeprefix("aten.").split(".")[0]
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, owner = (str(item) for item in stack[-1]) if stack else ("", "the network")
    # The user's network is the `net` of an `CustomModel`, which is the `net` of a `TappedNet`.
    inner = re.sub(r"^net\.(net\.)?", "", f"{path}.").removesuffix(".")
    where = f"'{inner}'" if inner else owner.rpartition(".")[2]
    frames = re.findall(r'File "(.+)", line (\d+)', node.meta.get("stack_trace") or "")
    torchs = str(Path(torch.__file__).parent)
    # What torch generated from a graph lies in no file that the user has.
    known = [(file, line) for file, line in frames if torchs not in file and file[0] != "<"]
    calls = [f" ({Path(file).name}, line {line})" for file, line in known]
    return f"{name} in {where}{calls[-1] if calls else ''}"


def load_state(net: nn.Module, path: Path) -> None:
    """Loads a state dict into the user's network, in place.

    A dictionary that holds it under ``state_dict`` or ``model`` is looked into, and the prefix
    ``module.`` of data-parallel training is dropped. Pickled code is not run.

    Raises:
        ModelError: The file cannot be read safely or does not fit.
    """
    state = _state(path)
    if all(name.startswith(("net.", "adapter.")) for name in state):  # From `edgekd train`.
        state = {k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")}
    state = {name.removeprefix("module."): value for name, value in state.items()}
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise ModelError(f"{path}: does not fit {type(net).__name__}: {' '.join(lines)}") from error


def _module(path: Path) -> Any:  # noqa: ANN401 - a module of unknown content
    name = f"edgekd_own_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ModelError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # Dataclasses and pickling look a module up by its name.
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise ModelError(f"{path}: cannot be imported, {type(error).__name__}: {error}") from error
    return module


def _state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file of weights")
    if path.suffix == ".safetensors":
        try:
            loaded: dict[str, Tensor] = safetensors.torch.load_file(path)
        except Exception as error:
            raise ModelError(f"{path}: not a whole safetensors file ({error})") from error
        return loaded
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{path}: holds more than tensors and plain values, or is damaged "
            f"({type(error).__name__}); save `model.state_dict()` alone and name that file"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ModelError(f"{path}: holds a {type(found).__name__}, expected a dict of tensors")
    return found


def _adapter(own: CustomCard, channels: int) -> nn.Conv2d | None:
    """Returns the convolution from EdgeKD's input to the network's, None where they are equal."""
    mean, std = (_per_channel(v, channels) for v in (own.mean, own.std))
    if (mean == 128).all() and (std == 128).all() and own.colour == "rgb":
        return None
    order = list(range(channels))[:: -1 if own.colour == "bgr" else 1]
    adapter = nn.Conv2d(channels, channels, 1)
    with torch.no_grad():
        adapter.weight.zero_()
        for to, source in enumerate(order):
            adapter.weight[to, source] = 128.0 / std[to]
        adapter.bias.copy_((128.0 - mean) / std)  # type: ignore[union-attr]
    return adapter.requires_grad_(False)


def _per_channel(values: tuple[float, ...], channels: int) -> Tensor:
    if len(values) not in (1, channels):
        raise ModelError(
            f"network.mean and network.std: {list(values)} for {channels} channels; expected one "
            "number, or one a channel"
        )
    return torch.tensor(values * (channels // len(values)), dtype=torch.float32)
