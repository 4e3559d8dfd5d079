from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from edgekd.data.loader import Batch
from edgekd.distill.batch_context import DetectionBatch, DistillationBatch, LevelPair
from edgekd.distill.method import build_method
from edgekd.training.assigner import Assignment, TaskAlignedAssigner
from edgekd.training.detection import DensePredictions, DetectionLoss, dense_predictions

STRIDES = (8, 16)
CELLS = ((8, 8), (4, 4))
FIRST = [[8.0, 8.0, 28.0, 26.0], [38.0, 36.0, 60.0, 60.0]]
SECOND = [[4.0, 30.0, 30.0, 58.0], [40.0, 4.0, 58.0, 24.0]]
SCORES = ((0.9, 0.5), (0.7, 0.8))


def raw(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, c, h, w, generator=generator) for h, w in CELLS for c in (3, 4)]


def annotated(boxes: Tensor, labels: Tensor) -> Batch:
    return Batch(
        torch.zeros(2, 3, 64, 64), boxes, labels, torch.zeros(2, 0, 4), torch.zeros(2, 0).long()
    )


def teacher_detections(
    scores: tuple[tuple[float, float], ...] = ((0.9, 0.5), (0.7, 0.8)),
) -> DetectionBatch:
    return DetectionBatch(
        torch.tensor([FIRST, SECOND]), torch.tensor([[0, 2], [1, 2]]), torch.tensor(scores)
    )


def assign(student: DensePredictions, batch: Batch) -> Assignment:
    return TaskAlignedAssigner()(
        probabilities=student.logits.detach().sigmoid(),
        boxes=student.boxes.detach(),
        centres=student.centres,
        strides=student.strides,
        objects=batch.boxes,
        labels=batch.labels,
        ignore=batch.ignore,
        ignore_labels=batch.ignore_labels,
    )


def make_signal(student: list[Tensor], teacher: list[Tensor]) -> DistillationBatch:
    ours = dense_predictions(student, STRIDES)
    objects = teacher_detections()
    batch = annotated(objects.boxes + 3, objects.labels)
    return DistillationBatch(
        batch=batch,
        pairs=(LevelPair(0, 0, 5, 6), LevelPair(1, 1, 5, 6)),
        student=ours,
        teacher=dense_predictions(teacher, STRIDES),
        sizes=CELLS,
        target=assign(ours, batch),
        detections=objects,
    )


def loss(name: str, given: DistillationBatch, **options: float) -> float:
    torch.manual_seed(0)
    return build_method(name, options, given.pairs)(given).item()


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def divergence(q: float, p: float) -> float:
    return q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))


def cells(given: DistillationBatch):
    """Yields each cell's (student logits, teacher logits, student box, teacher box)."""
    parts = (given.student.logits, given.teacher.logits, given.student.boxes,
             given.teacher.boxes)  # fmt: skip
    return zip(*(p.flatten(0, 1).tolist() for p in parts), strict=True)


