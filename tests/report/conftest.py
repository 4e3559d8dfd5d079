from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures

from edgekd.core.results import (
    Basis,
    Check,
    ClassificationMetrics,
    Comparison,
    DetectionMetrics,
    Interval,
    Latency,
    ModelRow,
    RunRecord,
    SampleVisualisation,
)
from edgekd.core.types import Detections, Precision, Task

CLASSES = ("person", "car", "bicycle", "other vehicle")


def detections(count: int, *, seed: int, scale: float = 1.0) -> Detections:
    generator = np.random.default_rng(seed)
    corners = generator.uniform((10, 30), (250, 180), (count, 2)) * scale
    sizes = generator.uniform(15, 60, (count, 2)) * scale
    return Detections(
        boxes=np.concatenate([corners, corners + sizes], axis=1).astype(np.float32),
        scores=np.sort(generator.uniform(0.3, 1, count))[::-1].astype(np.float32),
        labels=generator.integers(0, len(CLASSES), count),
    )


def detection_metrics(level: float) -> DetectionMetrics:
    return DetectionMetrics(
        map=level,
        ap50=level + 0.2113,
        ap75=level + 0.0127,
        ap_small=level - 0.1031,
        ap_medium=level + 0.0741,
        ap_large=-1.0,
        ar1=level - 0.0907,
        ar10=level + 0.0633,
        ar100=level + 0.0999,
        per_class={
            "person": level + 0.0512,
            "car": level * 1.107,
            "bicycle": level - 0.0823,
            "other vehicle": -1.0,
        },
        images=287,
    )


def measured(median_ms: float, runtime: str, version: str) -> Latency:
    return Latency(
        basis=Basis.MEASURED,
        where="Intel Xeon 2.60GHz",
        runtime=runtime,
        runtime_version=version,
        delegate="xnnpack" if runtime == "litert" else "cpu",
        threads=2,
        median_ms=median_ms,
        p90_ms=median_ms * 1.13,
        p99_ms=median_ms * 1.41,
        runs=200,
        pre_ms=0.417,
        post_ms=0.288,
        conditions={"load": "0.12"},
    )


def predicted(median_ms: float) -> Latency:
    return Latency(
        basis=Basis.PREDICTED,
        where="raspberry-pi-4",
        runtime="tflite-runtime",
        runtime_version="2.14",
        delegate="xnnpack",
        threads=4,
        median_ms=median_ms,
        low_ms=median_ms * 0.61,
        high_ms=median_ms * 1.72,
        note="uncalibrated",
    )


def row(
    key: str,
    name: str,
    runtime: str,
    level: float,
    *,
    precision: Precision = Precision.FLOAT32,
    parameters: int = 1_048_733,
    macs: int = 391_274_496,
    size_bytes: int = 4_203_112,
    timed: float | None = None,
    guess: float | None = None,
) -> ModelRow:
    suffix = "tflite" if "tflite" in key else "onnx"
    runtime_name, _, version = runtime.partition(" ")
    return ModelRow(
        key=key,
        name=name,
        runtime=runtime,
        precision=precision,
        parameters=parameters,
        macs=macs,
        size_bytes=size_bytes,
        path=f"runs/traffic/export/{key}.{suffix}" if runtime_name != "torch" else None,
        metrics=detection_metrics(level),
        measured=measured(timed, runtime_name, version) if timed else None,
        predicted=predicted(guess) if guess else None,
    )


ROWS = (
    row(
        "teacher", "Teacher edgedet-l", "torch 2.13", 0.4482,
        parameters=9_812_004, macs=4_120_114_176, size_bytes=39_248_016, timed=61.72,
    ),
    row("student-no-kd", "Student without KD", "torch 2.13", 0.3417, timed=9.31),
    row("student", "Student edgedet-s", "torch 2.13", 0.3661, timed=9.28),
    row("float-onnx", "Student float ONNX", "onnxruntime 1.31.1", 0.3679, timed=5.613),
    row("float-tflite", "Student float TFLite", "litert 2.3.0", 0.3678, timed=6.844, guess=28.31),
    row(
        "int8-onnx", "Student int8 ONNX", "onnxruntime 1.31.1", 0.3598,
        precision=Precision.INT8, size_bytes=1_318_771, timed=3.127,
    ),
    row(
        "int8-tflite", "Student int8 TFLite", "litert 2.3.0", 0.3612,
        precision=Precision.INT8, size_bytes=1_205_440, timed=2.955, guess=11.94,
    ),
)  # fmt: skip

