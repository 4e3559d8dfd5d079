"""Networks and exported files: made, evaluated, timed, run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.api.common import Metrics, Source, chosen_progress
from edgekd.core.progress import Progress
from edgekd.core.results import Latency
from edgekd.core.types import Detections, Image, Task

if TYPE_CHECKING:
    from torch import nn


def list_models() -> tuple[str, ...]:
    """Returns the names that `create_model` takes.

    A number behind the letter scales the width: ``edgedet-n0.75``.
    """
    from edgekd.nets.backbone import SCALES

    return tuple(f"{task.family}-{size}" for task in Task for size in SCALES)


def create_model(
    name: str,
    *,
    classes: tuple[str, ...],
    height: int = 320,
    width: int = 320,
    channels: int = 3,
    seed: int = 0,
) -> nn.Module:
    """Returns a network of EdgeKD's families with random weights.

    Args:
        name: One of `list_models`.
        classes: Names, indexed by label.
        height: Of the input in pixels; for a detector a multiple of 32.
        width: Likewise.
        channels: 1 (grey) or 3 (RGB).
        seed: Of the weights.

    Returns:
        A module that maps ``(B, channels, height, width)``, (pixel - 128) / 128, to raw outputs: a
        detector's scores and boxes for every level, finest first; a classifier's logits.

    Raises:
        ModelError: There is no such architecture, or it does not take such an input.
    """
    from edgekd.nets.card import Card, build

    strides = (8, 16, 32) if name.startswith("edgedet") else ()
    card = Card(
        architecture=name,
        classes=tuple(classes),
        height=height,
        width=width,
        channels=channels,
        strides=strides,
    )
    net = build(card, seed)
    net.card = card  # type: ignore[assignment] # What it is, for `compress` to keep it by.
    return net


def evaluate(
    model: Source,
    *,
    data: Source | None = None,
    split: str = "val",
    threads: int = 1,
    progress: Progress | bool = True,
) -> Metrics:
    """Returns the accuracy of a file, computed by its own runtime, or of a checkpoint, in torch.

    Args:
        model: ``.onnx``, ``.tflite`` or ``.safetensors``.
        data: The data set; None for the built-in demo.
        split: Of the data set.
        threads: Of the runtime.
        progress: As for `compress`.

    Raises:
        ModelError: The file cannot be run.
        DataError: The data set cannot be read, or has other classes.
    """
    from edgekd.commands.evaluate import evaluate_files

    folder = Path(data) if data is not None else None
    ((_, metrics),) = evaluate_files(
        [Path(model)], folder, split, threads, chosen_progress(progress)
    )
    return metrics


def benchmark(model: Source, *, target: str | None = None, threads: int | None = None) -> Latency:
    """Returns the latency of a file: measured on this computer, or predicted for a target.

    Args:
        model: ``.onnx`` or ``.tflite``.
        target: Id of a device profile; None measures here.
        threads: Of the runtime; None for one here, and for the profile's own number there.

    Raises:
        ModelError: The file cannot be run.
        DeviceError: There is no such profile, or nothing is predicted for it.
    """
    from edgekd.commands.latency import Place, measure_file, predict_file_latency
    from edgekd.measure.on_board import Protocol, as_latency

    if target is not None:
        return predict_file_latency(Path(model), target, threads)
    return as_latency(measure_file(Path(model), Protocol(threads=threads or 1), Place()))


class Model:
    """An exported file in its own runtime.

    Attributes:
        path: The file.
        classes: Names, indexed by label.
    """

    def __init__(self, path: Path) -> None:
        from edgekd.measure.detector import FileModel

        self.path = path
        self._file = FileModel(path)
        self.classes: tuple[str, ...] = self._file.contract.classes

    def predict(self, image: Source | Image, *, min_score: float = 0.3) -> Detections:
        """Returns what a detector finds in one image, best first.

        Args:
            image: A file, or uint8 pixels ``(H, W, C)``, RGB or grey.
            min_score: Least score of a detection, in (0, 1].

        Returns:
            Boxes ``(N, 4)`` as left, top, right, bottom in pixels of the image, scores ``(N,)`` and
            labels ``(N,)``, which index `classes`.

        Raises:
            ModelError: The file is a classifier's.
            DataError: The image cannot be read.
        """
        from edgekd.commands.predict import read_picture, require_detector

        require_detector(self.path, self._file)
        channels = self._file.contract.input.channels
        pixels = read_picture(Path(image), channels) if isinstance(image, str | Path) else image
        return self._file.detect(pixels, min_score)


def load(path: Source) -> Model:
    """Returns an exported ``.onnx`` or ``.tflite`` file, ready to predict.

    Raises:
        ModelError: The file cannot be run or carries no contract.
    """
    from edgekd.modelfile.memory import try_out

    try_out(Path(path))
    return Model(Path(path))
