"""The agent and what is made of its answers: real files, real runtimes, a board that is here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import edgekd.standalone.agent
from edgekd.board.logs import Timing
from edgekd.board.state import BoardState
from edgekd.board.transport import on_this_computer, over_ssh
from edgekd.cli import main
from edgekd.core.errors import ModelError, RunError
from edgekd.measure.board_programs import measure_with_benchmark_model, measure_with_trtexec
from edgekd.measure.on_board import (
    BoardMeasurement,
    Protocol,
    as_latency,
    measure,
    measurement_lines,
)
from edgekd.modelfile.runner import open_runner

QUICK = Protocol(warmup=2, runs=12, seconds=0.0)


def agent(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Runs the agent as a board does: a copy that lies in a folder of its own.

    Where it lies in the package, a script's folder would put `edgekd/core/types.py` before
    Python's.
    """
    folder = folder / "agent"
    folder.mkdir()
    copy = shutil.copy(edgekd.standalone.agent.__file__, folder)
    command = [sys.executable, copy, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def models(run) -> dict[str, Path]:
    return {
        path.name: path for path in (run.folder / "export").glob("*.*") if path.suffix != ".json"
    }


@pytest.mark.parametrize("name", ["int8.tflite", "float.onnx"])
def test_a_file_is_timed_here(finished_run, name: str) -> None:
    with on_this_computer() as work:
        found = measure(work, models(finished_run)[name], QUICK)
    timing = found.timing
    assert timing.runs == 12
    assert 0 < timing.min_ms <= timing.median_ms <= timing.percentiles_ms["90"] <= timing.max_ms
    assert timing.first_ms > 0
    assert found.open_ms > 0
    # A contract is in the file, so filling the input and decoding are timed, too.
    assert found.pre_ms > 0
    assert found.post_ms > 0
    assert found.peak_bytes > 10 * 2**20
    assert len(found.cpus) == 1
    assert found.delegate == {"int8.tflite": "xnnpack", "float.onnx": "cpu"}[name]
    assert found.runtime_version[0].isdigit()


def test_the_same_comes_over_ssh_and_nothing_stays(finished_run, board) -> None:
    with over_ssh("pi@board") as work:
        found = measure(work, models(finished_run)["int8.tflite"], QUICK)
    assert found.timing.runs == 12
    assert board.leftovers == []


def test_what_the_agent_computes_is_what_the_file_computes(finished_run, tmp_path: Path) -> None:
    path = models(finished_run)["int8.tflite"]
    runner = open_runner(path)
    image = np.random.default_rng(0).integers(-128, 128, runner.input.shape).astype(np.int8)
    np.savez(tmp_path / "in.npz", a=image)
    done = agent(tmp_path, "compute", path, tmp_path / "in.npz", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as archive:
        for index, wanted in enumerate(runner.run(image)):
            np.testing.assert_array_equal(archive[f"a/{index}"], wanted)


@pytest.mark.parametrize("name", ["int8.tflite", "int8.onnx"])
def test_a_boards_outputs_score_as_the_same_runtime_does_here(
    finished_run, small_set: Path, board, name: str
) -> None:
    """The board is this machine, so its figure is this machine's, and its outputs are scored."""
    path, command = models(finished_run)[name], ["eval", "--data", str(small_set), "--json"]
    here, there = (
        CliRunner().invoke(main, [*command, str(path), *host], catch_exceptions=False)
        for host in ([], ["--host", "pi@board"])
    )
    assert there.exit_code == 0, there.output
    assert json.loads(there.stdout) == json.loads(here.stdout)
    assert board.leftovers == []
    assert any("agent.py compute" in command for command in board.commands)


def test_pixels_become_the_input_that_the_contract_describes() -> None:
    spec = {"mean": 128.0, "std": 128.0, "channels": 3, "dtype": "int8", "scale": 1 / 128,
            "zero_point": 0}  # fmt: skip
    table = edgekd.standalone.agent._table(spec, np)
    np.testing.assert_array_equal(table[:, 1], np.arange(256) - 128)
    spec |= {"mean": 0.0, "std": 255.0, "dtype": "float32"}
    np.testing.assert_allclose(edgekd.standalone.agent._table(spec, np)[255], [1.0, 1.0, 1.0])


def test_facts_are_what_the_system_says(tmp_path: Path) -> None:
    facts = json.loads(agent(tmp_path, "facts").stdout)
    assert facts["/proc/cpuinfo"] == Path("/proc/cpuinfo").read_text().strip() or facts["python"]
    assert facts["runtime onnxruntime"]


def test_watching_a_program_keeps_its_words_and_its_status(tmp_path: Path) -> None:
    program = "print('said'); raise SystemExit(5)"
    done = agent(tmp_path, "watch", "--", sys.executable, "-c", program)
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["status"], found["output"]) == (5, "said\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [("model.bin", "legal: a file that ends in"), ("model.onnx", "refused by onnxruntime")],
)
def test_the_agent_says_what_it_cannot_run(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"nothing")
    done = agent(tmp_path, "time", tmp_path / name)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_agent_needs_nothing_but_one_file(finished_run, tmp_path: Path) -> None:
    shutil.copy(edgekd.standalone.agent.__file__, tmp_path)
    hook = "import sys, runpy; sys.modules['edgekd'] = None; sys.argv[:] = sys.argv[1:]; "
    run = [sys.executable, "-c", hook + "runpy.run_path('agent.py', run_name='__main__')"]
    model = models(finished_run)["int8.tflite"]
    words = ["agent.py", "time", str(model), "--runs", "10", "--seconds", "0"]
    done = subprocess.run([*run, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.splitlines()[-1])["inference_s"]) == 10


def test_a_throttled_run_is_marked(finished_run, board) -> None:
    board.install("vcgencmd", "#!/bin/sh\n[ $1 = get_throttled ] && echo throttled=0x4\n")
    with over_ssh("board") as work:
        found = measure(work, models(finished_run)["int8.tflite"], QUICK)
    assert found.invalid == ("throttled",)
    assert measurement_lines(found)[-1] == "  INVALID: throttled"
    latency = as_latency(found)
    assert latency.median_ms == found.timing.median_ms
    assert latency.p90_ms == found.timing.percentiles_ms["90"]
    assert latency.runs == 12
    assert latency.note.startswith("INVALID: throttled")
    assert latency.conditions["throttled"] == "throttled"
    assert latency.conditions["cpus"] == ",".join(map(str, found.cpus))


def test_a_row_says_what_changed_meanwhile_and_needs_a_median() -> None:
    found = BoardMeasurement(
        where="Pi", runtime="r", runtime_version="1", delegate="", threads=4,
        timing=Timing(median_ms=2.0, runs=7, percentiles_ms={}),
        before=BoardState(model="Pi", temperature_c=50.0, load=0.5),
        after=BoardState(model="Pi", temperature_c=61.5, load=0.5),
    )  # fmt: skip
    assert as_latency(found).conditions == {
        "temperature_c": "50.0 to 61.5",
        "load_1min": "0.50",
        "cpus": "not pinned",
    }
    with pytest.raises(RunError, match="Pi: r told no median"):
        as_latency(replace(found, timing=Timing(mean_ms=2.0, percentiles_ms={})))


def test_a_busy_board_is_said(finished_run) -> None:
    spin = "import time\nend = time.time() + 60\nwhile time.time() < end: pass\n"
    others = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(2)]
    try:
        with on_this_computer() as work:
            protocol = Protocol(warmup=2, runs=12, seconds=1.0)
            found = measure(work, models(finished_run)["int8.tflite"], protocol)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert found.others_busy > 0.25
    assert any("the board was busy" in note for note in found.notes)


