"""Peak memory grows with what a file holds, and a file that cannot run is an error."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.core.errors import ModelError
from edgekd.modelfile.memory import peak_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a peak")

MIB = 2**20


def wide(path, megabytes: int):
    """Writes a net whose one activation takes so many MiB."""
    width = megabytes * MIB // 4
    names = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, w]) for n, w in (("x", 1), ("y", 1))
    ]
    weights = numpy_helper.from_array(np.zeros((1, width), np.float32), "w")
    nodes = [
        helper.make_node("Add", ["x", "w"], ["wide"]),
        helper.make_node("ReduceMax", ["wide"], ["y"], axes=[1], keepdims=1),
    ]
    graph = helper.make_graph(nodes, "g", names[:1], names[1:], [weights])
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_weights_and_activations_are_both_seen(tmp_path):
    small, large = (peak_memory(wide(tmp_path / f"{m}.onnx", m)) for m in (1, 33))
    # 32 MiB more of weights and as many of activations; reading the file may hold it once more.
    assert 60 * MIB < large - small < 140 * MIB


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        peak_memory(tmp_path / "broken.onnx")
