"""The operators that a network's file will hold, listed without training or exporting it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgekd.core.types import Precision
from edgekd.modelfile.operator_table import OPERATOR
from edgekd.modelfile.operators import Geometry, Operator, OperatorKind
from edgekd.nets.aten import ENTRIES, overload, targets

_ATEN = torch.ops.aten
_LISTED = targets(
    lambda entry: entry.scale != "fused" and not entry.weighted and entry.cost != OperatorKind.MOVE
)
"""Operators without a weight that a runtime spends time on."""
_CONVOLUTION = _ATEN.convolution.default
_LINEAR = (_ATEN.addmm.default, _ATEN.mm.default)


def network_operators(
    net: nn.Module, input_shape: tuple[int, int, int, int], precision: Precision
) -> tuple[Operator, ...]:
    """Returns what a file of the network computes for one image, and leaves the net on "meta".

    Batch norm and ReLU are left out: every runtime folds them into the convolution before them.

    Args:
        net: Of any device; its weights are not read.
        input_shape: ``(1, C, H, W)``.
        precision: Of the file.
    """
    meta = net.to("meta").eval()
    with torch.no_grad(), _Listing(precision) as listing:
        meta(torch.empty(input_shape, device="meta"))
    return tuple(listing.found)


class _Listing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps a record of every operator that a forward pass dispatches."""

    def __init__(self, precision: Precision) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Operator] = []
        self._precision = precision
        self._width = {Precision.INT8: 1, Precision.FLOAT16: 2, Precision.FLOAT32: 4}[precision]

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's own signature
        types: Any,  # noqa: ANN401 - as above
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - as above
        result = func(*args, **(kwargs or {}))
        output = result[0] if isinstance(result, tuple) else result
        if func is _CONVOLUTION:
            self._convolution(args, output)
        elif func in _LINEAR:
            self._linear(args[-2], args[-1], output)
        elif func in _LISTED:
            given = args[0] if isinstance(args[0], (list, tuple)) else args
            tensors = [item for item in given if isinstance(item, Tensor)]
            entry = ENTRIES[func]
            for part in [OPERATOR[operator] for _, operator, *_ in entry.parts] or [entry]:
                self._add(part.cost, overload(part.torch[0]), tensors, output, 0, 0, None)
        return result

    def _convolution(self, args: Sequence[Any], output: Tensor) -> None:
        data, weight, stride, groups = args[0], args[1], args[3], args[8]
        inputs, (outputs, height, width) = data.shape[1], output.shape[1:]
        depthwise = groups > 1 and weight.shape[1] == 1
        shape = Geometry(
            inputs=inputs,
            outputs=outputs,
            height=height,
            width=width,
            kernel=(weight.shape[2], weight.shape[3]),
            stride=stride[0],
            groups=groups,
        )
        kind = OperatorKind.DEPTHWISE_CONV if depthwise else OperatorKind.CONV
        macs = output.numel() * math.prod(weight.shape[1:])
        self._add(kind, _CONVOLUTION, [data], output, macs, weight.numel() + outputs, shape)

    def _linear(self, data: Tensor, weight: Tensor, output: Tensor) -> None:
        shape = Geometry(
            inputs=data.shape[-1], outputs=output.shape[-1], height=data.shape[0], width=1
        )
        macs = output.numel() * data.shape[-1]
        kind = OperatorKind.FULLY_CONNECTED
        self._add(kind, _LINEAR[0], [data], output, macs, weight.numel() + shape.outputs, shape)

    def _add(
        self,
        kind: OperatorKind,
        func: Any,  # noqa: ANN401 - as above
        inputs: Sequence[Tensor],
        output: Tensor,
        macs: int,
        parameters: int,
        shape: Geometry | None,
    ) -> None:
        self.found.append(
            Operator(
                kind=kind,
                native=str(func),
                name="",
                macs=macs,
                parameters=parameters,
                input_bytes=self._width * sum(item.numel() for item in inputs),
                weight_bytes=self._width * parameters,
                output_bytes=self._width * output.numel(),
                precision=self._precision,
                input_shapes=tuple(tuple(item.shape) for item in inputs),
                output_shapes=(tuple(output.shape),),
                geometry=shape,
            )
        )