def test_a_host_without_a_runtime_is_told_what_it_lacks(finished_run, board) -> None:
    board.install(
        "python3",
        f'#!/bin/sh\nexec "{sys.executable}" -c "import sys, runpy\n'
        "for m in ('ai_edge_litert', 'tflite_runtime'): sys.modules[m] = None\n"
        "sys.argv[:] = sys.argv[1:]\nrunpy.run_path('agent.py', run_name='__main__')\" \"$@\"\n",
    )
    with (
        over_ssh("board") as work,
        pytest.raises(RunError, match=r"no runtime for \.tflite in .*python.*--python"),
    ):
        measure(work, models(finished_run)["int8.tflite"], QUICK)


TRTEXEC = """#!/bin/sh
echo "$@" >> "$LOG"
echo "[I] Average on 10 runs - GPU latency: 2.1 ms"
echo "[I] GPU Compute Time: min = 2 ms, max = 3 ms, mean = 2.2 ms, median = 2.1 ms, \
percentile(99%) = 2.9 ms"
"""


def test_trtexec_is_run_on_the_host_with_the_flags_that_it_is_given(finished_run, board) -> None:
    board.install("trtexec", TRTEXEC)
    board.install("nvpmodel", "#!/bin/sh\necho 'NV Power Mode: 25W'; echo 1\n")
    with over_ssh("jetson") as work:
        model = models(finished_run)["int8.onnx"]
        found = measure_with_trtexec(work, model, Protocol(), ["--stronglyTyped"])
    assert found.timing.headline == ("median", 2.1)
    assert found.before.power_mode == "25W"
    (line,) = [c for c in board.commands if c.startswith("--onnx")]
    assert line == "--onnx=int8.onnx --iterations=60 --duration=3 --stronglyTyped"


