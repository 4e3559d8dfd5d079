"""What the doctor says of machines other than this one, and that it survives a crashing library."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from edgekd.commands import doctor
from edgekd.core import host as computer
from edgekd.core import subprocesses as isolated


def test_cpu_features_are_read_as_the_kernel_names_them(system_files):
    root = system_files({"proc/cpuinfo": "model name : x\nflags : fpu avx2 avx512_vnni\n"})
    (finding,) = doctor.processor("x", computer.cpu_flags(root), 4, {})
    assert finding.message == "x, 4 usable: avx2, avx512-vnni"


def test_arm_features_too(system_files):
    root = system_files({"proc/cpuinfo": "processor : 0\nFeatures : fp asimd asimddp\n"})
    assert "neon, sdot" in next(doctor.processor("Pi 5", computer.cpu_flags(root), 4, {})).message


def test_threads_held_back_by_the_environment_are_named():
    found = list(doctor.processor("x", frozenset(), 4, {"OMP_NUM_THREADS": "1"}))
    assert [f.level for f in found] == ["ok", "advice"]
    assert "leaves 3 CPUs idle" in found[1].message


def test_a_container_may_use_less_than_the_machine_has(system_files):
    root = system_files(
        {
            "sys/fs/cgroup/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/memory.max": f"{2**30}\n",
            "sys/fs/cgroup/memory.current": f"{2**29}\n",
            "proc/meminfo": "MemTotal: 1 kB\nMemAvailable:   16777216 kB\n",
        },
    )
    assert computer.usable_cpus(root) == 0.5
    assert computer.usable_memory(root) == 2**29
    assert next(doctor.memory(2**29)).level == "error"


def test_an_unlimited_container_has_the_machines_memory(system_files):
    root = system_files(
        {"sys/fs/cgroup/memory.max": "max\n", "proc/meminfo": "MemAvailable: 2048 kB\n"},
    )
    assert computer.usable_memory(root) == 2048 * 1024


@pytest.mark.parametrize(
    ("free_gib", "level"), [(0.5, "error"), (5, "advice"), (50, "ok")], ids=str
)
def test_disk(monkeypatch, tmp_path, free_gib, level):
    usage = type("Usage", (), {"free": int(free_gib * 2**30)})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    (finding,) = doctor.disk(tmp_path / "not" / "there" / "yet")
    assert finding.level == level
    assert str(tmp_path) in finding.message


def test_a_package_of_another_version_is_an_error(monkeypatch):
    monkeypatch.setattr(
        doctor, "requires", lambda name: ["numpy>=99", "absent-package; extra=='x'"]
    )
    (finding,) = doctor.packages()
    assert (finding.level, finding.subject) == ("error", "numpy")
    assert finding.remedy == "pip install 'numpy>=99'"


def test_a_system_without_the_converter_is_told_what_it_lacks(monkeypatch):
    monkeypatch.setattr(
        doctor, "requires", lambda name: ["numpy", "litert-torch>=0.10; sys_platform == 'plan9'"]
    )
    missing, fine = doctor.packages()
    assert (missing.level, missing.subject, fine.level) == ("advice", "litert-torch", "ok")
    assert "no TFLite files" in missing.message


def test_a_missing_package_is_an_error(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda name: ["absent-package>=1"])
    assert "missing" in next(doctor.packages()).message


def test_what_saturates_is_said_and_is_no_error():
    facts = {"onnxruntime": {"works": True, "exact": False, "providers": []}}
    (finding,) = doctor.libraries(facts)
    assert finding.level == "advice"
    assert "VNNI" in finding.message
    assert "int8-host.onnx" in finding.remedy


def test_an_optional_library_that_fails_is_advice_a_required_one_an_error():
    found = doctor.libraries({"torch": {"error": "boom"}, "torchvision": {"error": "boom"}})
    assert [f.level for f in found] == ["error", "advice"]


def test_wrong_arithmetic_is_an_error():
    (finding,) = doctor.libraries({"ai-edge-litert": {"works": False, "delegate": True}})
    assert finding.level == "error"
    assert "something else" in finding.message


def test_a_busy_machine_is_said():
    (finding,) = doctor.timing({"load_1min": "3.5"}, 4)
    assert "busy" in finding.message
    assert not list(doctor.timing({"load_1min": "0.1"}, 4))


def test_a_probe_that_crashes_is_a_finding(monkeypatch):
    killed = subprocess.CompletedProcess([], -signal.SIGILL, "", "")
    monkeypatch.setattr(isolated.subprocess, "run", lambda *a, **k: killed)
    assert doctor.run_probe("torch") == {"error": "crashed with signal 4"}


def test_a_probe_that_hangs_is_a_finding():
    assert "did not answer" in doctor.run_probe("torch", timeout_s=0.01)["error"]


def test_a_library_that_cannot_be_imported_says_why():
    if doctor.installed("torchvision"):
        pytest.skip("torchvision is installed here")
    error = doctor.run_probe("torchvision")["error"]
    assert error == "ModuleNotFoundError: No module named 'torchvision'"


@pytest.mark.parametrize("name", ["onnxruntime", "ai-edge-litert"])
def test_the_runtimes_here_compute_what_they_should(name):
    assert doctor.run_probe(name)["works"] is True


def test_the_command_says_what_it_found_and_fails_on_errors(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from edgekd.cli import main

    monkeypatch.setattr(doctor, "run_probes", lambda: {"torch": {"error": "boom"}})
    result = CliRunner().invoke(main, ["doctor", "--out", str(tmp_path), "--json"])
    assert result.exit_code == 1
    torch = next(f for f in json.loads(result.stdout) if f["subject"] == "torch")
    assert torch["level"] == "error"
    assert "boom" in torch["message"]


def test_doctor_starts_without_torch():
    code = "import sys, edgekd.commands.doctor; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
