"""The table of operators: every name leads somewhere, and to one entry."""

from __future__ import annotations

from collections import Counter

import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import defs

from edgekd.config.device import list_devices
from edgekd.modelfile.operator_table import BY_ONNX, OPERATOR, OPERATORS, OperatorEntry
from edgekd.nets.aten import ENTRIES, overload


def names(entry: OperatorEntry) -> tuple[str, ...]:
    return (*entry.torch, *entry.onnx, *entry.tflite)


def test_a_name_belongs_to_one_entry() -> None:
    counted = Counter((name, kind) for e in OPERATORS for kind in ("torch", "onnx", "tflite")
                      for name in getattr(e, kind))  # fmt: skip
    assert [name for name, count in counted.items() if count > 1] == []
    assert len(OPERATOR) == len(OPERATORS)


@pytest.mark.parametrize("entry", OPERATORS, ids=lambda entry: entry.name)
def test_every_name_exists_where_it_is_said_to(entry: OperatorEntry) -> None:
    assert names(entry)
    for name in entry.torch:
        assert ENTRIES[overload(name)] is entry
    for name in entry.onnx:
        assert name == "Upsample" or defs.has(name), name
    for name in entry.tflite:
        assert hasattr(schema.BuiltinOperator, name), name


@pytest.mark.parametrize("entry", OPERATORS, ids=lambda entry: entry.name)
def test_what_the_quantizer_makes_integer_can_be_exported_and_proven(entry: OperatorEntry) -> None:
    if entry.scale in ("own", "fixed"):
        assert entry.arithmetic
    if entry.scale == "fixed":
        fixing = [d for d in list_devices() if d.quantization.fixed_outputs]
        assert all(entry.fixed_output in d.quantization.fixed_outputs for d in fixing)
    if entry.scale == "input" and entry.torch:
        assert entry.onnx
        assert entry.moves != bool(entry.arithmetic)
    known = {"x"}
    for name, operator, *reads in entry.parts:
        assert OPERATOR[operator].scale in ("own", "fixed", "input")
        assert set(reads) <= known
        known.add(name)


def test_the_proof_knows_the_arithmetic_of_every_entry() -> None:
    import numpy as np

    from edgekd.proof.arithmetic import replay
    from edgekd.proof.integer_graph import IntegerOperator, QuantizationParameters, Weight

    grid = QuantizationParameters(0.25, 0)
    weight = Weight(np.ones((1, 1), np.int8), np.ones(1), np.zeros(1), np.zeros(1))
    for kind in {entry.arithmetic for entry in OPERATORS} - {"", "conv"}:
        rows = np.full((1, 1), 4, np.int8) if kind == "linear" else np.full((1, 3), 4, np.int8)
        operator = IntegerOperator(
            kind, kind, ("x",), "y", grid, weight=weight if kind == "linear" else None
        )
        assert replay(operator, [(rows, grid)]).dtype == np.int8


def test_gather_and_its_like_are_moves() -> None:
    assert BY_ONNX["Gather"].moves
    assert not BY_ONNX["MaxPool"].moves
