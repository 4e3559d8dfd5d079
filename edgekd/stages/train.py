"""A network trained on annotation alone: a teacher, or a student to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.run.context import RunContext
from edgekd.run.fit import CHECKPOINT, train_student, training_inputs


def train(context: RunContext, name: str = "train") -> Path:
    """Returns the checkpoint; ``name`` is that of the stage: ``train`` or ``baseline``."""
    return context.directory.complete(Train(context, name)) / CHECKPOINT


@dataclass(frozen=True, slots=True)
class Train:
    """The recipe's student, by the distillation's own options and without a teacher."""

    context: RunContext
    name: str

    def inputs(self) -> dict[str, Any]:
        """Returns what the checkpoint depends on."""
        return training_inputs(self.context, self.context.recipe.distill.training, {})

    def work(self, folder: Path) -> None:
        """Writes checkpoint and curve."""
        options = self.context.recipe.distill.training
        train_student(self.context, options, {}, folder=folder, title=self.name)
