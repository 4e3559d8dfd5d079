"""Layers in float through the command line: listed, named by hand, asked of a gate, kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekd.cli import main


def edgekd(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def again(finished_run, folder: Path) -> list[str]:
    """The arguments of the finished run, for a copy of it."""
    shutil.copytree(finished_run.folder, folder)
    arguments = [a for a in finished_run.arguments if a != "compress"]
    arguments[arguments.index("--out") + 1] = str(folder)
    return arguments


def test_an_analysis_lists_every_layer_with_damage_and_price(finished_run, tmp_path: Path) -> None:
    result = edgekd("quantize", "--analyze", "--json", *again(finished_run, tmp_path / "run"))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout[result.stdout.index("[\n") :])
    names = [layer["layer"] for layer in found]
    assert len(names) == len(set(names)) > 40
    convolutions = [layer for layer in found if layer["weight"] is not None]
    assert len(convolutions) == 40
    assert all(layer["weight"] > 0 for layer in convolutions)
    # So small, most layers are bound by their calls on a GPU: int8 gains where there is work.
    prices = [layer["price_ms"] for layer in convolutions]
    assert len(set(prices)) > 10
    assert max(prices) > 0
    assert any(name.startswith("backbone.") for name in names)


def test_tuning_wants_a_gate_and_names_by_hand_want_no_tuning(small_set: Path) -> None:
    result = edgekd("compress", "--data", small_set, "--tune")
    assert result.exit_code == 2
    assert "--max-map-drop" in result.output
    both = ("--tune", "--max-map-drop", "1", "--set", "quantize.keep_float=[a, b]")
    result = edgekd("compress", "--data", small_set, *both)
    assert result.exit_code == 2
    assert "give one of the two" in result.output


@pytest.mark.slow
def test_named_layers_stay_float_in_files_contract_and_inspection(
    finished_run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    arguments = again(finished_run, folder)
    listed = edgekd("quantize", "--analyze", "--json", *arguments)
    layers = [entry["layer"] for entry in json.loads(listed.stdout[listed.stdout.index("[\n") :])]
    expand = next(name for name in layers if name.endswith("expand.0"))
    block = expand.removesuffix("expand.0")
    behind = [f"{block}depthwise.0", f"{block}project.0"]
    pair = [expand, next(name for name in behind if name in layers)]
    named = ("--set", f"quantize.keep_float=[{', '.join(pair)}]")
    named += ("--set", "export.neural_compressor=true", "--max-size", "10MiB")
    result = edgekd("compress", *arguments, *named)
    assert result.exit_code == 0, result.output
    assert "FAIL" not in result.output
    for file in ("int8.tflite", "int8.onnx", "int8-host.onnx"):
        found = edgekd("inspect", folder / "export" / file, "--json")
        assert found.exit_code == 0, found.output
        inspection = json.loads(found.stdout)
        assert inspection["contract"]["float_layers"] == pair
        assert 0.5 < inspection["integer_mac_share"] < 1.0
    bundle = next(folder.glob("bundle/*/manifest.json")).parent
    assert edgekd("verify", bundle).exit_code == 0
    record = json.loads((folder / "report" / "report.json").read_text())["record"]
    assert "int8-onnx-nc" in [row["key"] for row in record["rows"]]
    assert [gate["model"] for gate in record["gates"]] == ["int8 ONNX", "int8 TFLite"]
    assert not [c for c in record["checks"] if "int8-nc" in c["name"]]
    assert not list(folder.glob("bundle/*/models/int8-nc*"))
    alone = edgekd("compress", *arguments, "--set", f"quantize.keep_float=[{pair[0]}]")
    assert alone.exit_code == 2
    assert "alone in float" in alone.output
