from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from edgekd.config.commented import commented_recipe, key_meanings
from edgekd.config.recipe import Recipe, load_recipe, override


def sections(kind: type[Any] = Recipe) -> Iterator[type[Any]]:
    yield kind
    for hint in get_type_hints(kind).values():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from sections(hint)


@pytest.mark.parametrize("section", sorted({s.__name__ for s in sections()}))
def test_every_key_has_a_meaning_and_no_meaning_is_without_its_key(section: str) -> None:
    kind = next(s for s in sections() if s.__name__ == section)
    hints = get_type_hints(kind)
    keys = {name for name, hint in hints.items() if not dataclasses.is_dataclass(hint)}
    assert keys - key_meanings(kind).keys() == set()
    assert key_meanings(kind).keys() - hints.keys() == set()


def test_a_commented_recipe_loads_as_the_same_recipe(tmp_path: Path) -> None:
    recipe = override(
        Recipe(),
        {
            "distill.methods": {"logits": 10.0, "boxes": {"weight": 20.0}},
            "data.ignore_classes": ["don't care", "a: b", "# c"],
            "data.path": "/data/boats",
        },
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(commented_recipe(recipe))
    assert load_recipe(path) == recipe


def test_comments_say_what_a_key_means_and_what_is_legal() -> None:
    lines = commented_recipe(Recipe()).splitlines()
    assert max(map(len, lines)) <= 100
    mode = lines.index("  mode: qat")
    above = " ".join(line.strip(" #") for line in lines[mode - 6 : mode])
    assert "trains with fake-quantization" in above
    assert "Legal: qat, ptq, none." in above
    strict = lines.index("  strict: false")
    assert lines[strict - 1].endswith("Legal: true, false.")
    learning_rate = next(i for i, line in enumerate(lines) if "learning_rate:" in line)
    assert "Peak, after warm-up." in lines[learning_rate - 1]
