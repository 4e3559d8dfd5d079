from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from edgekd.data.loader import Batch
from edgekd.distill.batch_context import DistillationBatch, LevelPair
from edgekd.distill.method import build_method


def make_signal(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> DistillationBatch:
    nothing = torch.zeros(len(student[0]), 0)
    return DistillationBatch(
        batch=Batch(nothing, nothing, nothing, nothing, nothing),
        pairs=tuple(
            LevelPair(i, i, s.shape[1], t.shape[1])
            for i, (s, t) in enumerate(zip(student, teacher, strict=True))
        ),
        student_features=student,
        teacher_features=teacher,
    )


def loss(name: str, student, teacher, **options: float) -> float:
    given = make_signal(student, teacher)
    return build_method(name, options, given.pairs)(given).item()


def maps(seed: int, channels: int, images: int = 4) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(images, channels, n, n + 1, generator=generator) for n in (4, 2))


def pooled(feature: Tensor) -> list[list[float]]:
    return feature.mean((2, 3)).double().tolist()


def huber(a: float, b: float) -> float:
    gap = abs(a - b)
    return gap * gap / 2 if gap < 1 else gap - 0.5


def distances(rows: list[list[float]]) -> list[list[float]]:
    raw = [[math.dist(a, b) for b in rows] for a in rows]
    apart = [d for line in raw for d in line if d > 0]
    return [[d * len(apart) / sum(apart) for d in line] for line in raw]


def angle(rows: list[list[float]], i: int, j: int, k: int) -> float:
    if i == j or k == j:
        return 0.0
    a = [x - y for x, y in zip(rows[i], rows[j], strict=True)]
    b = [x - y for x, y in zip(rows[k], rows[j], strict=True)]
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_distances_equal_the_formula_written_out() -> None:
    student, teacher = maps(1, 3), maps(2, 5)
    by_distance = by_angle = 0.0
    for s, t in zip(student, teacher, strict=True):
        ours, theirs = pooled(s), pooled(t)
        by_distance += (
            sum(
                huber(a, b)
                for p, q in zip(distances(ours), distances(theirs), strict=True)
                for a, b in zip(p, q, strict=True)
            )
            / len(ours) ** 2
        )
        by_angle += sum(
            huber(angle(ours, *ijk), angle(theirs, *ijk))
            for ijk in itertools.product(range(4), repeat=3)
        ) / len(ours) ** 3  # fmt: skip
    got = loss("rkd", student, teacher, distance=1.0, angle=0.0)
    assert got == pytest.approx(by_distance / 2, rel=1e-4)
    got = loss("rkd", student, teacher, distance=0.0, angle=1.0)
    assert got == pytest.approx(by_angle / 2, rel=1e-4)
    assert loss("rkd", student, teacher) == pytest.approx(
        (by_distance + 2 * by_angle) / 2, rel=1e-4
    )


def test_a_right_angle_against_a_straight_one() -> None:
    """Three images: the corner of a square, and three points in a row with the same corner."""

    def points(*rows: tuple[float, float]) -> tuple[Tensor, ...]:
        return (torch.tensor(rows)[:, :, None, None],)

    corner = points((1.0, 0.0), (0.0, 0.0), (0.0, 1.0))
    line = points((1.0, 0.0), (0.0, 0.0), (-1.0, 0.0))
    # Cosine at the middle 0 against -1, twice; at the two ends sqrt(1/2) against 1, each twice.
    wanted = 2 * 0.5 + 4 * (1 - math.sqrt(0.5)) ** 2 / 2
    got = loss("rkd", line, corner, distance=0.0, angle=1.0)
    assert got == pytest.approx(wanted / 27, rel=1e-4)


def test_similarity_equals_the_formula_written_out() -> None:
    def rows(points: list[list[float]]) -> list[list[float]]:
        gram = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in points] for a in points]
        return [[v / math.hypot(*line) for v in line] for line in gram]

    student, teacher = maps(1, 3), maps(2, 5)
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        ours, theirs = rows(pooled(s)), rows(pooled(t))
        total += sum(math.dist(a, b) ** 2 for a, b in zip(ours, theirs, strict=True)) / 4
    assert loss("similarity", student, teacher) == pytest.approx(total / 2, rel=1e-4)


@pytest.mark.parametrize("name", ["rkd", "similarity"])
def test_a_rotated_and_rescaled_feature_has_the_same_relations(name: str) -> None:
    teacher = maps(3, 6)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1))).Q
    student = tuple(7 * torch.einsum("oc,bchw->bohw", turn, f) for f in teacher)
    assert loss(name, student, teacher) == pytest.approx(0, abs=1e-5)
    assert loss(name, maps(4, 6), teacher) > 0.01


def test_distances_do_not_see_a_shift_and_similarity_does() -> None:
    teacher = maps(3, 6)
    shifted = tuple(f + 3 for f in teacher)
    assert loss("rkd", shifted, teacher) == pytest.approx(0, abs=1e-5)
    assert loss("similarity", shifted, teacher) > 0.01


@pytest.mark.parametrize("name", ["rkd", "similarity"])
def test_one_image_has_no_relations(name: str) -> None:
    assert loss(name, maps(1, 3, images=1), maps(2, 5, images=1)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["rkd", "similarity"])
def test_relations_are_computed_in_float32_under_autocast(name: str) -> None:
    student, teacher = maps(1, 3), maps(2, 5)
    exact = loss(name, student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(name, student, teacher) == exact


def test_identical_images_pull_no_harder_than_different_ones() -> None:
    """A vanishing distance has a direction of rounding noise: its gradient must not explode."""
    same = maps(1, 3)[0]
    same[1] = same[0] + 1e-7
    same.requires_grad_()
    given = make_signal((same,), maps(2, 5)[:1])
    build_method("rkd", {}, given.pairs)(given).backward()
    assert 0 < same.grad.abs().max() < 1
