"""Feeds damaged and malicious files to everything that reads one: no traceback, crash or hang.

    python benchmarks/reliability/fuzz.py --work WORK --inputs 10000

Each input is a whole file of one kind (recipe, annotation, image, checkpoint, model, bundle, ...)
that is damaged once or a few times: bytes flipped, cut or repeated; or one value in its structure
replaced by something surprising: -1, 2**63, NaN, text, ``../../x``, nothing, a list in a list. It
must be read, or refused by one of EdgeKD's own errors that names the file. Everything else counts:
another exception, a crash, more than `LIMIT_S` seconds, more than `MEMORY_BYTES` on top of what the
process had. Readers run in a process of their own, so that a crash is counted and the rest go on.

An input is made by its kind and number alone: ``--kind tflite --first 123 --inputs 1`` repeats it.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import os
import random
import re
import resource
import select
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

LIMIT_S = 10.0
"""Longest that one input may take."""

MEMORY_BYTES = 3 << 30
"""Most that one input may allocate beyond what the process had before the first."""

EDGES = (0, 1, -1, 2, 127, -128, 255, 256, 32768, 2**31 - 1, -(2**31), 2**31, 2**32, 2**63 - 1)
NUMBERS = (*EDGES, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e-300, 1e308, math.inf, -math.inf, math.nan)
TEXTS = (
    "", " ", "x", "x" * 70000, "\x00", "\ud7ff", "../../../etc/passwd", "/dev/zero", "C:\\x", "..",
    "train/../../x.png", "!!python/object/apply:os.system ['true']", "1e999", "NaN", "true", "{}",
)  # fmt: skip


def surprise(rng: random.Random) -> Any:
    """Returns a value that few readers expect."""
    nested: Any = []
    for _ in range(rng.choice((1, 3, 60))):
        nested = [nested] if rng.random() < 0.5 else {"a": nested}
    others = (None, True, False, [], {}, nested, [1, "a", None], {"x": {"y": 1}})
    return rng.choice((rng.choice(NUMBERS), rng.choice(TEXTS), rng.choice(others)))


def twisted(tree: Any, rng: random.Random) -> Any:
    """Returns a copy of nested dictionaries and lists with one entry changed."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    if not places:
        return surprise(rng)
    holder, key = rng.choice(places)
    action = rng.random()
    if action < 0.6:
        holder[key] = surprise(rng)
    elif action < 0.75:
        del holder[key]
    elif action < 0.9:
        other, there = rng.choice(places)
        holder[key] = copy.deepcopy(other[there]) if there in _keys(other) else None
    elif isinstance(holder, dict):
        holder[str(surprise(rng))[:1000]] = holder.pop(key)
    else:
        holder.insert(key, copy.deepcopy(holder[key]))
    return tree


def _keys(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else range(len(holder))


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict | list):
        for key in list(_keys(tree)):
            yield tree, key
            yield from _places(tree[key])


def damaged(blob: bytes, rng: random.Random) -> bytes:
    """Returns bytes with one to four places overwritten, cut out, repeated or cut off."""
    data = bytearray(blob)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        # Half of all damage is done to the header, which says how to read the rest.
        at = at if rng.random() < 0.5 else min(at, rng.randrange(256))
        span = rng.choice((1, 2, 4, 8, 64))
        action = rng.random()
        if action < 0.35:
            data[at : at + span] = rng.randbytes(span)
        elif action < 0.65:
            width = rng.choice((1, 2, 4, 8))
            edge = rng.choice(EDGES) % (1 << 8 * width)
            data[at : at + width] = edge.to_bytes(width, rng.choice(("little", "big")))
        elif action < 0.75:
            del data[at : at + span]
        elif action < 0.85:
            data[at:at] = data[at : at + span]
        elif action < 0.95:
            del data[at:]
        else:
            data[at:at] = rng.randbytes(span)
    return bytes(data)


