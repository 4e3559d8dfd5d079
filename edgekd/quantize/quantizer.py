"""The quantizer: which tensors of an exported graph become integer, and how, for one device.

The device profile decides: symmetric or affine activations, fixed output scales, what stays float.
What stays float is a decision that can be read here and is checked on the exported file; an
operator that is not listed is left float and shows up as an island in the coverage proof.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from edgekd.device import Quantization
from edgekd.quantize.fake_quantize import ActivationFakeQuantize, WeightFakeQuantize

_ATEN = torch.ops.aten
_KEY = "quantization_annotation"

WEIGHTED = {
    _ATEN.conv1d.default: 0,
    _ATEN.conv2d.default: 0,
    _ATEN.linear.default: 0,
    _ATEN.conv_transpose2d.input: 1,
}
"""Operators with a weight, and the axis of its output channels."""

ACTIVATIONS = {
    _ATEN.relu.default,
    _ATEN.relu_.default,
    _ATEN.relu6.default,
    _ATEN.hardtanh.default,
    _ATEN.hardtanh_.default,
}
"""Activations that every runtime folds into the operator before them."""

REQUANTIZING = {_ATEN.add.Tensor, _ATEN.add_.Tensor, _ATEN.mul.Tensor, _ATEN.sub.Tensor}
"""Operators whose output gets a scale of its own."""

SAME_SCALE = {
    _ATEN.cat.default,
    _ATEN.max_pool2d.default,
    _ATEN.avg_pool2d.default,
    _ATEN.adaptive_avg_pool2d.default,
    _ATEN.mean.dim,
    _ATEN.pad.default,
    _ATEN.constant_pad_nd.default,
    _ATEN.flatten.using_ints,
    _ATEN.reshape.default,
    _ATEN.view.default,
    _ATEN.permute.default,
    _ATEN.transpose.int,
    _ATEN.squeeze.dim,
    _ATEN.unsqueeze.default,
    _ATEN.slice.Tensor,
    _ATEN.dropout.default,
    _ATEN.upsample_nearest2d.vec,
    _ATEN.upsample_nearest2d.default,
    _ATEN.upsample_bilinear2d.vec,
}
"""Operators whose output has the scale of their input (TFLite int8 specification)."""

FIXED_OUTPUT = {
    _ATEN.sigmoid.default: "logistic",
    _ATEN.softmax.int: "softmax",
    _ATEN.tanh.default: "tanh",
}
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
        """Nothing to refuse: coverage is proven on the exported files."""

    def _annotate(self, node: Node) -> None:
        target: Any = node.target
        if target in WEIGHTED:
            weight = self._weight(WEIGHTED[target])
            self._with_activation(node, {_arg(node, 0): self._activation(), _arg(node, 1): weight})
        elif target in REQUANTIZING:
            tensors = [a for a in node.args[:2] if isinstance(a, Node)]
            self._with_activation(node, {t: self._activation() for t in tensors})
        elif target in SAME_SCALE:
            self._same_scale(node)
        elif target in FIXED_OUTPUT:
            fixed = self._scheme.fixed_outputs[FIXED_OUTPUT[target]]
            output = self._activation((fixed.scale, fixed.zero_point))
            node.meta[_KEY] = _annotation({_arg(node, 0): self._activation()}, output)

    def _with_activation(self, node: Node, inputs: dict[Node, Any]) -> None:
        """Puts the output scale behind the activation that the runtime fuses into ``node``."""
        users = list(node.users)
        if len(users) == 1 and users[0].target in ACTIVATIONS:
            node.meta[_KEY] = _annotation(inputs, None)
            users[0].meta[_KEY] = _annotation({}, self._activation())
        else:
            node.meta[_KEY] = _annotation(inputs, self._activation())

    def _same_scale(self, node: Node) -> None:
        first = node.args[0]
        tensors: list[Node] = list(first) if isinstance(first, (list, tuple)) else [first]  # type: ignore[arg-type,list-item]
        shared = SharedQuantizationSpec((tensors[0], node))
        inputs: dict[Node, Any] = dict.fromkeys(tensors[1:], shared)
        inputs[tensors[0]] = self._activation()
        node.meta[_KEY] = _annotation(inputs, shared)

    def _activation(self, fixed: tuple[float, int] | None = None) -> QuantizationSpec:
        symmetric = self._scheme.activation_symmetry == "symmetric"
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine,
            observer_or_fake_quant_ctr=ActivationFakeQuantize.with_args(
                symmetric=symmetric, scale_floor=self._scheme.scale_floor, fixed=fixed
            ),
        )

    def _weight(self, axis: int) -> QuantizationSpec:
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=axis,
            observer_or_fake_quant_ctr=WeightFakeQuantize.with_args(axis=axis),
        )


def _annotation(inputs: dict[Node, Any], output: Any) -> QuantizationAnnotation:  # noqa: ANN401
    return QuantizationAnnotation(input_qspec_map=inputs, output_qspec=output, _annotated=True)


def _arg(node: Node, index: int) -> Node:
    value = node.args[index]
    if not isinstance(value, Node):
        raise TypeError(f"{node}: argument {index} is {value!r}, expected a tensor")
    return value
