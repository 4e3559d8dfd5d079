from __future__ import annotations

import numpy as np
import torch

from edgekd.data.loader import Batch
from edgekd.standalone import decoder
from edgekd.training.detection import DetectionLoss, dense_predictions, generalized_iou


def batch_of(boxes: list[list[float]], labels: list[int]) -> Batch:
    return Batch(
        torch.zeros(1, 3, 64, 64),
        torch.tensor([boxes]).float().reshape(1, -1, 4),
        torch.tensor([labels], dtype=torch.long).reshape(1, -1),
        torch.zeros(1, 0, 4),
        torch.zeros(1, 0, dtype=torch.long),
    )


def test_torch_and_numpy_decode_alike() -> None:
    torch.manual_seed(0)
    outputs = [torch.randn(1, c, n, n) for n in (8, 4) for c in (3, 4)]
    dense = dense_predictions(outputs, (8, 16))
    decoded = [
        decoder.decode_level(
            outputs[2 * i][0].permute(1, 2, 0).numpy(),
            outputs[2 * i + 1][0].permute(1, 2, 0).numpy(),
            stride,
        )
        for i, stride in enumerate((8, 16))
    ]
    np.testing.assert_allclose(
        dense.boxes[0].numpy(), np.concatenate([b for _, b in decoded]), rtol=1e-5, atol=1e-4
    )
    np.testing.assert_allclose(
        dense.logits[0].numpy(), np.concatenate([s for s, _ in decoded]), rtol=1e-6
    )


def test_giou_of_touching_unit_squares_is_zero_and_of_distant_ones_negative() -> None:
    a = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)
    b = torch.tensor([[1.0, 0.0, 2.0, 1.0], [3.0, 0.0, 4.0, 1.0]])
    torch.testing.assert_close(generalized_iou(a, b), torch.tensor([0.0, -0.5]), atol=1e-6, rtol=0)


def test_the_loss_of_a_perfect_answer_is_near_zero_and_falls_when_trained() -> None:
    raw = [torch.zeros(1, c, 8, 8, requires_grad=True) for c in (2, 4)]
    optimizer = torch.optim.Adam(raw, 0.3)
    loss, batch = DetectionLoss(), batch_of([[8, 8, 30, 40]], [1])
    first = None
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.2 * 0.98**step
        terms = loss(dense_predictions(raw, (8,)), batch)
        total = sum(terms.values())
        first = first or float(total.detach())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert terms["box"].item() < 0.05
    assert total.item() < first / 10


def test_an_image_without_objects_still_teaches_background() -> None:
    raw = [torch.zeros(1, 2, 8, 8, requires_grad=True), torch.zeros(1, 4, 8, 8)]
    terms = DetectionLoss()(dense_predictions(raw, (8,)), batch_of([], []))
    assert terms["class"].item() > 0
    assert terms["box"].item() == 0
