"""What `replay.py` says of whole and of tampered bundles."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import edgekd.standalone.replay
from edgekd.bundle.manifest import write_manifest
from edgekd.bundle.write import BundleSource, write_bundle
from edgekd.core.files import sha256_of
from edgekd.export.detection_tail import TAIL_OUTPUTS, with_detection_tail
from edgekd.modelfile.contract import KEY, Decoding, dump_contract, read_contract
from edgekd.standalone.decoder import IN_THE_FILE
from edgekd.standalone.replay import main, replay

Edit = Callable[[Path, Callable[[Any], None]], None]


def alter(path: Path, changes: dict[str, Callable[[np.ndarray], None]]) -> None:
    """Changes arrays of a golden vector in place."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name, change in changes.items():
        change(arrays[name])
    np.savez_compressed(path, **arrays)


def by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {file["file"]: file for file in result["files"]}


def test_a_whole_bundle_passes_with_every_runtime(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bundle), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["passed"]
    files = by_name(result)
    assert set(files) == {"float.onnx", "int8.onnx", "float.tflite", "int8.tflite"}
    for file in files.values():
        assert file["status"] == "passed"
        assert file["kernels"][file["nearest"]]["equal"] == 1.0
        assert file["decisions"]["found"] == file["decisions"]["expected"] > 0
    assert set(files["int8.tflite"]["kernels"]) == {"default", "builtin"}


def test_a_classifier_passes(classifier_source: BundleSource, tmp_path: Path) -> None:
    result = replay(write_bundle(classifier_source, tmp_path / "bundle"))
    assert result["passed"]
    assert all(file["decisions"]["found"] == 3 for file in result["files"])


def test_a_classifier_with_another_best_class_fails(
    classifier_source: BundleSource, tmp_path: Path, edit: Edit
) -> None:
    bundle = write_bundle(classifier_source, tmp_path / "bundle")

    def other(golden: Any) -> None:
        entry = golden["files"]["float.onnx"]["expected"][0]
        entry["label"] = 1 - entry["label"]

    edit(bundle / "golden/golden.json", other)
    write_manifest(bundle)
    result = replay(bundle)
    assert not result["passed"]
    assert by_name(result)["float.onnx"]["reasons"] == ["best class: another in 1 of 3 images"]


