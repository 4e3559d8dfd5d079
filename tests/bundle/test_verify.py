from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.bundle.manifest import write_manifest
from edgekd.bundle.verify import verify
from edgekd.core.errors import RunError


def test_a_bundle_is_verified_here(bundle: Path) -> None:
    assert verify(bundle)["passed"]


def test_a_bundle_is_verified_on_a_host_and_nothing_stays_there(bundle: Path, board: Any) -> None:
    result = verify(bundle, "pi@board")
    assert result["passed"]
    assert result["files"] == verify(bundle)["files"]
    assert board.leftovers == []
    assert all("BatchMode=yes" in command for command in board.commands)
    assert sum("pi@board" in command for command in board.commands) == 4


def test_a_failed_comparison_on_a_host_is_a_result(bundle: Path, board: Any) -> None:
    (bundle / "labels.txt").write_text("bus\n")
    result = verify(bundle, "board")
    assert not result["passed"]
    assert result["manifest"][0].startswith("labels.txt: sha256 is ")
    assert board.leftovers == []


def test_a_model_that_was_changed_is_not_run(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.bundle.verify.try_out", lambda path: pytest.fail(f"{path} ran"))
    model = bundle / "models" / "int8.tflite"
    model.write_bytes(model.read_bytes()[:-1])
    result = verify(bundle)
    assert not result["passed"]
    assert result["manifest"][0].startswith("models/int8.tflite: sha256 is ")


@pytest.mark.parametrize("host", [None, "board"])
def test_code_inside_the_bundle_is_never_run(
    bundle: Path, board: Any, tmp_path: Path, host: str | None
) -> None:
    trap = f"open({str(tmp_path / 'sprung')!r}, 'w')\n"
    for name in ("replay.py", "decoder.py", "numpy.py", "json.py"):
        (bundle / name).write_text(trap)
    write_manifest(bundle)
    assert verify(bundle, host)["passed"]
    assert not (tmp_path / "sprung").exists()


def test_only_what_the_manifest_lists_is_sent(bundle: Path, board: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    (bundle / "notes").symlink_to(tmp_path / "key")
    board.install("python3", "#!/bin/sh\nfind . -type f >&2; exit 2\n")
    sent = []
    board.install("rm", f'#!/bin/sh\ncp -r job "{tmp_path}/seen"; exec /bin/rm "$@"\n')
    with pytest.raises(RunError):
        verify(bundle, "board")
    sent = sorted(path.relative_to(tmp_path / "seen") for path in (tmp_path / "seen").rglob("*"))
    assert Path("bundle/contract.json") in sent
    assert Path("bundle/notes") not in sent


def test_file_names_are_no_part_of_a_shell_command(
    bundle: Path, board: Any, tmp_path: Path
) -> None:
    odd = bundle.rename(tmp_path / "-o $(touch sprung); it's")
    assert verify(odd, "board")["passed"]
    assert "sprung" not in "".join(command for command in board.commands if "ssh" in command[:4])
    assert board.leftovers == []


@pytest.mark.parametrize(
    ("program", "script", "message"),
    [
        ("ssh", "#!/bin/sh\necho 'ssh: connect: timed out' >&2; exit 255\n",
         "board: cannot be reached over ssh: ssh: connect: timed out"),
        ("python3", "#!/bin/sh\necho 'python3: not found' >&2; exit 127\n",
         "board: a program is missing there: python3: not found"),
        ("python3", "#!/bin/sh\necho 'error: nothing could be run here' >&2; exit 2\n",
         r"board: ssh failed \(2\): error: nothing could be run here"),
        ("python3", "#!/bin/sh\necho \"No module named 'numpy'\" >&2; exit 1\n",
         "returned no result: No module named 'numpy'"),
        ("scp", "#!/bin/sh\necho 'disk full' >&2; exit 1\n", r"scp failed \(1\): disk full"),
        ("mktemp", "#!/bin/sh\necho '/tmp/a; rm -rf /'\n", "mktemp -d answered '/tmp/a; rm"),
    ],
    ids=["unreachable", "no python", "no runtime", "no numpy", "copy fails", "odd folder"],
)  # fmt: skip
def test_what_goes_wrong_on_a_host_is_said_and_cleared_away(
    bundle: Path, board: Any, program: str, script: str, message: str
) -> None:
    board.install(program, script)
    with pytest.raises(RunError, match=message):
        verify(bundle, "board")
    assert board.leftovers == []


def test_a_host_that_cannot_be_cleared_is_a_warning(
    bundle: Path, board: Any, caplog: pytest.LogCaptureFixture
) -> None:
    board.install("rm", "#!/bin/sh\necho busy >&2; exit 1\n")
    assert verify(bundle, "board")["passed"]
    assert "is left behind: board: ssh failed (1): busy" in caplog.text


def test_a_missing_ssh_is_said(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="ssh is not installed here"):
        verify(bundle, "board")


@pytest.mark.parametrize("host", ["-oProxyCommand=touch sprung", ""])
def test_a_host_that_would_be_an_option_is_refused(bundle: Path, host: str) -> None:
    with pytest.raises(RunError, match="legal: a host as ssh takes it"):
        verify(bundle, host)


@pytest.mark.parametrize("host", [None, "board"])
def test_an_unreadable_bundle_is_an_error_of_the_run(
    tmp_path: Path, board: Any, host: str | None
) -> None:
    with pytest.raises(RunError, match=r"manifest\.json: cannot be read"):
        verify(tmp_path, host)
