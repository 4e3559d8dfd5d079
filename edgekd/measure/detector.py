"""A model file as a detector or classifier: pixels in, detections or logits out.

The path that every figure takes: read, letterbox, input tensor, runtime, numpy decoder, back to
pixels of the original image. `edgekd predict` and `edgekd eval` are this and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import ModelError
from edgekd.core.progress import Progress
from edgekd.core.results import ClassificationMetrics, DetectionMetrics
from edgekd.core.serialize import to_mapping
from edgekd.core.types import Dataset, Detections, Image, Task
from edgekd.data.image import letterbox, read_image, to_input
from edgekd.data.placement import Placement, placed_detections
from edgekd.metrics.classification import ClassificationEvaluator
from edgekd.metrics.detection import DetectionEvaluator
from edgekd.modelfile.contract import Contract, read_contract
from edgekd.modelfile.runner import Runner, open_runner
from edgekd.standalone import decoder

Outputs = list[NDArray[Any]]
Compute = Callable[[Sequence[NDArray[Any]]], Sequence[Outputs]]


class FileModel:
    """An exported file, opened in its runtime.

    Args:
        path: Exported by EdgeKD; its contract is read from the file itself.
        threads: Of the runtime.

    Raises:
        ModelError: The file cannot be run, carries no contract, or one whose decoder is not here.

    Attributes:
        contract: What the file expects and returns.
        runner: The runtime. An int8 ONNX file runs in the arithmetic that its form demands, so
            that what is measured is what ships.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.contract: Contract = read_contract(path)
        _require_decoder(path, self.contract)
        self.runner: Runner = open_runner(
            path, threads=threads, arithmetic=self.contract.arithmetic
        )
        self._specification: dict[str, Any] = to_mapping(self.contract)

    @property
    def readable(self) -> bool:
        """Whether the outputs can be turned into classes or boxes."""
        named = self.contract.decoding.decoder != "none"
        return named or self.contract.task is Task.CLASSIFICATION

    def preprocess(self, image: Image) -> tuple[NDArray[Any], Placement]:
        """Returns the input tensor for one image, and how the image lies in it."""
        boxed, placement = letterbox(image, self.contract.input)
        return to_input(boxed, self.contract.input), placement

    def postprocess(
        self,
        outputs: Outputs,
        placement: Placement,
        shape: tuple[int, ...],
        min_score: float = 0.001,
    ) -> Detections:
        """Returns the detections in pixels of the original image of ``shape`` (H, W, C)."""
        return placed_detections(outputs, self._specification, placement, shape, min_score)

    def detect(self, image: Image, min_score: float = 0.001) -> Detections:
        """Returns the detections in one image, best first."""
        tensor, placement = self.preprocess(image)
        return self.postprocess(self.runner.run(tensor), placement, image.shape, min_score)

    def logits(self, outputs: Outputs) -> NDArray[np.float32]:
        """Returns the class logits ``(C,)`` of one image's outputs."""
        (values,) = outputs
        spec = self.contract.outputs[0]
        return np.asarray(decoder.dequantize(values, spec.scale, spec.zero_point)[0])


def _require_decoder(path: Path, contract: Contract) -> None:
    name = contract.decoding.decoder
    if name not in ("none", decoder.IN_THE_FILE, *decoder.DECODERS):
        raise ModelError(
            f"{path}: its outputs are read by the decoder {name!r}, which a plugin registers; name "
            f"that file with --plugin (a copy, {decoder.file_of(name)}, may lie beside the model)"
        )


def predict_file(
    model: FileModel,
    dataset: Dataset,
    progress: Progress,
    title: str,
    compute: Compute | None = None,
    together: int = 1,
) -> dict[int, Any]:
    """Returns detections (or logits) of every image by image id.

    Args:
        model: Prepares the images and reads the outputs.
        dataset: The images.
        progress: Counts them.
        title: Beside the count.
        compute: Makes the outputs of input tensors; None for the file's runtime here.
        together: Images that ``compute`` is given at once.
    """
    compute = compute or (lambda tensors: [model.runner.run(tensor) for tensor in tensors])
    results: dict[int, Any] = {}
    with progress.meter(title, len(dataset.samples)) as meter:
        for start in range(0, len(dataset.samples), together):
            samples = dataset.samples[start : start + together]
            images = [read_image(sample, model.contract.input.channels) for sample in samples]
            prepared = [model.preprocess(image) for image in images]
            found = compute([tensor for tensor, _ in prepared])
            for sample, image, (_, placement), outputs in zip(
                samples, images, prepared, found, strict=True
            ):
                results[sample.image_id] = (
                    model.postprocess(outputs, placement, image.shape)
                    if model.contract.task is Task.DETECTION
                    else model.logits(outputs)
                )
            meter.update(len(results))
    return results


def score(
    dataset: Dataset, predictions: dict[int, Any]
) -> DetectionMetrics | ClassificationMetrics:
    """Returns the metrics of predictions by image id."""
    if dataset.task is Task.CLASSIFICATION:
        return _score_classes(dataset, predictions)
    evaluator = DetectionEvaluator(dataset)
    for image_id, detections in predictions.items():
        evaluator.update(image_id, detections)
    return evaluator.compute()


def _score_classes(dataset: Dataset, predictions: dict[int, Any]) -> ClassificationMetrics:
    evaluator = ClassificationEvaluator(dataset.classes)
    labels = {s.image_id: int(s.labels[0]) for s in dataset.samples}
    logits = np.stack([predictions[k] for k in labels])
    evaluator.update(logits, np.array(list(labels.values())))
    return evaluator.compute()
