"""``contract.json`` of a bundle: every file in it, what it is fed and how its outputs are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgekd.bundle.thresholds import ClassThreshold
from edgekd.core.errors import ModelError
from edgekd.core.types import Artifact, Format, InputContract, OutputContract, Precision, Task
from edgekd.modelfile.contract import Contract, Decoding, read_contract


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What a bundle was made from: digest of what the recipe says, and EdgeKD's version."""

    recipe_sha256: str
    edgekd: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FileContract:
    """One model file; `edgekd.standalone.decoder` takes it as the ``contract`` of its outputs.

    Attributes:
        path: Relative to the bundle, with forward slashes.
        form: ``board`` (what ships) or ``host`` (the same scales as uint8, for an x86 host).
        input: What the file expects.
        outputs: In the order of the file.
        decoding: Constants of the reference decoder.
    """

    path: str
    format: Format
    precision: Precision
    form: Literal["board", "host"]
    sha256: str
    size_bytes: int
    input: InputContract
    outputs: tuple[OutputContract, ...]
    decoding: Decoding


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleContract:
    """What firmware needs to know of a bundle.

    Attributes:
        target: Id of the device profile.
        classes: Names, indexed by label.
        thresholds: One for each class, in the order of ``classes``; empty for classification.
    """

    schema: Literal[1] = 1
    name: str
    task: Task
    target: str
    classes: tuple[str, ...]
    thresholds: tuple[ClassThreshold, ...]
    created_from: Origin
    files: tuple[FileContract, ...]


def bundle_contract(
    name: str, artifacts: Sequence[Artifact], thresholds: tuple[ClassThreshold, ...]
) -> BundleContract:
    """Returns the contract of a bundle, from the contracts inside the files themselves.

    Raises:
        ModelError: The files do not come from one export.
    """
    contracts = {artifact.path.name: read_contract(artifact.path) for artifact in artifacts}
    first = next(iter(contracts.values()))
    for file, contract in contracts.items():
        if _identity(contract) != _identity(first):
            raise ModelError(
                f"{file}: task, target, classes, recipe and version are {_identity(contract)}; "
                f"the bundle's first file has {_identity(first)}, and all must agree"
            )
    return BundleContract(
        name=name,
        task=first.task,
        target=first.target,
        classes=first.classes,
        thresholds=thresholds,
        created_from=Origin(recipe_sha256=first.recipe, edgekd=first.edgekd),
        files=tuple(_file(artifact, contracts[artifact.path.name]) for artifact in artifacts),
    )


def _identity(contract: Contract) -> tuple[str, str, tuple[str, ...], str, str]:
    return contract.task, contract.target, contract.classes, contract.recipe, contract.edgekd


def _file(artifact: Artifact, contract: Contract) -> FileContract:
    return FileContract(
        path=f"models/{artifact.path.name}",
        format=artifact.format,
        precision=contract.precision,
        form="host" if contract.form == "host" else "board",
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        input=contract.input,
        outputs=contract.outputs,
        decoding=contract.decoding,
    )
