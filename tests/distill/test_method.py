from __future__ import annotations

import pytest

from edgekd.config.learning import DEFAULT_METHODS
from edgekd.core.errors import RecipeError
from edgekd.core.types import Task
from edgekd.distill.method import NEEDS, method_options, methods

METHODS = methods()


def test_options_that_are_not_given_take_their_defaults() -> None:
    merged = method_options("dkd", {"beta": 2.0})
    assert merged == {"alpha": 1.0, "beta": 2.0, "temperature": 4.0}
    assert METHODS["dkd"].options["beta"] == 8.0


def test_an_unknown_method_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"'pdk'; did you mean 'pkd'\? legal: .*soft-labels"):
        method_options("pdk", {})


def test_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"'soft-labels' has no option 'temprature'; did you"):
        method_options("soft-labels", {"temprature": 2.0})
    with pytest.raises(RecipeError, match="'pkd' has no option 'temperature'; it has none"):
        method_options("pkd", {"temperature": 2.0})


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("cwd", "temperature", 0.0),
        ("mgd", "mask", 1.0),
        ("teacher-boxes", "soft", 1.5),
        ("rkd", "angle", -1.0),
        ("rkd", "angle", float("nan")),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_range(
    name: str, option: str, value: float
) -> None:
    with pytest.raises(RecipeError, match=rf"'{name}': {option} .*: must be between "):
        method_options(name, {option: value})


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_entry_is_complete_and_its_own_defaults_are_legal(name: str) -> None:
    info = METHODS[name]
    assert info.name == name
    assert info.tasks
    assert info.needs
    assert info.needs <= set(NEEDS)
    assert info.weight > 0
    assert "arXiv" in info.source
    assert info.cost
    assert "\n" not in info.summary
    assert method_options(name, info.options) == dict(info.options)


def test_an_external_detector_has_a_method() -> None:
    enough = [i.name for i in METHODS.values() if i.needs == {"detections"}]
    assert enough == ["teacher-boxes"]
    assert METHODS["teacher-boxes"].tasks == {Task.DETECTION}


def test_the_defaults_of_a_recipe_have_the_weights_of_their_methods() -> None:
    for chosen in DEFAULT_METHODS.values():
        assert chosen == {name: METHODS[name].weight for name in chosen}
