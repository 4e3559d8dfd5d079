"""How much of a file really runs in integer, in the runtime's own optimised graph."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

import onnx

from edgekd.core.results import Check
from edgekd.core.types import Arithmetic, Precision
from edgekd.modelfile.operators import Operator
from edgekd.modelfile.read import read_operators
from edgekd.modelfile.runner import session_options
from edgekd.modelfile.tflite_graph import read_tflite

_INTEGER = ("QLinear", "ConvInteger", "MatMulInteger", "QGemm", "DynamicQuantize")
_COMPUTING = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "ConvTranspose"}
_OTHER = {
    *("Add", "Sub", "Mul", "Relu", "Clip", "Sigmoid", "Tanh", "Softmax"),
    *("AveragePool", "GlobalAveragePool", "ReduceMean", "MaxPool"),
    *("Concat", "Resize", "Pad", "Slice", "Split", "Transpose", "Reshape", "Squeeze", "Flatten"),
}
# They have integer kernels that go by their own name.
_BY_VALUE = {"Clip", "MaxPool", "Resize", "Concat", "Pad", "Slice", "Split"}
_BY_VALUE |= {"Transpose", "Reshape", "Squeeze", "Flatten"}


_BLOCKED = "_nchwc"
# What stands round a layer that is kept in float, and what its runtime puts there.
_ROUND_FLOAT = {"QUANTIZE", "DEQUANTIZE", "PAD", "Relu", "Clip", "Transpose"}


def check_tflite_coverage(path: Path, declared: tuple[str, ...], kept: Collection[str]) -> Check:
    """Returns whether every multiply-accumulate in a TFLite file is int8, and every float island.

    TFLite executes what the file says: an operator with int8 tensors has an int8 kernel or fails.

    Args:
        path: The int8 file.
        declared: Operators that the device profile wants in float.
        kept: Names of the operators that were trained in float, as `read_tflite` has them.
    """
    operators = read_operators(path).operators
    islands = []
    for operator in read_tflite(path).operators:
        native, output = operator.native, operator.outputs[0]
        tensors = (*operator.outputs, *(t for t in operator.inputs if t.data is None))
        trained = f"{native} {output.index}" in kept or (kept and native in _ROUND_FLOAT)
        if any(not t.is_integer for t in tensors) and native not in declared and not trained:
            islands.append(f"{native} {output.name}")
    return _check(path.name, "LiteRT", operators, islands, None, len(kept))


def check_onnx_coverage(
    path: Path, declared: tuple[str, ...], kept: Collection[str], arithmetic: Arithmetic
) -> Check:
    """Returns whether every multiply-accumulate runs in integer once ONNX Runtime has optimised.

    The optimised graph is what ONNX Runtime itself writes for the session that the proof runs.
    """
    left = _left_float(path, arithmetic)
    operators = read_operators(path).operators
    islands = [
        f"{kind} {name}"
        for name, kind in left.items()
        if kind not in declared and not _is_kept(name, kind, kept)
    ]
    float_macs = {o.name for o in operators if o.macs and o.name in left}
    return _check(
        path.name,
        "ONNX Runtime",
        operators,
        islands,
        integer=sum(o.macs for o in operators if o.name not in float_macs),
        kept=len(kept),
    )


def _is_kept(name: str, kind: str, kept: Collection[str]) -> bool:
    return name in kept or (bool(kept) and kind in _ROUND_FLOAT)


def check_asked_coverage(
    path: Path, declared: tuple[str, ...], runtime: str, kept: Collection[str]
) -> Check:
    """Returns whether an ONNX file asks its runtime for int8 in every multiply-accumulate.

    For a runtime that is not here (TensorRT): what it is asked for, not what it does.
    """
    operators = read_operators(path).operators
    islands = [
        f"{o.native} {o.name}"
        for o in operators
        if o.macs
        and o.precision is not Precision.INT8
        and o.native not in declared
        and o.name not in kept
    ]
    asked = f"asked of {runtime}, not executed on it"
    return _check(path.name, asked, operators, islands, None, len(kept))


def _left_float(path: Path, arithmetic: Arithmetic) -> dict[str, str]:
    """Returns name and type of every operator that ONNX Runtime leaves in float."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = session_options(arithmetic)
        options.optimized_model_filepath = str(optimised)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(optimised).graph
    # ONNX Runtime puts transposes of its own round convolutions, and at the border of the graph.
    source = onnx.load(path).graph
    stored = {node.name for node in source.node}
    return {
        _stored_name(source, node.name): node.op_type
        for node in graph.node
        if node.op_type in (_COMPUTING | _OTHER)
        and (node.op_type != "Transpose" or node.name in stored)
        and not _on_integers(graph, node)
    }


def _stored_name(source: onnx.GraphProto, name: str) -> str:
    """Returns the file's own name of an operator of the optimised graph.

    One in ONNX Runtime's blocked layout goes by the tensor that it ends in, behind the activation.
    """
    if not name.endswith(_BLOCKED):
        return name
    makers = {output: node for node in source.node for output in node.output}
    maker = makers.get(name.removesuffix(_BLOCKED))
    if maker is not None and maker.op_type in ("Relu", "Clip"):
        maker = makers.get(maker.input[0])
    return maker.name if maker is not None else name


def _on_integers(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Whether an operator that only moves or compares values works on the integers themselves."""
    if node.op_type not in _BY_VALUE:
        return False
    producers = {o: n.op_type for n in graph.node for o in n.output}
    inputs = graph.input[0].name
    return all(
        producers.get(name, "") != "DequantizeLinear" and name != inputs
        for name in node.input[: None if node.op_type == "Concat" else 1]
    )


def _check(
    file: str,
    runtime: str,
    operators: tuple[Operator, ...],
    islands: list[str],
    integer: int | None,
    kept: int,
) -> Check:
    total = sum(o.macs for o in operators)
    done = sum(o.macs for o in operators if o.precision is Precision.INT8)
    done = done if integer is None else integer
    share = done / total if total else 0.0
    return Check(
        name=f"coverage/{file}",
        passed=(share == 1.0 or kept > 0) and not islands,
        figure=f"{runtime}: {100 * share:.2f} % of {total / 1e6:.1f} M MACs in integer, "
        f"{len(islands)} float islands" + (f" beside {kept} operators kept so" if kept else ""),
        criterion="100 % of MACs in integer, no float island that the profile does not declare"
        if not kept
        else "no float operator but those that were trained so",
        failing_operator=islands[0] if islands else None,
        details={"share": share, "macs": total, "islands": islands},
    )
