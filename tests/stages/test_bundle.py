"""What a bundle says of the licences of what it was made from."""

from __future__ import annotations

from pathlib import Path

from edgekd.config.recipe import Recipe, override
from edgekd.core.types import Dataset, Task
from edgekd.stages.bundle import _data_licence, _teacher_licence


def recipe(**sections: object) -> Recipe:
    return override(Recipe(), {"target": "raspberry-pi", **sections})


def nothing(root: Path) -> Dataset:
    return Dataset(
        name="x", task=Task.DETECTION, split="val", format="coco", root=root, classes=("a",),
        samples=(), problems=(),
    )  # fmt: skip


def test_a_folder_of_licences_is_no_licence_file(tmp_path: Path) -> None:
    (tmp_path / "LICENSES").mkdir()
    assert "not stated" in _data_licence(recipe(**{"data.path": str(tmp_path)}))
    (tmp_path / "LICENSE.txt").write_text("CC0")
    assert "from its LICENSE.txt:\n\nCC0" in _data_licence(recipe(**{"data.path": str(tmp_path)}))


def test_every_teacher_is_named(tmp_path: Path) -> None:
    two = recipe(**{"teacher.model": "a.safetensors", "teacher.others": ["b.yaml"]})
    lines = _teacher_licence(two, nothing(tmp_path)).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["a.safetensors", "b.yaml"]