def _text_or_bytes(blob: bytes, rng: random.Random, tree: Any, dump: Callable[[Any], str]) -> bytes:
    if rng.random() < 0.3:
        return damaged(blob, rng)
    for _ in range(rng.choice((1, 1, 3))):
        tree = twisted(tree, rng)
    return dump(tree).encode("utf-8", "surrogatepass")


def bad_json(blob: bytes, rng: random.Random) -> bytes:
    """Returns damaged JSON, most of it still JSON; also for YAML, which contains it."""
    return _text_or_bytes(blob, rng, json.loads(blob), json.dumps)


def bad_yaml(blob: bytes, rng: random.Random) -> bytes:
    """Returns damaged YAML."""
    import yaml

    return _text_or_bytes(blob, rng, yaml.safe_load(blob), json.dumps)


def bad_xml(blob: bytes, rng: random.Random) -> bytes:
    """Returns damaged XML: the text, tags and children of elements, or its bytes."""
    if rng.random() < 0.3:
        return damaged(blob, rng)
    if rng.random() < 0.1:
        entity = rng.choice(('SYSTEM "file:///etc/passwd"', f'"{"x" * 1000}"'))
        return f"<!DOCTYPE a [<!ENTITY e {entity}>]>".encode() + blob.replace(b"car", b"&e;")
    root = ElementTree.fromstring(blob)  # noqa: S314 - written above
    for _ in range(rng.choice((1, 1, 3))):
        parent = rng.choice([element for element in root.iter() if len(element)])
        child = rng.choice(list(parent))
        action = rng.random()
        if action < 0.6:
            child.text = re.sub("[^ -~]", "", str(surprise(rng)))
        elif action < 0.8:
            parent.remove(child)
        else:
            parent.append(copy.deepcopy(child))
    return ElementTree.tostring(root)


