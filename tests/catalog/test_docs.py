"""README and docs say what is there."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import edgekd
from edgekd.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^ {4}edgekd (\w+)(?: (?!-)(\w+))?(.*)$", re.MULTILINE)
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


REFERENCE = ROOT / "docs" / "reference"


def test_the_reference_is_what_the_code_says() -> None:
    specification = importlib.util.spec_from_file_location("write", REFERENCE / "write.py")
    assert specification is not None
    assert specification.loader is not None
    write = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(write)
    written = {name: write.NOTE + page() for name, page in write.PAGES.items()}
    assert {path.name for path in REFERENCE.glob("*.md")} == set(written)
    for name, text in written.items():
        assert (REFERENCE / name).read_text() == text, "run docs/reference/write.py"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    for name, second, rest in COMMAND.findall(text):
        command = main.commands[name]
        if isinstance(command, click.Group) and second in command.commands:
            command = command.commands[second]
        options = {word for p in command.params for word in p.opts}
        words = rest.partition(" -- ")[0].partition("#")[0]
        used = set(re.findall(r"(?<=\s)--[\w-]+", words))
        assert used <= options, f"{page.name}: edgekd {name} {used - options}"


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "own-data.md").read_text()
    assert [name for name in main.commands if f"`{name}`" not in text] == []


def test_every_public_name_is_documented() -> None:
    text = (ROOT / "docs" / "python.md").read_text()
    assert [name for name in edgekd.__all__ if f"`{name}`" not in text and name not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_pages_names_what_exists(page: Path) -> None:
    for code in CODE.findall(page.read_text()):
        compile(code.replace("...", "None"), page.name, "exec")
        for name in re.findall(r"\bedgekd\.(\w+)\(", code):
            assert name in edgekd.__all__


def test_the_picture_of_the_terminal_is_what_the_script_draws(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "pictures" / "terminal.py"
    subprocess.run([sys.executable, script, "--out", tmp_path / "t.svg"], check=True)
    assert (tmp_path / "t.svg").read_text() == (ROOT / "docs" / "terminal.svg").read_text()