def iou(a: list[float], b: list[float]) -> tuple[float, float]:
    """Returns (IoU, GIoU) of two xyxy boxes."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    union = sum(areas) - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return width * height / union, width * height / union - (hull - union) / hull


def weighted_gap(terms: list[tuple[float, list[float], list[float]]]) -> float:
    total = sum(w * (1 - iou(a, b)[1]) for w, a, b in terms)
    return total / max(1.0, sum(w for w, _, _ in terms))


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_score_weighted_logits_equal_the_formula_written_out(gamma: float) -> None:
    given = make_signal(raw(3), raw(4))
    total = mass = 0.0
    for ours, theirs, _, _ in cells(given):
        for z, y in zip(ours, theirs, strict=True):
            p, q = sigmoid(z), sigmoid(y)
            total += abs(q - p) ** gamma * divergence(q, p)
        mass += max(map(sigmoid, theirs))
    assert loss("logits", given, gamma=gamma) == pytest.approx(total / mass, rel=1e-4)


def test_the_factor_of_the_logits_gets_no_gradient() -> None:
    student = [t.requires_grad_() for t in raw(3)]
    given = make_signal(student, raw(4))
    build_method("logits", {}, ())(given).backward()
    z = given.student.logits.detach().requires_grad_()
    q = given.teacher.logits.sigmoid()
    weight = (q - z.detach().sigmoid()).abs()
    mass = q.amax(-1).sum()
    expected = (weight * (z.sigmoid() - q) / mass).transpose(1, 2)[..., :64].reshape(2, 3, 8, 8)
    assert torch.allclose(student[0].grad, expected, atol=1e-7)


def test_score_weighted_boxes_equal_the_formula_written_out() -> None:
    given = make_signal(raw(3), raw(4))
    terms = [(max(map(sigmoid, y)) ** 2, a, b) for _, y, a, b in cells(given)]
    assert loss("boxes", given) == pytest.approx(weighted_gap(terms), rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_dense_soft_labels_equal_the_formula_written_out(temperature: float) -> None:
    given = make_signal(raw(3), raw(4))
    total = mass = 0.0
    for ours, theirs, _, _ in cells(given):
        total += sum(
            divergence(sigmoid(y / temperature), sigmoid(z / temperature))
            for z, y in zip(ours, theirs, strict=True)
        )
        mass += max(map(sigmoid, theirs))
    got = loss("dense-soft-labels", given, temperature=temperature)
    assert got == pytest.approx(temperature**2 * total / mass, rel=1e-4)


def test_dense_logit_matching_equals_the_formula_written_out() -> None:
    given = make_signal(raw(3), raw(4))
    total = mass = 0.0
    for ours, theirs, _, _ in cells(given):
        weight = max(map(sigmoid, theirs))
        total += weight * sum((z - y) ** 2 for z, y in zip(ours, theirs, strict=True)) / 3
        mass += weight
    assert loss("dense-logit-matching", given) == pytest.approx(total / mass, rel=1e-4)


@pytest.mark.parametrize("name", ["logits", "boxes", "dense-soft-labels", "dense-logit-matching"])
def test_an_ignore_region_is_as_if_its_cells_were_not_there(name: str) -> None:
    given = make_signal(raw(3), raw(4))
    visible = torch.ones(2, 80, 3, dtype=torch.bool)
    visible[:, :30] = False

    def without_first(seen: DensePredictions) -> DensePredictions:
        return replace(seen, logits=seen.logits[:, 30:], boxes=seen.boxes[:, 30:])

    shorter = replace(
        given,
        student=without_first(given.student),
        teacher=without_first(given.teacher),
    )
    hidden = loss(name, replace(given, visible=visible))
    assert hidden == pytest.approx(loss(name, shorter), rel=1e-4)
    assert hidden != pytest.approx(loss(name, given), rel=1e-3)


def placed(boxes: dict[int, list[float]], others: list[float]) -> Tensor:
    """Returns boxes ``(1, 80, 4)``: those given by cell, else ``others``."""
    return torch.tensor([[boxes.get(cell, others) for cell in range(80)]])


def test_localization_teaches_positives_and_cells_that_see_a_teachers_object() -> None:
    """Cell 0 is annotated; 1 and 2 see the sure object, 3 a doubtful one, 4 both 0's and 1's."""
    sure, doubtful, far = [10.0, 10, 30, 30], [40.0, 40, 60, 60], [200.0, 200, 210, 210]
    shifted, grazing = [10.0, 10, 30, 26], [22.0, 10, 42, 30]
    theirs = placed({0: sure, 1: shifted, 2: grazing, 3: doubtful, 4: sure}, far)
    ours = placed({}, [12.0, 12, 28, 28])
    weights = torch.zeros(1, 80)
    weights[0, 0], weights[0, 4] = 0.8, 0.4
    given = make_signal(raw(3), raw(4))
    given = replace(
        given,
        student=replace(given.student, logits=given.student.logits[:1], boxes=ours),
        teacher=replace(given.teacher, logits=given.teacher.logits[:1], boxes=theirs),
        target=replace(given.target, weights=weights),
        detections=DetectionBatch(
            torch.tensor([[sure, doubtful]]), torch.tensor([[0, 1]]), torch.tensor([[0.9, 0.2]])
        ),
    )
    student = [12.0, 12, 28, 28]
    main = weighted_gap([(0.8, student, sure), (0.4, student, sure)])
    by_iou = 0.9 * iou(shifted, sure)[0]
    assert iou(grazing, sure)[0] < 0.5
    valuable = weighted_gap([(by_iou, student, shifted)])
    assert loss("localization", given, valuable=0.0) == pytest.approx(main, rel=1e-4)
    assert loss("localization", given) == pytest.approx(main + valuable, rel=1e-4)
    assert loss("localization", given, valuable=3.0) == pytest.approx(main + 3 * valuable, rel=1e-4)
    doubted = weighted_gap([(by_iou, student, shifted), (0.2, student, doubtful)])
    assert loss("localization", given, min_score=0.1) == pytest.approx(main + doubted, rel=1e-4)
    reached = [(by_iou, student, shifted), (0.9 * iou(grazing, sure)[0], student, grazing)]
    assert loss("localization", given, overlap=0.2) == pytest.approx(
        main + weighted_gap(reached), rel=1e-4
    )


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.levels = nn.ModuleList(nn.Conv2d(6, 7, 3, padding=1) for _ in STRIDES)
        self.requires_grad_(False)

    def forward(self, index: int, feature: Tensor) -> tuple[Tensor, Tensor]:
        scores, boxes = self.levels[index](feature).split((3, 4), dim=1)
        return 3 * scores, boxes


def crossing() -> tuple[DistillationBatch, Head]:
    generator = torch.Generator().manual_seed(8)
    maps = tuple(torch.randn(2, 5, h, w, generator=generator) for h, w in CELLS)
    head = Head()
    return replace(make_signal(raw(3), raw(4)), student_features=maps, head=head), head


def test_cross_head_compares_what_the_head_reads_from_the_projected_feature() -> None:
    given, head = crossing()
    torch.manual_seed(0)
    method = build_method("crosskd", {"box_weight": 3.0, "gamma": 2.0}, given.pairs)
    outputs: list[Tensor] = []
    for index, feature in enumerate(given.student_features):
        kernel = method.projectors[index]
        projected = torch.einsum("oc,bchw->bohw", kernel.weight[:, :, 0, 0], feature)
        outputs += head(index, projected + kernel.bias[:, None, None])
    read = replace(given, student=dense_predictions(outputs, STRIDES))
    expected = loss("logits", read, gamma=2.0) + 3 * loss("boxes", read)
    assert method(given).item() == pytest.approx(expected, rel=1e-4)


def test_cross_head_teaches_feature_and_projector_through_a_head_that_stays() -> None:
    given, head = crossing()
    maps = tuple(f.requires_grad_() for f in given.student_features)
    before = [p.clone() for p in head.parameters()]
    method = build_method("crosskd", {}, given.pairs)
    method(replace(given, student_features=maps)).backward()
    assert all(f.grad.abs().sum() > 0 for f in maps)
    assert all(p.grad is not None for p in method.parameters())
    assert all(p.grad is None for p in head.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, head.parameters(), strict=True))


def test_cross_head_takes_the_first_teachers_features_where_there_are_more() -> None:
    given, _ = crossing()
    twice = replace(
        given,
        pairs=(*given.pairs, *given.pairs),
        student_features=(*given.student_features, *given.student_features),
    )
    assert loss("crosskd", twice) == pytest.approx(loss("crosskd", given))


def entropy(target: Tensor) -> float:
    kept = [t for t in target.flatten().tolist() if 0 < t < 1]
    return -sum(t * math.log(t) + (1 - t) * math.log(1 - t) for t in kept)


@pytest.mark.parametrize("soft", [0.0, 1.0])
def test_a_sure_teachers_boxes_are_as_good_as_annotation(soft: float) -> None:
    given = make_signal(raw(3), raw(4))
    objects = teacher_detections(((1.0, 1.0), (1.0, 1.0)))
    batch = annotated(objects.boxes, objects.labels)
    terms = DetectionLoss(box_weight=2.5)(given.student, batch)
    target = assign(given.student, batch)
    constant = entropy(target.scores) / max(1.0, target.weights.sum().item())
    got = loss("teacher-boxes", replace(given, detections=objects), soft=soft)
    assert got == pytest.approx(sum(terms.values()).item() - constant, rel=1e-4)


@pytest.mark.parametrize("soft", [0.0, 0.5, 1.0])
def test_teacher_boxes_count_by_the_score_of_the_object_that_a_cell_answers_for(
    soft: float,
) -> None:
    given = make_signal(raw(3), raw(4))
    objects = teacher_detections()
    target = assign(given.student, annotated(objects.boxes, objects.labels))
    classes = mass = 0.0
    gaps = []
    for image in range(2):
        for cell in range(80):
            quality = target.weights[image, cell].item()
            owner = [
                index
                for index, box in enumerate(objects.boxes[image].tolist())
                if box == target.boxes[image, cell].tolist()
            ]
            score = objects.scores[image, owner[0]].item() if quality else 0.0
            mass += quality * score
            gaps.append(
                (quality * score, given.student.boxes[image, cell].tolist(),
                 target.boxes[image, cell].tolist())
            )  # fmt: skip
            for label in range(3):
                asked = target.scores[image, cell, label].item() * (1 - soft + soft * score)
                p = sigmoid(given.student.logits[image, cell, label].item())
                classes += -asked * math.log(p) - (1 - asked) * math.log(1 - p)
                classes -= entropy(torch.tensor(asked))
    assert mass > 1
    expected = classes / mass + 2.0 * weighted_gap([g for g in gaps if g[0]])
    got = loss("teacher-boxes", given, soft=soft, box_weight=2.0)
    assert got == pytest.approx(expected, rel=1e-4)


def test_teacher_boxes_below_the_least_score_do_not_count() -> None:
    given = make_signal(raw(3), raw(4))
    doubtful = replace(given, detections=teacher_detections(((0.9, 0.29), (0.7, 0.8))))
    padded = teacher_detections(((0.9, 0.0), (0.7, 0.8)))
    padded.labels[0, 1] = -1
    assert loss("teacher-boxes", doubtful) == pytest.approx(
        loss("teacher-boxes", replace(given, detections=padded))
    )
    assert loss("teacher-boxes", doubtful) != pytest.approx(
        loss("teacher-boxes", doubtful, min_score=0.2), rel=1e-3
    )


def test_one_box_with_two_classes_keeps_the_score_of_each() -> None:
    """NMS by class leaves a box that is a car and a truck; each class has a score of its own."""
    given, box = make_signal(raw(3), raw(4)), [2.0, 2.0, 62.0, 62.0]
    both = DetectionBatch(
        torch.tensor([[box, box]] * 2),
        torch.tensor([[0, 1]] * 2),
        torch.tensor([[0.9, 0.4]] * 2),
    )
    even = (torch.arange(80) % 2 == 0).unsqueeze(-1)
    logits = torch.where(even, torch.tensor([0.0, -9, -9]), torch.tensor([-9.0, 0, -9]))
    exact = torch.tensor(box).expand(2, 80, 4)
    student = replace(given.student, logits=logits.expand(2, 80, 3), boxes=exact)
    chosen = assign(student, annotated(both.boxes, both.labels)).scores.sum((0, 1)).tolist()
    assert min(chosen[:2]) > 1
    wanted = 0.9 * chosen[0] + 0.4 * chosen[1]
    method = build_method("teacher-boxes", {}, ())
    raised = student.logits.clone().requires_grad_()
    method(replace(given, student=replace(student, logits=raised), detections=both)).backward()
    # The gradient of a divergence is p - y: summed over cells it tells the sum of all y.
    asked = (raised.detach().sigmoid() - raised.grad * wanted).sum()
    assert asked.item() == pytest.approx(wanted, rel=1e-4)


def test_teacher_boxes_leave_hidden_cells_alone() -> None:
    student = [t.requires_grad_() for t in raw(3)]
    given = make_signal(student, raw(4))
    visible = torch.ones(2, 80, 3, dtype=torch.bool)
    visible[:, :40] = False
    build_method("teacher-boxes", {}, ())(replace(given, visible=visible)).backward()
    scores, boxes = (t.grad.flatten(2) for t in student[:2])
    assert not scores[..., :40].any()
    assert not boxes[..., :40].any()
    assert scores[..., 40:].any()