def bad_safetensors(blob: bytes, rng: random.Random) -> bytes:
    """Returns damaged safetensors: its header, the card inside that, or its bytes."""
    if rng.random() < 0.3:
        return damaged(blob, rng)
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    metadata = header.get("__metadata__", {})
    if rng.random() < 0.6 and "card" in str(sorted(metadata)):
        key = next(name for name in metadata if "card" in name)
        metadata[key] = json.dumps(twisted(json.loads(metadata[key]), rng))
    else:
        header = twisted(header, rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + blob[8 + size :]


def bad_onnx(blob: bytes, rng: random.Random) -> bytes:
    """Returns a damaged ONNX file: one to three fields of the graph, or its bytes."""
    import onnx

    if rng.random() < 0.25:
        return damaged(blob, rng)
    model = onnx.load_model_from_string(blob)
    for _ in range(rng.choice((1, 1, 3))):
        message, field = rng.choice(list(_fields(model)))
        _twist_field(message, field, rng)
    return bytes(model.SerializeToString())


def _fields(message: Any) -> Iterator[tuple[Any, Any]]:
    for field, value in message.ListFields():
        yield message, field
        if field.message_type is not None:
            for child in value if field.is_repeated else [value]:
                yield from _fields(child)


def _twist_field(message: Any, field: Any, rng: random.Random) -> None:
    value = getattr(message, field.name)
    if field.is_repeated and len(value):
        at = rng.randrange(len(value))
        action = rng.random()
        if action < 0.3:
            del value[at]
        elif action < 0.5:
            value.extend([copy.deepcopy(value[at])])
        elif field.message_type is None:
            value[at] = _like(value[at], rng)
        return
    if field.message_type is not None:
        message.ClearField(field.name)
        return
    try:
        setattr(message, field.name, _like(value, rng))
    except (ValueError, TypeError):  # Out of the field's range.
        message.ClearField(field.name)


def _like(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, float):
        return float(rng.choice([n for n in NUMBERS if abs(n) < 1e300 or n != n]))
    if isinstance(value, int):
        small = [n for n in EDGES if -(2**31) <= n < 2**31]
        return rng.choice((*small, value + 1, value - 1))
    if isinstance(value, bytes):
        return damaged(value, rng) if value else b"\xff\xfe"
    return rng.choice([text for text in TEXTS if len(text) < 1000])


def bad_tflite(blob: bytes, rng: random.Random) -> bytes:
    """Returns a damaged TFLite file: one to three fields of its tables, or its bytes."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    if rng.random() < 0.4:
        return damaged(blob, rng)
    model = schema.ModelT.InitFromPackedBuf(blob, 0)
    for _ in range(rng.choice((1, 1, 3))):
        holder, key = rng.choice(list(_slots(model)))
        _twist_slot(holder, key, rng)
    try:
        builder = flatbuffers.Builder(len(blob))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
    except Exception:  # What the builder itself refuses cannot reach a reader.
        return damaged(blob, rng)


def _slots(record: Any) -> Iterator[tuple[Any, Any]]:
    """Yields places of a flatbuffer record: attributes, and entries of its lists."""
    for name, value in vars(record).items():
        yield record, name
        if hasattr(value, "__dict__"):
            yield from _slots(value)
        for at, entry in enumerate(value) if isinstance(value, list) else ():
            yield value, at
            if hasattr(entry, "__dict__"):
                yield from _slots(entry)


def _twist_slot(holder: Any, key: Any, rng: random.Random) -> None:
    import numpy as np

    value = holder[key] if isinstance(holder, list) else getattr(holder, key)
    if isinstance(value, np.ndarray) and len(value):
        changed = value.copy()
        at = rng.randrange(len(value))
        limits = np.iinfo(value.dtype) if value.dtype.kind in "iu" else None
        legal = [n for n in EDGES if limits is None or limits.min <= n <= limits.max]
        changed[at] = rng.choice(legal)
        value = changed if rng.random() < 0.6 else changed[:at]
    elif isinstance(value, list):
        value = value[: rng.randrange(len(value) + 1)]
    elif isinstance(value, bool | int | float | bytes):
        value = _like(value, rng)
    else:
        value = None
    if isinstance(holder, list):
        holder[key] = value
    else:
        setattr(holder, key, value)


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        whole: Files of it, below the corpus, that nothing is wrong with.
        bad: Damages one.
        place: What the file is called, below a folder that holds what else a reader needs.
        use: Reads it as EdgeKD does.
    """

    whole: tuple[str, ...]
    bad: Callable[[bytes, random.Random], bytes]
    place: str
    use: Callable[[Path], object]


def command(*arguments: str | Path) -> None:
    """Runs the command line; ends as the function that it calls would.

    Raises:
        EdgeKDError: It ended with exit code 2, 3 or 4; the message is what it printed.
    """
    from click.testing import CliRunner

    from edgekd.cli import main
    from edgekd.core.errors import EdgeKDError

    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code in (2, 3, 4):
        raise EdgeKDError(result.output)
    if result.exit_code not in (0, 1):
        raise AssertionError(f"exit code {result.exit_code}: {result.output[-300:]}")


def _use_recipe(path: Path) -> None:
    from edgekd.config.recipe import dump_recipe, load_recipe

    dump_recipe(load_recipe(path))


def _use_device(path: Path) -> None:
    from edgekd.config.device import load_device

    load_device(path)


def _use_calibration(path: Path) -> None:
    """Predicts with the latencies that a board's owner measured."""
    from edgekd.config.device import load_device
    from edgekd.measure.predict import predict_latency
    from edgekd.modelfile.read import read_operators

    root = next(folder for folder in path.parents if (folder / ".root").exists())
    os.environ["XDG_DATA_HOME"] = str(root)
    found = predict_latency(read_operators(root / "int8.tflite"), load_device("raspberry-pi-4"))
    if not (found and found.high_ms and 0 < found.median_ms <= found.high_ms < math.inf):
        raise ArithmeticError(f"predicted {found}")


def _use_farm(path: Path) -> None:
    from edgekd.commands.latency import read_farm

    read_farm(path)


def _use_budget(path: Path) -> None:
    from edgekd.run.student_search import kept_choice

    kept_choice(path.parent)


def _use_data(path: Path) -> None:
    """Reads the data set around an annotation file, and every image of it."""
    from edgekd.data.dataset import load
    from edgekd.data.image import read_image

    root = next(folder for folder in path.parents if (folder / ".root").exists())
    for split in ("train", "val"):
        for sample in load(root, split).samples:
            read_image(sample, 3)


def _use_image(path: Path) -> None:
    import numpy as np

    from edgekd.core.types import Sample
    from edgekd.data.image import image_size, read_image

    none, empty = np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
    image_size(path)
    sample = Sample(
        image_id=1,
        path=path,
        boxes=empty,
        labels=none,
        areas=np.zeros(0, np.float32),
        ignore=empty,
        ignore_labels=none,
    )
    read_image(sample, 3)


def _use_checkpoint(path: Path) -> None:
    from edgekd.nets.card import load_net

    load_net(path)


def _use_weights(path: Path) -> None:
    from torch import nn

    from edgekd.nets.custom import load_state

    load_state(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)), path)


