from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.bundle import golden
from edgekd.bundle.write import BundleSource, write_bundle
from edgekd.core.types import Arithmetic, Artifact, arithmetic_of
from edgekd.data.image import to_input
from edgekd.modelfile.runner import open_runner
from edgekd.standalone import decoder


def vectors(bundle: Path) -> list[dict[str, np.ndarray]]:
    found = []
    for path in sorted(bundle.glob("golden/*.npz")):
        with np.load(path) as archive:
            found.append({name: archive[name] for name in archive.files})
    return found


def document(bundle: Path, name: str) -> dict[str, Any]:
    files: dict[str, Any] = json.loads((bundle / "golden/golden.json").read_text())["files"]
    return files[name]


def test_vectors_hold_what_every_runtime_gave_for_the_image(
    bundle: Path, detector_source: BundleSource
) -> None:
    by_name: dict[str, Artifact] = {item.path.name: item for item in detector_source.artifacts}
    sets = [(name, "default") for name in by_name]
    sets += [(name, "builtin") for name in by_name if name.endswith("tflite")]
    for vector, image in zip(vectors(bundle), detector_source.images, strict=True):
        np.testing.assert_array_equal(vector["image"], image)
        assert set(vector) == {"image"} | {
            f"{name}/{kernels}/{output}"
            for name, kernels in sets
            for output in ("scores_8", "boxes_8")
        }
        for name, kernels in sets:
            file = by_name[name]
            runner = open_runner(
                file.path,
                arithmetic=arithmetic_of(file.precision, file.form),
                kernels=kernels,  # type: ignore[arg-type]
            )
            outputs = runner.run(to_input(image, file.input))
            for spec, values in zip(file.outputs, outputs, strict=True):
                recorded = vector[f"{name}/{kernels}/{spec.name}"]
                assert recorded.dtype == values.dtype
                np.testing.assert_array_equal(recorded, values)


def test_an_int8_file_of_a_board_is_recorded_in_the_form_that_a_board_computes(
    detector_source: BundleSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = {}

    def spy(path: Path, *, arithmetic: Arithmetic, **options: Any) -> Any:
        computed[path.name] = arithmetic
        return open_runner(path, arithmetic=arithmetic, **options)

    monkeypatch.setattr(golden, "open_runner", spy)
    write_bundle(detector_source, tmp_path / "bundle")
    assert computed["int8.onnx"] == "int8"
    assert computed["float.onnx"] == "any"


def test_the_unit_is_a_step_of_the_file_or_the_range_of_a_float_output(bundle: Path) -> None:
    assert document(bundle, "int8.tflite")["units"] == {"scores_8": 1.0, "boxes_8": 1.0}
    steps = document(bundle, "int8.onnx")["units"]
    assert steps == pytest.approx({"scores_8": 8 / 127, "boxes_8": 1 / 64})
    recorded = [vector["float.onnx/default/scores_8"] for vector in vectors(bundle)]
    assert document(bundle, "float.onnx")["units"]["scores_8"] == pytest.approx(np.ptp(recorded))
    measures = {name: document(bundle, name)["measure"] for name in ("int8.onnx", "float.onnx")}
    assert measures == {"int8.onnx": "steps", "float.onnx": "range"}


@pytest.mark.parametrize("name", ["int8.tflite", "float.tflite"])
def test_the_spread_is_that_between_the_kernel_sets(bundle: Path, name: str) -> None:
    entry = document(bundle, name)
    worst, largest = 0.0, 0.0
    for vector in vectors(bundle):
        away = np.concatenate(
            [
                (
                    vector[f"{name}/default/{output}"].astype(np.float64)
                    - vector[f"{name}/builtin/{output}"]
                ).ravel()
                / unit
                for output, unit in entry["units"].items()
            ]
        )
        worst = max(worst, float(np.sqrt(np.mean(away**2))))
        largest = max(largest, float(np.abs(away).max()))
    assert entry["spread"] == pytest.approx({"rms": worst, "max": largest})
    assert document(bundle, "int8.onnx")["spread"] == {"rms": 0.0, "max": 0.0}


def test_expected_detections_reach_their_own_classs_threshold(bundle: Path) -> None:
    contract = json.loads((bundle / "contract.json").read_text())
    thresholds = np.array([item["score"] for item in contract["thresholds"]])
    assert thresholds[0] != thresholds[1]
    (file,) = [f for f in contract["files"] if f["path"] == "models/int8.tflite"]
    total = 0
    for vector, expected in zip(
        vectors(bundle), document(bundle, "int8.tflite")["expected"], strict=True
    ):
        outputs = [vector[f"int8.tflite/default/{spec['name']}"] for spec in file["outputs"]]
        boxes, scores, labels = decoder.detect(outputs, file)
        kept = scores >= thresholds[labels]
        assert expected["labels"] == labels[kept].tolist()
        np.testing.assert_allclose(expected["boxes"], boxes[kept])
        np.testing.assert_allclose(expected["scores"], scores[kept])
        total += len(expected["labels"])
        assert len(expected["labels"]) < len(labels)
    assert total > 0
