"""Layers that stay in float32 inside an integer network.

What int8 does worst is a tensor that one scale does not fit, such as one with an outlier channel.
Such a tensor escapes rounding where the layer that makes it and those that read it stay in float:
an integer layer can neither write nor read anything but int8. A layer alone gains nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import cast

from torch.fx import GraphModule, Node

from edgekd.core.errors import RecipeError, suggest
from edgekd.quantize.quantizer import ACTIVATIONS, REQUANTIZING, WEIGHTED


def layers(graph: GraphModule) -> dict[str, Node]:
    """Returns the operators that may stay in float, by name, in the order of execution.

    A convolution or linear layer goes by the path of its weight in the student, such as
    ``backbone.stem.conv``; an addition or product by its name in the graph, such as ``add_3``.

    Args:
        graph: Folded, fake-quantized or neither.
    """
    found = {}
    for node in graph.graph.nodes:
        if node.target in WEIGHTED:
            found[_weight_path(node)] = node
        elif node.target in REQUANTIZING:
            found[node.name] = node
    return found


def between_layers(graph: GraphModule) -> dict[str, tuple[str, ...]]:
    """Returns every rounded tensor that is made and read by layers alone.

    By the name of its fake-quantization module: the layers that must stay in float so that it is
    not rounded, the one that makes it first.

    Args:
        graph: Fake-quantized.
    """
    names = {node: name for name, node in layers(graph).items()}
    makers = {end(node): name for node, name in names.items()}
    targets = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    found = {}
    for node in graph.graph.nodes:
        if node.op != "call_module" or node.args[0] not in makers:
            continue
        if targets.count(node.target) == 1 and all(user in names for user in node.users):
            readers = (names[user] for user in node.users)
            found[str(node.target)] = (makers[node.args[0]], *readers)
    return found


def keep_float(graph: GraphModule, names: Collection[str]) -> GraphModule:
    """Takes layers out of a fake-quantized graph's integer part, in place, and returns the graph.

    Their weights are left as they are. Between two of them nothing is rounded; where one reads from
    or writes to an integer operator, that tensor is int8 as before, on the same scale.

    Args:
        graph: From `edgekd.quantize.graph.prepared`, trained or not.
        names: As `layers` has them.

    Raises:
        RecipeError: There is no such layer, or one stands alone among integer ones.
    """
    known = layers(graph)
    for name in names:
        if name not in known:
            raise RecipeError(f"no layer {name!r} to keep in float{suggest(name, known)}")
    kept = {known[name] for name in names}
    ends = {end(node) for node in kept}
    joined: set[Node] = set()
    for node in kept:
        for given in node.all_input_nodes:
            source = cast(Node, given.args[0]) if given.op == "call_module" else given
            if given.op == "call_module" and (source.op == "get_attr" or source in ends):
                node.replace_input_with(given, source)
            if source in ends:
                joined |= {node, *(n for n in kept if end(n) is source)}
    alone = [name for name in names if known[name] not in joined]
    if alone:
        raise RecipeError(
            f"layer {alone[0]!r} would be alone in float: it reads and writes int8 all the same; "
            "keep the layer before or behind it in float, too"
        )
    weights = {cast(Node, node.args[1]) for node in kept if node.target in WEIGHTED}
    for node in reversed(list(graph.graph.nodes)):
        if node.op == "call_module" and not node.users and node.args[0] in ends | weights:
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def end(node: Node) -> Node:
    """Returns the activation that is one operator with ``node``, else ``node``."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in ACTIVATIONS else node


def _weight_path(node: Node) -> str:
    weight = cast(Node, node.args[1])
    while weight.op != "get_attr":
        weight = cast(Node, weight.args[0])
    # The student is the `net` of what taps its features, and a user's own that of another module.
    return re.sub(r"^net\.(net\.)?", "", str(weight.target)).removesuffix(".weight")
