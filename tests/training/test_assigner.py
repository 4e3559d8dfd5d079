from __future__ import annotations

import pytest
import torch

from edgekd.nets.detector import cell_centres
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


def by_hand(probabilities, boxes, centres, strides, objects, labels, top_k):
    """The assignment of one image, object by object and cell by cell."""
    claims = {}
    for g, (box, label) in enumerate(zip(objects.tolist(), labels.tolist(), strict=True)):
        if label < 0:
            continue
        found = []
        for p, (x, y) in enumerate(centres.tolist()):
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            near = max(abs(middle[0] - x), abs(middle[1] - y)) < strides[p]
            if inside or near:
                iou = float(pairwise_iou(objects[None, g : g + 1], boxes[None, p : p + 1]))
                score = float(probabilities[p, label])
                found.append((score**0.5 * iou**4 + 1e-9 * score, p, iou, score**0.5 * iou**4))
        for _, p, iou, alignment in sorted(found, key=lambda f: (-f[0], f[1]))[:top_k]:
            if p not in claims or iou > claims[p][1]:
                claims[p] = (g, iou, alignment)
    quality = [0.0] * len(centres)
    for p, (g, _, alignment) in claims.items():
        own = [c for c in claims.values() if c[0] == g]
        peak, best = max(c[2] for c in own), max(c[1] for c in own)
        quality[p] = alignment / (peak + 1e-12) * best
    return quality, [claims[p][0] if p in claims else -1 for p in range(len(centres))]


@pytest.mark.parametrize("seed", range(6))
def test_crowded_batches_are_assigned_as_by_hand(seed: int) -> None:
    torch.manual_seed(seed)
    shapes = [(8, 10), (4, 5)]
    centres, strides = cell_centres(shapes, (8, 16), torch.device("cpu"))
    corner = torch.rand(2, 9, 2) * 60
    objects = torch.cat((corner, corner + torch.rand(2, 9, 2) * 40 + 2), -1)
    objects[0, 1] = objects[0, 0]  # Two objects in one place: the first keeps what both claim.
    labels = torch.randint(-1, 3, (2, 9))
    middle = centres + torch.randn(2, len(centres), 2) * 5
    half = torch.rand(2, len(centres), 2) * 20 + 1
    boxes = torch.cat((middle - half, middle + half), -1)
    probabilities = torch.rand(2, len(centres), 3)
    nothing = torch.zeros(2, 0)
    target = TaskAlignedAssigner(top_k=4)(
        probabilities=probabilities,
        boxes=boxes,
        centres=centres,
        strides=strides,
        objects=objects,
        labels=labels,
        ignore=nothing.unsqueeze(-1).expand(-1, -1, 4),
        ignore_labels=nothing.long(),
    )
    for index in range(2):
        quality, owner = by_hand(
            probabilities[index], boxes[index], centres, strides.tolist(),
            objects[index], labels[index], 4,
        )  # fmt: skip
        assert target.owner[index].tolist() == owner
        torch.testing.assert_close(target.weights[index], torch.tensor(quality))
        positive = [p for p, g in enumerate(owner) if g >= 0]
        assert positive
        for p in positive:
            assert torch.equal(target.boxes[index, p], objects[index, owner[p]])
            wanted = torch.zeros(3)
            wanted[labels[index, owner[p]]] = quality[p]
            torch.testing.assert_close(target.scores[index, p], wanted)