def test_it_runs_alone_from_inside_the_bundle_and_leaves_nothing(bundle: Path) -> None:
    before = sorted(bundle.rglob("*"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    # The environment has the package, so refusing it proves that it is not needed.
    hook = "import sys; sys.modules['edgekd'] = None; sys.argv = ['replay.py']; import runpy; "
    done = subprocess.run(
        [sys.executable, "-c", hook + "runpy.run_path('replay.py', run_name='__main__')"],
        cwd=bundle, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "passed"
    assert sorted(bundle.rglob("*")) == before


def test_one_file_can_be_picked(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle), "--file", "int8.tflite"]) == 0
    printed = capsys.readouterr().out
    assert "int8.tflite: passed (ai-edge-litert" in printed
    assert "float" not in printed
    assert main([str(bundle), "--file", "int4.tflite"]) == 2
    assert "legal: float.onnx, float.tflite" in capsys.readouterr().err


def test_an_int8_file_runs_in_the_form_that_a_board_computes(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = []

    class Options(onnxruntime.SessionOptions):
        def add_session_config_entry(self, key: str, value: str) -> None:
            entries.append((key, value))
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    replay(bundle, "float.onnx")
    assert entries == []
    replay(bundle, "int8.onnx")
    assert entries == [("session.qdqisint8allowed", "1")]


class Tensorrt(types.ModuleType):
    """An ONNX Runtime that names TensorRT among its providers, and asks the CPU in its place.

    Attributes:
        loads: Whether TensorRT's library can be loaded; if not, a session is without it.
        takes: Whether TensorRT takes every operator.
        opened: Providers and configuration of every session that was opened.
    """

    def __init__(self, *, loads: bool, takes: bool) -> None:
        super().__init__("onnxruntime")
        self.loads, self.takes = loads, takes
        self.opened: list[tuple[list[Any], dict[str, str]]] = []

        class Options(onnxruntime.SessionOptions):
            def __init__(self) -> None:
                super().__init__()
                self.entries: dict[str, str] = {}

            def add_session_config_entry(self, key: str, value: str) -> None:
                self.entries[key] = value

        self.SessionOptions = Options

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, path: str, options: Any, providers: list[Any]) -> Any:
        self.opened.append((providers, options.entries))
        asked = providers[0] != "CPUExecutionProvider"
        strict = options.entries.get("session.disable_cpu_ep_fallback") == "1"
        if asked and strict and not (self.loads and self.takes):
            raise RuntimeError("nodes are assigned to the default CPU execution provider")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        if asked and self.loads:
            session.get_providers = self.get_available_providers
        return session


@pytest.fixture
def on_a_jetson(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensorrt]:
    def install(**what: bool) -> Tensorrt:
        module = Tensorrt(**what)
        monkeypatch.setitem(sys.modules, "onnxruntime", module)
        return module

    return install


def test_int8_runs_on_tensorrt_where_onnx_runtime_has_it(
    bundle: Path, on_a_jetson: Callable[..., Tensorrt]
) -> None:
    module = on_a_jetson(loads=True, takes=True)
    files = by_name(replay(bundle))
    assert files["int8.onnx"]["runtime"].endswith(", TensorRT")
    assert files["float.onnx"]["runtime"].endswith(", CPU")
    ((tensorrt, entries),) = [o for o in module.opened if o[0] != ["CPUExecutionProvider"]]
    enabled = {"trt_int8_enable": "True", "trt_fp16_enable": "False"}
    assert tensorrt[0] == ("TensorrtExecutionProvider", enabled)
    assert entries["session.disable_quant_qdq"] == "1"


def test_an_operator_that_tensorrt_leaves_is_no_pass(
    bundle: Path, on_a_jetson: Callable[..., Tensorrt]
) -> None:
    on_a_jetson(loads=True, takes=False)
    files = by_name(replay(bundle))
    assert files["int8.onnx"]["status"] == "failed"
    assert "TensorRT does not take every operator" in files["int8.onnx"]["reasons"][0]


def test_a_tensorrt_that_does_not_load_is_said(
    bundle: Path, on_a_jetson: Callable[..., Tensorrt]
) -> None:
    on_a_jetson(loads=False, takes=True)
    files = by_name(replay(bundle))
    assert files["int8.onnx"]["status"] == "passed"
    assert files["int8.onnx"]["runtime"].endswith(", CPU, for its TensorRT does not load")


def test_a_tampered_model_is_named_and_never_loaded(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bundle / "models/int8.tflite"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    monkeypatch.setattr(edgekd.standalone.replay, "open_model", lambda *_: pytest.fail("loaded"))
    assert main([str(bundle)]) == 1
    printed = capsys.readouterr().out
    digest = hashlib.sha256(content).hexdigest()
    assert f"changed: models/int8.tflite: sha256 is {digest}; manifest.json has" in printed
    assert printed.endswith("FAILED\n")


def test_a_golden_value_beyond_the_tolerance_fails(bundle: Path) -> None:
    def far(values: np.ndarray) -> None:
        values[0, 0, 0, 0] += 40 if values[0, 0, 0, 0] < 0 else -40

    changes = {f"int8.tflite/{kernels}/scores_8": far for kernels in ("default", "builtin")}
    alter(bundle / "golden/001.npz", changes)
    write_manifest(bundle)
    result = replay(bundle)
    assert not result["passed"]
    files = by_name(result)
    # One value of 24 is 40 steps off: an RMS of 40 / sqrt(24).
    assert files["int8.tflite"]["kernels"]["builtin"]["rms"] == pytest.approx(8.165, abs=0.1)
    (reason,) = files["int8.tflite"]["reasons"]
    assert reason.startswith("raw outputs are 8.")
    assert [name for name, file in files.items() if file["status"] == "failed"] == ["int8.tflite"]


def test_decisions_are_those_of_the_kernels_that_a_board_has(bundle: Path, edit: Edit) -> None:
    def far(values: np.ndarray) -> None:
        values[...] = np.clip(values.astype(np.int16) + 30, -128, 127)

    for path in (bundle / "golden").glob("*.npz"):
        names = [n for n in np.load(path).files if n.startswith("int8.tflite/default/")]
        alter(path, dict.fromkeys(names, far))

    def others(golden: Any) -> None:
        for entry in golden["files"]["int8.tflite"]["expected"]:
            entry["labels"] = [1 - label for label in entry["labels"]]

    edit(bundle / "golden" / "golden.json", others)
    write_manifest(bundle)
    found = by_name(replay(bundle, "int8.tflite"))["int8.tflite"]
    assert found["nearest"] == "builtin"
    assert found["status"] == "passed"
    assert found["decisions"]["found"] == found["decisions"]["expected"] > 0


def test_a_step_here_and_there_passes_and_is_shown(bundle: Path) -> None:
    def near(values: np.ndarray) -> None:
        values[0, 0, 0, :2] += 1 if values.max() < 127 else -1

    alter(bundle / "golden/001.npz", {"int8.tflite/default/boxes_8": near})
    alter(bundle / "golden/001.npz", {"int8.tflite/builtin/boxes_8": near})
    write_manifest(bundle)
    result = replay(bundle)
    assert result["passed"]
    row = by_name(result)["int8.tflite"]["kernels"]["default"]
    assert row["equal"] == pytest.approx(1 - 2 / 72)
    assert row["within"] == 1.0
    assert row["max"] == 1.0
    assert row["rms"] == pytest.approx((2 / 24) ** 0.5)


def test_the_recorded_spread_widens_what_is_allowed(bundle: Path, edit: Edit) -> None:
    golden = bundle / "golden/golden.json"
    edit(golden, lambda g: g["files"]["int8.tflite"]["spread"].update(rms=2.0))
    edit(golden, lambda g: g["files"]["float.tflite"]["spread"].update(rms=0.0))
    write_manifest(bundle)
    files = by_name(replay(bundle))
    assert files["int8.tflite"]["allowed"] == 2.5
    assert files["float.tflite"]["allowed"] == 1e-3
    assert files["int8.onnx"]["allowed"] == 0.5


def _wrong_output_scale(contract: Any) -> None:
    contract["files"][3]["outputs"][0]["scale"] *= 1.25


def _wrong_input_scale(contract: Any) -> None:
    contract["files"][3]["input"]["scale"] *= 2


def _wrong_mean(contract: Any) -> None:
    contract["files"][0]["input"]["mean"] = 0.0


def _wrong_threshold(contract: Any) -> None:
    for item in contract["thresholds"]:
        item["score"] = 0.01


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        (_wrong_output_scale, "int8.tflite", "scores_8: scale is 0.0787"),
        (_wrong_input_scale, "int8.tflite", "input: scale is 0.015625 in contract.json, 0.0078125"),
        (_wrong_mean, "float.onnx", "raw outputs are"),
        (_wrong_threshold, "int8.onnx", "unexpected"),
    ],
)
def test_a_contract_that_is_not_the_files_fails(
    bundle: Path, edit: Edit, change: Callable[[Any], None], name: str, reason: str
) -> None:
    edit(bundle / "contract.json", change)
    write_manifest(bundle)
    result = replay(bundle)
    assert not result["passed"]
    assert any(reason in line for line in by_name(result)[name]["reasons"])


