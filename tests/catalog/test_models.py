"""Every model in models/ is whole and agrees with its card."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from edgekd.cli import main
from edgekd.config.catalog import catalog_folder
from edgekd.config.recipe import load_recipe
from edgekd.core.files import sha256_of
from edgekd.nets import cost
from edgekd.nets.card import Card, build, load_card, load_net, load_weights
from edgekd.nets.transfer import transfer
from edgekd.run.inputs import shipped_start

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
    from edgekd.run.inputs import DEMO, demo_recipe, shipped_models

    recipe = demo_recipe()
    teacher, card = load_net(next(m.weights for m in shipped_models() if m.id == DEMO))
    student = build(
        Card(architecture=recipe.student.architecture, classes=CLASSES, height=64, width=64)
    )
    assert card.classes == CLASSES
    assert 8 * cost.parameters(student) <= cost.parameters(teacher)


@pytest.mark.parametrize(
    "path", sorted(catalog_folder("models").glob("*/start.yaml")), ids=lambda p: p.parent.name
)
def test_a_start_is_what_its_card_says_and_fits_its_architecture(path: Path) -> None:
    facts = yaml.safe_load(path.read_text())
    weights = path.parent / facts["weights"]
    assert shipped_start(facts["architecture"]) == weights
    assert sha256_of(weights) == facts["sha256"]
    state = load_weights(weights)
    assert sum(value.numel() for value in state.values()) == facts["parameters"]
    card = Card(architecture=facts["architecture"], classes=("a", "b"), height=64, width=64)
    net = build(card)
    done = transfer(net, card, state, load_card(weights))
    assert {name.partition(".")[0] for name in done.fresh} == {"scores", "boxes"}


def test_a_student_starts_from_it_unless_told_otherwise(boats: Path, tmp_path: Path) -> None:
    for number, (extra, told) in enumerate(
        (
            ((), True),
            (("--set", "student.pretrained=false"), False),
            (("--student", "edgedet-n0.75"), False),
        )
    ):
        done = CliRunner().invoke(
            main,
            ["train", "--data", str(boats), "--input", "64x64", "--steps", "1", "--batch-size", "2",
             "--student", "edgedet-n", "--out", str(tmp_path / str(number)), *extra],
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert ("start: 246 of" in done.output) == told
