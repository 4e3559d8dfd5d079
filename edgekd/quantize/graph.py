"""Graphs of a network: exported, folded, fake-quantized, converted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import (
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
    move_exported_model_to_eval,
    move_exported_model_to_train,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
from torchao.quantization.pt2e.utils import _fuse_conv_bn_

from edgekd.config.device import Quantization
from edgekd.core.errors import ModelError
from edgekd.core.quiet import quietly
from edgekd.quantize.fake_quantize import ActivationFakeQuantize, WeightFakeQuantize
from edgekd.quantize.quantizer import WEIGHTED, DeviceQuantizer
from edgekd.quantize.rewriting import rewrite_composed


def folded_graph(net: nn.Module, example: Tensor) -> GraphModule:
    """Returns the exported graph of ``net`` with batch norm folded into the convolutions.

    Folding comes before QAT because what the target executes is the folded weight; the price is a
    low learning rate. Works for anything that `torch.export` accepts.

    Args:
        net: In ``eval`` mode with settled norm statistics.
        example: ``(B, C, H, W)`` with B of at least 2; the batch dimension becomes dynamic.

    Raises:
        ModelError: `torch.export` refuses the network.
    """
    net.eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    try:
        with quietly():
            program = torch.export.export(net, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:
        raise ModelError(
            f"{type(net).__name__} cannot be exported by torch.export: {error}"
        ) from error
    graph = rewrite_composed(program.module())
    _fuse_conv_bn_(graph)
    graph.delete_all_unused_submodules()
    # The biases that folding makes come frozen; QAT has to train them.
    return graph.requires_grad_(True)


def copied(graph: GraphModule) -> GraphModule:
    """Returns a copy of a graph that shares nothing with it."""
    with quietly():
        return copy.deepcopy(graph)


def prepared(graph: GraphModule, scheme: Quantization) -> GraphModule:
    """Returns a copy of a folded graph with fake-quantization as the device demands."""
    with quietly():
        return cast(GraphModule, prepare_qat_pt2e(copied(graph), DeviceQuantizer(scheme)))


@torch.no_grad()
def calibrate(graph: GraphModule, batches: Iterable[Tensor]) -> None:
    """Sets the first activation ranges from real images, in place; then rounding is switched on."""
    _evaluation_mode(graph)
    graph.apply(enable_observer)
    graph.apply(disable_fake_quant)
    for images in batches:
        graph(images)
    graph.apply(enable_fake_quant)


def training_mode(graph: GraphModule) -> GraphModule:
    """Returns the graph ready to be trained (exported graphs refuse ``.train()``)."""
    with quietly():  # torch compiles patterns for it, and warns of Python 3.13.0.
        return cast(GraphModule, move_exported_model_to_train(graph))


def _evaluation_mode(graph: GraphModule) -> None:
    with quietly():
        move_exported_model_to_eval(graph)


def freezer(graph: GraphModule, after_step: int) -> Callable[[int], None]:
    """Returns a hook that stops the activation ranges from moving once ``after_step`` is reached.

    With the norm folded nothing else pulls the ranges back, so the weights must get time to settle
    on a fixed grid.
    """

    def before_step(step: int) -> None:
        if step >= after_step:
            graph.apply(disable_observer)

    return before_step


@torch.no_grad()
def frozen(graph: GraphModule) -> GraphModule:
    """Returns the fake-quantized graph for evaluation: what the integer runtimes will compute.

    Ranges are frozen, weight scales are those of the final weights, and biases are put on the
    int32 grid (input scale times weight scale) that every runtime puts them on.
    """
    _evaluation_mode(graph)
    graph.apply(disable_observer)
    graph.apply(enable_fake_quant)
    for node in graph.graph.nodes:
        if node.target in WEIGHTED:
            _settle(graph, node)
    return graph


def converted(
    graph: GraphModule, outputs: int, *, fold_weights: bool, complete: bool = False
) -> GraphModule:
    """Returns the graph with Q/DQ operators in place of the fake-quantization modules.

    Args:
        graph: Frozen; left as it is.
        outputs: Leading outputs to keep; tapped features behind them are dropped.
        fold_weights: Whether weights become int8 constants (ONNX) or stay float behind a
            quantize operator (the TFLite converter wants to fold them itself).
        complete: Whether every tensor is rounded, also those that the target leaves alone because
            it fuses the operators around them: what a runtime that rounds everything is given.
    """
    with quietly():
        kept = only_outputs(copied(graph), outputs)
        if not complete:
            _without_observers_only(kept)
        return cast(GraphModule, convert_pt2e(kept, fold_quantize=fold_weights))


def placements(graph: GraphModule, outputs: int) -> tuple[GraphModule, GraphModule]:
    """Returns the converted graph as the target rounds and as every tensor is rounded.

    With folded weights; the very same graph twice where the target rounds every tensor.
    """
    target = converted(graph, outputs, fold_weights=True)
    if not any(_observes_only(module) for module in graph.modules()):
        return target, target
    return target, converted(graph, outputs, fold_weights=True, complete=True)


def _without_observers_only(graph: GraphModule) -> None:
    """Takes out what only observes, in place."""
    for node in list(graph.graph.nodes):
        if _observes_only(_fake_quantize(graph, node)):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()


def _observes_only(module: nn.Module | None) -> bool:
    return isinstance(module, ActivationFakeQuantize) and module.observer_only


def only_outputs(graph: GraphModule, count: int) -> GraphModule:
    """Returns ``graph`` with its first ``count`` flat outputs and nothing that only others need."""
    (output,) = (n for n in graph.graph.nodes if n.op == "output")
    kept = tuple(_flat(output.args[0]))[:count]
    output.args = (kept,)
    codegen = graph.graph._codegen
    info = codegen.pytree_info  # type: ignore[attr-defined]
    out_spec = torch.utils._pytree.tree_structure(tuple(kept))
    codegen.pytree_info = info._replace(out_spec=out_spec)  # type: ignore[attr-defined]
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def _flat(value: object) -> Iterable[Node]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _flat(item)
    else:
        yield cast(Node, value)


def _settle(graph: GraphModule, node: Node) -> None:
    """Puts weight and bias of one operator on the integer grids, in place.

    A weight that lies halfway between two integers would be rounded differently by different
    exporters; on the grid there is nothing left to round.
    """
    data, weight = (_fake_quantize(graph, node.args[index]) for index in (0, 1))
    if not isinstance(weight, WeightFakeQuantize) or data is None:
        return
    values = _parameter(graph, cast(Node, node.args[1]).args[0])
    values.copy_(weight(values))
    if len(node.args) > 2 and node.args[2] is not None:
        bias = _parameter(graph, node.args[2])
        step = cast(Tensor, data.scale) * weight.scale
        bias.copy_(torch.round(bias / step) * step)


def _fake_quantize(graph: GraphModule, node: object) -> nn.Module | None:
    is_module = isinstance(node, Node) and node.op == "call_module"
    return graph.get_submodule(cast(str, node.target)) if is_module else None  # type: ignore[attr-defined]


def _parameter(graph: GraphModule, node: object) -> Tensor:
    path = cast(str, cast(Node, node).target)
    value: object = graph
    for part in path.split("."):
        value = getattr(value, part)
    return cast(Tensor, value)