def _escape(bundle: Path, edit: Edit) -> None:
    (bundle.parent / "secret").write_text("key")
    edit(bundle / "manifest.json", lambda m: m["files"].update({"../secret": {"sha256": "0"}}))


def _link(bundle: Path, _edit: Edit) -> None:
    (bundle.parent / "secret").write_text("key")
    (bundle / "labels.txt").unlink()
    (bundle / "labels.txt").symlink_to(bundle.parent / "secret")


def _absolute(bundle: Path, edit: Edit) -> None:
    edit(bundle / "manifest.json", lambda m: m["files"].update({"/etc/hostname": {}}))


def _unlisted(bundle: Path, edit: Edit) -> None:
    edit(bundle / "contract.json", lambda c: c["files"][0].update(path="../secret/float.onnx"))
    write_manifest(bundle)


def _missing(bundle: Path, _edit: Edit) -> None:
    (bundle / "models/int8.onnx").unlink()


def _truncated(bundle: Path, _edit: Edit) -> None:
    path = bundle / "golden/000.npz"
    path.write_bytes(path.read_bytes()[:100])
    write_manifest(bundle)


def _no_json(bundle: Path, _edit: Edit) -> None:
    (bundle / "manifest.json").write_text("{")


def _shortened(bundle: Path, edit: Edit) -> None:
    edit(bundle / "golden/golden.json", lambda g: g["files"]["int8.onnx"]["expected"].pop())
    write_manifest(bundle)


