"""A detector of any origin as a teacher: its file is run, its boxes are read, nothing else is seen.

A card in YAML says what the file is, for it carries no contract of ours:

    model: FastestDet.onnx          # beside the card
    decoder: fastestdet             # one of edgekd.standalone.decoder.DECODERS
    classes: [person, bicycle, car] # the teacher's, in the order of its labels
    class_map: {car: vehicle}       # the teacher's class to the student's
    colour: bgr
    resize: stretch
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import permutations
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from edgekd.config.decoders import Shape, shape_text, shapes_fit
from edgekd.config.yaml import read_yaml
from edgekd.core.errors import DataError, ModelError, suggest
from edgekd.core.files import sha256_of
from edgekd.core.serialize import from_mapping, to_mapping
from edgekd.core.types import Detections, Image, InputContract, Priors
from edgekd.data.image import letterbox
from edgekd.modelfile.contract import exact_arithmetic
from edgekd.modelfile.runner import TensorInfo, open_runner
from edgekd.standalone import decoder

MAX_CANDIDATES = 1000
"""Best candidates of the student's classes that reach non-maximum suppression."""

_EVERY_CANDIDATE = 2**31
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as in reading an image file as grey.


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalDetectorCard:
    """What a detector's file expects and returns.

    Attributes:
        model: ONNX or TFLite file with a fixed input size.
        decoder: One of `DECODERS` in `edgekd.standalone.decoder`, which describes each.
        classes: The teacher's own, indexed by its labels, without background.
        class_map: The teacher's class to the student's; classes that it leaves out are dropped.
            Empty: classes are paired by name, upper and lower case alike.
        mean: Subtracted from a pixel in 0..255; one number, or one a channel in the model's order.
        std: Then divided by; likewise.
        colour: Order in which the model takes the channels.
        resize: How an image is fitted to the model's input.
        pad_value: Of the letterbox, in all channels.
        min_score: Detections under it are dropped.
        priors: For the decoder ``ssd-raw``.

    Raises:
        ValueError: A value is illegal.
    """

    model: Path
    decoder: str
    classes: tuple[str, ...]
    class_map: dict[str, str] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (255.0,)
    colour: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["letterbox", "stretch"] = "letterbox"
    pad_value: int = 114
    min_score: float = 0.05
    priors: Priors | None = None

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ValueError(problem)

    def _problems(self) -> Iterator[str]:
        # An export of EdgeKD's carries its own contract and needs no card.
        legal = [name for name in decoder.DECODERS if name != "edgedet"]
        if self.decoder not in legal:
            yield f"decoder {self.decoder!r}{suggest(self.decoder, legal)}"
        if (self.priors is None) == (self.decoder == "ssd-raw"):
            yield f"decoder {self.decoder!r}: 'priors' belong to 'ssd-raw', which needs them"
        if not self.classes or len(set(self.classes)) < len(self.classes):
            yield f"classes {list(self.classes)}; legal: at least one, each named once"
        for name in self.class_map:
            if name not in self.classes:
                yield f"class_map: no class {name!r} in 'classes'{suggest(name, self.classes)}"
        if not 0 <= self.pad_value <= 255:
            yield f"pad_value {self.pad_value}; legal: 0 to 255"
        if not 0 <= self.min_score < 1:
            yield f"min_score {self.min_score}; legal: 0 up to, not including, 1"
        if min(self.std, default=0.0) <= 0:
            yield f"std {list(self.std)}; legal: numbers above 0, one or one a channel"


def load_external_detector_card(path: Path) -> ExternalDetectorCard:
    """Returns the card in a YAML file, its model's path completed.

    Raises:
        ModelError: The file is no card, or its model lies outside the card's folder.
    """
    card = from_mapping(ExternalDetectorCard, read_yaml(path, ModelError), str(path), ModelError)
    stated = PureWindowsPath(card.model)  # Knows drive letters and both kinds of slash.
    if stated.anchor or ".." in stated.parts or "\0" in str(card.model):
        raise ModelError(
            f"{path}: model {str(card.model)!r} leaves the folder {path.parent}; "
            "legal: a path inside it"
        )
    return replace(card, model=path.parent / stated.as_posix())


