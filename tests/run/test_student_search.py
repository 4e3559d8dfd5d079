"""The student that a latency budget buys: what is considered, what is chosen, what a file holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from edgekd.cli import main
from edgekd.config.device import load_device
from edgekd.config.recipe import Recipe, load_recipe, override
from edgekd.core.errors import ModelError, RecipeError, RunError
from edgekd.core.progress import SilentProgress
from edgekd.core.types import Format, Precision, Task
from edgekd.data.demo.render import CLASSES
from edgekd.measure.predict import latency_model
from edgekd.modelfile.operators import OperatorKind
from edgekd.modelfile.read import read_operators
from edgekd.nets.card import Card, build
from edgekd.nets.operators import network_operators
from edgekd.run.student_search import Choice, fitted_to_budget, keep_choice, kept_choice

COUNTED = {OperatorKind.QUANTIZE, OperatorKind.DEQUANTIZE, OperatorKind.MOVE}


def fitted(
    budget: float, target: str = "raspberry-pi-4", allowed: float | None = None, **changes: object
):
    recipe = override(
        Recipe(),
        {"target": target, "student.budget_ms": budget, "input.height": 128, "input.width": 160}
        | changes,
    )
    family = recipe.student.architecture.partition("-")[0]
    task = Task.DETECTION if family == "edgedet" else Task.CLASSIFICATION
    device, classes = load_device(target), ("a", "b")
    found = fitted_to_budget(recipe, device, task, classes, SilentProgress(), allowed)
    assert found[2] == (allowed or budget)
    return found[:2]


@pytest.mark.parametrize("name", ["int8.tflite", "float.onnx"])
def test_the_operators_of_a_network_are_those_of_its_file(finished_run, name: str) -> None:
    file = read_operators(finished_run.folder / "export" / name)
    recipe = load_recipe(finished_run.folder / "recipe.yaml")
    card = Card(
        architecture=recipe.student.architecture,
        classes=tuple(CLASSES),
        height=recipe.input.height,
        width=recipe.input.width,
        channels=recipe.input.channels,
        strides=recipe.student.strides,
    )
    listed = network_operators(build(card), card.input_shape, file.precision)
    kept = [one for one in file.operators if one.kind not in COUNTED]
    assert [(o.kind, o.macs, o.geometry) for o in listed if o.macs] == [
        (o.kind, o.macs, o.geometry) for o in kept if o.macs
    ]
    known = latency_model(load_device("raspberry-pi-4"), file.format)
    wanted, _ = known.milliseconds(file.operators)
    assert known.milliseconds(listed)[0] == pytest.approx(wanted, rel=0.1)


def test_a_larger_budget_buys_more_work_and_none_is_overrun() -> None:
    work = []
    for budget in (1.8, 4.0, 12.0):
        recipe, considered = fitted(budget)
        (chosen,) = (item for item in considered if item.chosen)
        assert chosen.median_ms <= budget
        assert recipe.student.architecture == chosen.architecture
        assert (recipe.input.height, recipe.input.width) == (chosen.height, chosen.width)
        assert recipe.gates.budget_ms == budget
        assert recipe.student.budget_ms is None
        assert all(item.fits == (item.median_ms <= budget) for item in considered)
        work.append(chosen.macs)
    assert work == sorted(work)
    assert work[2] > 2 * work[0]


def test_what_is_chosen_takes_as_long_as_its_own_prediction_says() -> None:
    recipe, considered = fitted(4.0)
    (chosen,) = (item for item in considered if item.chosen)
    card = Card(
        architecture=chosen.architecture,
        classes=("a", "b"),
        height=chosen.height,
        width=chosen.width,
        strides=recipe.student.strides,
    )
    net = build(card)
    operators = network_operators(net, card.input_shape, Precision.INT8)
    known = latency_model(load_device("raspberry-pi-4"), Format.TFLITE)
    assert known.milliseconds(operators)[0] == pytest.approx(chosen.median_ms)
    assert chosen.parameters == pytest.approx(sum(p.numel() for p in net.parameters()), rel=0.05)


def test_no_input_is_larger_than_the_recipes_and_its_sides_keep_their_ratio() -> None:
    _, considered = fitted(2.0)
    for item in considered:
        assert item.height % 32 == item.width % 32 == 0
        assert item.height <= 128
        assert item.width <= 160


def test_a_classifier_of_small_images_keeps_its_input() -> None:
    recipe, considered = fitted(
        5.0, **{"student.architecture": "edgecls-n", "input.height": 32, "input.width": 32}
    )
    assert recipe.student.architecture.startswith("edgecls-")
    assert {(item.height, item.width) for item in considered} == {(32, 32)}


@pytest.mark.parametrize(
    ("budget", "changes", "message"),
    [
        (
            0.001,
            {"input.height": 96, "input.width": 128},
            "smallest student, edgedet-n0.5 at 96x128",
        ),
        (5.0, {"student.architecture": "same"}, "'same' has one size"),
        (5.0, {"target": "host"}, "no latency is predicted for 'host'"),
    ],
)
def test_a_budget_that_buys_nothing_says_why(budget: float, changes, message: str) -> None:
    target = str(changes.pop("target", "raspberry-pi-4"))
    with pytest.raises(RecipeError, match=message):
        fitted(budget, target, **changes)


def test_where_input_and_depth_are_spent_the_rest_of_the_budget_goes_into_width() -> None:
    recipe, considered = fitted(60.0)
    assert (recipe.input.height, recipe.input.width) == (128, 160)
    depth, width = recipe.student.architecture[8], float(recipe.student.architecture[9:])
    assert (depth, width > 2) == ("l", True)
    (chosen,) = (item for item in considered if item.chosen)
    assert chosen.macs == max(item.macs for item in considered if item.fits)


def test_less_may_be_allowed_than_the_budget_which_stays_the_gate() -> None:
    recipe, considered = fitted(4.0, allowed=2.0)
    (chosen,) = (item for item in considered if item.chosen)
    assert chosen.median_ms <= 2.0
    assert all(item.fits == (item.median_ms <= 2.0) for item in considered)
    assert recipe.gates.budget_ms == 4.0


def test_a_choice_is_kept_and_goes_with_the_budget(tmp_path: Path) -> None:
    _, considered = fitted(2.0)
    choice = Choice(recipe="abc", allowed_ms=2.0, considered=considered)
    keep_choice(tmp_path, choice)
    assert kept_choice(tmp_path) == choice
    keep_choice(tmp_path, None)
    assert kept_choice(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "not readable"),
        ('{"recipe": "a", "allowed_ms": 2.0, "considered": []}', "exactly one is to be chosen"),
    ],
)
def test_a_malformed_choice_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "budget.json").write_text(text)
    with pytest.raises(RunError, match=rf"budget\.json: .*{message}"):
        kept_choice(tmp_path)


@pytest.mark.parametrize(
    ("name", "width", "depth"), [("edgedet-s", 1.5, 2), ("edgedet-s2.5", 2.5, 2)]
)
def test_a_number_behind_the_letter_is_another_width(name: str, width: float, depth: int) -> None:
    net = build(Card(architecture=name, classes=("a",), height=64, width=64))
    assert net.backbone.stem[0].out_channels == 16 * width
    assert len(net.backbone.stages[1]) == depth + 1
    assert net(torch.zeros(1, 3, 64, 64))[0].shape == (1, 1, 8, 8)


@pytest.mark.parametrize("name", ["edgedet-s0.1", "edgedet-n9", "edgedet-q1", "edgedet-n1.2.3"])
def test_widths_without_sense_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="legal: "):
        build(Card(architecture=name, classes=("a",), height=64, width=64))


@pytest.mark.slow
def test_a_run_within_a_budget_ships_what_was_chosen(small_set: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main,
        ["compress", "--data", str(small_set), "--target", "raspberry-pi-4", "--budget", "2.5ms",
         "--steps", "8", "--qat-steps", "4", "--set", "distill.methods={}",
         "--input", "128x160", "--set", "benchmark.bootstrap=100", "--out", str(tmp_path / "run"),
         "--json"],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)["record"]
    (chosen,) = (item for item in record["considered"] if item["chosen"])
    shipped = next(row for row in record["rows"] if row["key"] == "int8-tflite")
    assert shipped["predicted"]["median_ms"] == pytest.approx(chosen["median_ms"], rel=0.1)
    assert shipped["predicted"]["median_ms"] <= 2.5
    (gate,) = record["gates"]
    assert (gate["name"], gate["model"], gate["passed"]) == ("budget", shipped["name"], True)
    page = (tmp_path / "run" / "report" / "report.html").read_text()
    assert "Students considered for the latency budget" in page
    assert chosen["architecture"] in page


@pytest.mark.slow
def test_a_file_that_overruns_the_budget_is_followed_by_a_smaller_student(
    small_set: Path, tmp_path: Path
) -> None:
    """Layers kept in float make the file slower than a student in int8 was predicted to be."""
    run = tmp_path / "run"
    chosen = next(item for item in fitted(3.0)[1] if item.chosen)
    budget = float(f"{1.02 * chosen.median_ms:.3f}")
    kept = "[backbone.stages.0.0.expand.0, backbone.stages.0.0.project.0]"
    arguments = [
        "compress", "--data", str(small_set), "--target", "raspberry-pi-4",
        "--budget", f"{budget}ms", "--steps", "4", "--qat-steps", "2", "--batch-size", "4",
        "--set", "distill.methods={}", "--set", f"quantize.keep_float={kept}",
        "--set", "quantize.float_control=false",
        "--input", "128x160", "--set", "benchmark.bootstrap=100", "--out", str(run),
    ]  # fmt: skip
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert f"over the budget of {budget:g}: looking for a smaller student" in result.output
    choice = kept_choice(run)
    assert choice is not None
    assert choice.allowed_ms < budget
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert sum(e["stage"] == "distill" and e["event"] == "started" for e in events) == 2
    record = json.loads((run / "report" / "report.json").read_text())["record"]
    shipped = next(row for row in record["rows"] if row["key"] == "int8-tflite")
    assert choice.chosen.median_ms < shipped["predicted"]["median_ms"] <= budget
    assert [gate["passed"] for gate in record["gates"]] == [True]
    # Started again it knows what was allowed, and trains nothing.
    again = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert "looking for a smaller" not in again.output
    assert kept_choice(run) == choice
