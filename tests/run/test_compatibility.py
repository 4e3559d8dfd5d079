"""A combination of student, teachers and methods that cannot work is refused before it costs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekd.config.learning import DistillSection
from edgekd.core.errors import RecipeError
from edgekd.core.types import Task
from edgekd.nets.card import Card, CustomCard
from edgekd.run.compatibility import matched_methods, require_like_outputs
from edgekd.training.teacher_output import TeacherForm

DETECTOR = Card(architecture="edgedet-n", classes=("a", "b"), height=64, width=64)
CLASSIFIER = Card(architecture="edgecls-n", classes=("a", "b"), height=64, width=64, strides=())
GIVES = {
    "edgedet": {"outputs", "dense-predictions", "features", "head", "detections"},
    "edgecls": {"logits", "outputs", "features"},
    "classes": {"logits", "outputs"},
    "raw": {"outputs"},
    "decoded": {"outputs", "detections"},
    "black-box": {"detections"},
}


def own(task: Task) -> Card:
    return Card(
        architecture="net.py:build",
        classes=("a", "b"),
        height=64,
        width=64,
        strides=(),
        own=CustomCard(task=task),
    )


def teacher(kind: str, shapes: tuple[tuple[int, ...], ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(
        gives=frozenset(GIVES[kind]), form=TeacherForm(name=kind, shapes=shapes), size=None
    )


def matched(card: Card, *kinds: str, **methods: float | dict[str, float]) -> list[str]:
    section = DistillSection(methods=methods or None)
    return list(matched_methods(section, card, [teacher(kind) for kind in kinds]))


@pytest.mark.parametrize(
    ("card", "kinds", "expected"),
    [
        (DETECTOR, ["edgedet"], ["logits", "boxes", "pkd"]),
        (DETECTOR, ["black-box"], ["teacher-boxes"]),
        (DETECTOR, ["decoded"], ["teacher-boxes"]),
        (DETECTOR, ["edgedet", "black-box"], ["logits", "boxes", "pkd", "teacher-boxes"]),
        (DETECTOR, ["black-box", "edgedet"], ["teacher-boxes", "logits", "boxes", "pkd"]),
        (CLASSIFIER, ["edgecls"], ["logit-matching"]),
        (CLASSIFIER, ["classes"], ["logit-matching"]),
        (own(Task.DETECTION), ["raw"], ["raw-outputs"]),
        (own(Task.CLASSIFICATION), ["classes"], ["logit-matching"]),
    ],
)
def test_every_teacher_is_of_use_where_a_recipe_names_no_method(
    card: Card, kinds: list[str], expected: list[str]
) -> None:
    assert matched(card, *kinds) == expected


@pytest.mark.parametrize(
    ("card", "kinds", "method", "said"),
    [
        (DETECTOR, ["edgedet"], "dkd", "'dkd' does not serve detection"),
        (CLASSIFIER, ["edgecls"], "logits", "'logits' does not serve classification"),
        (
            DETECTOR,
            ["black-box"],
            "logits",
            "dense-predictions, but it gives only detections",
        ),
        (
            DETECTOR,
            ["decoded"],
            "logits",
            "dense-predictions, but it gives only detections, outputs",
        ),
        (DETECTOR, ["decoded"], "crosskd", "needs the teacher's dense-predictions, head"),
        (CLASSIFIER, ["classes"], "hints", "teacher's features, but it gives only logits, outputs"),
        (own(Task.CLASSIFICATION), ["edgecls"], "hints", "student's features, which a network of"),
        (own(Task.DETECTION), ["edgedet"], "logits", "needs the student's dense-predictions"),
        (
            own(Task.DETECTION),
            ["black-box"],
            "teacher-boxes",
            "needs the student's dense-predictions",
        ),
        (DETECTOR, ["edgedet", "black-box"], "logits", "'black-box' gives detections, and none"),
        (DETECTOR, ["black-box", "edgedet"], "boxes", "'black-box' gives detections, and none"),
        (DETECTOR, ["edgedet", "decoded"], "pkd", "'decoded' gives detections, outputs, and none"),
    ],
)
def test_a_method_that_cannot_be_learnt_by_is_refused(
    card: Card, kinds: list[str], method: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        matched(card, *kinds, **{method: 1.0})


def refusal(card: Card, kind: str) -> str:
    """What is said of a method that works with none of them."""
    foreign = "soft-labels" if card.task is Task.DETECTION else "logits"
    with pytest.raises(RecipeError) as refused:
        matched(card, kind, **{foreign: 1.0})
    return str(refused.value)


@pytest.mark.parametrize("kind", sorted(GIVES))
@pytest.mark.parametrize(
    "card",
    [DETECTOR, CLASSIFIER, own(Task.DETECTION), own(Task.CLASSIFICATION)],
    ids=["edgedet", "edgecls", "own-detector", "own-classifier"],
)
def test_what_is_advised_is_accepted(card: Card, kind: str) -> None:
    advised = refusal(card, kind).partition("methods that work here: ")[2].split(" (")[0]
    for name in advised.split(", "):
        assert name == "none" or matched(card, kind, **{name: 1.0}) == [name]


def test_a_detector_of_ones_own_whose_boxes_nobody_explained_is_told_how() -> None:
    with pytest.raises(RecipeError, match=r"\(network\.decoder says what"):
        matched(DETECTOR, "raw")


def test_raw_outputs_are_compared_with_those_of_the_same_shapes_alone() -> None:
    shapes = ((1, 3, 8, 8), (1, 4, 8, 8))
    like, unlike = teacher("raw", shapes), teacher("raw", ((1, 3, 16, 16), (1, 4, 16, 16)))
    require_like_outputs(shapes, [like, teacher("black-box")])
    with pytest.raises(RecipeError, match=r"student's are 1x3x8x8, 1x4x8x8, .* 1x3x16x16"):
        require_like_outputs(shapes, [like, unlike])
