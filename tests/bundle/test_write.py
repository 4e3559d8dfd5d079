from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgekd.standalone
from edgekd.bundle import write
from edgekd.bundle.write import BundleSource, write_bundle
from edgekd.core.errors import DataError, ModelError, RunError
from edgekd.core.results import Basis, DetectionMetrics, Latency, ModelRow
from edgekd.core.types import Precision

PACKAGE = Path(edgekd.standalone.__file__).parent


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_bundle_holds_all_that_firmware_asks_for(bundle: Path) -> None:
    models = {"float.onnx", "int8.onnx", "float.tflite", "int8.tflite"}
    assert set(files(bundle)) == {
        "README.md", "contract.json", "contract.schema.json", "labels.txt", "decoder.py",
        "replay.py", "manifest.json", "licences/data.txt", "licences/teacher.txt",
        "golden/golden.json", "golden/000.npz", "golden/001.npz", "golden/002.npz",
        *(f"models/{name}" for name in models),
        *(f"models/{name}.contract.json" for name in models),
    }  # fmt: skip
    assert (bundle / "labels.txt").read_text() == "car\nvan\n"
    for name in ("decoder.py", "replay.py"):
        assert (bundle / name).read_bytes() == (PACKAGE / name).read_bytes()


def test_the_manifest_names_size_and_sha256_of_every_other_file(bundle: Path) -> None:
    listed = json.loads((bundle / "manifest.json").read_text())["files"]
    assert listed == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
        for name, content in files(bundle).items()
        if name != "manifest.json"
    }
    assert list(listed) == sorted(listed)


def test_licences_are_stated_or_said_not_to_be(bundle: Path) -> None:
    assert (bundle / "licences/data.txt").read_text() == "CC BY 4.0\n"
    assert "not stated" in (bundle / "licences/teacher.txt").read_text()


def test_the_same_source_gives_the_same_bytes(
    bundle: Path, detector_source: BundleSource, tmp_path: Path
) -> None:
    assert files(bundle) == files(write_bundle(detector_source, tmp_path / "again"))


def test_the_contract_comes_from_the_files_and_names_their_sha256(
    bundle: Path, detector_source: BundleSource
) -> None:
    contract = json.loads((bundle / "contract.json").read_text())
    stated = {file["path"]: file["sha256"] for file in contract["files"]}
    assert stated == {f"models/{item.path.name}": item.sha256 for item in detector_source.artifacts}
    assert contract["created_from"] == {"recipe_sha256": "0" * 64, "edgekd": "0.1.0"}
    assert [item["name"] for item in contract["thresholds"]] == contract["classes"]


def problems(value: Any, schema: dict[str, Any], key: str = "$") -> list[str]:
    """Returns where a document departs from a JSON Schema of the keywords used here."""
    if "anyOf" in schema:
        found = [problems(value, option, key) for option in schema["anyOf"]]
        return [] if [] in found else found[0]
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{key}: {value!r}"]
    kinds = {
        "object": dict, "array": list, "string": str, "null": type(None), "boolean": bool,
        "integer": int, "number": (int, float),
    }  # fmt: skip
    if not isinstance(value, kinds[schema["type"]]):
        return [f"{key}: {value!r} is no {schema['type']}"]
    if isinstance(value, list):
        return [line for item in value for line in problems(item, schema["items"], f"{key}[]")]
    if isinstance(value, dict):
        known = schema["properties"]
        odd = set(schema["required"]) - set(value)
        if schema["additionalProperties"] is False:
            odd |= set(value) - set(known)
        inner = [line for k in known.keys() & value for line in
                 problems(value[k], known[k], f"{key}.{k}")]  # fmt: skip
        return [f"{key}: {name}" for name in sorted(odd)] + inner
    return []


