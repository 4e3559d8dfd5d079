"""The quantizer: which tensors of an exported graph become integer, and how, for one device.

The device profile decides: symmetric or affine activations, fixed output scales, what stays float.
An operator that has no integer form here is refused before anything is trained, with its place in
the user's network; what the files then hold is proven on the files.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from edgekd.config.device import Quantization
from edgekd.core.errors import ModelError
from edgekd.nets.aten import ENTRIES, targets
from edgekd.nets.custom import place_of
from edgekd.quantize.fake_quantize import ActivationFakeQuantize, WeightFakeQuantize

_ATEN = torch.ops.aten
_KEY = "quantization_annotation"

WEIGHTED = targets(lambda entry: entry.weighted)
"""Operators with a weight, whose output channels come first."""

ACTIVATIONS = targets(lambda entry: entry.scale == "fused")
"""Activations that every runtime folds into the operator before them."""

ADDITIONS = targets(lambda entry: entry.name == "add")

REQUANTIZING = targets(lambda entry: entry.scale == "own" and not entry.weighted)
"""Operators whose output gets a scale of its own."""

SPLITS = targets(lambda entry: entry.splits)
"""Operators with several outputs, each of which has the scale of the input."""

SAME_SCALE = targets(lambda entry: entry.scale == "input" and not entry.splits)
"""Operators whose output has the scale of their input (TFLite int8 specification)."""

PADS = {_ATEN.pad.default: 3, _ATEN.constant_pad_nd.default: 2}
"""Pads, and which argument the border's value is."""

RESIZES = targets(lambda entry: entry.name == "nearest-resize")

FIXED_OUTPUT = targets(lambda entry: entry.scale == "fixed")
"""Operators whose output scale the runtime fixes; the profile holds the values."""

INPUT_SCALE, INPUT_ZERO_POINT = 1 / 128, 0
"""Pins the camera input: with (pixel - 128) / 128 the int8 input *is* pixel - 128."""


class DeviceQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates a graph as the device's runtime will execute it.

    Args:
        scheme: From the device profile.
    """

    def __init__(self, scheme: Quantization) -> None:
        super().__init__()
        self._scheme = scheme

    def annotate(self, model: GraphModule) -> GraphModule:
        """Returns the graph with annotations on its nodes."""
        for node in model.graph.nodes:
            if node.op == "placeholder":
                fixed = self._activation((INPUT_SCALE, INPUT_ZERO_POINT))
                node.meta[_KEY] = _annotation({}, fixed)
            elif node.op == "call_function" and _KEY not in node.meta:
                self._annotate(node)
        return model

    def validate(self, model: GraphModule) -> None:
        """Refuses what has no integer form on every target, or none that could be proven.

        Raises:
            ModelError: Naming the operator, where the user's network has it, and what to do.
        """
        for node in model.graph.nodes:
            reason = _refusal(node, self._scheme.float_islands)
            if reason:
                raise ModelError(
                    f"{place_of(node)} {reason}; or end the network before it, at its raw "
                    "outputs, and compute the rest outside"
                )

    def _annotate(self, node: Node) -> None:
        target: Any = node.target
        if target in WEIGHTED:
            inputs = {_arg(node, 0): self._activation(), _arg(node, 1): self._weight()}
            self._with_activation(node, inputs)
        elif target in REQUANTIZING:
            tensors = [a for a in node.args[:2] if isinstance(a, Node)]
            self._with_activation(node, {t: self._activation() for t in tensors})
        elif target in SAME_SCALE:
            self._same_scale(node)
        elif target in SPLITS:
            node.meta[_KEY] = _annotation({_arg(node, 0): self._activation()}, None)
        elif target is operator.getitem and _arg(node, 0).target in SPLITS:
            source = _arg(node, 0)
            shared = SharedQuantizationSpec((_arg(source, 0), source))
            node.meta[_KEY] = _annotation({}, shared)
        elif target in FIXED_OUTPUT:
            output = self._activation(self._fixed(node))
            node.meta[_KEY] = _annotation({_arg(node, 0): self._activation()}, output)

    def _fixed(self, node: Node) -> tuple[float, int] | None:
        """Returns the grid that the runtime prescribes for an operator's output, if it does."""
        entry = ENTRIES.get(node.target)
        fixed = self._scheme.fixed_outputs.get(entry.fixed_output) if entry else None
        return (fixed.scale, fixed.zero_point) if fixed else None

    def _with_activation(self, node: Node, inputs: dict[Node, Any]) -> None:
        """Puts the output scale behind the activation that the runtime fuses into ``node``."""
        users = list(node.users)
        if len(users) == 1 and users[0].target in ACTIVATIONS:
            node.meta[_KEY] = _annotation(inputs, None)
            users[0].meta[_KEY] = _annotation({}, self._activation())
        else:
            observer_only = self._scheme.fuses_residual and node is fused_branch(users[0])
            node.meta[_KEY] = _annotation(inputs, self._activation(observer_only=observer_only))

    def _same_scale(self, node: Node) -> None:
        first = node.args[0]
        tensors: list[Node] = list(first) if isinstance(first, (list, tuple)) else [first]  # type: ignore[arg-type,list-item]
        grids = {self._fixed(_maker(tensor)) for tensor in tensors}
        if len(grids) > 1:
            raise ModelError(
                f"{place_of(node)} joins the output of a sigmoid or softmax, whose int8 "
                "scale the runtime fixes, with values on another scale; return each as an output "
                "of its own, better before its activation, and join them outside the network"
            )
        shared = SharedQuantizationSpec((tensors[0], node))
        inputs: dict[Node, Any] = dict.fromkeys(tensors[1:], shared)
        inputs[tensors[0]] = self._activation()
        node.meta[_KEY] = _annotation(inputs, shared)

    def _activation(
        self, fixed: tuple[float, int] | None = None, *, observer_only: bool = False
    ) -> QuantizationSpec:
        symmetric = self._scheme.activation_symmetry == "symmetric"
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine,
            observer_or_fake_quant_ctr=ActivationFakeQuantize.with_args(
                symmetric=symmetric,
                scale_floor=self._scheme.scale_floor,
                fixed=fixed,
                observer_only=observer_only,
            ),
        )

    def _weight(self) -> QuantizationSpec:
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            observer_or_fake_quant_ctr=WeightFakeQuantize.with_args(axis=0),
        )


