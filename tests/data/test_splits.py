from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.core.errors import DataError
from edgekd.data.splits import inside, made_split, split_named_by, subset_names


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("instances_train2017", "train"),
        ("instances_val2014", "val"),
        ("valid", "val"),
        ("Test-dev", "test"),
        ("trainval", "train"),
        ("instances_default", None),
        ("evaluation", None),
        ("restrained", None),
    ],
)
def test_a_split_is_named_by_a_whole_word(text: str, split: str | None) -> None:
    assert split_named_by(text) == split


def test_a_made_split_is_a_fifth_and_the_rest() -> None:
    names = [f"{number}.jpg" for number in range(100)]
    train, note = made_split(names, "train", Path("set"))
    val, _ = made_split(names, "val", Path("set"))
    assert len(val) == 20
    assert train | val == set(names)
    assert not train & val
    assert "20 of 100" in note.detail


def test_a_made_split_depends_on_names_not_on_order() -> None:
    names = [f"{number:02d}.jpg" for number in range(50)]
    assert made_split(names, "val", Path())[0] == made_split(names[::-1], "val", Path())[0]
    assert made_split(names, "val", Path())[0] != frozenset(names[:10])


def test_a_made_split_takes_from_every_group() -> None:
    names = [f"{number}.jpg" for number in range(12)]
    val, _ = made_split(names, "val", Path(), ["a"] * 10 + ["b"] * 2)
    assert len(val & set(names[:10])) == 2
    assert len(val & set(names[10:])) == 1


@pytest.mark.parametrize(
    "path", ["../a.jpg", "a/../../b.jpg", "/etc/passwd", "C:\\a", "..\\a", "a\0"]
)
def test_a_path_that_leaves_the_folder_is_refused(path: str) -> None:
    with pytest.raises(DataError, match=r"list\.txt"):
        inside(Path("set"), path, Path("list.txt"))


def test_a_path_inside_may_have_dots_in_its_names() -> None:
    assert inside(Path("set"), "a..b/c.jpg", Path("list.txt")) == Path("set/a..b/c.jpg")


def test_a_subset_list_matches_paths_and_bare_names(tmp_path: Path) -> None:
    names = {"train/a.jpg": "a.jpg", "train/b.jpg": "b.jpg", "train/c.jpg": "c.jpg"}
    (tmp_path / "list.txt").write_text("train/a.jpg\n\nb.jpg\ngone.jpg\n")
    kept, problems = subset_names(tmp_path / "list.txt", names, tmp_path)
    assert kept == {"train/a.jpg", "train/b.jpg"}
    assert [problem.kind for problem in problems] == ["subset", "unknown-in-subset"]
    assert "gone.jpg" in problems[1].detail


def test_a_subset_list_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("gone.jpg\n")
    with pytest.raises(DataError, match="none of its 1 lines"):
        subset_names(tmp_path / "list.txt", {"a.jpg": "a.jpg"}, tmp_path)