def _use_model(path: Path) -> None:
    """Inspects a file by the rules of its own target and of others, and predicts its latency."""
    from edgekd.config.device import load_device
    from edgekd.rules.check import check_conformance

    check_conformance(path, load_device("android" if path.suffix == ".tflite" else "jetson"))
    command("inspect", path)
    command("bench", path, "--target", "raspberry-pi")


def _use_model_here(path: Path) -> None:
    command("bench", path, "--runs", "50")


def _use_bundle(path: Path) -> None:
    command("verify", next(p for p in path.parents if (p / ".root").exists()))


def _use_bundle_file(path: Path) -> None:
    """Replays a bundle whose maker has put the right hash beside the damaged file."""
    root = next(p for p in path.parents if (p / ".root").exists())
    manifest = json.loads((root / "manifest.json").read_text())
    content = path.read_bytes()
    manifest["files"][path.relative_to(root).as_posix()] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    command("verify", root)


def _use_resume(path: Path) -> None:
    from edgekd.training.checkpoint import load_checkpoint

    load_checkpoint(path)


def _use_cache(path: Path) -> None:
    from edgekd.teacher.record_store import RecordStore

    shelf = RecordStore.existing(path.parent)
    if shelf is not None:
        shelf.missing(range(4))


def _use_report(path: Path) -> None:
    command("report", path.parents[1])


def _use_artifacts(path: Path) -> None:
    from edgekd.run.directory import exported_files

    exported_files(path.parent)


def _use_teacher_card(path: Path) -> None:
    from edgekd.teacher.external_detector import load_external_detector_card

    load_external_detector_card(path)


OWN_LATENCIES = "edgekd/latencies/raspberry-pi-4/xnnpack-4.json"