def fused_branch(addition: Node) -> Node | None:
    """Returns the convolution that an addition is one operator with, None where there is none.

    It is the one whose result nothing else reads; of two the later, since the other's result has
    to be there when it runs.
    """
    if addition.target not in ADDITIONS:
        return None
    branches = [a for a in addition.args[:2] if isinstance(a, Node)]
    fit = [b for b in branches if b.target is _ATEN.conv2d.default and len(b.users) == 1]
    order = {node: rank for rank, node in enumerate(addition.graph.nodes)}
    return max(fit, key=lambda node: order[node]) if len(branches) == 2 and fit else None


def _annotation(inputs: dict[Node, Any], output: Any) -> QuantizationAnnotation:  # noqa: ANN401
    return QuantizationAnnotation(input_qspec_map=inputs, output_qspec=output, _annotated=True)


def _arg(node: Node, index: int) -> Node:
    value = node.args[index]
    if not isinstance(value, Node):
        raise TypeError(f"{node}: argument {index} is {value!r}, expected a tensor")
    return value


def _maker(node: Node) -> Node:
    """Returns the operator that computed what ``node`` merely moves."""
    while node.target in SAME_SCALE and isinstance(node.args[0], Node):
        node = node.args[0]
    return node


def _refusal(node: Node, islands: tuple[str, ...]) -> str | None:
    """Returns why an operator cannot be made integer and what else would do, None where it can."""
    target: Any = node.target
    if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
        return None
    if _KEY not in node.meta:
        name = str(target).removeprefix("aten.").split(".")[0]
        if name in islands or target in SPLITS:
            return None
        if target in ACTIVATIONS:
            return "stands alone: put it directly behind one convolution, linear layer or addition"
        return "has no int8 form on every target; build the network from " + _legal()
    if target in REQUANTIZING and not all(_is_computed(a) for a in node.args[:2]):
        return "works on a constant; fold that into the weights of a convolution or linear layer"
    if target in PADS and (len(node.args) > PADS[target] and node.args[PADS[target]]):
        return "has a border of other values than zeros; pad with zeros"
    if target is _ATEN.pad.default and len(node.args) > 2 and node.args[2] != "constant":
        return f"pads by {node.args[2]!r}; pad with zeros"
    if target in (_ATEN.hardtanh.default, _ATEN.hardtanh_.default) and node.args[1:] not in (
        (0, 6),
        (0.0, 6.0),
    ):
        return "clips to another range than 0 to 6; use ReLU or ReLU6"
    if target in RESIZES and not _is_whole_multiple(node):
        return "resizes by a fraction; resize to a whole multiple of height and width"
    return None


def _legal() -> str:
    every = targets(lambda entry: entry.scale != "none" or bool(entry.parts))
    names = {str(target).removeprefix("aten.").split(".")[0] for target in every}
    return ", ".join(sorted(name for name in names if not name.endswith("_")))


def _is_computed(argument: object) -> bool:
    return isinstance(argument, Node) and argument.op != "get_attr"


def _is_whole_multiple(node: Node) -> bool:
    before, after = _arg(node, 0).meta["val"].shape[2:], node.meta["val"].shape[2:]
    return all(large % small == 0 for small, large in zip(before, after, strict=True))
