"""Which distillation methods a student can learn by from its teachers; what stands against others.

Free of data and of training: a combination that cannot work is refused before anything is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.config.learning import DistillSection, MethodConfig
from edgekd.core.errors import RecipeError
from edgekd.core.types import Task
from edgekd.distill.method import Method, chosen_methods, known_method, methods
from edgekd.nets.card import Card
from edgekd.teacher.frozen import Teacher


def matched_methods(
    section: DistillSection, student: Card, teachers: Sequence[Teacher]
) -> dict[str, MethodConfig]:
    """Returns the methods that the recipe names, or the usual ones, with weights and options.

    Args:
        section: Of the recipe.
        student: Its card.
        teachers: One or more.

    Raises:
        RecipeError: A method does not serve the task, needs what no teacher gives or what the
            student does not show, or a teacher is there of which no method uses anything.
    """
    gives = frozenset().union(*(teacher.gives for teacher in teachers))
    chosen = chosen_methods(section, _cases(student, teachers))
    able = [name for name, info in methods().items() if not _obstacle(info, student, gives)]
    advice = f"methods that work here: {', '.join(able) or 'none'}{_hint(student, gives)}"
    for name in chosen:
        obstacle = _obstacle(known_method(name), student, gives)
        if obstacle:
            raise RecipeError(f"distillation method {name!r} {obstacle}; {advice}")
    for teacher in teachers:
        if chosen and not any(known_method(name).needs & teacher.gives for name in chosen):
            raise RecipeError(
                f"teacher {teacher.form.name!r} gives {_listed(teacher.gives)}, and none of the "
                f"methods {', '.join(chosen)} uses that; {advice}"
            )
    return chosen


def require_like_outputs(student: Sequence[tuple[int, ...]], teachers: Sequence[Teacher]) -> None:
    """Raises `RecipeError` unless the raw outputs of all have the same shapes.

    Args:
        student: Shapes of its outputs.
        teachers: Those that give outputs are looked at.
    """
    for form in (teacher.form for teacher in teachers if "outputs" in teacher.gives):
        if tuple(form.shapes) != tuple(student):
            raise RecipeError(
                "a distillation method compares raw outputs, which must have the same shapes; the "
                f"student's are {_shapes(student)}, those of teacher {form.name!r} "
                f"{_shapes(form.shapes)}"
            )


def _cases(student: Card, teachers: Sequence[Teacher]) -> list[str]:
    """Returns the keys of the default methods: each teacher shall be of use."""
    if student.task is Task.CLASSIFICATION:
        return ["classification"]
    if student.own:
        return ["custom"]
    return [
        "detection" if "dense-predictions" in teacher.gives else "detections-only"
        for teacher in teachers
    ]


def _obstacle(info: Method, student: Card, gives: frozenset[str]) -> str:
    """Returns what stands against a method, nothing where it can be learnt by."""
    if student.task not in info.tasks:
        return f"does not serve {student.task}"
    lacking = info.needs - gives - {"labels"}
    if lacking:
        return f"needs the teacher's {_listed(lacking)}, but it gives only {_listed(gives)}"
    hidden = _asked_of_student(info) - _shown(student)
    if hidden:
        return f"needs the student's {_listed(hidden)}, which a network of your own does not show"
    return ""


def _asked_of_student(info: Method) -> frozenset[str]:
    """Returns what a method reads of the student: detected objects are assigned to its cells."""
    asked = info.needs & {"logits", "outputs", "features", "dense-predictions"}
    return asked | {"dense-predictions"} if "detections" in info.needs else asked


def _shown(student: Card) -> frozenset[str]:
    shown = {"outputs", "logits" if student.task is Task.CLASSIFICATION else "dense-predictions"}
    if student.own:
        return frozenset(shown - {"dense-predictions"})
    return frozenset({*shown, "features"})


def _hint(student: Card, gives: frozenset[str]) -> str:
    """Returns what would make more methods work."""
    if student.task is Task.DETECTION and gives == {"outputs"} and not student.own:
        return " (network.decoder says what a teacher of your own detects)"
    return ""


def _listed(kinds: frozenset[str]) -> str:
    return ", ".join(sorted(kinds)) or "nothing"


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)
