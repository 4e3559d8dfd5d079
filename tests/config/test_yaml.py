from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.config.yaml import read_yaml
from edgekd.core.errors import RecipeError


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("1e-3", 0.001),
        ("-1.5E2", -150.0),
        (".5", 0.5),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("1:30", "1:30"),
        ("2026-01-02", "2026-01-02"),
        ("null", None),
        ("", None),
        ("'7'", "7"),
        ("1.2.3", "1.2.3"),
        ("1_000", "1_000"),
    ],
)
def test_scalars_follow_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    read = read_yaml(write(tmp_path, f"key: {text}\n"), RecipeError)["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"recipe.yaml:3: not valid YAML: key 'a' is given twice"),
        ("a: [1\nb: 2\n", r"recipe.yaml:\d+: not valid YAML"),
        ("- 1\n", "expected a mapping of keys to values"),
        ("", "expected a mapping of keys to values, got None"),
        ("a: !!python/object:os.system x", "not valid YAML"),
    ],
)
def test_bad_file_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_yaml(write(tmp_path, text), RecipeError)


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone.yaml: cannot be read"):
        read_yaml(tmp_path / "gone.yaml", RecipeError)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"binary.yaml: cannot be read"):
        read_yaml(binary, RecipeError)