def test_a_host_without_trtexec_says_where_it_comes_from(finished_run, board) -> None:
    with over_ssh("pi") as work, pytest.raises(RunError, match="it comes with JetPack"):
        measure_with_trtexec(work, models(finished_run)["int8.onnx"], Protocol(), [])


BENCHMARK_MODEL = """#!/bin/sh
echo "$@" >> "$LOG"
echo "INFO: count=50 first=900 curr=800 min=790 max=950 avg=810 std=9 p5=795 median=805 p95=900" >&2
echo "INFO: Inference timings in us: Init: 5579, First inference: 1200, Warmup (avg): 900, \
Inference (avg): 810" >&2
"""


def test_benchmark_model_is_pushed_run_and_read(finished_run, board, tmp_path: Path) -> None:
    program = tmp_path / "benchmark_model"
    program.write_text(BENCHMARK_MODEL)
    board.install("getprop", "#!/bin/sh\n[ $1 = ro.product.model ] && echo 'Pixel 6'\n")
    board.install("dumpsys", "#!/bin/sh\n[ $1 = battery ] && echo '  USB powered: true'\n")
    with over_ssh("phone") as work:  # What runs on it is the same for every transport.
        model = models(finished_run)["int8.tflite"]
        protocol = Protocol(threads=4)
        found = measure_with_benchmark_model(work, model, protocol, program, ["--use_gpu=true"])
    assert found.where == "Pixel 6"
    assert found.timing.headline == ("median", 0.805)
    assert any("external power" in note for note in found.notes)
    (line,) = [c for c in board.commands if c.startswith("--graph")]
    assert line == (
        "--graph=int8.tflite --num_threads=4 --warmup_runs=10 --num_runs=60 --min_secs=3 "
        "--report_peak_memory_footprint=true --use_gpu=true"
    )


def test_each_program_takes_its_own_format(finished_run) -> None:
    found = models(finished_run)
    with on_this_computer() as work:
        with pytest.raises(ModelError, match=r"runs \.tflite files alone"):
            measure_with_benchmark_model(work, found["int8.onnx"], Protocol(), None, [])
        with pytest.raises(ModelError, match=r"of \.onnx files alone"):
            measure_with_trtexec(work, found["int8.tflite"], Protocol(), [])
