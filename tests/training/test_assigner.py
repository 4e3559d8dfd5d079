from __future__ import annotations

import torch

from edgekd.training.assigner import TaskAlignedAssigner, hidden_cells, pairwise_iou

CENTRES = torch.tensor([[4.0, 4.0], [12.0, 4.0], [4.0, 12.0], [12.0, 12.0]])
STRIDES = torch.full((4,), 8.0)


def assign(objects, labels, boxes, probabilities, ignore=None, ignore_labels=None):
    none = torch.zeros((1, 0, 4)), torch.zeros((1, 0), dtype=torch.long)
    return TaskAlignedAssigner(top_k=2)(
        probabilities=probabilities,
        boxes=boxes,
        centres=CENTRES,
        strides=STRIDES,
        objects=objects,
        labels=labels,
        ignore=none[0] if ignore is None else ignore,
        ignore_labels=none[1] if ignore_labels is None else ignore_labels,
    )


def test_iou_of_half_overlapping_boxes_is_a_third() -> None:
    a = torch.tensor([[[0.0, 0.0, 2.0, 2.0]]])
    b = torch.tensor([[[1.0, 0.0, 3.0, 2.0]]])
    torch.testing.assert_close(pairwise_iou(a, b), torch.tensor([[[1 / 3]]]))


def test_the_best_cell_gets_the_best_iou_as_its_target() -> None:
    objects = torch.tensor([[[0.0, 0.0, 8.0, 8.0]]])
    boxes = torch.tensor([[[0, 0, 8, 8], [0, 0, 8, 16], [0, 0, 1, 1], [0, 0, 1, 1]]]).float()
    probabilities = torch.full((1, 4, 2), 0.5)
    target = assign(objects, torch.tensor([[1]]), boxes, probabilities)
    assert target.scores[0, 0].tolist() == [0.0, 1.0]
    assert target.weights[0, 3] == 0
    assert target.boxes[0, 0].tolist() == [0, 0, 8, 8]


def test_padding_and_background_get_no_target() -> None:
    objects = torch.zeros((1, 2, 4))
    target = assign(objects, torch.full((1, 2), -1), torch.zeros((1, 4, 4)), torch.rand(1, 4, 2))
    assert not target.scores.any()
    assert not target.weights.any()


def test_an_object_smaller_than_a_cell_and_between_centres_is_still_learnt() -> None:
    objects = torch.tensor([[[7.0, 3.0, 9.0, 5.0]]])
    boxes = torch.tensor([[[2, 2, 10, 6], [6, 2, 14, 6], [0, 8, 8, 16], [8, 8, 16, 16]]]).float()
    target = assign(objects, torch.tensor([[0]]), boxes, torch.full((1, 4, 1), 0.1))
    assert (target.weights[0] > 0).tolist() == [True, True, False, False]


def test_a_cell_claimed_twice_goes_to_the_object_it_overlaps_best() -> None:
    objects = torch.tensor([[[0.0, 0, 8, 8], [0.0, 0, 16, 16]]])
    boxes = torch.tensor([[[0, 0, 8, 8], [0, 0, 16, 16], [0, 0, 16, 16], [0, 0, 16, 15]]]).float()
    target = assign(objects, torch.tensor([[0, 1]]), boxes, torch.full((1, 4, 2), 0.5))
    assert target.scores[0, 0, 0] > 0
    assert target.scores[0, 0, 1] == 0


def test_an_ignore_region_hides_its_class_and_spares_positives() -> None:
    region = torch.tensor([[[0.0, 0.0, 16.0, 8.0]]])
    hidden = hidden_cells(CENTRES, region, torch.tensor([[1]]), 2)
    assert hidden[0].tolist() == [[False, True], [False, True], [False, False], [False, False]]
    everything = hidden_cells(CENTRES, region, torch.tensor([[-1]]), 2)
    assert everything[0, :2].all()
    objects = torch.tensor([[[0.0, 0.0, 8.0, 8.0]]])
    boxes = torch.tensor([[[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [8, 8, 16, 16]]]).float()
    target = assign(
        objects,
        torch.tensor([[0]]),
        boxes,
        torch.full((1, 4, 2), 0.5),
        region,
        torch.tensor([[-1]]),
    )
    assert target.valid[0, 0].all()
    assert not target.valid[0, 1].any()
