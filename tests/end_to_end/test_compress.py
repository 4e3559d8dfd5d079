"""The whole path through the command line, on a small rendered set."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from edgekd.cli import main
from edgekd.config.recipe import load_recipe
from edgekd.core.files import sha256_of
from edgekd.core.progress import SilentProgress
from edgekd.data.dataset import load
from edgekd.measure.detector import FileModel, predict_file, score
from edgekd.modelfile.contract import read_contract
from edgekd.modelfile.read import read_operators
from edgekd.report.record import from_json, to_json
from edgekd.run.inputs import demo_recipe

pytestmark = pytest.mark.xdist_group("run")


def edgekd(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_a_run_writes_exactly_these_files(finished_run) -> None:
    written = {
        str(p.relative_to(finished_run.folder))
        for p in finished_run.folder.rglob("*")
        if p.is_file()
    }
    stage = {".edgekd", "done.json", "inputs.json"}
    expected = {".edgekd", ".lock", "events.jsonl", "recipe.yaml"}
    expected |= {
        f"{s}/{f}"
        for s in ("baseline", "distill")
        for f in stage | {"student.safetensors", "curve.json"}
    }
    expected |= {
        f"{s}/{f}"
        for s in ("float", "quantize")
        for f in stage | {"graph.safetensors", "curve.json"}
    }
    expected |= {f"{s}/methods.safetensors" for s in ("distill", "float", "quantize")}
    files = {"float.onnx", "int8.onnx", "int8-host.onnx", "float.tflite", "int8.tflite"}
    expected |= {f"export/{f}" for f in stage | files | {f"{n}.contract.json" for n in files}}
    expected |= {"export/artifacts.json", "export/checks.json", "export/decoder.py"}
    expected |= {f"benchmark/{f}" for f in stage | {"record.json"}}
    expected |= {f"report/{f}" for f in stage | {"report.json", "report.html"}}
    expected |= {f"bundle/{f}" for f in stage}
    inside = {"README.md", "contract.json", "contract.schema.json", "decoder.py", "labels.txt"}
    inside |= {"manifest.json", "replay.py", "licences/data.txt", "licences/teacher.txt"}
    inside |= {f"golden/{n:03}.npz" for n in range(4)} | {"golden/golden.json"}
    inside |= {f"models/{f}" for f in files | {f"{n}.contract.json" for n in files}}
    expected |= {f"bundle/run-raspberry-pi/{f}" for f in inside}
    assert written == expected


def test_every_proof_passes_and_every_row_is_there(finished_run) -> None:
    record = from_json((finished_run.folder / "report" / "report.json").read_text())
    assert [r.key for r in record.rows] == [
        "teacher", "student-no-kd", "student", "student-float",
        "float-onnx", "int8-onnx", "int8-onnx-host", "float-tflite", "int8-tflite",
    ]  # fmt: skip
    assert all(check.passed for check in record.checks)
    kinds = {check.name.split("/")[0] for check in record.checks}
    assert kinds == {"parity", "coverage", "conformance", "decisions"}
    decided = {c.name for c in record.checks if c.name.startswith("decisions/")}
    assert decided == {f"decisions/int8-{name}" for name in ("onnx", "tflite", "files")}
    measured = [r for r in record.rows if r.measured]
    timed = {"float-onnx", "int8-onnx-host", "float-tflite", "int8-tflite"}
    assert timed <= {r.key for r in measured} <= timed | {"int8-onnx"}
    assert all(r.measured.basis == "measured" and r.measured.runs == 50 for r in measured)
    assert all(r.predicted.basis == "predicted" for r in record.rows if r.predicted)
    assert {r.key for r in record.rows if r.everywhere} == {
        "float-onnx", "float-tflite", "int8-onnx", "int8-tflite",
    }  # fmt: skip
    for r in record.rows:
        if r.predicted:
            assert r.predicted in r.everywhere
            total = sum(cost.ms for cost in r.operators)
            assert total == pytest.approx(r.predicted.median_ms, rel=1e-6)


def test_the_same_command_again_repeats_no_finished_stage(finished_run) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished_run.folder.rglob("*.safetensors")}
    result = edgekd(*finished_run.arguments)
    assert result.exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in finished_run.folder.rglob("*.safetensors")} == before
    lines = (finished_run.folder / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["event"] for e in events[-8:]] == ["skipped"] * 8


def test_int8_files_take_pixels_minus_128_and_say_what_they_return(finished_run) -> None:
    lite = read_contract(finished_run.folder / "export" / "int8.tflite")
    assert (lite.input.dtype, lite.input.scale, lite.input.zero_point) == ("int8", 1 / 128, 0)
    assert lite.input.layout == "NHWC"
    assert [o.name for o in lite.outputs] == ["scores_8", "boxes_8", "scores_16", "boxes_16"]
    host = read_contract(finished_run.folder / "export" / "int8-host.onnx")
    assert (host.form, host.input.dtype) == ("host", "float32")


def test_files_carry_no_path_of_this_machine_and_no_stack_trace(finished_run) -> None:
    for path in (finished_run.folder / "export").glob("*.onnx"):
        model = onnx.load(path)
        assert not any(n.metadata_props or n.doc_string for n in model.graph.node)
    for path in (finished_run.folder / "export").glob("*.*"):
        content = path.read_bytes()
        for trace in (b"site-packages", b"/home/", b"/root/", b"/tmp/", b'File "'):
            assert trace not in content, (path.name, trace)


def test_int8_files_are_whole_integer_and_small(finished_run) -> None:
    for name in ("int8.onnx", "int8.tflite", "int8-host.onnx"):
        operators = read_operators(finished_run.folder / "export" / name)
        assert operators.integer_mac_share == 1.0
    sizes = {p.name: p.stat().st_size for p in (finished_run.folder / "export").glob("*.*")}
    assert sizes["int8.tflite"] < 0.5 * sizes["float.tflite"]
    assert sizes["int8.onnx"] < 0.5 * sizes["float.onnx"]


def test_eval_gives_the_reports_figure(finished_run, small_set: Path) -> None:
    path = finished_run.folder / "export" / "int8.tflite"
    dataset = load(small_set, "val")
    metrics = score(dataset, predict_file(FileModel(path), dataset, SilentProgress(), "x"))
    record = from_json((finished_run.folder / "report" / "report.json").read_text())
    row = next(r for r in record.rows if r.key == "int8-tflite")
    assert metrics == row.metrics
    result = edgekd("eval", path, "--data", small_set, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout.splitlines()[-1])["map"] == pytest.approx(metrics.map)


def test_predict_draws_boxes_and_writes_json(finished_run, small_set: Path, tmp_path: Path) -> None:
    path = finished_run.folder / "export" / "int8.onnx"
    result = edgekd(
        "predict", path, small_set / "val", "--out", tmp_path / "out", "--min-score", "0.005"
    )
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(rows) == 8
    assert len(list((tmp_path / "out").glob("*.png"))) == 8
    for row in rows:
        for detection in row["detections"]:
            box = np.array(detection["box_xyxy"])
            assert (box >= 0).all()
            assert (box <= [320, 240, 320, 240]).all()


@pytest.mark.parametrize(
    "name", ["float.onnx", "int8.onnx", "int8-host.onnx", "float.tflite", "int8.tflite"]
)
def test_inspect_and_bench_serve_every_file(finished_run, name: str) -> None:
    path = finished_run.folder / "export" / name
    inspected = edgekd("inspect", path, "--json")
    assert inspected.exit_code == 0, inspected.output
    found = json.loads(inspected.stdout)
    assert found["errors"] == 0
    assert found["integer_mac_share"] == (1.0 if name.startswith("int8") else 0.0)
    predicted = edgekd("bench", path, "--target", "raspberry-pi", "--json")
    assert json.loads(predicted.stdout)["basis"] == "predicted"
    measured = json.loads(edgekd("bench", path, "--seconds", "0", "--json").stdout)
    assert measured["basis"] == "measured"
    assert measured["timing"]["median_ms"] > 0


def test_report_shows_a_finished_run_again(finished_run) -> None:
    html = finished_run.folder / "report" / "report.html"
    before = sha256_of(html)
    html.write_text("damaged")
    result = edgekd("report", finished_run.folder)
    assert result.exit_code == 0, result.output
    assert "int8 TFLite" in result.output
    assert sha256_of(html) == before


def test_a_gate_that_fails_shows_its_table_and_has_its_own_exit_code(finished_run) -> None:
    passing = ("--max-size", "10MiB", "--max-memory", "1GiB", "--max-latency", "10s")
    result = edgekd("report", finished_run.folder, *passing)
    assert result.exit_code == 0, result.output
    result = edgekd("report", finished_run.folder, *passing, "--max-size", "1KiB")
    assert result.exit_code == 4
    assert "FAIL gate size of int8 TFLite" in result.output
    assert "PASS gate latency of int8 TFLite" in result.output
    assert "predicted" in result.output
    assert "2 of 6 gates failed" in result.output


def test_a_run_that_misses_a_gate_has_a_report_and_no_bundle(finished_run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    assert (run / "bundle").exists()
    arguments = [str(run) if a == str(finished_run.folder) else a for a in finished_run.arguments]
    trained = (run / "quantize" / "graph.safetensors").stat().st_mtime_ns
    result = edgekd(*arguments, "--max-size", "1KiB")
    assert result.exit_code == 4
    assert "FAIL gate size" in result.output
    assert "bundle:" not in result.output
    as_json = edgekd(*arguments, "--max-size", "1KiB", "--json")
    assert as_json.exit_code == 4
    assert [gate.passed for gate in from_json(as_json.stdout).gates] == [False, False]
    assert "Gates: 0 of 2 met" in (run / "report" / "report.html").read_text()
    assert not (run / "bundle").exists()
    assert edgekd("bundle", run, "--out", tmp_path / "out").exit_code == 4
    assert not (tmp_path / "out").exists()
    assert (run / "quantize" / "graph.safetensors").stat().st_mtime_ns == trained
    assert edgekd(*arguments).exit_code == 0
    assert (run / "bundle").exists()


@pytest.mark.parametrize("flag", ["--max-latency", "--max-size", "--max-map-drop"])
def test_a_limit_that_is_none_is_refused_before_anything(tmp_path: Path, flag: str) -> None:
    result = edgekd("compress", "--out", tmp_path / "run", flag, "much")
    assert result.exit_code == 2
    assert "such as" in result.output
    assert not (tmp_path / "run").exists()


def test_init_writes_a_recipe_that_the_other_commands_accept(boats: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    assert edgekd("init", boats, "--out", recipe).exit_code == 0
    assert edgekd("init", boats, "--out", recipe).exit_code == 2
    loaded = load_recipe(recipe)
    assert (loaded.input.height, loaded.input.width) == (256, 320)
    assert loaded.input.channels == 3
    assert "#" in recipe.read_text()


def test_init_starts_from_the_recipe_of_a_teacher_that_ships_for_these_classes(
    small_set: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    assert edgekd("init", small_set, "--out", recipe).exit_code == 0
    assert load_recipe(recipe).input == demo_recipe().input


def test_the_bundle_replays_here_and_says_where_it_comes_from(finished_run) -> None:
    bundle = finished_run.folder / "bundle" / "run-raspberry-pi"
    result = edgekd("verify", bundle)
    assert result.exit_code == 0, result.output
    assert "int8.tflite: passed" in result.output
    assert "int8.onnx: passed" in result.output
    assert "data.licence" in (bundle / "licences" / "data.txt").read_text()
    contract = json.loads((bundle / "contract.json").read_text())
    assert contract["classes"] == list(read_contract(bundle / "models" / "int8.onnx").classes)


def test_a_changed_weight_does_not_verify(finished_run, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(finished_run.folder / "bundle" / "run-raspberry-pi", bundle)
    model = bundle / "models" / "int8.tflite"
    blob = bytearray(model.read_bytes())
    blob[len(blob) // 2] ^= 0xFF
    model.write_bytes(bytes(blob))
    result = edgekd("verify", bundle)
    assert result.exit_code == 1
    assert "int8.tflite" in result.output


def test_a_bundle_can_be_made_again_elsewhere(finished_run, tmp_path: Path) -> None:
    result = edgekd("bundle", finished_run.folder, "--out", tmp_path / "handed-over")
    assert result.exit_code == 0, result.output
    first = finished_run.folder / "bundle" / "run-raspberry-pi" / "manifest.json"
    again = tmp_path / "handed-over" / "manifest.json"
    assert json.loads(first.read_text()) == json.loads(again.read_text())


def test_a_run_that_failed_a_proof_is_neither_bundled_nor_reported_as_good(
    finished_run, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    path = run / "report" / "report.json"
    record = from_json(path.read_text())
    failed = replace(record.checks[-1], passed=False)
    path.write_text(to_json(replace(record, checks=(*record.checks[:-1], failed))))
    for command in (("bundle", run, "--out", tmp_path / "out"), ("report", run)):
        result = edgekd(*command)
        assert result.exit_code == 3, result.output
        assert failed.name in result.output
    assert not (tmp_path / "out").exists()


def test_files_made_anew_have_no_report_of_the_old_ones(finished_run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    arguments = [str(run) if a == str(finished_run.folder) else a for a in finished_run.arguments]
    anew = ["--until", "export", "--set", "export.proof_images=3"]
    assert edgekd(*arguments, *anew).exit_code == 0
    result = edgekd("bundle", run, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "no report there" in result.output
    assert not (run / "bundle").exists()


def test_a_bundle_is_made_beside_the_run_wherever_one_stands(
    finished_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished_run.folder, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    result = edgekd("bundle", ".")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run-bundle" / "manifest.json").exists()


@pytest.mark.slow
def test_a_file_with_a_tail_finds_what_its_twin_finds(
    finished_run, small_set: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    arguments = [str(run) if a == str(finished_run.folder) else a for a in finished_run.arguments]
    tail = ["--set", "export.detection_tail=true", "--set", "export.tail_score=0.001"]
    result = edgekd(*arguments, *tail, "--until", "export")
    assert result.exit_code == 0, result.output
    checks = json.loads((run / "export" / "checks.json").read_text())
    passed = {c["name"] for c in checks if c["passed"]}
    names = ("float", "int8", "int8-host")
    assert {f"parity/detections/{name}-detect.onnx" for name in names} <= passed
    tailed, bare = (FileModel(run / "export" / f"int8{t}.onnx") for t in ("-detect", ""))
    dataset = load(small_set, "val")
    a, b = (score(dataset, predict_file(m, dataset, SilentProgress(), "")) for m in (tailed, bare))
    assert a == b


def test_where_the_converter_has_no_wheel_onnx_is_made_and_tflite_is_not_promised(
    finished_run, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.run.inputs.find_spec", lambda _name: None)
    arguments = [a for a in finished_run.arguments if a != "--baseline"]
    arguments[arguments.index("--out") + 1] = str(tmp_path / "run")
    result = CliRunner().invoke(main, [*arguments, "--until", "export"])
    assert result.exit_code == 0, result.output
    assert "no TFLite files: the converter, litert-torch, is not installed" in result.output
    made = {p.name for p in (tmp_path / "run" / "export").iterdir()}
    assert {"float.onnx", "int8.onnx", "int8-host.onnx"} <= made
    assert not [name for name in made if "tflite" in name]
    refused = CliRunner().invoke(main, [*arguments, "--set", "export.formats=[tflite]"])
    assert refused.exit_code == 2
    assert "legal here: [onnx]" in refused.output
