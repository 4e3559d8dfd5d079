from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from edgekd.data.loader import Batch
from edgekd.distill.batch_context import DistillationBatch
from edgekd.distill.method import build_method
from edgekd.distill.methods.response import required

STUDENT = [[1.0, 2.0, 0.0], [0.0, 0.5, 3.0], [2.0, -1.0, 0.5]]
TEACHER = [[2.0, 1.0, 0.0], [0.0, 0.0, 4.0], [1.0, 1.5, -2.0]]


def loss(
    name: str,
    student: list[list[float]] | Tensor = STUDENT,
    teacher: list[list[float]] = TEACHER,
    labels: tuple[int, ...] = (0, 2, 1),
    **options: float,
) -> Tensor:
    nothing = torch.zeros(len(labels), 0)
    batch = Batch(
        nothing, nothing.unsqueeze(-1), torch.tensor(labels).unsqueeze(1), nothing, nothing
    )
    given = DistillationBatch(
        batch=batch,
        student_logits=torch.as_tensor(student),
        teacher_logits=torch.as_tensor(teacher),
    )
    return build_method(name, options, ())(given)


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(z / temperature) for z in logits]
    return [value / sum(powers) for value in powers]


def divergence(teacher: list[float], student: list[float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_labels_equal_hintons_formula(temperature: float) -> None:
    each = [
        divergence(softmax(t, temperature), softmax(s, temperature))
        for s, t in zip(STUDENT, TEACHER, strict=True)
    ]
    got = loss("soft-labels", temperature=temperature).item()
    assert got == pytest.approx(temperature**2 * sum(each) / 3, rel=1e-5)


def test_the_temperature_hardly_changes_the_size_of_the_gradient() -> None:
    def steepness(temperature: float) -> float:
        student = torch.tensor(STUDENT, requires_grad=True)
        loss("soft-labels", student=student, temperature=temperature).backward()
        return student.grad.norm().item()

    assert steepness(8.0) == pytest.approx(steepness(4.0), rel=0.15)


def test_hard_labels_ask_for_the_teachers_choice() -> None:
    chosen = [softmax(s)[best] for s, best in zip(STUDENT, (0, 2, 1), strict=True)]
    assert loss("hard-labels").item() == pytest.approx(-sum(map(math.log, chosen)) / 3, rel=1e-5)
    sure = [[50.0, 0.0, 0.0], [0.0, 0.0, 50.0], [0.0, 50.0, 0.0]]
    assert loss("hard-labels", student=sure).item() == pytest.approx(0, abs=1e-6)


def test_logit_matching_is_the_squared_error_of_centred_logits() -> None:
    total = 0.0
    for s, t in zip(STUDENT, TEACHER, strict=True):
        total += sum(((a - sum(s) / 3) - (b - sum(t) / 3)) ** 2 for a, b in zip(s, t, strict=True))
    assert loss("logit-matching").item() == pytest.approx(total / 9, rel=1e-5)


def test_logit_matching_does_not_see_an_offset_that_softmax_does_not_see() -> None:
    shifted = (torch.tensor(STUDENT) + torch.tensor([[5.0], [-2.0], [30.0]])).tolist()
    assert loss("logit-matching", shifted).item() == pytest.approx(
        loss("logit-matching").item(), rel=1e-4
    )


def decoupled(labels: tuple[int, ...], alpha: float, beta: float, temperature: float) -> float:
    total, count = 0.0, 0
    for s, t, label in zip(STUDENT, TEACHER, labels, strict=True):
        if label < 0:
            continue
        p, q = softmax(t, temperature), softmax(s, temperature)
        target = divergence([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        rest = [
            softmax([z for c, z in enumerate(logits) if c != label], temperature)
            for logits in (t, s)
        ]
        total += alpha * target + beta * divergence(*rest)
        count += 1
    return temperature**2 * total / count


@pytest.mark.parametrize("labels", [(0, 2, 1), (1, -1, 0), (-2, -1, 2)])
def test_decoupled_labels_equal_the_formula_over_annotated_images(labels: tuple[int, ...]) -> None:
    got = loss("dkd", labels=labels, alpha=1.5, beta=3.0, temperature=2.0).item()
    assert got == pytest.approx(decoupled(labels, 1.5, 3.0, 2.0), rel=1e-4)


def test_decoupled_labels_are_soft_labels_where_the_parts_are_weighted_as_there() -> None:
    """KL = KL(target or not) + (1 - p of the target) KL(others)."""
    p = softmax(TEACHER[0], 4.0)[0]
    got = loss("dkd", [STUDENT[0]], [TEACHER[0]], (0,), beta=1 - p).item()
    assert got == pytest.approx(loss("soft-labels", [STUDENT[0]], [TEACHER[0]], (0,)).item())


def test_decoupled_labels_without_any_annotation_are_zero() -> None:
    student = torch.tensor(STUDENT, requires_grad=True)
    got = loss("dkd", student=student, labels=(-1, -2, -1))
    got.backward()
    assert got.item() == 0
    assert not student.grad.any()


def test_what_is_required_names_itself() -> None:
    assert required((1,), "x") == (1,)
    with pytest.raises(ValueError, match="needs the teacher's head, which"):
        required(None, "the teacher's head")
    with pytest.raises(ValueError, match="needs features"):
        required((), "features")


def test_raw_outputs_weigh_every_output_by_its_own_spread() -> None:
    student = (torch.tensor([[1.0, 2.0]]), torch.tensor([[[10.0, -10.0, 40.0]]]))
    teacher = (torch.tensor([[0.0, 2.0]]), torch.tensor([[[10.0, -10.0, 30.0]]]))
    nothing = torch.zeros(1, 0)
    given = DistillationBatch(
        batch=Batch(nothing, nothing, nothing, nothing, nothing),
        student_outputs=student,
        teacher_outputs=teacher,
    )
    found = build_method("raw-outputs", {}, ())(given)
    # Mean squares 1/2 and 100/3; variances of (0, 2) and of (10, -10, 30) 1 and 800/3.
    assert float(found) == pytest.approx(((1 / 2) / 1 + (100 / 3) / (800 / 3)) / 2)
