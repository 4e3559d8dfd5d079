"""What training leaves behind, and the integer graph in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch.fx import GraphModule

from edgekd.config.device import Quantization
from edgekd.quantize import graph as graphs
from edgekd.quantize.mixed import keep_float
from edgekd.run.student import Student, load_graph


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A student and its graphs.

    Attributes:
        student: Checkpoint.
        floating: State of its folded float graph, trained as long as the integer one.
        integer: State of its fake-quantized graph; None in a run without int8.
        float_layers: Layers of the integer graph that stay in float.
    """

    student: Path
    floating: Path
    integer: Path | None
    float_layers: tuple[str, ...] = ()


def integer_graph(student: Student, trained: Trained, scheme: Quantization) -> GraphModule:
    """Returns the fake-quantized graph as the target rounds; there is one in the run."""
    assert trained.integer is not None  # noqa: S101 - for the type checker
    graph = graphs.prepared(student.folded(trained.student), scheme)
    return graphs.frozen(keep_float(load_graph(trained.integer, graph), trained.float_layers))
