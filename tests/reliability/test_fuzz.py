"""The short form of benchmarks/reliability: damaged files are read or refused, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "reliability" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    specification = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["fuzz"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus(fuzz: ModuleType, finished_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "corpus"
    fuzz.write_corpus(folder, finished_run.folder)
    return folder


def run(corpus: Path, *options: str) -> tuple[int, dict]:
    out = corpus.parent / "fuzz.json"
    command = [sys.executable, str(SCRIPT), "--work", str(corpus.parent), "--corpus", str(corpus)]
    done = subprocess.run(
        [*command, "--out", str(out), *options], capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(out.read_text()) if out.exists() else {"said": done.stderr}


CHEAP = ("recipe", "device", "coco", "voc", "yolo", "idx-labels", "image", "checkpoint", "onnx")


def test_damaged_files_of_many_kinds_are_read_or_refused(fuzz: ModuleType, corpus: Path) -> None:
    for kind in CHEAP:
        folder, place = fuzz._stage(kind, corpus)
        for number in range(12):
            place.write_bytes(fuzz.made(kind, number, corpus))
            what, text = fuzz._read(fuzz.KINDS[kind].use, place)
            assert what in ("read", "refused"), f"{kind} {number} in {folder}: {text}"


@pytest.mark.slow
def test_nothing_crashes_hangs_or_takes_all_memory(fuzz: ModuleType, corpus: Path) -> None:
    status, found = run(corpus, "--inputs", "600")
    assert status == 0, found
    assert found["inputs"] >= 600
    assert found["bad"] == 0
    assert set(found["kinds"]) == set(fuzz.KINDS)
    for kind, result in found["kinds"].items():
        assert result["refused"] > 0, f"no input of {kind} was worth refusing"


def test_inputs_are_damaged_and_the_same_each_time(fuzz: ModuleType, corpus: Path) -> None:
    for kind, described in fuzz.KINDS.items():
        damaged = 0
        for number in range(6):
            whole = corpus / described.whole[number % len(described.whole)]
            made = fuzz.made(kind, number, corpus)
            assert made == fuzz.made(kind, number, corpus), (kind, number)
            damaged += made != whole.read_bytes()
        assert damaged >= 4, kind  # Some write what was there already.


@pytest.mark.parametrize(
    ("fault", "bad"),
    [
        ("raise ValueError('lost')", "traceback: ValueError: lost"),
        ("import os; os.abort()", "crash"),
        ("import time; time.sleep(60)", "slow"),
        ("bytearray(8 << 30)", "traceback: MemoryError"),
        ("raise EdgeKDError('no')", "unnamed: no"),
    ],
)
def test_every_way_to_go_wrong_is_counted(
    fuzz: ModuleType, tmp_path: Path, fault: str, bad: str
) -> None:
    """A reader that does it at its third input only."""
    script = tmp_path / "broken.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "import fuzz\n"
        "from edgekd.core.errors import EdgeKDError\n"
        "from pathlib import Path\n"
        "calls = []\n"
        "def use(path):\n"
        "    calls.append(path)\n"
        "    if len(calls) == 4:\n"  # The first reads the whole file.
        f"        {fault}\n"
        "fuzz.LIMIT_S = 2.0\n"
        "fuzz.__file__ = __file__\n"
        "fuzz.KINDS = {'x': fuzz.Kind(('x/a.bin',), fuzz.damaged, 'a.bin', use)}\n"
        f"corpus = Path({str(tmp_path)!r}) / 'corpus'\n"
        "if '--read' in sys.argv:\n"
        "    given = [int(sys.argv[sys.argv.index(o) + 1]) for o in ('--first', '--inputs')]\n"
        "    fuzz.reads('x', *given, corpus)\n"
        "else:\n"
        "    import json\n"
        "    print(json.dumps(fuzz.judge('x', 0, 5, corpus)))\n"
    )
    (tmp_path / "corpus" / "x").mkdir(parents=True)
    (tmp_path / "corpus" / "x" / "a.bin").write_bytes(random.Random(0).randbytes(64))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["inputs"] == 5
    # Where the process ends at its third input another goes on, and its own third is the fifth.
    assert sorted(found["bad"])[0] == "2"
    assert found["bad"]["2"].startswith(bad)
