"""Operators that are others put together, such as SiLU: rewritten before anything is quantized.

Every runtime executes the parts in int8, and each has a scale that can be trained and proven.
"""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from edgekd.modelfile.operator_table import OPERATOR, OperatorEntry
from edgekd.nets.aten import ENTRIES, overload


def rewrite_composed(graph: GraphModule) -> GraphModule:
    """Replaces every operator that the table composes of others, in place; returns the graph."""
    for node in list(graph.graph.nodes):
        entry = ENTRIES.get(node.target) if node.op == "call_function" else None
        if entry and entry.parts:
            _rewrite(graph, node, entry)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _rewrite(graph: GraphModule, node: Node, entry: OperatorEntry) -> None:
    made: dict[str, Any] = {"x": node.args[0]}
    with graph.graph.inserting_before(node):
        for name, operator, *reads in entry.parts:
            target = overload(OPERATOR[operator].torch[0])
            part = graph.graph.call_function(target, tuple(made[read] for read in reads))
            part.meta = dict(node.meta)  # Shape, and where the user's network has it.
            made[name] = part
    node.replace_all_uses_with(made[entry.parts[-1][0]])
    graph.graph.erase_node(node)