CHECKS = (
    Check(
        name="parity/operators/tflite",
        passed=True,
        figure="99.81 % of values within 1 step",
        criterion=">= 99 % within 1 step",
        details={
            "histogram": {
                "tflite against trained": {"0": 0.9527, "1": 0.0454, "2": 0.0013, ">2": 0.0006},
                "tflite against reference": {"0": 0.9713, "1": 0.028, "2": 0.0007, ">2": 0.0},
            }
        },
    ),
    Check(
        name="parity/decisions/tflite",
        passed=True,
        figure="mAP 36.12 against 36.15 in the trained graph",
        criterion="within 0.30 points",
    ),
    Check(
        name="parity/operators/onnx",
        passed=False,
        figure="93.40 % of values within 1 step",
        criterion=">= 99 % within 1 step",
        failing_operator="/neck/level2/Resize_1",
        details={
            "histogram": {
                "onnx against trained graph": {"0": 0.812, "1": 0.122, "2": 0.049, ">2": 0.017},
            }
        },
    ),
    Check(
        name="coverage/tflite",
        passed=True,
        figure="100.00 % of MACs in integer, no float island",
        criterion=">= 99 % in integer",
        details={"share": 1.0, "islands": []},
    ),
    Check(
        name="coverage/onnx",
        passed=False,
        figure="97.31 % of MACs in integer, 1 float island",
        criterion=">= 99 % in integer",
        failing_operator="/neck/level2/Conv_7",
        details={
            "share": 0.9731,
            "islands": [{"operator": "/neck/level2/Conv_7", "reason": "no quantized output"}],
        },
    ),
    Check(
        name="conformance/tflite",
        passed=True,
        figure="214 tensors, 0 violations",
        criterion="0 violations",
    ),
)  # fmt: skip


def curve(start: float, floor: float, peak: float, steps: int) -> list[dict[str, float]]:
    points = []
    for index in range(41):
        done = index / 40
        loss = (
            floor + (start - floor) * float(np.exp(-4 * done)) + 0.02 * float(np.sin(index * 2.1))
        )
        point = {
            "step": float(round(done * steps)),
            "loss": loss,
            "term/class": loss * 0.41,
            "term/box": loss * 0.33,
            "term/feature": loss * 0.26,
        }
        if index % 5 == 0 and index:
            point["map"] = peak * float(1 - np.exp(-4 * done))
        points.append(point)
    return points


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "frame.jpg"
    ramp = np.linspace(40, 200, 320)[None, :] * np.linspace(0.6, 1.0, 240)[:, None]
    Pictures.fromarray(np.repeat(ramp.astype(np.uint8)[..., None], 3, axis=2)).save(path)
    return path


@pytest.fixture
def record(picture: Path) -> RunRecord:
    """A finished detection run with two failed proofs."""
    return RunRecord(
        name="traffic",
        target="raspberry-pi-4",
        task=Task.DETECTION,
        dataset="aerial traffic (val, 287 images)",
        rows=ROWS,
        comparisons=(
            Comparison(
                of="student",
                minus="student-no-kd",
                metric="map",
                interval=Interval(value=0.0244, low=0.0131, high=0.0362),
            ),
            Comparison(
                of="int8-tflite",
                minus="float-tflite",
                metric="map",
                interval=Interval(value=-0.0066, low=-0.0117, high=-0.0019),
            ),
            Comparison(
                of="int8-tflite",
                minus="int8-onnx",
                metric="ap50",
                interval=Interval(value=0.0014, low=-0.0021, high=0.0048),
            ),
        ),
        checks=CHECKS,
        curves={
            "teacher": curve(9.0, 1.1, 0.4482, 4000),
            "distill": curve(7.2, 1.4, 0.3661, 4000),
            "quantize": curve(1.9, 1.5, 0.3612, 600),
        },
        visualisations=(
            SampleVisualisation(
                image=picture,
                classes=CLASSES,
                truth=detections(6, seed=1),
                detections={
                    "teacher": detections(6, seed=1),
                    "student": detections(5, seed=1),
                    "int8-tflite": detections(0, seed=1),
                },
            ),
        ),
        provenance={
            "recipe sha256": "3f1c9a0e",
            "edgekd": "0.1.0",
            "host": "Intel Xeon 2.60GHz, 2 cores",
            "seconds/distill": "812.4",
            "dataset problems": "3 degenerate-box",
        },
    )


@pytest.fixture
def classification_record(record: RunRecord) -> RunRecord:
    """A finished classification run without proofs, curves or visualisations."""
    metrics = ClassificationMetrics(
        top1=0.9137, top5=0.9963, per_class={"cat": 0.8812, "dog": 0.9462}, images=1000
    )
    fields = {
        "key": "int8-tflite",
        "name": "int8 TFLite",
        "runtime": "litert 2.3.0",
        "precision": Precision.INT8,
        "parameters": 78_666,
        "macs": 12_501_632,
        "size_bytes": 98_216,
        "path": "runs/cifar/export/int8.tflite",
        "metrics": metrics,
    }
    return RunRecord(
        name="cifar",
        target="raspberry-pi-4",
        task=Task.CLASSIFICATION,
        dataset="CIFAR-10",
        rows=(ModelRow(**fields),),
        comparisons=(),
        checks=(),
        curves={},
        visualisations=(),
        provenance={},
    )
