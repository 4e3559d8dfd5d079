"""Kills a small end-to-end run at every write, rename and fsync, fills its disk, and runs it again.

    python benchmarks/reliability/faults.py --work WORK --kills 200 --moments 20 --full 50

A fault is struck in a process of its own, at the N-th thing that it does to a file of the run: a
write is left half done, a rename or an fsync does not happen, and the process is killed; or the
disk is full from there on. Then the same command is started again, undisturbed. It must end with
the same student, scales, files and detections as a run that was never disturbed, and nothing that
was half written may be taken for whole.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAME = (
    "distill/student.safetensors",
    "float/graph.safetensors",
    "quantize/graph.safetensors",
    "export/float.onnx",
    "export/int8.onnx",
    "export/int8-host.onnx",
    "export/float.tflite",
    "export/int8.tflite",
)
"""Files of a run that must be the same to the last byte."""


class Faults:
    """Counts what a process does to the files under a folder, and strikes at one of them.

    Args:
        root: Everything below it counts.
        at: Number of the thing that fails, from 0; None to count alone.
        kind: ``kill`` the process; make the disk ``full`` from there on; or make a file
            ``unreadable`` once.
    """

    def __init__(self, root: Path, at: int | None, kind: str) -> None:
        self.root, self.at, self.kind = str(root.resolve()), at, kind
        self.count = 0
        self._full = False
        self._opened, self._fsync = io.open, os.fsync
        self._renames = {name: getattr(os, name) for name in ("replace", "rename")}

    def install(self) -> None:
        """Puts itself between the process and its files."""
        io.open = self._open  # type: ignore[assignment]
        os.fsync = self._sync  # type: ignore[assignment]
        for name in self._renames:
            setattr(os, name, self._renamer(name))

    def happens(self, writing: Callable[[], Any] | None = None) -> None:
        """Counts one thing; strikes where it is the one.

        Args:
            writing: Writes the first half of what was to be written.
        """
        struck = self.count == self.at
        self.count += 1
        if self.kind == "full":
            self._full = self._full or struck
            if self._full and writing is not None:
                writing()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif self.kind == "kill" and struck:
            if writing is not None:
                writing()
            os.kill(os.getpid(), signal.SIGKILL)

    def _ours(self, path: object) -> bool:
        if not isinstance(path, (str, os.PathLike)):
            return False
        return str(Path(path).absolute()).startswith(self.root)

    def _open(self, file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if not self._ours(file):
            return self._opened(file, mode, *args, **more)
        if not set(mode) & set("wxa+"):
            if self.kind == "unreadable":
                struck = self.count == self.at
                self.count += 1
                if struck:
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
            return self._opened(file, mode, *args, **more)
        return _Watched(self._opened(file, mode, *args, **more), self)

    def _sync(self, descriptor: int) -> None:
        self.happens()
        self._fsync(descriptor)

    def _renamer(self, name: str) -> Callable[..., None]:
        def rename(source: Any, target: Any, **more: Any) -> None:
            if self._ours(source):
                self.happens()
            self._renames[name](source, target, **more)

        return rename


class _Watched:
    """A file open for writing, every write of which may fail half way."""

    def __init__(self, stream: Any, faults: Faults) -> None:
        self._stream, self._faults = stream, faults

    def write(self, data: Any) -> int:
        def half() -> None:
            self._stream.write(data[: len(data) // 2])
            self._stream.flush()

        self._faults.happens(half)
        return int(self._stream.write(data))

    def __enter__(self) -> _Watched:
        self._stream.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stream.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run(arguments: list[str], root: Path, log: Path, at: int | None, kind: str) -> tuple[int, int]:
    """Returns the exit status of one run, and how many things it did to files.

    The status is negative for a signal, the count -1 where the process was killed. The process is
    a fork of this one, which has imported everything already.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with log.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        faults = Faults(root, at, kind)
        status = 70
        try:
            faults.install()
            status = _command(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            os.write(writer, str(faults.count).encode())
            os._exit(status)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as stream:
        counted = stream.read()
    return os.waitstatus_to_exitcode(status), int(counted) if counted else -1


def _command(arguments: list[str]) -> int:
    from edgekd.cli import main

    # One core, and hence no process of its own that prepares views.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    try:
        main(arguments, prog_name="edgekd")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def killed_after(arguments: list[str], seconds: float, log: Path) -> None:
    """Runs the command and kills it after so many seconds, wherever it is then."""
    child = os.fork()
    if child == 0:
        with log.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        os._exit(_command(arguments))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def outcome(folder: Path) -> dict[str, str]:
    """Returns what must not depend on faults: hashes of files, and the accuracy of every row."""
    found = {name: _hash(folder / name) for name in SAME if (folder / name).exists()}
    report = json.loads((folder / "report" / "report.json").read_text())
    for row in report["record"]["rows"]:
        found[f"metrics/{row['key']}"] = json.dumps(row["metrics"], sort_keys=True)
    for path in sorted(folder.glob("bundle/*/golden/*.npz")):
        found[f"golden/{path.name}"] = _hash(path)
    return found


def orphans(folder: Path) -> list[str]:
    """Returns leftovers that a finished stage counts among its outputs."""
    found = []
    for done in folder.glob("*/done.json"):
        listed = json.loads(done.read_text())["outputs"]
        found += [f"{done.parent.name}/{name}" for name in listed if Path(name).suffix == ".tmp"]
    return found


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def small_run(data: Path, teacher: Path, cache: Path, out: Path) -> list[str]:
    """Returns the arguments of a run that takes seconds and writes everything that a run writes."""
    return [
        "compress", "--target", "raspberry-pi", "--data", str(data), "--teacher", str(teacher),
        "--input", "96x128", "--steps", "4", "--qat-steps", "3", "--batch-size", "4",
        "--out", str(out), "--torch-device", "cpu", "--threads", "1",
        "--set", f"teacher.cache={cache}", "--set", "teacher.cache_views=2",
        "--set", "distill.training.checkpoint_s=0", "--set", "quantize.training.checkpoint_s=0",
        "--set", "export.proof_images=3", "--set", "benchmark.bootstrap=100",
        "--set", "benchmark.runs=50", "--set", "benchmark.seconds=0",
        "--set", "quantize.calibration_images=4",
        "--set", "report.visualisations=1", "--set", "student.strides=[8]",
    ]  # fmt: skip


class Trial:
    """Strikes faults at one small run and compares what the run after each ends with.

    Args:
        work: Holds data, teacher and runs.
    """

    def __init__(self, work: Path) -> None:
        from edgekd.data.demo.render import CLASSES, write_demo_set
        from edgekd.nets.card import Card, build, save_net

        self.work = work
        self.data = write_demo_set(work / "set", train=8, val=4)
        self.teacher = work / "teacher.safetensors"
        card = Card(architecture="edgedet-n", classes=CLASSES, height=96, width=128)
        save_net(self.teacher, build(card, seed=3), card)
        self.wanted, self.things = self._undisturbed("kill")

    def _undisturbed(self, kind: str) -> tuple[dict[str, str], int]:
        arguments = self._fresh()
        status, things = run(arguments, self.root, self.log, None, kind)
        if status:
            raise SystemExit(f"the undisturbed run ended with {status}: see {self.log}")
        return outcome(self.root / "run"), things

    @property
    def root(self) -> Path:
        """Where every run is made: a file names the recipe that made it, with its paths."""
        return self.work / "trial"

    @property
    def log(self) -> Path:
        """What the last run said."""
        return self.work / "trial.log"

    def _fresh(self) -> list[str]:
        """Returns the arguments of the run, all of whose files are gone."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        return small_run(self.data, self.teacher, self.root / "cache", self.root / "run")

    def reads(self) -> int:
        """Returns how often the undisturbed run opens one of its files to read it."""
        return self._undisturbed("unreadable")[1]

    def strike(self, at: int, kind: str) -> list[str]:
        """Returns what was wrong after one fault: nothing, where all is well."""
        arguments = self._fresh()
        status, _ = run(arguments, self.root, self.log, at, kind)
        said, wrong = self.log.read_text(), []
        if kind == "kill" and status != -signal.SIGKILL:
            wrong.append(f"was not killed but ended with {status}")
        if kind != "kill" and ("Traceback" in said or status not in (0, 2)):
            wrong.append(f"ended with {status}: {said[-300:]}")
        return wrong + self._again(arguments)

    def strike_after(self, seconds: float) -> list[str]:
        """Returns what was wrong after a kill at a moment of the clock."""
        arguments = self._fresh()
        killed_after(arguments, seconds, self.log)
        return self._again(arguments)

    def _again(self, arguments: list[str]) -> list[str]:
        status, _ = run(arguments, self.root, self.log, None, "kill")
        if status:
            return [f"the second run ended with {status}: {self.log.read_text()[-300:]}"]
        found = outcome(self.root / "run")
        wrong = [name for name in self.wanted if found.get(name) != self.wanted[name]]
        return wrong + [f"orphan {name}" for name in orphans(self.root / "run")]


def spread(count: int, most: int) -> list[int]:
    """Returns ``most`` of the numbers below ``count``, evenly spread; all, where they are fewer."""
    if most >= count:
        return list(range(count))
    return sorted({round(i * (count - 1) / max(1, most - 1)) for i in range(most)})


class Journal:
    """What came of every fault so far, so that hours of them can be interrupted.

    Args:
        path: Of the journal, a line a fault.
        wanted: Outcome of the undisturbed run: faults in another one count no longer.
    """

    def __init__(self, path: Path, wanted: dict[str, str]) -> None:
        self.path = path
        head = json.dumps(wanted, sort_keys=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.found: dict[str, list[str]] = {}
        if lines[:1] == [head]:
            self.found = dict(json.loads(line) for line in lines[1:])
        else:
            path.write_text(head + "\n")

    def note(self, fault: str, wrong: list[str]) -> None:
        """Adds what came of a fault."""
        self.found[fault] = wrong
        with self.path.open("a") as stream:
            stream.write(json.dumps([fault, wrong]) + "\n")


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How many faults of each kind are struck."""

    kills: int
    full: int
    unreadable: int
    moments: int


def planned(trial: Trial, numbers: Numbers) -> list[tuple[str, float]]:
    """Returns every fault by kind and place, the same for the same run."""
    rng = random.Random(0)
    plan: list[tuple[str, float]] = [("kill", n) for n in spread(trial.things, numbers.kills)]
    plan += [("full", n) for n in spread(trial.things, numbers.full)]
    if numbers.unreadable:
        plan += [("unreadable", n) for n in spread(trial.reads(), numbers.unreadable)]
    plan += [("moment", round(rng.uniform(0.5, 8.0), 3)) for _ in range(numbers.moments)]
    return plan


def strike_share(work: Path, numbers: Numbers, worker: int, workers: int) -> dict[str, Any]:
    """Strikes every ``workers``-th fault on a CPU of its own; goes on where it was stopped.

    Returns:
        ``things`` in the undisturbed run, number ``planned`` of faults in all, and ``found``: what
        was wrong after each fault of this share.
    """
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[worker % len(cpus)]})
    work.mkdir(parents=True, exist_ok=True)
    trial = Trial(work)
    journal = Journal(work / "journal.jsonl", trial.wanted)
    plan = planned(trial, numbers)
    found = {}
    for number, (kind, at) in list(enumerate(plan, 1))[worker::workers]:
        fault = f"{kind} {at}"
        if fault not in journal.found:
            wrong = trial.strike_after(at) if kind == "moment" else trial.strike(int(at), kind)
            journal.note(fault, wrong)
            print(f"{number}/{len(plan)} {fault}: {wrong or 'same'}", flush=True)
        found[fault] = journal.found[fault]
    return {"things": trial.things, "planned": len(plan), "found": found}