KINDS: dict[str, Kind] = {
    "recipe": Kind(("recipe/r.yaml",), bad_yaml, "r.yaml", _use_recipe),
    "device": Kind(("device/d.yaml",), bad_yaml, "d.yaml", _use_device),
    "calibration": Kind(
        (f"calibration/{OWN_LATENCIES}",), bad_json, OWN_LATENCIES, _use_calibration
    ),
    "farm": Kind(("farm/farm.yaml",), bad_yaml, "farm.yaml", _use_farm),
    "budget": Kind(("budget/budget.json",), bad_json, "budget.json", _use_budget),
    "coco": Kind(("coco/annotations/train.json",), bad_json, "annotations/train.json", _use_data),
    "voc": Kind(("voc/Annotations/000001.xml",), bad_xml, "Annotations/000001.xml", _use_data),
    "yolo": Kind(("yolo/data.yaml",), bad_yaml, "data.yaml", _use_data),
    "yolo-labels": Kind(("yolo/labels/train/1.txt",), damaged, "labels/train/1.txt", _use_data),
    "idx": Kind(
        ("idx/train-images-idx3-ubyte",), damaged, "train-images-idx3-ubyte", _use_data
    ),
    "idx-labels": Kind(
        ("idx/train-labels-idx1-ubyte",), damaged, "train-labels-idx1-ubyte", _use_data
    ),
    "image": Kind(
        tuple(f"image/a.{kind}" for kind in ("png", "jpg", "bmp", "webp", "tif", "ppm")),
        damaged, "a.png", _use_image,
    ),
    "checkpoint": Kind(
        ("checkpoint/a.safetensors",), bad_safetensors, "a.safetensors", _use_checkpoint
    ),
    "weights": Kind(("weights/a.pth",), damaged, "a.pth", _use_weights),
    "weights-safetensors": Kind(
        ("weights/a.safetensors",), bad_safetensors, "a.safetensors", _use_weights
    ),
    "onnx": Kind(
        ("onnx/float.onnx", "onnx/int8.onnx", "onnx/int8-host.onnx"), bad_onnx, "a.onnx", _use_model
    ),
    "tflite": Kind(
        ("tflite/float.tflite", "tflite/int8.tflite"), bad_tflite, "a.tflite", _use_model
    ),
    "onnx-run": Kind(("onnx/float.onnx", "onnx/int8.onnx"), bad_onnx, "a.onnx", _use_model_here),
    "tflite-run": Kind(
        ("tflite/float.tflite", "tflite/int8.tflite"), bad_tflite, "a.tflite", _use_model_here
    ),
    "bundle-manifest": Kind(
        ("bundle/manifest.json",), bad_json, "manifest.json", _use_bundle
    ),
    "bundle-contract": Kind(
        ("bundle/contract.json",), bad_json, "contract.json", _use_bundle_file
    ),
    "bundle-golden": Kind(
        ("bundle/golden/golden.json",), bad_json, "golden/golden.json", _use_bundle_file
    ),
    "bundle-vectors": Kind(
        ("bundle/golden/000.npz",), damaged, "golden/000.npz", _use_bundle_file
    ),
    "resume": Kind(("weights/resume.pt",), damaged, "resume.pt", _use_resume),
    "cache": Kind(("cache/form.json",), bad_json, "form.json", _use_cache),
    "report": Kind(("run/report/report.json",), bad_json, "report/report.json", _use_report),
    "artifacts": Kind(("run/export/artifacts.json",), bad_json, "artifacts.json", _use_artifacts),
    "teacher-card": Kind(("teacher/card.yaml",), bad_yaml, "card.yaml", _use_teacher_card),
}  # fmt: skip


def made(kind: str, number: int, corpus: Path) -> bytes:
    """Returns the input of a kind and a number."""
    rng = random.Random(f"{kind} {number}")
    whole = KINDS[kind].whole
    return KINDS[kind].bad((corpus / whole[number % len(whole)]).read_bytes(), rng)


def write_corpus(folder: Path, run: Path) -> None:
    """Writes one small whole file of every kind.

    Args:
        folder: Receives a folder for each family of files.
        run: A finished run of a detector, whose files are taken.
    """
    import numpy as np

    from edgekd.config.catalog import catalog_folder
    from edgekd.config.recipe import Recipe, dump_recipe
    from edgekd.data.demo.render import write_demo_set
    from edgekd.teacher.record_store import RecordField, RecordStore

    for name in ("recipe", "device", "image", "checkpoint", "weights", "onnx", "tflite", "teacher"):
        (folder / name).mkdir(parents=True)
    (folder / "recipe" / "r.yaml").write_text(dump_recipe(Recipe()))
    shutil.copy(catalog_folder("devices") / "jetson.yaml", folder / "device" / "d.yaml")
    write_demo_set(folder / "coco", train=2, val=1)
    picture = next((folder / "coco").rglob("*.png"))
    _write_images(picture, folder / "image")
    _write_voc(picture, folder / "voc")
    _write_yolo(picture, folder / "yolo")
    _write_idx(folder / "idx")
    _write_weights(folder / "weights")
    shutil.copy(run / "distill" / "student.safetensors", folder / "checkpoint" / "a.safetensors")
    for path in (run / "export").iterdir():
        if path.suffix in (".onnx", ".tflite"):
            shutil.copy(path, folder / path.suffix[1:])
    shutil.copytree(next((run / "bundle").glob("*/manifest.json")).parent, folder / "bundle")
    shutil.copytree(run / "report", folder / "run" / "report")
    shutil.copytree(run / "export", folder / "run" / "export")
    (folder / "teacher" / "card.yaml").write_text(
        "model: a.onnx\ndecoder: yolov8\nclasses: [car, bus]\nclass_map: {car: vehicle}\n"
        "mean: [0, 0, 0]\nstd: [255, 255, 255]\ncolour: bgr\nmin_score: 0.1\n"
    )
    shelf = RecordStore(
        folder / "cache", [RecordField("float16", (3, 4)), RecordField("float32", (5, 6))]
    )
    shelf.keep(0, (np.zeros((3, 4)), np.ones((5, 6))))
    _write_latencies(folder)
    for name in ("coco", "voc", "yolo", "idx", "bundle", "calibration"):
        (folder / name / ".root").touch()


