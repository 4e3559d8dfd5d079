"""Three networks that others trained, made integer with themselves as the teacher.

    python benchmarks/own_nets/foreign.py --data $EDGEKD_DATA --work WORK

FastestDet (COCO, BGR), UltraFace RFB-320 (faces) and ResNet-20 (CIFAR-10), published weights in
networks written anew from their descriptions, each through `edgekd compress --student same` for the
Raspberry Pi. ``results/NAME.json`` holds accuracy before and after, and every proof.

FastestDet sees 100 pictures of a toy plane, which its COCO classes hold only by way of `aeroplane`:
its mAP is that of an odd little set, and says what int8 changes, not how good the detector is.
UltraFace has no annotated faces here: its raw outputs are reproduced, no mAP is claimed.
"""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from edgekd import pipeline
from edgekd.config.recipe import Recipe, override
from edgekd.core.files import write_atomic
from edgekd.core.progress import PlainProgress
from edgekd.core.results import RunRecord
from edgekd.core.serialize import to_mapping

HERE = Path(__file__).resolve().parent
AEROPLANE = 4
"""Among the 80 classes of COCO, counted from 0."""


def fastestdet(data: Path, work: Path) -> dict[str, Any]:
    """Returns the settings of FastestDet, which ends at its raw heads."""
    return {
        "data.path": str(planes(data, work / "planes", classes=80, label=AEROPLANE)),
        "input": {"height": 352, "width": 352, "channels": 3},
        "network": {"mean": [0.0], "std": [255.0], "colour": "bgr", "resize": "stretch"},
        "network.decoder": "fastestdet-raw",
        "teacher.model": f"{HERE / 'fastestdet.py'}:build_raw",
        "teacher.weights": str(data / "models/fastestdet/weight_AP05_0.253207_280-epoch.pth"),
        "quantize.training": {"steps": 200, "batch_size": 8, "learning_rate": 1e-4},
    }


def ultraface(data: Path, work: Path) -> dict[str, Any]:
    """Returns the settings of UltraFace, whose outputs stay raw."""
    return {
        "data.path": str(planes(data, work / "faces", classes=1, label=0)),
        "input": {"height": 240, "width": 320, "channels": 3},
        "network": {"mean": [127.0], "std": [128.0]},
        "teacher.model": f"{HERE / 'ultraface.py'}:build",
        "teacher.weights": str(data / "models/ultraface/version-RFB-320.pth"),
        "quantize.training": {"steps": 200, "batch_size": 8, "learning_rate": 1e-4},
    }


def resnet20(data: Path, work: Path) -> dict[str, Any]:
    """Returns the settings of ResNet-20 on CIFAR-10 (JPEG q75 copy)."""
    folder = work / "cifar10-jpg"
    if not (folder / "done").exists():
        with zipfile.ZipFile(data / "cifar10_jpg/cifar10_jpg_train20k_test10k.zip") as archive:
            archive.extractall(folder)
        (folder / "done").touch()
    published = data / "models/cifar10_resnet_akamaster/resnet20-12fca82f.th"
    return {
        "data": {"path": str(folder), "val": "test"},
        "input": {"height": 32, "width": 32, "channels": 3},
        "network": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
        "augmentation": {"scale": [1.0, 1.0], "stretch": 0.0, "shift": 0.125},
        "teacher.model": f"{HERE / 'resnet_cifar.py'}:build_resnet20",
        "teacher.weights": str(published),
        "distill.methods": {"soft-labels": 1.0},
        "quantize.training": {"steps": 300, "batch_size": 128, "learning_rate": 1e-4},
    }


NETS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "resnet20": resnet20,
    "ultraface": ultraface,
    "fastestdet": fastestdet,
}


def planes(data: Path, folder: Path, *, classes: int, label: int) -> Path:
    """Returns the toy planes as a COCO folder with so many classes, every third image in val."""
    if (folder / "annotations" / "val.json").exists():
        return folder
    source = data / "toy_plane"
    files = sorted((source / "images").glob("*.jpg"))
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        images, boxes = [], []
        for index, file in enumerate(files, start=1):
            annotated = source / "annotations" / f"{file.stem}.xml"
            if (index % 3 == 0) != (split == "val") or not annotated.exists():
                continue
            (folder / split / file.name).write_bytes(file.read_bytes())
            root = ElementTree.parse(annotated).getroot()  # noqa: S314 - a set of our own choice
            width, height = (int(root.findtext(f"size/{side}", "0")) for side in SIDES)
            images.append({"id": index, "file_name": file.name, "width": width, "height": height})
            for number, found in enumerate(root.iter("bndbox")):
                left, top, right, bottom = (float(found.findtext(c, "0")) for c in CORNERS)
                boxes.append(
                    {
                        "id": 10 * index + number, "image_id": index, "category_id": label,
                        "bbox": [left, top, right - left, bottom - top], "iscrowd": 0,
                        "area": (right - left) * (bottom - top),
                    }
                )  # fmt: skip
        categories = [{"id": k, "name": f"class {k}"} for k in range(classes)]
        whole = {"images": images, "annotations": boxes, "categories": categories}
        write_atomic(folder / "annotations" / f"{split}.json", json.dumps(whole))
    return folder


SIDES = ("width", "height")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def figures(record: RunRecord) -> dict[str, Any]:
    """Returns what a run's record says of accuracy, size, latency and proofs."""
    rows = {}
    for row in record.rows:
        rows[row.key] = {
            "runtime": row.runtime,
            "parameters": row.parameters,
            "macs": row.macs,
            "size_bytes": row.size_bytes,
            "metrics": to_mapping(row.metrics) if row.metrics else None,
            "measured_median_ms": round(row.measured.median_ms, 3) if row.measured else None,
        }
    return {
        "command": "python benchmarks/own_nets/foreign.py --data $EDGEKD_DATA --work WORK",
        "target": record.target,
        "rows": rows,
        "comparisons": [to_mapping(c) for c in record.comparisons],
        "checks": [to_mapping(c) for c in record.checks],
    }


def main(data: Path, work: Path, only: list[str]) -> None:
    """Runs the networks and writes their figures."""
    for name in only or NETS:
        settings = {"target": "raspberry-pi", "student.architecture": "same"}
        recipe = override(Recipe(), settings | NETS[name](data, work))
        record = pipeline.compress(
            recipe,
            work / name,
            progress=PlainProgress(interval_s=60),
            torch_device=torch.device("cpu"),
        )
        if record is None:
            raise SystemExit(f"{name}: the path ended before its report")
        found = figures(record)
        write_atomic(HERE / "results" / f"{name}.json", json.dumps(found, indent=1) + "\n")
        for check in record.checks:
            print(f"{name}: {'passed' if check.passed else 'FAILED'} {check.name}: {check.figure}")
        for key, row in found["rows"].items():
            metrics = row["metrics"] or {}
            print(f"{name}: {key} {metrics.get('map', metrics.get('top1'))}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    main(options.data, options.work, options.only)