def class_table(
    teacher: Sequence[str], student: Sequence[str], class_map: Mapping[str, str]
) -> NDArray[np.int64]:
    """Returns the student's label for each of the teacher's, -1 for a class that is dropped.

    Args:
        teacher: Names, indexed by the teacher's labels.
        student: Names, indexed by the student's labels.
        class_map: The teacher's name to the student's; empty: equal names, whatever their case.

    Raises:
        ModelError: The map leads to a class that the student does not have, or nothing maps.
    """
    for name, target in class_map.items():
        if target not in student:
            raise ModelError(
                f"class_map sends {name!r} to {target!r}, which is no class of the student"
                f"{suggest(target, student)}"
            )
    label_of = {name: student.index(target) for name, target in class_map.items()}
    if not class_map:
        by_name = {name.casefold(): label for label, name in enumerate(student)}
        label_of = {name: by_name.get(name.casefold(), -1) for name in teacher}
    table = [label_of.get(name, -1) for name in teacher]
    if max(table, default=-1) < 0:
        raise ModelError(
            f"no class of the teacher {list(teacher)} is one of the student's {list(student)}; "
            "name pairs in 'class_map'"
        )
    return np.array(table, dtype=np.int64)


class ExternalDetector:
    """A detector's file that labels images with the student's classes.

    Images run one at a time, so that files with a batch of one serve as well as those with an open
    batch, and both give the same.

    Args:
        card: What the file expects and returns.
        classes: The student's, indexed by label.
        threads: Of the runtime.

    Raises:
        ModelError: The file cannot be run, or card, file and student's classes do not fit together.

    Attributes:
        runner: The runtime with the file loaded.
    """

    def __init__(
        self, card: ExternalDetectorCard, classes: tuple[str, ...], threads: int = 1
    ) -> None:
        self.card, self.classes = card, classes
        self._labels = class_table(card.classes, classes, card.class_map)
        arithmetic = exact_arithmetic(card.model)
        self.runner = open_runner(card.model, threads=threads, arithmetic=arithmetic)
        self._input = _input_of(card, self.runner.input)
        self._pixels = _pixel_table(card, self._input)
        self._specification = self._described()

    def detect(self, images: NDArray[np.uint8]) -> list[Detections]:
        """Returns one `Detections` an image, best first, with the student's labels.

        At most 100 an image, after non-maximum suppression over the student's classes; boxes are in
        pixels of the given image and clipped to it, and those outside it are dropped.

        Args:
            images: ``(B, H, W, C)``, RGB or grey.

        Raises:
            DataError: Another shape or type.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise DataError(
                f"images are {images.dtype} {images.shape}; legal: uint8 (B, H, W, 1 or 3)"
            )
        return [self._detect_one(image) for image in images]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the file's input."""
        return self._input.height, self._input.width

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the model file's content, the card and the student's classes.

        It changes with everything that changes the detections, and not with the file's place.
        """
        card = to_mapping(self.card)
        card["model"] = sha256_of(self.card.model)
        content = json.dumps([card, list(self.classes)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _detect_one(self, image: Image) -> Detections:
        fitted, placement = letterbox(image, self._input)
        outputs = self.runner.run(self._tensor(fitted))
        boxes, scores, labels = decoder.decode(
            outputs, self._specification, self.card.min_score, _EVERY_CANDIDATE
        )
        # Before suppression, so that what is dropped crowds nothing out, and two classes of the
        # teacher that are one of the student's leave one box.
        labels = self._labels[labels]
        known = np.flatnonzero(labels >= 0)[:MAX_CANDIDATES]
        kept = known[decoder.suppress(boxes[known], scores[known], labels[known])]
        mapped = decoder.unletterbox(boxes[kept], *placement, image.shape[1], image.shape[0])
        inside = (mapped[:, 2:] > mapped[:, :2]).all(axis=1)
        kept = kept[inside]
        return Detections(boxes=mapped[inside], scores=scores[kept], labels=labels[kept])

    def _tensor(self, fitted: Image) -> NDArray[Any]:
        """Returns the input tensor for an image of the input's size."""
        given, channels = fitted.shape[2], self._input.channels
        if given < channels:
            fitted = fitted.repeat(channels, axis=2)
        elif given > channels:
            fitted = np.rint(fitted @ _LUMA).astype(np.uint8)[..., None]
        if self.card.colour == "bgr":
            fitted = fitted[..., ::-1]
        values: NDArray[Any] = self._pixels[fitted, np.arange(channels)][None]
        nchw = self._input.layout == "NCHW"
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if nchw else values)

    def _described(self) -> dict[str, Any]:
        """Returns what ``decoder.decode`` asks of a contract, checked against one run."""
        size = self._input
        blank = np.full((size.height, size.width, size.channels), self.card.pad_value, np.uint8)
        shapes = [output.shape for output in self.runner.run(self._tensor(blank))]
        roles = _roles(self.card, size, self.runner.outputs, shapes)
        outputs = [
            {
                "name": info.name,
                "role": role,
                "stride": 0,
                "layout": size.layout if len(shape) == 4 else "any",
                "scale": info.scale,
                "zero_point": info.zero_point,
            }
            for info, role, shape in zip(self.runner.outputs, roles, shapes, strict=True)
        ]
        decoding: dict[str, Any] = {"decoder": self.card.decoder}
        if self.card.priors is not None:
            decoding["priors"] = to_mapping(self.card.priors)
        return {"input": to_mapping(size), "outputs": outputs, "decoding": decoding}


