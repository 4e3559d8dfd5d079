"""neural-compressor's own calibration: a file beside ours that nothing takes for ours."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekd.core.errors import ExportError
from edgekd.export.onnx_file import onnx_model
from edgekd.modelfile.runner import OnnxRunner
from edgekd.quantize import graph as graphs
from edgekd.quantize.peer import quantized_by_neural_compressor


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, 2, 1)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.last(self.first(x).relu()),)


@pytest.fixture(scope="module")
def folded() -> graphs.GraphModule:
    torch.manual_seed(0)
    return graphs.folded_graph(Small().eval(), torch.zeros(2, 3, 32, 32))


def test_its_file_runs_on_uint8_near_the_float_network(
    folded: graphs.GraphModule, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = [torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    level = logging.getLogger("neural_compressor").level
    before = {k: v.clone() for k, v in folded.state_dict().items()}
    converted = quantized_by_neural_compressor(folded, images, torch.zeros(2, 3, 32, 32))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("neural_compressor").level == level
    assert all(torch.equal(v, before[k]) for k, v in folded.state_dict().items())
    model = onnx_model(converted, torch.zeros(1, 3, 32, 32), ["out"], 17)
    onnx.save(model, tmp_path / "nc.onnx")
    zero_points = {
        t.data_type for t in model.graph.initializer if t.data_type != onnx.TensorProto.FLOAT
    }
    assert onnx.TensorProto.UINT8 in zero_points
    (found,) = OnnxRunner(tmp_path / "nc.onnx").run(images[0][:1].numpy())
    with torch.no_grad():
        wanted = folded(images[0][:1])[0].numpy()
    assert 1e-6 < np.abs(found - wanted).mean() < 0.05 * wanted.std()


def test_what_it_refuses_is_one_error(folded: graphs.GraphModule) -> None:
    with pytest.raises(ExportError, match="neural-compressor refuses the network"):
        quantized_by_neural_compressor(folded, [torch.zeros(2, 5, 8, 8)], torch.zeros(2, 5, 8, 8))
