from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from edgekd.data.loader import Batch
from edgekd.distill.methods import methods
from edgekd.distill.signal import LevelPair, Signal, pair_levels
from edgekd.errors import ModelError, RecipeError
from edgekd.training.detection import dense_detections
from edgekd.types import Task

PAIRS = (LevelPair(8, 0, 0, 6, 6), LevelPair(16, 1, 1, 6, 6))
WIDER = (LevelPair(8, 0, 0, 6, 10), LevelPair(16, 1, 1, 6, 10))


def raw(seed: int, size: int = 64) -> list[Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(2, c, size // s, size // s) for s in (8, 16) for c in (3, 4)]


def features(seed: int, channels: int, size: int = 64) -> tuple[Tensor, ...]:
    torch.manual_seed(seed)
    return tuple(torch.randn(2, channels, size // s, size // s) for s in (8, 16))


def signal(student, teacher, student_features, teacher_features, visible=None, logits=(None, None)):
    empty = torch.zeros(2, 0)
    return Signal(
        dense_detections(student, (8, 16)),
        dense_detections(teacher, (8, 16)),
        logits[0],
        logits[1],
        student_features,
        teacher_features,
        visible,
        Batch(torch.zeros(2, 3, 64, 64), empty, empty, empty, empty),
    )


def build(name: str, pairs=PAIRS) -> nn.Module:
    torch.manual_seed(0)
    return methods[name].build(pairs)


@pytest.mark.parametrize("name", sorted(n for n in methods if Task.DETECTION in methods[n].tasks))
def test_the_loss_is_zero_where_student_is_teacher_and_positive_elsewhere(name: str) -> None:
    same = signal(raw(1), raw(1), features(1, 6), features(1, 6))
    other = signal(raw(1), raw(2), features(1, 6), features(2, 6))
    assert build(name)(same).item() == pytest.approx(0, abs=1e-5)
    assert build(name)(other).item() > 0.01


@pytest.mark.parametrize("name", sorted(n for n in methods if Task.DETECTION in methods[n].tasks))
def test_alone_it_falls_tenfold_in_200_steps_and_leaves_the_teacher_alone(name: str) -> None:
    outputs = [t.requires_grad_() for t in raw(1)]
    maps = tuple(t.requires_grad_() for t in features(1, 6))
    # Ten channels that six can span, so that a projector can reach them.
    mix = torch.randn(10, 6, generator=torch.Generator().manual_seed(9))
    teacher = raw(2)
    teacher_maps = tuple(torch.einsum("oc,bchw->bohw", mix, f) for f in features(2, 6))
    method = build(name, WIDER)
    optimizer = torch.optim.Adam([*outputs, *maps, *method.parameters()], 0.05)
    losses = []
    for _ in range(200):
        loss = method(signal(outputs, teacher, maps, teacher_maps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10
    assert all(t.grad is None for t in (*teacher, *teacher_maps))


def test_score_weighted_logits_equal_the_formula_written_out() -> None:
    student, teacher = raw(3), raw(4)
    got = build("logits")(signal(student, teacher, features(1, 6), features(1, 6))).item()
    total = mass = 0.0
    for s, t in zip(student[0::2], teacher[0::2], strict=True):
        for z, y in zip(s.flatten().tolist(), t.flatten().tolist(), strict=True):
            p, q = 1 / (1 + math.exp(-z)), 1 / (1 + math.exp(-y))
            divergence = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
            total += abs(q - p) * divergence
        mass += t.sigmoid().amax(1).sum().item()
    assert got == pytest.approx(total / mass, rel=1e-4)


def test_pearson_equals_one_minus_the_correlation_and_ignores_scale_and_shift() -> None:
    a, b = features(5, 6), features(6, 6)
    got = build("pkd")(signal(raw(1), raw(1), a, b)).item()
    correlations = []
    for x, y in zip(a, b, strict=True):
        rows = [
            torch.corrcoef(torch.stack((x[:, c].flatten(), y[:, c].flatten())))[0, 1]
            for c in range(6)
        ]
        correlations.append(1 - torch.stack(rows).mean())
    assert got == pytest.approx(torch.stack(correlations).mean().item(), rel=1e-4)
    moved = tuple(3 * x + 7 for x in a)
    assert build("pkd")(signal(raw(1), raw(1), a, moved)).item() == pytest.approx(0, abs=1e-5)


def test_what_an_ignore_region_covers_does_not_count() -> None:
    student, teacher = raw(1), raw(1)
    teacher[0] = teacher[0].clone()
    teacher[0][:, :, 0, 0] += 4
    visible = torch.ones(2, 8 * 8 + 4 * 4, 3, dtype=torch.bool)
    seen = build("logits")(signal(student, teacher, features(1, 6), features(1, 6), visible))
    visible = visible.clone()
    visible[:, 0] = False
    hidden = build("logits")(signal(student, teacher, features(1, 6), features(1, 6), visible))
    assert seen.item() > 0.001
    assert hidden.item() == pytest.approx(0, abs=1e-6)


def test_a_student_of_another_resolution_can_learn_features() -> None:
    coarse = tuple(f[:, :, ::2, ::2] for f in features(1, 6))
    loss = build("pkd")(signal(raw(1), raw(1), coarse, features(2, 6)))
    assert torch.isfinite(loss)


def test_soft_labels_equal_hintons_formula() -> None:
    student = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.5, 3.0]])
    teacher = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 4.0]])
    got = build("soft-labels")(
        signal(raw(1), raw(1), features(1, 6), features(1, 6), logits=(student, teacher))
    ).item()
    expected = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(v / 4) for v in t]
        q = [math.exp(v / 4) for v in s]
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert got == pytest.approx(16 * expected / 2, rel=1e-5)


def test_levels_are_paired_by_stride() -> None:
    pairs = pair_levels((8, 16, 32), (1, 2, 3), (4, 8, 16), (7, 8, 9))
    assert pairs == (LevelPair(8, 0, 1, 1, 8), LevelPair(16, 1, 2, 2, 9))
    with pytest.raises(ModelError, match="no level in common"):
        pair_levels((8,), (1,), (16,), (2,))


def test_what_methods_learn_starts_the_same_for_the_same_seed() -> None:
    from edgekd.distill.task import DistillationTask

    def projector(seed: int) -> Tensor:
        task = DistillationTask(
            student=nn.Identity(),
            student_strides=(8, 16),
            teacher=lambda _images: ((), ()),
            teacher_strides=(8, 16),
            pairs=WIDER,
            weights={"pkd": 1.0},
            loss=lambda _outputs, _batch: {},
            task=Task.DETECTION,
            seed=seed,
        )
        return next(task.learnt.parameters())

    torch.rand(1)
    first = projector(0)
    torch.rand(1)
    assert torch.equal(first, projector(0))
    assert not torch.equal(first, projector(1))


def test_an_unknown_method_lists_what_exists() -> None:
    with pytest.raises(RecipeError, match="did you mean 'pkd'"):
        methods["pdk"]