def _input_of(card: ExternalDetectorCard, info: TensorInfo) -> InputContract:
    """Returns size, layout and quantization of the input; the normalisation is the card's."""
    layout: Literal["NCHW", "NHWC"]
    match info.shape:
        case (None | 1, 1 | 3 as channels, int(height), int(width)):
            layout = "NCHW"
        case (None | 1, int(height), int(width), 1 | 3 as channels):
            layout = "NHWC"
        case _:
            raise ModelError(
                f"{card.model}: input {info.name!r} is {info.shape}; legal: batch 1 or open, a "
                "fixed height and width, 1 or 3 channels, as NCHW or NHWC"
            )
    if info.dtype not in ("float32", "uint8", "int8"):
        raise ModelError(
            f"{card.model}: input {info.name!r} is {info.dtype}; legal: float32, uint8, int8"
        )
    return InputContract(
        height=height,
        width=width,
        channels=channels,
        layout=layout,
        dtype=cast(Literal["float32", "int8", "uint8"], info.dtype),
        scale=info.scale,
        zero_point=info.zero_point,
        resize=card.resize,
        pad_value=card.pad_value,
    )


def _pixel_table(card: ExternalDetectorCard, size: InputContract) -> NDArray[Any]:
    """Returns what each pixel value becomes in each channel, ``(256, C)`` in the input's type."""
    for name, values in (("mean", card.mean), ("std", card.std)):
        if len(values) not in (1, size.channels):
            raise ModelError(
                f"{card.model}: {name} {list(values)} for {size.channels} channels; "
                "legal: one number, or one a channel"
            )
    real = (np.arange(256.0)[:, None] - card.mean) / card.std
    real = np.broadcast_to(real, (256, size.channels))
    if size.dtype == "float32":
        return real.astype(np.float32)
    limits = np.iinfo(size.dtype)
    if size.scale is not None and size.zero_point is not None:
        real = real / size.scale + size.zero_point
    elif (real.min(), real.max()) != (limits.min, limits.max):
        raise ModelError(
            f"{card.model}: the {size.dtype} input has no scale and takes (pixel - mean) / std as "
            f"it is; with mean {list(card.mean)} and std {list(card.std)} that is {real.min():g} "
            f"to {real.max():g}; legal: mean {-limits.min}, std 1"
        )
    return np.clip(np.rint(real), limits.min, limits.max).astype(size.dtype)


def _expected(card: ExternalDetectorCard, size: InputContract) -> dict[str, Shape]:
    """Returns each output's shape by role, in the file's layout."""
    priors = None if card.priors is None else to_mapping(card.priors)
    expected = decoder.DECODERS[card.decoder].outputs(
        len(card.classes), size.height, size.width, priors
    )
    if size.layout == "NCHW":
        return dict(expected)
    maps = {role: shape for role, shape in expected.items() if len(shape) == 4}
    return {**expected, **{role: (n, h, w, c) for role, (n, c, h, w) in maps.items()}}


def _roles(
    card: ExternalDetectorCard,
    size: InputContract,
    outputs: Sequence[TensorInfo],
    shapes: Sequence[tuple[int, ...]],
) -> tuple[str, ...]:
    """Returns the role of each output of the file, in its order."""
    for info in outputs:
        if info.scale is None and not info.dtype.startswith("float"):
            raise ModelError(
                f"{card.model}: output {info.name!r} is {info.dtype} without a scale; "
                "legal: float, or integers with a scale in the file"
            )
    expected = _expected(card, size)
    fitting = [
        roles
        for roles in permutations(expected)
        if shapes_fit(shapes, [expected[role] for role in roles])
    ]
    if len(fitting) > 1:  # With three classes the shapes of scores and boxes are the same.
        fitting = [roles for roles in fitting if roles == tuple(info.name for info in outputs)]
    if len(fitting) != 1:
        found = ", ".join(
            f"{info.name} {shape_text(shape)}" for info, shape in zip(outputs, shapes, strict=True)
        )
        wanted = ", ".join(f"{role} {shape_text(shape)}" for role, shape in expected.items())
        raise ModelError(
            f"{card.model}: its outputs are {found}; decoder {card.decoder!r} with "
            f"{len(card.classes)} classes and an input of {size.width} x {size.height} reads "
            f"{wanted} (outputs of equal shape by these names)"
        )
    return fitting[0]
