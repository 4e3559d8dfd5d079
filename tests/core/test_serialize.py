from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from edgekd.core.errors import DeviceError, RecipeError
from edgekd.core.serialize import from_mapping, to_mapping


class Colour(StrEnum):
    GREY = "grey"
    RGB = "rgb"


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    epochs: int
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Everything:
    name: str
    schedule: Schedule
    stages: tuple[Schedule, ...] = ()
    size: tuple[int, int] = (160, 160)
    colour: Colour = Colour.RGB
    root: Path | None = None
    mode: Literal["fast", "exact"] = "exact"
    weights: dict[str, float] = field(default_factory=dict)
    scales: dict[Colour, int] = field(default_factory=dict)
    teacher: Schedule | str | None = None
    strict: bool = False
    extra: Any = None


MINIMAL: dict[str, Any] = {"name": "a", "schedule": {"epochs": 3}}


def read(**changes: object) -> Everything:
    return from_mapping(Everything, MINIMAL | changes, "recipe.yaml", RecipeError)


def test_converts_every_kind_of_field() -> None:
    record = read(
        stages=[{"epochs": 1}, {"epochs": 2, "rate": 1}],
        size=[96, 64],
        colour="grey",
        root="data/set",
        mode="fast",
        weights={"kd": 2},
        scales={"rgb": 3},
        teacher={"epochs": 9},
        strict=True,
        extra=[1, "x"],
    )
    assert record.stages == (Schedule(epochs=1), Schedule(epochs=2, rate=1.0))
    assert isinstance(record.stages[1].rate, float)
    assert record.size == (96, 64)
    assert record.colour is Colour.GREY
    assert record.root == Path("data/set")
    assert record.weights == {"kd": 2.0}
    assert record.scales == {Colour.RGB: 3}
    assert record.teacher == Schedule(epochs=9)
    assert record.extra == [1, "x"]


def test_defaults_stand_where_a_key_is_absent() -> None:
    assert read() == Everything(name="a", schedule=Schedule(epochs=3))
    assert read(teacher=None).teacher is None
    assert read(teacher="resnet").teacher == "resnet"


def test_plain_form_reads_back_as_an_equal_record() -> None:
    record = read(stages=[{"epochs": 2}], root="a/b", scales={"rgb": 1}, teacher={"epochs": 1})
    plain = to_mapping(record)
    assert type(plain["colour"]) is str
    assert plain["root"] == "a/b"
    assert plain["stages"] == [{"epochs": 2, "rate": 0.1}]
    assert from_mapping(Everything, plain, "again", RecipeError) == record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shedule": {}}, "recipe.yaml: unknown key 'shedule'; did you mean 'schedule'?"),
        ({"schedule": {"epochs": 1, "rats": 2}}, "schedule: unknown key 'rats'; did you mean"),
        ({"schedule": {}}, "recipe.yaml: schedule: missing key 'epochs'"),
        ({"schedule": {"epochs": True}}, "schedule.epochs: expected a whole number, got True"),
        ({"schedule": {"epochs": 1.0}}, "schedule.epochs: expected a whole number, got 1.0"),
        ({"schedule": {"epochs": 1, "rate": "1"}}, "schedule.rate: expected a finite number"),
        ({"schedule": {"epochs": 1, "rate": float("nan")}}, "expected a finite number, got nan"),
        ({"schedule": {"epochs": 1, "rate": False}}, "expected a finite number, got False"),
        ({"schedule": {"epochs": 0}}, "schedule: epochs must be at least 1, got 0"),
        ({"schedule": [1]}, "schedule: expected a mapping of keys to values, got [1]"),
        ({"stages": [{"epochs": 1}, {"epochs": "x"}]}, "stages[1].epochs: expected a whole"),
        ({"stages": {"epochs": 1}}, "stages: expected a list"),
        ({"size": [1, 2, 3]}, "size: expected a list of 2 values"),
        ({"colour": "gray"}, "illegal value 'gray'; did you mean 'grey'? legal: grey, rgb"),
        ({"mode": "exat"}, "mode: illegal value 'exat'; did you mean 'exact'?"),
        ({"weights": {"kd": "x"}}, "weights.kd: expected a finite number"),
        ({"scales": {"rbg": 1}}, "scales: illegal value 'rbg'; did you mean 'rgb'?"),
        ({"teacher": 3}, "teacher: expected Schedule or text or null, got 3"),
        ({"strict": 1}, "strict: expected true or false, got 1"),
        ({"name": 5}, "name: expected text, got 5"),
        ({"name": None}, "name: expected text, got nothing"),
        ({"root": ""}, "root: expected a path, got ''"),
    ],
)
def test_problem_names_file_key_value_and_remedy(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(**changes)
    assert str(caught.value).startswith("recipe.yaml: ")
    assert message in str(caught.value)


def test_every_missing_key_is_named_at_once() -> None:
    with pytest.raises(DeviceError, match="missing key 'name', 'schedule'"):
        from_mapping(Everything, {}, "x.yaml", DeviceError)


def test_what_has_no_plain_form_is_refused() -> None:
    with pytest.raises(TypeError, match="set has no plain form"):
        to_mapping(read(extra={1}))