def _write_latencies(folder: Path) -> None:
    """Writes what a board's owner measured, a farm of boards, and what a budget chose."""
    from edgekd.config.device import load_device
    from edgekd.core.results import Considered
    from edgekd.core.serialize import to_mapping
    from edgekd.core.types import Format, Precision
    from edgekd.measure.kernels import Latencies, LatencySample, LatencySamples, load_kernels
    from edgekd.measure.predict import engine_speed, kernel_fills
    from edgekd.run.student_search import Choice, keep_choice

    device = load_device("raspberry-pi-4")
    runtime = device.runtimes[Format.TFLITE]
    facts = load_kernels("xnnpack").precisions[Precision.INT8]
    readings = LatencySamples(
        speed=engine_speed(device, runtime, Precision.INT8, 4),
        fills=kernel_fills(device, runtime, facts),
        error=0.03,
        networks=(LatencySample(network="mine", ms=2.0, work=dict.fromkeys(facts.share, 1.0)),),
    )
    own = Latencies(
        schema=1, id="xnnpack-4", device="mine", kernels="xnnpack", runtime="litert 2", threads=4,
        statistic="median", source="measured", precisions={Precision.INT8: readings},
    )  # fmt: skip
    path = folder / "calibration" / OWN_LATENCIES
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(to_mapping(own)))
    shutil.copy(folder / "tflite" / "int8.tflite", folder / "calibration")
    (folder / "farm").mkdir()
    (folder / "farm" / "farm.yaml").write_text(
        "boards:\n  pi: {host: pi@192.168.1.20, threads: 4}\n"
        "  phone: {adb: emulator-5554, benchmark_model: tools/b, options: [--use_gpu=true]}\n"
    )
    one = Considered(
        architecture="edgedet-n0.5", height=96, width=128, macs=10**6, parameters=10**5,
        median_ms=1.0, low_ms=0.5, high_ms=2.0, fits=True, chosen=True,
    )  # fmt: skip
    (folder / "budget").mkdir()
    keep_choice(folder / "budget", Choice(recipe="a", allowed_ms=2.0, considered=(one,)))


def _write_images(picture: Path, folder: Path) -> None:
    from PIL import Image

    with Image.open(picture) as opened:
        image = opened.convert("RGB").resize((48, 32))
    for ending in ("png", "jpg", "bmp", "webp", "tif", "ppm"):
        image.save(folder / f"a.{ending}")


def _write_voc(picture: Path, folder: Path) -> None:
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
    for name in ("000001", "000002", "000003"):
        (folder / "JPEGImages").mkdir(parents=True, exist_ok=True)
        (folder / "Annotations").mkdir(exist_ok=True)
        shutil.copy(picture, folder / "JPEGImages" / f"{name}.png")
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename><size><width>96</width>"
            "<height>64</height><depth>3</depth></size><object><name>car</name>"
            f"<difficult>0</difficult>{box}</object></annotation>"
        )
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("000001\n000003\n")
    (folder / "ImageSets" / "Main" / "val.txt").write_text("000002\n")