def test_the_contract_validates_against_its_schema(bundle: Path) -> None:
    schema = json.loads((bundle / "contract.schema.json").read_text())
    assert schema["$schema"].endswith("2020-12/schema")
    assert problems(json.loads((bundle / "contract.json").read_text()), schema) == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda c: c.pop("target"), "$: target"),
        (lambda c: c.update(note=""), "$: note"),
        (lambda c: c.update(task="segmentation"), "$.task"),
        (lambda c: c["files"][0].update(precision="int4"), "$.files[].precision"),
        (lambda c: c["files"][0]["input"].update(height="16"), "$.files[].input.height"),
        (lambda c: c["files"][3]["outputs"][0].update(scale="1"), "$.files[].outputs[].scale"),
        (lambda c: c["thresholds"][0].pop("basis"), "$.thresholds[]: basis"),
    ],
)
def test_the_schema_refuses_a_wrong_contract(
    bundle: Path, change: Callable[[Any], Any], where: str
) -> None:
    contract = json.loads((bundle / "contract.json").read_text())
    change(contract)
    (found,) = problems(contract, json.loads((bundle / "contract.schema.json").read_text()))
    assert found.startswith(where)


def test_an_earlier_bundle_is_replaced_only_by_a_whole_one(
    bundle: Path, detector_source: BundleSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(bundle)
    with monkeypatch.context() as patch:
        patch.setattr(write, "write_manifest", lambda _folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_bundle(replace(detector_source, name="other"), bundle)
    assert files(bundle) == before
    write_bundle(replace(detector_source, name="other"), bundle)
    assert json.loads((bundle / "contract.json").read_text())["name"] == "other"
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_never_replaced(
    detector_source: BundleSource, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="is no bundle"):
        write_bundle(detector_source, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": np.zeros((2, 16, 16, 3), np.uint8)}, ModelError, "2 golden images"),
        ({"images": np.zeros((3, 16, 8, 3), np.uint8)}, DataError, r"\(16, 8, 3\)"),
        ({"predictions": None}, RunError, "predictions are missing"),
        ({"licences": {"../data": "x"}}, RunError, r"licence '\.\./data'"),
        ({"artifacts": ()}, RunError, r"files \[\]"),
    ],
    ids=["too few images", "image size", "no predictions", "licence name", "no files"],
)
def test_an_unfit_source_is_refused_and_leaves_nothing(
    detector_source: BundleSource, tmp_path: Path,
    change: dict[str, Any], error: type[Exception], message: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=message):
        write_bundle(replace(detector_source, **change), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_file_changed_since_its_export_is_refused(
    detector_source: BundleSource, tmp_path: Path
) -> None:
    first, *rest = detector_source.artifacts
    changed = replace(first, sha256="f" * 64)
    with pytest.raises(ModelError, match=r"float\.onnx: has changed"):
        write_bundle(replace(detector_source, artifacts=(changed, *rest)), tmp_path / "bundle")


def test_the_readme_labels_what_is_measured_and_what_is_predicted(
    detector_source: BundleSource, tmp_path: Path
) -> None:
    figures = dict.fromkeys(
        ("ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100"), 0.0
    )
    timed = Latency(
        basis=Basis.MEASURED, where="Some CPU", runtime="litert", runtime_version="2",
        delegate="xnnpack", threads=1, median_ms=4.5,
    )  # fmt: skip
    guessed = replace(
        timed, basis=Basis.PREDICTED, where="raspberry-pi", median_ms=9.0, low_ms=5.0,
        high_ms=30.0, note="uncalibrated",
    )  # fmt: skip
    row = ModelRow(
        key="int8-tflite", name="int8 TFLite", runtime="litert 2", precision=Precision.INT8,
        parameters=1, macs=1, size_bytes=4321, path=None, measured=timed, predicted=guessed,
        metrics=DetectionMetrics(map=0.4321, per_class={}, images=4, **figures),
    )  # fmt: skip
    bundle = write_bundle(replace(detector_source, rows=(row,)), tmp_path / "bundle")
    (line,) = [t for t in (bundle / "README.md").read_text().splitlines() if "4321" in t]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "int8 TFLite", "litert 2", "int8", "4321", "43.21", "4.5 (measured, Some CPU, threads 1)",
        "9 ([5, 30], predicted, uncalibrated, raspberry-pi, threads 1)",
    ]  # fmt: skip


def test_a_classifier_has_labels_to_expect_and_no_thresholds(
    classifier_source: BundleSource, tmp_path: Path
) -> None:
    bundle = write_bundle(classifier_source, tmp_path / "bundle")
    assert json.loads((bundle / "contract.json").read_text())["thresholds"] == []
    golden = json.loads((bundle / "golden/golden.json").read_text())
    for file in golden["files"].values():
        assert [set(entry) for entry in file["expected"]] == [{"label"}] * 3
