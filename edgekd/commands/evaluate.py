"""The accuracy of exported files and checkpoints on a data set, here or on a board."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgekd.board.transport import PYTHON, over_ssh
from edgekd.config.recipe import Recipe, override
from edgekd.core.errors import (
    DataError,
    ModelError,
)
from edgekd.core.progress import Progress
from edgekd.core.results import ClassificationMetrics, DetectionMetrics
from edgekd.core.types import Dataset
from edgekd.measure.detector import FileModel, predict_file, score
from edgekd.measure.on_board import BoardCompute
from edgekd.modelfile.memory import try_out
from edgekd.run.inputs import load_split

Metrics = DetectionMetrics | ClassificationMetrics

IMAGES_A_TRIP = 32
"""Sent to a board at once: fewer would be all waiting, more would fill a small memory card."""


def evaluate_files(
    models: Sequence[Path],
    data: Path | None,
    split: str,
    threads: int,
    progress: Progress,
    host: str | None = None,
    python: str = PYTHON,
) -> Iterator[tuple[Path, Metrics]]:
    """Yields every file and its metrics; a ``.safetensors`` checkpoint is run in torch.

    With a host, images are prepared and detections scored here, and the outputs in between are
    the board's.

    Raises:
        DataError: The data set cannot be read or names other classes.
        ModelError: A file cannot be run.
        RunError: The host is out of reach or lacks something.
    """
    recipe = override(Recipe(), {"data.path": str(data)} if data else {})
    dataset = load_split(recipe, split, Path("runs"), progress)
    for path in models:
        if path.suffix == ".safetensors":
            if host:
                raise ModelError(f"{path}: a board runs .onnx and .tflite files")
            predictions, classes = _checkpoint_predictions(path, dataset, progress)
        else:
            try_out(path)
            model = FileModel(path, threads)
            classes = model.contract.classes
            _require_classes(path, classes, dataset)
            predictions = _file_predictions(model, dataset, progress, path, threads, host, python)
        _require_classes(path, classes, dataset)
        yield path, score(dataset, predictions)


def _file_predictions(
    model: FileModel,
    dataset: Dataset,
    progress: Progress,
    path: Path,
    threads: int,
    host: str | None,
    python: str,
) -> dict[int, Any]:
    if host is None:
        return predict_file(model, dataset, progress, path.name)
    with over_ssh(host, python) as work:
        compute = BoardCompute(work, path, threads)
        title = f"{path.name} on {host}"
        return predict_file(model, dataset, progress, title, compute, IMAGES_A_TRIP)


def _checkpoint_predictions(
    path: Path, dataset: Dataset, progress: Progress
) -> tuple[dict[int, Any], tuple[str, ...]]:
    import torch

    from edgekd.nets.card import load_net
    from edgekd.nets.outputs import network_outputs
    from edgekd.training.inference import network_predictions

    net, card = load_net(path)
    _require_classes(path, card.classes, dataset)
    predictions = network_predictions(
        net,
        card,
        network_outputs(net, card),
        dataset,
        progress=progress,
        title=path.name,
        device=torch.device("cpu"),
    )
    return predictions, card.classes


def _require_classes(path: Path, classes: tuple[str, ...], dataset: Dataset) -> None:
    if classes != dataset.classes:
        raise DataError(
            f"{path}: made for the classes {list(classes)}, {dataset.root} has "
            f"{list(dataset.classes)}"
        )