def _write_yolo(picture: Path, folder: Path) -> None:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        shutil.copy(picture, folder / "images" / split / "1.png")
        (folder / "labels" / split / "1.txt").write_text("0 0.5 0.5 0.2 0.3\n1 0.1 0.2 0.1 0.1\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [car, bus]\n")


def _write_idx(folder: Path) -> None:
    folder.mkdir()
    for split, count in (("train", 20), ("t10k", 5)):
        shape = b"".join(n.to_bytes(4, "big") for n in (0x803, count, 8, 8))
        labels = b"".join(n.to_bytes(4, "big") for n in (0x801, count))
        (folder / f"{split}-images-idx3-ubyte").write_bytes(shape + bytes(range(64)) * count)
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(
            labels + bytes(n % 3 for n in range(count))
        )


def _write_weights(folder: Path) -> None:
    import safetensors.torch
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    torch.save(net.state_dict(), folder / "a.pth")
    torch.save({"step": 3, "net": net.state_dict()}, folder / "resume.pt")
    safetensors.torch.save_file(net.state_dict(), folder / "a.safetensors")


def small_corpus(work: Path) -> Path:
    """Returns a corpus, which it makes from a run of a few seconds."""
    from faults import small_run

    from edgekd.cli import main
    from edgekd.data.demo.render import CLASSES, write_demo_set
    from edgekd.nets.card import Card, build, save_net

    data = write_demo_set(work / "set", train=8, val=4)
    card = Card(architecture="edgedet-n", classes=CLASSES, height=96, width=128)
    save_net(work / "teacher.safetensors", build(card, seed=3), card)
    arguments = small_run(data, work / "teacher.safetensors", work / "cache", work / "run")
    main(arguments, prog_name="edgekd", standalone_mode=False)
    write_corpus(work / "corpus", work / "run")
    return work / "corpus"


