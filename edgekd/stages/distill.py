"""The student learns from its teachers; one that is the teacher itself has nothing to learn yet."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekd.core.errors import RecipeError
from edgekd.nets.card import save_net
from edgekd.run.context import SAME, RunContext
from edgekd.run.fit import CHECKPOINT, train_student, training_inputs
from edgekd.teacher.frozen import NetTeacher


def distill(context: RunContext) -> Path:
    """Returns the student's checkpoint.

    Raises:
        RecipeError: The student is to be the teacher, and that is a model file.
    """
    same = context.recipe.student.architecture == SAME
    stage = Adopt(context) if same else Distill(context)
    return context.directory.complete(stage) / CHECKPOINT


@dataclass(frozen=True, slots=True)
class Distill:
    """The student, trained with the teachers' signal, or on annotation where there is none."""

    context: RunContext
    name: str = "distill"

    def inputs(self) -> dict[str, Any]:
        """Returns what the checkpoint depends on."""
        context = self.context
        return training_inputs(context, context.recipe.distill.training, context.methods)

    def work(self, folder: Path) -> None:
        """Writes checkpoint, curve and what the methods learnt."""
        context, options = self.context, self.context.recipe.distill.training
        train_student(context, options, context.methods, folder=folder, title=self.name)


@dataclass(frozen=True, slots=True)
class Adopt:
    """The first teacher, taken as the student as it is."""

    context: RunContext
    name: str = "adopt"

    def inputs(self) -> dict[str, Any]:
        """Returns what the checkpoint depends on."""
        return {"card": asdict(self.context.card), "teacher": self._teacher.identity}

    def work(self, folder: Path) -> None:
        """Writes the checkpoint."""
        save_net(folder / CHECKPOINT, self._teacher.network(), self.context.card)

    @property
    def _teacher(self) -> NetTeacher:
        teacher = self.context.teachers[0]
        if not isinstance(teacher, NetTeacher):
            raise RecipeError("student 'same': a teacher that is a model file cannot be trained")
        return teacher
