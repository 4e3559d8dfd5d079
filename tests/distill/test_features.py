from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from edgekd.data.loader import Batch
from edgekd.distill.batch_context import DistillationBatch, LevelPair
from edgekd.distill.method import build_method

CELLS = ((6, 5), (3, 4))
PROJECTED = ("hints", "pkd", "cwd", "mgd")


def maps(seed: int, channels: int = 3, cells=CELLS) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, channels, h, w, generator=generator) for h, w in cells)


def make_signal(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> DistillationBatch:
    nothing = torch.zeros(2, 0)
    pairs = tuple(
        LevelPair(i, i, s.shape[1], t.shape[1])
        for i, (s, t) in enumerate(zip(student, teacher, strict=True))
    )
    return DistillationBatch(
        batch=Batch(nothing, nothing, nothing, nothing, nothing),
        pairs=pairs,
        student_features=student,
        teacher_features=teacher,
    )


def build(name: str, given: DistillationBatch, **options: float) -> nn.Module:
    torch.manual_seed(0)
    return build_method(name, options, given.pairs)


def loss(name: str, student, teacher, **options: float) -> float:
    given = make_signal(student, teacher)
    return build(name, given, **options)(given).item()


def mean_over_pairs(compare, student, teacher) -> float:
    return sum(compare(s, t) for s, t in zip(student, teacher, strict=True)) / len(student)


def relative_error(student: Tensor, teacher: Tensor) -> float:
    wanted = teacher.flatten().tolist()
    error = sum((a - b) ** 2 for a, b in zip(student.flatten().tolist(), wanted, strict=True))
    return error / sum(b * b for b in wanted)


def test_hints_are_the_error_over_the_teachers_energy() -> None:
    student, teacher = maps(1), maps(2)
    expected = mean_over_pairs(relative_error, student, teacher)
    assert loss("hints", student, teacher) == pytest.approx(expected, rel=1e-5)


def test_hints_of_a_silent_student_are_one_whatever_the_teachers_scale() -> None:
    silent = tuple(torch.zeros_like(f) for f in maps(1))
    for scale in (1.0, 100.0):
        loud = tuple(scale * f for f in maps(2))
        assert loss("hints", silent, loud) == pytest.approx(1, rel=1e-4)


def test_attention_is_the_distance_of_normalised_energy_maps() -> None:
    def compare(student: Tensor, teacher: Tensor) -> float:
        total = 0.0
        for s, t in zip(student, teacher, strict=True):
            cells = [(r, c) for r in range(s.shape[1]) for c in range(s.shape[2])]
            ours = [sum(v * v for v in s[:, r, c].tolist()) for r, c in cells]
            theirs = [sum(v * v for v in t[:, r, c].tolist()) for r, c in cells]
            a, b = math.hypot(*ours), math.hypot(*theirs)
            total += sum((x / a - y / b) ** 2 for x, y in zip(ours, theirs, strict=True))
        return total / len(student)

    student, teacher = maps(1, channels=4), maps(2, channels=7)
    expected = mean_over_pairs(compare, student, teacher)
    assert loss("attention", student, teacher) == pytest.approx(expected, rel=1e-4)


def test_attention_of_energy_in_different_places_is_two() -> None:
    student, teacher = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    student[:, :, 0, 0] = 5
    teacher[:, :, 1, 1] = 0.1
    assert loss("attention", (student,), (teacher,)) == pytest.approx(2)


def test_attention_learns_nothing_itself() -> None:
    given = make_signal(maps(1, 4), maps(2, 7))
    assert not list(build("attention", given).parameters())


def test_pearson_equals_one_minus_the_correlation_and_ignores_scale_and_shift() -> None:
    def compare(student: Tensor, teacher: Tensor) -> float:
        channels = [
            torch.stack((student[:, c].flatten(), teacher[:, c].flatten())) for c in range(3)
        ]
        return 1 - sum(torch.corrcoef(rows)[0, 1].item() for rows in channels) / 3

    student, teacher = maps(5), maps(6)
    expected = mean_over_pairs(compare, student, teacher)
    assert loss("pkd", student, teacher) == pytest.approx(expected, rel=1e-4)
    assert loss("pkd", student, tuple(3 * f + 7 for f in student)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_channel_wise_is_the_divergence_of_each_channels_map(temperature: float) -> None:
    def compare(student: Tensor, teacher: Tensor) -> float:
        total = 0.0
        for s, t in zip(student.flatten(0, 1), teacher.flatten(0, 1), strict=True):
            p = [math.exp(v / temperature) for v in t.flatten().tolist()]
            q = [math.exp(v / temperature) for v in s.flatten().tolist()]
            p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        return temperature**2 * total / (student.shape[0] * student.shape[1])

    student, teacher = maps(1), maps(2)
    expected = mean_over_pairs(compare, student, teacher)
    got = loss("cwd", student, teacher, temperature=temperature)
    assert got == pytest.approx(expected, rel=1e-4)


def test_masked_generation_without_a_mask_is_the_generators_error() -> None:
    student, teacher = maps(1), maps(2)
    given = make_signal(student, teacher)
    method = build("mgd", given, mask=0.0)
    made = []
    for generator, feature in zip(method.generators, student, strict=True):
        first, second = (m for m in generator if isinstance(m, nn.Conv2d))
        hidden = nn.functional.conv2d(feature, first.weight, first.bias, padding=1)
        made.append(
            nn.functional.conv2d(hidden.clamp(min=0), second.weight, second.bias, padding=1)
        )
    expected = mean_over_pairs(relative_error, made, teacher)
    assert method(given).item() == pytest.approx(expected, rel=1e-4)


def test_masked_generation_blanks_whole_positions_and_the_share_that_was_asked() -> None:
    seen: list[Tensor] = []
    given = make_signal((torch.ones(8, 3, 40, 40),), (torch.ones(8, 3, 40, 40),))
    method = build("mgd", given, mask=0.3)
    method.generators[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    method(given)
    method(given)
    first, second = seen
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(first.amin(1), first.amax(1))
    assert (first == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert not torch.equal(first, second)


def test_masks_follow_the_global_seed() -> None:
    given = make_signal(maps(1), maps(2))
    method = build("mgd", given)

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        return method(given).item()

    assert run(3) == run(3)
    assert run(3) != run(4)


@pytest.mark.parametrize("name", PROJECTED)
def test_a_projector_stands_only_where_channels_differ(name: str) -> None:
    mixed = (*maps(1, 4)[:1], *maps(1, 7)[1:])
    first, second = build(name, make_signal(mixed, maps(2, 7))).projectors
    assert isinstance(first, nn.Conv2d)
    assert first.weight.shape == (7, 4, 1, 1)
    assert isinstance(second, nn.Identity)


@pytest.mark.parametrize("name", [n for n in PROJECTED if n != "mgd"])
def test_a_projector_that_undoes_the_difference_makes_the_loss_zero(name: str) -> None:
    student = maps(1, 4)
    mix = torch.randn(7, 4, generator=torch.Generator().manual_seed(3))
    teacher = tuple(torch.einsum("oc,bchw->bohw", mix, f) for f in student)
    given = make_signal(student, teacher)
    method = build(name, given)
    assert method(given).item() > 0.01
    with torch.no_grad():
        for projector in method.projectors:
            projector.weight.copy_(mix[:, :, None, None])
            projector.bias.zero_()
    assert method(given).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", [*(n for n in PROJECTED if n != "mgd"), "attention"])
def test_the_student_takes_on_the_teachers_resolution(name: str) -> None:
    """A ramp stays the same ramp, whatever the number of cells."""

    def ramp(cells: int) -> Tensor:
        middle = (torch.arange(cells) + 0.5) / cells
        return (1 + middle).expand(2, 3, cells, cells).contiguous()

    other = tuple(f.flip(-1) for f in (ramp(16),))
    same = loss(name, (ramp(32),), (ramp(16),))
    assert same < 0.01
    assert loss(name, (ramp(32),), other) > 10 * same
