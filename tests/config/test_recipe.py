from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.config.recipe import Recipe, dump_recipe, load_recipe, override
from edgekd.core.errors import RecipeError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_what_is_dumped_loads_again_equal(tmp_path: Path) -> None:
    recipe = override(Recipe(), {"target": "android", "quantize.training.learning_rate": 1e-4})
    assert load_recipe(written(tmp_path, dump_recipe(recipe))) == recipe


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "data: {path: set}\nteacher: {model: /t.safetensors}"))
    assert recipe.data.path == tmp_path / "set"
    assert recipe.teacher.model == "/t.safetensors"


def test_paths_stay_what_they_are_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "data: {path: set}\ntarget: my-board.yaml\nteacher: {model: t.onnx}")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(Path("recipe.yaml"))
    (tmp_path / "run").mkdir()
    again = load_recipe(written(tmp_path / "run", dump_recipe(recipe)))
    for found in (recipe, again):
        assert found.data.path == tmp_path / "set"
        assert found.target == str(tmp_path / "my-board.yaml")
        assert found.teacher.model == str(tmp_path / "t.onnx")


def test_an_override_replaces_one_key_only() -> None:
    recipe = override(Recipe(), {"distill.training.steps": 7})
    assert recipe.distill.training.steps == 7
    assert recipe.distill.methods == Recipe().distill.methods
    assert recipe.quantize == Recipe().quantize


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("quantize.trainning.steps", 3, "did you mean 'training'"),
        ("target.name", "x", "is a value, not a section"),
        ("input.width", 100, "multiple of the student"),
        ("input.channels", 2, "1 .grey. and 3"),
        ("distill.training.steps", 0, "steps 0"),
        ("student.strides", [8, 32], "neighbours of 4, 8, 16, 32"),
        ("student.strides", [], "neighbours"),
        ("benchmark.runs", 10, "between 50"),
        ("export.formats", [], "at least one"),
        ("export.formats", ["tensorflow"], "tflite"),
        ("seed", True, "seed"),
    ],
)
def test_illegal_values_are_named(key: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        override(Recipe(), {key: value})


def test_a_former_key_is_read_under_its_name_of_today_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("report: {exhibits: 3, setbacks: 2}\n")
    recipe = override(load_recipe(path), {"report.exhibits": 4})
    assert (recipe.report.visualisations, recipe.report.regressions) == (4, 2)
    assert "report.exhibits is called report.visualisations now" in caplog.text
    path.write_text("report: {exhibits: 3, visualisations: 2}\n")
    with pytest.raises(RecipeError, match=r"report\.visualisations alone"):
        load_recipe(path)
