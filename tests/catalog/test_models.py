"""Every model in models/ is whole and agrees with its card."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edgekd.config.catalog import catalog_folder
from edgekd.config.recipe import load_recipe
from edgekd.core.files import sha256_of
from edgekd.nets import cost
from edgekd.nets.card import load_net

MODELS = sorted(catalog_folder("models").glob("*/model.yaml"))
RECIPES = sorted(catalog_folder("models").glob("*/recipes/*.yaml"))


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.parent.name)
def test_weights_are_those_that_the_card_describes(path: Path) -> None:
    card = yaml.safe_load(path.read_text())
    weights = path.parent / card["weights"]
    assert card["id"] == path.parent.name
    assert sha256_of(weights) == card["sha256"]
    assert weights.stat().st_size < 12 * 2**20
    net, found = load_net(weights)
    assert found.architecture == card["architecture"]
    assert list(found.classes) == card["labels"]
    assert (found.height, found.width) == (card["input"]["height"], card["input"]["width"])
    assert cost.parameters(net) == card["parameters"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.parent.name}/{p.name}")
def test_recipes_load(path: Path) -> None:
    load_recipe(path)


def test_the_demo_student_is_at_most_an_eighth_of_its_teacher() -> None:
    from edgekd.data.demo.render import CLASSES
    from edgekd.nets.card import Card, build
    from edgekd.run.inputs import DEMO, demo_recipe, shipped_models

    recipe = demo_recipe()
    teacher, card = load_net(next(m.weights for m in shipped_models() if m.id == DEMO))
    student = build(
        Card(architecture=recipe.student.architecture, classes=CLASSES, height=64, width=64)
    )
    assert card.classes == CLASSES
    assert 8 * cost.parameters(student) <= cost.parameters(teacher)