def _keyless(bundle: Path, edit: Edit) -> None:
    edit(bundle / "contract.json", lambda c: c.pop("files"))
    write_manifest(bundle)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_escape, "'../secret' leaves the bundle"),
        (_link, "labels.txt: is a link"),
        (_absolute, "'/etc/hostname' leaves the bundle"),
        (_unlisted, "'../secret/float.onnx' is not listed"),
        (_missing, "int8.onnx: listed in manifest.json and missing"),
        (_truncated, "000.npz: cannot be read"),
        (_no_json, "manifest.json: cannot be read"),
        (_shortened, "golden.json has 2 results for int8.onnx"),
        (_keyless, "malformed: KeyError('files')"),
    ],
)
def test_an_unreadable_bundle_is_refused_with_code_2(
    bundle: Path, edit: Edit, capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path, Edit], None], message: str,
) -> None:  # fmt: skip
    damage(bundle, edit)
    assert main([str(bundle)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err


def test_files_without_a_runtime_are_named_and_the_others_run(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main([str(bundle)]) == 0
    printed = capsys.readouterr().out
    assert "int8.onnx: not run" in printed
    assert "no runtime is installed (onnxruntime: " in printed
    assert "int8.tflite: passed" in printed


def test_without_any_runtime_nothing_is_claimed(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("onnxruntime", "ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main([str(bundle)]) == 2
    printed = capsys.readouterr().err
    assert "nothing could be run here" in printed
    assert "tflite-runtime: " in printed


def test_onnx_runtime_counts_by_whatever_name_its_package_has(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(name: str) -> str:
        if name == "onnxruntime":  # As with onnxruntime-gpu, which is what a Jetson has.
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(edgekd.standalone.replay, "version", unknown)
    file = by_name(replay(bundle))["int8.onnx"]
    assert file["status"] == "passed"
    assert file["runtime"].startswith(f"onnxruntime {onnxruntime.__version__}")


def test_a_model_that_the_runtime_refuses_fails(bundle: Path) -> None:
    for name in ("int8.onnx", "int8.tflite"):
        path = bundle / "models" / name
        path.write_bytes(path.read_bytes()[:200])
    write_manifest(bundle)
    files = by_name(replay(bundle))
    for name in ("int8.onnx", "int8.tflite"):
        assert files[name]["status"] == "failed"
        assert files[name]["reasons"][0].startswith("refused by ")


def test_outputs_without_a_decoder_are_compared_raw(
    detector_source: BundleSource, tmp_path: Path, edit: Edit
) -> None:
    bundle = write_bundle(replace(detector_source, name="raw"), tmp_path / "bundle")

    def undecoded(contract: Any) -> None:
        for file in contract["files"]:
            file["decoding"]["decoder"] = "none"

    def unread(golden: Any) -> None:
        for file in golden["files"].values():
            file["expected"] = []

    edit(bundle / "contract.json", undecoded)
    edit(bundle / "golden/golden.json", unread)
    edit(bundle / "contract.json", lambda c: c.update(thresholds=[]))
    write_manifest(bundle)
    result = replay(bundle)
    assert result["passed"]
    assert all(file["decisions"] == {} for file in result["files"])


def test_a_file_that_ends_in_detections_is_compared_by_them(
    detector_source: BundleSource, tmp_path: Path, edit: Edit
) -> None:
    plain = detector_source.artifacts[0]
    path = tmp_path / "float-detect.onnx"
    model = with_detection_tail(onnx.load(plain.path), plain.outputs, min_score=0.05)
    contract = replace(
        read_contract(plain.path), outputs=TAIL_OUTPUTS, decoding=Decoding(decoder=IN_THE_FILE)
    )
    onnx.helper.set_model_props(model, {KEY: dump_contract(contract)})
    onnx.save(model, path)
    twin = replace(plain, path=path, outputs=TAIL_OUTPUTS, sha256=sha256_of(path))
    both = replace(detector_source, artifacts=(plain, twin))
    bundle = write_bundle(both, tmp_path / "bundle")
    result = replay(bundle)
    assert result["passed"]
    first, second = result["files"]
    assert second["decisions"] | {"median_iou": 1.0} == first["decisions"]
    edit(
        bundle / "golden/golden.json",
        lambda g: g["files"]["float-detect.onnx"]["expected"][0]["labels"].__setitem__(0, -1),
    )
    write_manifest(bundle)
    assert by_name(replay(bundle))["float-detect.onnx"]["status"] == "failed"
