"""Rows, comparisons and checks of the report, from predictions that were really made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.transport import on_this_computer
from edgekd.config.device import Device
from edgekd.config.sections import BenchmarkSection
from edgekd.core.exported import (
    EXPORTED_BY_NAME,
    FLOAT16_ONNX,
    INT8_HOST_ONNX,
    INT8_ONNX,
    INT8_TFLITE,
    PEER_ONNX,
)
from edgekd.core.host import is_x86
from edgekd.core.progress import Progress
from edgekd.core.results import (
    Check,
    Comparison,
    Interval,
    Latency,
    ModelRow,
    OperatorCost,
    Regression,
    SampleVisualisation,
    reference_key,
)
from edgekd.core.types import Artifact, Dataset, Detections, Format, Precision, Sample, Task
from edgekd.measure.advice import operator_costs
from edgekd.measure.detector import FileModel, predict_file, score
from edgekd.measure.on_board import Protocol, as_latency, measure
from edgekd.measure.predict import latency_model, predict_everywhere, predict_latency
from edgekd.metrics.bootstrap import CONFIDENCE, paired_bootstrap, paired_top1_bootstrap
from edgekd.metrics.per_image import image_precision
from edgekd.modelfile.memory import peak_memory
from edgekd.modelfile.operators import ModelOperators
from edgekd.modelfile.read import read_operators

TRAINED = "trained-int8"
"""Key of the predictions of the fake-quantized graph, which has no row of its own."""

AGREEMENT = 0.003
"""Largest difference in mAP (or top-1) between the int8 files, as a fraction."""

SURE = 0.999
"""Confidence at which a larger difference fails the proof. Runtimes round differently, so that
some decisions always differ: at 95 % one proof in twenty on a small set would fail by chance."""


@dataclass(slots=True)
class Assessment:
    """What has been measured so far.

    Attributes:
        dataset: Validation images.
        options: Threads, runs, resamples.
        device: The target.
        rows: In the order of the table.
        predictions: Row key to detections or logits by image id.
    """

    dataset: Dataset
    options: BenchmarkSection
    device: Device
    rows: list[ModelRow] = field(default_factory=list)
    predictions: dict[str, dict[int, Any]] = field(default_factory=dict)

    def add_network(
        self,
        key: str,
        name: str,
        predictions: dict[int, Any] | None,
        *,
        parameters: int,
        macs: int,
    ) -> None:
        """Adds a network that was run in torch; None where its outputs cannot be read."""
        if predictions is not None:
            self.predictions[key] = predictions
        self.rows.append(
            ModelRow(
                key=key,
                name=name,
                runtime="torch",
                precision=Precision.FLOAT32,
                parameters=parameters,
                macs=macs,
                size_bytes=4 * parameters,
                path=None,
                metrics=None if predictions is None else score(self.dataset, predictions),
            )
        )

    def add_file(self, artifact: Artifact, progress: Progress) -> None:
        """Runs an exported file in its own runtime over the set, times it and predicts it."""
        file = EXPORTED_BY_NAME[artifact.path.name]
        model = FileModel(artifact.path, self.options.threads)
        predictions = None
        if model.readable:
            title = f"accuracy {artifact.path.name}"
            predictions = predict_file(model, self.dataset, progress, title)
            self.predictions[file.key] = predictions
        board, fair = artifact.form == "board", _fair_here(artifact)
        network = read_operators(artifact.path)
        predicted = predict_latency(network, self.device) if board else None
        self.rows.append(
            ModelRow(
                key=file.key,
                name=file.title,
                runtime=f"{model.runner.runtime} {model.runner.runtime_version}",
                precision=artifact.precision,
                parameters=artifact.parameters,
                macs=artifact.macs,
                size_bytes=artifact.size_bytes,
                path=str(artifact.path),
                metrics=None if predictions is None else score(self.dataset, predictions),
                measured=time_file(artifact.path, self.options) if fair else None,
                predicted=predicted,
                everywhere=predict_everywhere(network) if board else (),
                operators=_operators(network, self.device) if predicted else (),
                memory_bytes=peak_memory(artifact.path, arithmetic=model.contract.arithmetic),
            )
        )

    def compare(self, of: str, minus: str, confidence: float = CONFIDENCE) -> Comparison | None:
        """Returns the paired difference of two rows, None unless both were measured."""
        if of not in self.predictions or minus not in self.predictions:
            return None
        metric = self.dataset.task.metric
        interval = self._interval(of, minus, confidence)
        return Comparison(of=of, minus=minus, metric=metric, interval=interval)

    @property
    def reference(self) -> str:
        """Key of the row that int8 is compared with."""
        return reference_key([row.key for row in self.rows])

    @property
    def int8_onnx(self) -> str:
        """Key of the int8 ONNX file that ships; on a host that is the host form."""
        return (INT8_ONNX if INT8_ONNX.key in self.predictions else INT8_HOST_ONNX).key

    def agreements(self) -> Iterator[Check]:
        """Yields whether the int8 files decide as the trained graph does, and like each other."""
        names = {INT8_TFLITE.key: "TFLite", self.int8_onnx: "ONNX", TRAINED: "the trained graph"}
        pairs = [(self.int8_onnx, TRAINED), (INT8_TFLITE.key, TRAINED)]
        for of, minus in [*pairs, (INT8_TFLITE.key, self.int8_onnx)]:
            comparison = self.compare(of, minus, SURE)
            if comparison is not None:
                files = "int8-files" if minus != TRAINED else of
                yield self._agreement(comparison, f"decisions/{files}", names)

    def _agreement(self, comparison: Comparison, name: str, names: dict[str, str]) -> Check:
        interval = comparison.interval
        close = abs(interval.value) <= AGREEMENT
        chance = interval.low <= 0 <= interval.high
        return Check(
            name=name,
            passed=close or chance,
            figure=f"{names[comparison.of]} minus {names[comparison.minus]} "
            f"{100 * interval.value:+.2f} points [{100 * interval.low:+.2f}, "
            f"{100 * interval.high:+.2f}] {comparison.metric}",
            criterion=f"within {100 * AGREEMENT:.1f} points, or the paired {100 * SURE:g} % "
            "interval covers 0",
            failing_operator=None if close or chance else comparison.of,
        )

    def visualisation(self, sample: Sample, keys: Sequence[str]) -> SampleVisualisation:
        """Returns one image with its annotation and what the named rows detected in it."""
        truth = Detections(
            boxes=sample.boxes,
            scores=np.ones(len(sample.boxes), dtype=np.float32),
            labels=sample.labels,
        )
        return SampleVisualisation(
            image=sample.path,
            classes=self.dataset.classes,
            truth=truth,
            detections={key: self.predictions[key][sample.image_id] for key in keys},
        )

    def regressions(self, of: str, minus: str, most: int) -> tuple[Regression, ...]:
        """Returns the images that ``of`` answers worse than ``minus``, the worst first.

        Of a classifier those that are wrong now and were right.
        """
        if of not in self.predictions or minus not in self.predictions:
            return ()
        after, before = self.predictions[of], self.predictions[minus]
        if self.dataset.task is Task.DETECTION:
            lost = image_precision(self.dataset, before) - image_precision(self.dataset, after)
        else:
            lost = np.array([_lost_share(s, before, after) for s in self.dataset.samples])
        samples = self.dataset.samples
        worst = sorted(np.flatnonzero(lost > 0), key=lambda index: (-lost[index], index))[:most]
        return tuple(self._regression(samples[i], of, minus, float(lost[i])) for i in worst)

    def _regression(self, sample: Sample, of: str, minus: str, lost: float) -> Regression:
        after, before = (self.predictions[key][sample.image_id] for key in (of, minus))
        if self.dataset.task is Task.DETECTION:
            visualisation = self.visualisation(sample, (minus, of))
            said = f"mAP of this image {100 * lost:.1f} points lower"
        else:
            names, visualisation = self.dataset.classes, None
            said = (
                f"{names[int(sample.labels[0])]}: {names[int(np.argmax(before))]} before, "
                f"{names[int(np.argmax(after))]} after"
            )
        return Regression(
            image=sample.path, of=of, minus=minus, lost=lost, said=said,
            visualisation=visualisation, frame=sample.frame,
        )  # fmt: skip

    def _interval(self, of: str, minus: str, confidence: float) -> Interval:
        a, b = self.predictions[minus], self.predictions[of]
        samples = self.options.bootstrap
        if self.dataset.task is Task.DETECTION:
            return paired_bootstrap(self.dataset, a, b, samples=samples, confidence=confidence)
        ids = [s.image_id for s in self.dataset.samples]
        labels = np.array([int(s.labels[0]) for s in self.dataset.samples])
        logits_a, logits_b = (np.stack([p[k] for k in ids]) for p in (a, b))
        return paired_top1_bootstrap(
            logits_a, logits_b, labels, samples=samples, confidence=confidence
        )


def _lost_share(sample: Sample, before: dict[int, Any], after: dict[int, Any]) -> float:
    """Returns how much less likely a classifier finds the true class, 0 unless it errs only now."""
    label, pair = int(sample.labels[0]), [found[sample.image_id] for found in (before, after)]
    if int(np.argmax(pair[0])) != label or int(np.argmax(pair[1])) == label:
        return 0.0
    shares = [np.exp(logits - logits.max()) for logits in pair]
    first, last = (float(share[label] / share.sum()) for share in shares)
    return max(first - last, 0.0)


def _fair_here(artifact: Artifact) -> bool:
    """Whether timing a file on this computer says anything about the file.

    ONNX Runtime on x86 has no fast kernels for int8 activations, nor any for float16: the board's
    int8 ONNX file is proven here and its twin in the host form is timed.
    """
    if artifact.precision is Precision.FLOAT16:
        return False
    slow_form = artifact.format is Format.ONNX and artifact.precision is Precision.INT8
    return not (is_x86() and slow_form and artifact.form == "board")


def _operators(network: ModelOperators, device: Device) -> tuple[OperatorCost, ...]:
    """Returns what every operator that takes time is predicted to take, dearest first."""
    known = latency_model(device, network.format)
    if known is None:
        return ()
    return tuple(cost for cost in operator_costs(network.operators, known) if cost.ms > 0)


def time_file(path: Path, options: BenchmarkSection) -> Latency:
    """Returns the latency of a file on this computer, timed as on a board."""
    protocol = Protocol(
        threads=options.threads,
        warmup=options.warmup,
        warmup_seconds=min(options.seconds, Protocol().warmup_seconds),
        runs=options.runs,
        seconds=options.seconds,
    )
    with on_this_computer() as work:
        return as_latency(measure(work, path, protocol))


def compared(assessment: Assessment) -> tuple[Comparison, ...]:
    """Returns the differences that a reader asks for first, where both sides were measured."""
    reference = assessment.reference
    judged = (FLOAT16_ONNX, INT8_ONNX, INT8_HOST_ONNX, INT8_TFLITE, PEER_ONNX)
    pairs = [
        ("teacher", "student-no-kd"),
        ("teacher", "student"),
        ("student", "student-no-kd"),
        *((file.key, reference) for file in judged),
        (INT8_TFLITE.key, assessment.int8_onnx),
    ]
    return tuple(c for c in (assessment.compare(*pair) for pair in pairs) if c is not None)