def reads(kind: str, first: int, count: int, corpus: Path) -> None:
    """Reads inputs one after another and prints, as JSON, what each came to; a child's whole life.

    Everything that readers need late is imported, and the whole file read, before the limits hold.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    folder, place = _stage(kind, corpus)
    for name in KINDS[kind].whole:
        shutil.copy(corpus / name, place)
        KINDS[kind].use(place)
    had = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (had + MEMORY_BYTES, had + MEMORY_BYTES))
    print("ready", file=answers)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    for number in range(first, first + count):
        place.write_bytes(made(kind, number, corpus))
        print(number, file=answers)
        print(json.dumps(_read(KINDS[kind].use, place)), file=answers)
    shutil.rmtree(folder)


def _stage(kind: str, corpus: Path) -> tuple[Path, Path]:
    """Returns a folder of its own for this process, and the path of the input in it."""
    folder = corpus.parent / f"{kind}-{os.getpid()}"
    source = corpus / KINDS[kind].whole[0]
    depth = len(Path(KINDS[kind].place).parts)
    shutil.copytree(source.parents[depth - 1], folder)
    return folder, folder / KINDS[kind].place


def _read(use: Callable[[Path], object], place: Path) -> list[str]:
    from edgekd.core.errors import EdgeKDError

    try:
        use(place)
    except EdgeKDError as refused:
        # Of a file that no longer shows what it is, the folder is named.
        named = any(path.name in str(refused) for path in (place, *place.parents[:3]))
        return ["refused" if named else "unnamed", str(refused)[:200]]
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-3:]
        steps = " > ".join(f"{Path(step.filename).name}:{step.lineno}" for step in where)
        return ["traceback", f"{type(error).__name__}: {str(error)[:150]} ({steps})"]
    return ["read", ""]


class Child:
    """A process that reads inputs of one kind."""

    def __init__(self, kind: str, first: int, count: int, corpus: Path) -> None:
        self.corpus = corpus
        options = ["--corpus", str(corpus), "--kind", kind, "--first", str(first)]
        options += ["--inputs", str(count), "--read"]
        command = [sys.executable, __file__, *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - this file
        self._rest = b""

    def line(self, seconds: float) -> str | None:
        """Returns the next line, None where there is none in time, "" at the end."""
        until = time.monotonic() + seconds
        while b"\n" not in self._rest:
            ready, _, _ = select.select(
                [self._process.stdout], [], [], max(0.0, until - time.monotonic())
            )
            if not ready:
                return None
            part = os.read(self._process.stdout.fileno(), 65536)
            if not part:
                return ""
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def end(self) -> int:
        """Ends the process and returns its status."""
        self._process.kill()
        status = self._process.wait()
        for left in self.corpus.parent.glob(f"*-{self._process.pid}"):
            shutil.rmtree(left)
        return status


def judge(kind: str, first: int, count: int, corpus: Path) -> dict[str, Any]:
    """Returns what became of the inputs of one kind."""
    found: dict[str, Any] = {"inputs": 0, "read": 0, "refused": 0, "bad": {}, "slowest_s": 0.0}
    last = first + count
    while first < last:
        child = Child(kind, first, last - first, corpus)
        if child.line(600) != "ready":
            raise SystemExit(f"{kind}: a whole file is not read: exit status {child.end()}")
        while first < last:
            child.line(LIMIT_S)  # Its number: the input is written, and is read from now on.
            began = time.monotonic()
            line = child.line(LIMIT_S)
            found["slowest_s"] = max(found["slowest_s"], round(time.monotonic() - began, 2))
            found["inputs"] += 1
            if line:
                what, text = json.loads(line)
            else:
                what, text = ("slow", f"> {LIMIT_S} s") if line is None else ("crash", "")
            if what in ("read", "refused"):
                found[what] += 1
            else:
                found["bad"][str(first)] = f"{what}: {text}"
            first += 1
            if not line:
                break
        status = child.end()
        if not line:
            found["bad"][str(first - 1)] += f" exit status {status}"
    return found


def main(
    work: Path,
    corpus: Path | None,
    inputs: int,
    kinds: list[str],
    out: Path | None,
    *,
    workers: int,
) -> int:
    """Judges every kind, as many at once as there are workers.

    Returns:
        How many inputs were not read or refused as they should be.
    """
    work.mkdir(parents=True, exist_ok=True)
    if corpus is None:
        corpus = work / "corpus" if (work / "corpus").exists() else small_corpus(work)
    began, results = time.monotonic(), {}
    share = math.ceil(inputs / len(kinds))
    with ThreadPoolExecutor(workers) as pool:
        judged = pool.map(lambda kind: judge(kind, 0, share, corpus), kinds)
        for kind, found in zip(kinds, judged, strict=True):
            results[kind] = found
            print(f"{kind}: {json.dumps(found, indent=1)}", flush=True)
    bad = sum(len(found["bad"]) for found in results.values())
    total = sum(found["inputs"] for found in results.values())
    summary = {
        "command": f"python benchmarks/reliability/fuzz.py --work WORK --inputs {inputs}",
        "inputs": total,
        "bad": bad,
        "limit_s": LIMIT_S,
        "memory_bytes": MEMORY_BYTES,
        "seconds": round(time.monotonic() - began),
        "kinds": results,
    }
    if out:
        out.write_text(json.dumps(summary, indent=1) + "\n")
    print(f"{total} inputs, {bad} bad")
    return bad


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--corpus", type=Path, help="One whole file of each kind.")
    parser.add_argument("--inputs", type=int, default=10000)
    parser.add_argument("--kind", choices=sorted(KINDS), action="append")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        reads(options.kind[0], options.first, options.inputs, options.corpus)
    else:
        sys.exit(
            bool(
                main(
                    options.work,
                    options.corpus,
                    options.inputs,
                    options.kind or list(KINDS),
                    options.out,
                    workers=options.workers,
                )
            )
        )