def strike_all(work: Path, numbers: Numbers, workers: int) -> dict[str, Any]:
    """Strikes every fault, the shares side by side; returns what came of it."""
    shares = []
    for worker in range(workers):
        folder = work / f"{worker + 1}-of-{workers}"
        child = os.fork()
        if child == 0:
            status = 70
            try:
                share = strike_share(folder, numbers, worker, workers)
                (folder / "share.json").write_text(json.dumps(share))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        shares.append((child, folder))
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, _ in shares]
    if any(statuses):
        raise SystemExit(f"workers ended with {statuses}; start again to go on")
    told = [json.loads((folder / "share.json").read_text()) for _, folder in shares]
    if len({share["things"] for share in told}) > 1:
        raise SystemExit(f"runs differ: {[share['things'] for share in told]} things")
    found = {fault: wrong for share in told for fault, wrong in share["found"].items()}
    if len(found) != told[0]["planned"]:
        raise SystemExit(f"{len(found)} faults struck, {told[0]['planned']} planned")
    return {
        "things": told[0]["things"],
        "struck": dict(Counter(fault.split()[0] for fault in found)),
        "different": {fault: wrong for fault, wrong in found.items() if wrong},
    }


def main(work: Path, out: Path, numbers: Numbers, workers: int) -> None:
    """Strikes every fault and writes what came of it to ``out``."""
    import_everything()
    command = (
        f"python benchmarks/reliability/faults.py --work WORK --kills {numbers.kills} --moments "
        f"{numbers.moments} --full {numbers.full} --unreadable {numbers.unreadable}"
    )
    result = {"command": command} | strike_all(work, numbers, workers)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["different"]))


def import_everything() -> None:
    """Imports what the command imports late, so that a fork has it."""
    from edgekd.core.quiet import quietly

    with quietly():
        import faster_coco_eval  # noqa: F401
        import litert_torch  # noqa: F401
        import matplotlib.backends.backend_svg  # noqa: F401
        import torchao.quantization.pt2e  # noqa: F401

        import edgekd.cli
        import edgekd.pipeline
        import edgekd.report.html  # noqa: F401


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("faults.json"))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--moments", type=int, default=5)
    parser.add_argument("--full", type=int, default=50)
    parser.add_argument("--unreadable", type=int, default=5)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    main(
        options.work,
        options.out,
        Numbers(
            kills=options.kills,
            full=options.full,
            unreadable=options.unreadable,
            moments=options.moments,
        ),
        options.workers,
    )
