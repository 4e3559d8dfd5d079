"""The recipe: one YAML file that says everything about a run, one section a stage.

Unknown keys are errors that suggest the nearest; every default is visible in what `edgekd init`
writes. Nothing here imports torch, so a wrong recipe fails in the first second.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from edgekd.config.learning import DistillSection, QuantizeSection, StudentSection, TeacherSection
from edgekd.config.sections import (
    Augmentation,
    BenchmarkSection,
    DataSection,
    ExportSection,
    GatesSection,
    InputSection,
    NetworkSection,
    ReportSection,
)
from edgekd.config.yaml import read_yaml
from edgekd.core.errors import RecipeError
from edgekd.core.serialize import from_mapping, to_mapping

RENAMED = {
    "report.exhibits": "report.visualisations",
    "report.setbacks": "report.regressions",
}
"""Former name of a key → its name; for one release the former is read with a warning."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything about one run.

    Attributes:
        target: Device id (``edgekd devices``) or path of a device YAML.
        seed: Of initial weights, data order and augmentation.
        plugins: Python files that register methods, decoders and readers of your own. They are
            code, and are run.
    """

    target: str = "jetson"
    seed: int = 0
    plugins: tuple[Path, ...] = ()
    data: DataSection = field(default_factory=DataSection)
    input: InputSection = field(default_factory=InputSection)
    augmentation: Augmentation = field(default_factory=Augmentation)
    teacher: TeacherSection = field(default_factory=TeacherSection)
    student: StudentSection = field(default_factory=StudentSection)
    network: NetworkSection = field(default_factory=NetworkSection)
    distill: DistillSection = field(default_factory=DistillSection)
    quantize: QuantizeSection = field(default_factory=QuantizeSection)
    export: ExportSection = field(default_factory=ExportSection)
    benchmark: BenchmarkSection = field(default_factory=BenchmarkSection)
    gates: GatesSection = field(default_factory=GatesSection)
    report: ReportSection = field(default_factory=ReportSection)

    def __post_init__(self) -> None:
        if self.quantize.tune and self.gates.max_map_drop is None:
            raise ValueError(
                "quantize.tune: set gates.max_map_drop (--max-map-drop), the points that int8 may "
                "lose, such as 0.5"
            )
        if not self.student.architecture.startswith("edgedet"):
            return
        coarsest = self.student.strides[-1]
        for name in ("height", "width"):
            value = getattr(self.input, name)
            if value % coarsest:
                raise ValueError(
                    f"input.{name} {value}: must be a multiple of the student's largest stride, "
                    f"{coarsest}, such as {max(1, round(value / coarsest)) * coarsest}"
                )


def load_recipe(path: Path) -> Recipe:
    """Returns the recipe in a YAML file; paths in it are relative to its folder.

    Raises:
        RecipeError: The file is missing, is not YAML, or a key or value is not legal.
    """
    data = _with_current_names(read_yaml(path, RecipeError), str(path))
    return _anchored(from_mapping(Recipe, data, str(path), RecipeError), path.parent)


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """Returns the recipe with dotted keys (``quantize.training.steps``) set to plain values.

    Raises:
        RecipeError: A key does not exist or a value is not legal there.
    """
    data = to_mapping(recipe)
    for given, value in changes.items():
        dotted = _current_name(given, "command line")
        *sections, key = dotted.split(".")
        place = data
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise RecipeError(f"{dotted}: {section!r} is a value, not a section")
        place[key] = value
    return from_mapping(Recipe, data, "command line", RecipeError)


def dump_recipe(recipe: Recipe) -> str:
    """Returns the recipe as YAML with every default spelt out."""
    return yaml.safe_dump(to_mapping(recipe), sort_keys=False, allow_unicode=True)


def _with_current_names(data: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns what a file holds, with keys that have been renamed under their names of today.

    Raises:
        RecipeError: A key is given under both names.
    """
    current = dict(data)
    for former, name in RENAMED.items():
        section, _, key = former.partition(".")
        held = current.get(section)
        if not isinstance(held, dict) or key not in held:
            continue
        new = _current_name(former, where).partition(".")[2]
        if new in held:
            raise RecipeError(f"{where}: {former} and {name} are one key; legal: {name} alone")
        current[section] = {new if k == key else k: value for k, value in held.items()}
    return current


def _current_name(dotted: str, where: str) -> str:
    """Returns the name of a key today, after a warning where it was given under a former one."""
    name = RENAMED.get(dotted, dotted)
    if name != dotted:
        _logger.warning("%s: %s is called %s now; the former name goes", where, dotted, name)
    return name


def _anchored(recipe: Recipe, folder: Path) -> Recipe:
    def anchor(path: Path | None) -> Path | None:
        # Absolute, because the run's own recipe.yaml lies in another folder.
        return None if path is None else (folder / path).resolve()

    def source(text: str) -> str:
        """Returns a model's source with its path, the part before a colon, anchored."""
        path, colon, function = text.rpartition(":") if ".py:" in text else (text, "", "")
        return f"{anchor(Path(path))}{colon}{function}"

    data, teacher, student = recipe.data, recipe.teacher, recipe.student
    own = student.architecture
    target = recipe.target
    if target.endswith((".yaml", ".yml")):
        target = str(anchor(Path(target)))
    return replace(
        recipe,
        target=target,
        plugins=tuple((folder / path).resolve() for path in recipe.plugins),
        data=replace(data, path=anchor(data.path), unlabelled=anchor(data.unlabelled)),
        teacher=replace(
            teacher,
            model=source(teacher.model) if teacher.model else None,
            weights=anchor(teacher.weights),
            others=tuple(map(source, teacher.others)),
            cache=anchor(teacher.cache),
        ),
        student=replace(
            student,
            architecture=source(own) if ".py:" in own or own.endswith(".pt2") else own,
            checkpoint=anchor(student.checkpoint),
        ),
    )
