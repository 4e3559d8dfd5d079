"""Writes a bundle: whole, or not at all."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.bundle.contract import BundleContract, bundle_contract
from edgekd.bundle.golden import write_golden
from edgekd.bundle.manifest import MANIFEST, write_manifest
from edgekd.bundle.readme import readme_text
from edgekd.bundle.schema import json_schema
from edgekd.bundle.thresholds import ClassThreshold, best_thresholds
from edgekd.config.decoders import decoder_files
from edgekd.core.errors import ModelError, RunError
from edgekd.core.files import sha256_of, write_atomic
from edgekd.core.owned import files_in
from edgekd.core.results import ModelRow
from edgekd.core.serialize import to_mapping
from edgekd.core.types import Artifact, Dataset, Detections, Image, Task
from edgekd.modelfile.contract import dump_contract, read_contract
from edgekd.modelfile.labels import labels_text
from edgekd.standalone import standalone_file
from edgekd.standalone.replay import BundleError, read_manifest

LICENCES = {"data": "training data", "teacher": "teacher"}
"""Licences that every bundle states, and whose they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleSource:
    """What a bundle is made of.

    Attributes:
        name: Title of the bundle.
        artifacts: Files of one export.
        images: uint8 ``(N, H, W, C)`` as the models' input takes them, letterboxed, for the golden
            vectors; at least three.
        dataset: Split that thresholds and accuracy are computed on.
        predictions: Image id → detections of the int8 file that ships; None for classification, or
            where no decoder reads the outputs.
        licences: ``data``, ``teacher`` or another plain name → the licence's text.
        rows: Accuracy and latency to state.
        tensorrt_opset: Operator set of the ONNX files, where the target's runtime is TensorRT.
    """

    name: str
    artifacts: tuple[Artifact, ...]
    images: Image
    dataset: Dataset
    predictions: Mapping[int, Detections] | None
    licences: Mapping[str, str]
    rows: Sequence[ModelRow]
    tensorrt_opset: int | None = None


def write_bundle(source: BundleSource, folder: Path) -> Path:
    """Returns ``folder``, which holds the bundle.

    It is built beside and renamed, so that an earlier bundle there is replaced only by a whole one.

    Raises:
        RunError: ``folder`` holds something else, or the source is inconsistent.
        ModelError: A file cannot be run, has changed since its export, or there are too few images.
        DataError: Images or predictions do not fit.
    """
    if folder.exists():
        _require_bundle(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        _write(source, building)
        _replace(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _require_bundle(folder: Path) -> None:
    """Raises `RunError` where a folder holds anything but a bundle as it was written."""
    try:
        listed = {*read_manifest(folder), MANIFEST}
    except BundleError as other:
        raise RunError(
            f"{folder}: exists and is no bundle; legal: a new folder or an older bundle ({other})"
        ) from other
    others = [name for name in files_in(folder) if name not in listed]
    if others:
        raise RunError(
            f"{folder}: {others[0]!r} is not of the bundle there and would be lost; move it away, "
            "or name another folder"
        )


def _replace(building: Path, folder: Path) -> None:
    """Renames a folder over another; a rename cannot replace a folder that holds anything."""
    former = folder.with_name(f"{building.name}.former")
    if folder.exists():
        folder.rename(former)
    try:
        building.rename(folder)
    except OSError:
        if former.exists():
            former.rename(folder)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _write(source: BundleSource, folder: Path) -> None:
    _check(source)
    contract = bundle_contract(source.name, source.artifacts, _thresholds(source))
    for artifact in source.artifacts:
        copy = folder / "models" / artifact.path.name
        write_atomic(copy, artifact.path.read_bytes())
        if sha256_of(copy) != artifact.sha256:
            raise ModelError(f"{artifact.path}: has changed since it was exported")
        inner = dump_contract(read_contract(copy))
        write_atomic(copy.with_name(f"{copy.name}.contract.json"), inner)
    _write_texts(source, contract, folder)
    write_golden(folder, contract, list(source.images))
    write_manifest(folder)


def _check(source: BundleSource) -> None:
    names = [artifact.path.name for artifact in source.artifacts]
    if not names or len(set(names)) < len(names):
        raise RunError(f"a bundle of the files {names}; legal: one or more, of different names")
    broken = [name for name in source.dataset.classes if len(name.splitlines()) != 1]
    if broken:
        raise RunError(f"class name {broken[0]!r}; legal in labels.txt: one line of text")
    for name in source.licences:
        if not re.fullmatch(r"[\w-]+", name):
            raise RunError(f"licence {name!r}; legal: letters, digits, '-' and '_'")


def _thresholds(source: BundleSource) -> tuple[ClassThreshold, ...]:
    contract = read_contract(source.artifacts[0].path)
    if contract.classes != source.dataset.classes:
        raise RunError(
            f"the files have the classes {contract.classes}, the data set {source.dataset.classes}"
        )
    decoded = contract.task is Task.DETECTION and contract.decoding.decoder != "none"
    if decoded != (source.predictions is not None):
        raise RunError(
            f"predictions are {'missing' if decoded else 'given'}; a detector has them where its "
            f"decoder is known, and here it is {contract.decoding.decoder!r}"
        )
    if source.predictions is None:
        return ()
    return best_thresholds(source.dataset, source.predictions)


def _decoders(contract: BundleContract) -> dict[str, Path]:
    """Returns what reads the outputs of the bundle's files: file name to source."""
    found: dict[str, Path] = {}
    for file in contract.files:
        found |= decoder_files(file.decoding.decoder)
    return found


def _write_texts(source: BundleSource, contract: BundleContract, folder: Path) -> None:
    texts = {
        "contract.json": json.dumps(to_mapping(contract), indent=1) + "\n",
        "contract.schema.json": json.dumps(json_schema(BundleContract), indent=1) + "\n",
        "labels.txt": labels_text(contract.classes),
        "README.md": readme_text(
            contract, source.rows, source.dataset.split, source.tensorrt_opset
        ),
        **{name: path.read_text(encoding="utf-8") for name, path in _decoders(contract).items()},
        "replay.py": standalone_file("replay.py").read_text(encoding="utf-8"),
    }
    for name in {**LICENCES, **source.licences}:
        text = source.licences.get(name, "").strip()
        whose = LICENCES.get(name, name)
        texts[f"licences/{name}.txt"] = f"{text or f'Licence of the {whose}: not stated.'}\n"
    for name, text in texts.items():
        write_atomic(folder / name, text)
