"""A teacher's levels and cells aligned with the student's."""

from __future__ import annotations

import pytest
import torch

from edgekd.distill.align import aligned, averaged, pair_levels, raw_boxes, seen_part
from edgekd.training.detection import DensePredictions, dense_predictions
from edgekd.training.teacher_output import TeacherForm


def form(strides: tuple[int, ...] = (8, 16, 32), magnification: float = 1.0) -> TeacherForm:
    return TeacherForm(
        name="t",
        strides=strides,
        channels=tuple(100 + s for s in strides),
        magnification=magnification,
    )


@pytest.mark.parametrize(
    ("student", "teacher", "magnification", "expected"),
    [
        ((8, 16, 32), (8, 16, 32), 1.0, [(0, 0), (1, 1), (2, 2)]),
        ((4, 8, 16, 32), (8, 16, 32), 1.0, [(1, 0), (2, 1), (3, 2)]),
        ((8, 16, 32), (4, 8, 16, 32), 1.0, [(0, 1), (1, 2), (2, 3)]),
        # 640 pixels to 416: the teacher's strides are 5.2, 10.4 and 20.8 of the student's pixels.
        ((4, 8, 16, 32), (8, 16, 32), 640 / 416, [(0, 0), (1, 1), (2, 2)]),
        ((8, 16, 32), (8, 16, 32), 640 / 416, [(0, 0), (1, 1), (2, 2)]),
        ((4, 8, 16, 32), (8, 16, 32), 2.0, [(0, 0), (1, 1), (2, 2)]),
        ((16,), (8, 16, 32), 2.0, [(0, 2)]),
    ],
)
def test_levels_that_see_objects_of_one_size_are_paired(
    student: tuple[int, ...], teacher: tuple[int, ...], magnification: float, expected: list
) -> None:
    pairs = pair_levels(student, [s * 2 for s in student], form(teacher, magnification))
    assert [(p.student, p.teacher) for p in pairs] == expected
    assert all(p.student_channels == 2 * student[p.student] for p in pairs)
    assert all(p.teacher_channels == 100 + teacher[p.teacher] for p in pairs)


def raw(strides: tuple[int, ...], height: int, width: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, count, height // s, width // s, generator=generator)
        for s in strides
        for count in (3, 4)
    ]


def cells(strides: tuple[int, ...], height: int, width: int) -> tuple[DensePredictions, list]:
    outputs = raw(strides, height, width, seed=9)
    return dense_predictions(outputs, strides), [(o.shape[2], o.shape[3]) for o in outputs[::2]]


def test_the_same_cells_are_taken_as_they_are() -> None:
    strides = (8, 16)
    outputs = raw(strides, 64, 96)
    ours, sizes = cells(strides, 64, 96)
    pairs = pair_levels(strides, (1, 1), form(strides))
    found = aligned(outputs, form(strides), pairs, ours, sizes)
    wanted = dense_predictions(outputs, strides)
    assert torch.equal(found.logits, wanted.logits)
    assert torch.equal(found.boxes, wanted.boxes)
    torch.testing.assert_close(found.raw_boxes, wanted.raw_boxes, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("magnification", [2.0, 640 / 416, 0.5, 1.25])
def test_the_most_certain_covered_cell_speaks_for_a_students_cell(magnification: float) -> None:
    """Against a loop over cells with the overlap of their areas."""
    height, width, stride = 64, 96, 8
    grid = (int(-(-height * magnification // stride)), int(-(-width * magnification // stride)))
    generator = torch.Generator().manual_seed(1)
    outputs = [torch.randn(1, c, *grid, generator=generator) for c in (3, 4)]
    teacher = form((stride,), magnification)
    ours, sizes = cells((stride,), height, width)
    found = aligned(outputs, teacher, pair_levels((stride,), (1,), teacher), ours, sizes)
    theirs = dense_predictions(outputs, [stride])
    for index, (x, y) in enumerate(ours.centres.tolist()):
        low, high = ([(v + d) * magnification for v in (x, y)] for d in (-4, 4))
        covered = [
            row * grid[1] + column
            for row in range(grid[0])
            for column in range(grid[1])
            if column * 8 < high[0] - 1e-3 and (column + 1) * 8 > low[0] + 1e-3
            and row * 8 < high[1] - 1e-3 and (row + 1) * 8 > low[1] + 1e-3
        ]  # fmt: skip
        best = max(covered, key=lambda cell: float(theirs.logits[0, cell].max()))
        assert torch.equal(found.logits[0, index], theirs.logits[0, best])
        torch.testing.assert_close(found.boxes[0, index], theirs.boxes[0, best] / magnification)


def test_raw_boxes_undo_decoding() -> None:
    dense, _ = cells((8, 16), 64, 96)
    again = raw_boxes(dense.boxes, dense.centres, dense.strides)
    torch.testing.assert_close(again, dense.raw_boxes, atol=1e-4, rtol=1e-4)


def test_teachers_are_averaged_in_probability_and_boxes_by_certainty() -> None:
    first, _ = cells((8,), 16, 16)
    second = dense_predictions(raw((8,), 16, 16, seed=4), (8,))
    mean = averaged([first, second])
    torch.testing.assert_close(
        mean.logits.sigmoid(), (first.logits.sigmoid() + second.logits.sigmoid()) / 2
    )
    a, b = (d.logits[0, 0].sigmoid().max() for d in (first, second))
    wanted = (first.boxes[0, 0] * a + second.boxes[0, 0] * b) / (a + b)
    torch.testing.assert_close(mean.boxes[0, 0], wanted)
    assert averaged([first]) is first


def test_padding_that_only_the_teacher_has_is_cut_from_its_features() -> None:
    feature = torch.arange(64.0 * 80).reshape(1, 1, 64, 80)  # Stride 8 of 512 x 640 pixels.
    part = seen_part(feature, (80, 104), 4, form((8,), 640 / 416), 0)  # 320 x 416 pixels.
    assert part.shape[2:] == (62, 80)  # 320 rows are 492.3 of the teacher's, or 61.5 cells.
    assert torch.equal(part, feature[..., :62, :])
