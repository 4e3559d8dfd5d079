"""Which layers of the student stay in float: named in the recipe, or found by tuning."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule, Node

import edgekd
from edgekd.config.device import Device
from edgekd.core.errors import RecipeError
from edgekd.core.files import sha256_of, write_atomic
from edgekd.core.serialize import to_mapping
from edgekd.core.types import Dataset, Format, Precision
from edgekd.measure.detector import score
from edgekd.measure.predict import LatencyModel, latency_model
from edgekd.modelfile.operators import Geometry, Operator, OperatorKind
from edgekd.nets.card import readable
from edgekd.nets.outputs import network_outputs
from edgekd.quantize import graph as graphs
from edgekd.quantize.mixed import layers
from edgekd.quantize.quantizer import WEIGHTED
from edgekd.quantize.tuning import Layers, LayerSensitivity, Tuned, layer_sensitivities, tune
from edgekd.run.context import RunContext
from edgekd.run.images import calibration_batches, spread
from edgekd.run.inputs import fingerprint
from edgekd.run.student import load_graph
from edgekd.run.trained import Trained
from edgekd.training.inference import network_predictions

_POINTS = 100
_ANALYSED = 16
"""Images that each layer's sensitivity is measured on."""


def mixed_precision(context: RunContext, trained: Trained) -> Trained:
    """Returns what was trained with the layers that stay in float: named, or found by tuning."""
    section = context.recipe.quantize
    if trained.integer is None:
        return trained
    if not section.tune:
        return replace(trained, float_layers=section.keep_float)
    folder = context.directory.complete(Tune(context, trained))
    kept = json.loads((folder / "kept.json").read_text(encoding="utf-8"))
    return replace(trained, float_layers=tuple(kept))


@dataclass(frozen=True, slots=True)
class Tune:
    """The fewest layers in float that keep to the gate on accuracy."""

    context: RunContext
    trained: Trained
    name: str = "tune"

    def inputs(self) -> dict[str, Any]:
        """Returns what the choice depends on."""
        context, trained = self.context, self.trained
        assert trained.integer is not None  # noqa: S101 - for the type checker
        return {
            "floating": sha256_of(trained.floating),
            "integer": sha256_of(trained.integer),
            "device": to_mapping(context.device),
            "images": context.recipe.quantize.tuning_images,
            "max_map_drop": context.recipe.gates.max_map_drop,
            "train": fingerprint(context.train),
            "edgekd": edgekd.__version__,
        }

    def work(self, folder: Path) -> None:
        """Writes the names of the layers, and how they were found."""
        kept = steered(self.context, self.trained, folder)
        write_atomic(folder / "kept.json", json.dumps(kept))


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerReport:
    """What one layer costs in int8 and in float.

    Attributes:
        layer: Its name, as `quantize.keep_float` takes it.
        weight: Noise over signal in the network's outputs where only its weight is rounded.
        output: Likewise where only what it makes is rounded; None where it never is.
        price_ms: Predicted milliseconds more in float on the target; None without a prediction.
    """

    layer: str
    weight: float | None
    output: float | None
    price_ms: float | None


def analysed(
    context: RunContext, trained: Trained, *, weights: bool = True
) -> tuple[LayerReport, ...]:
    """Returns every layer's sensitivity and price, in the order of execution.

    Args:
        context: Gives the images.
        trained: Holds an integer graph.
        weights: Whether to ask what rounding the weights does, too, which takes twice as long.

    Raises:
        RecipeError: There is no integer graph.
    """
    graph = _integer(context, trained)
    count = len(network_outputs(context.student.load(trained.student), context.card))
    prices = _prices(context.student.folded(trained.student), context.device)
    images = list(calibration_batches(context, most=_ANALYSED))
    reports = []
    with context.progress.meter("layers", len(layers(graph))) as meter:
        for done, item in enumerate(layer_sensitivities(graph, images, count, weights=weights), 1):
            price = prices.get(item.layer)
            reports.append(
                LayerReport(
                    layer=item.layer, weight=item.weight, output=item.output, price_ms=price
                )
            )
            meter.update(done)
    return tuple(reports)


def steered(context: RunContext, trained: Trained, folder: Path) -> Layers:
    """Returns the fewest layers in float that keep to the gate on accuracy; writes how it went.

    Judged on training images, since the validation images judge what comes of it.

    Raises:
        RecipeError: The raw outputs of the network give no accuracy.
    """
    if not readable(context.card):
        raise RecipeError(
            "quantize.tune: the raw outputs of this network give no accuracy; name its "
            "network.decoder, or choose layers with quantize.keep_float"
        )
    reports = analysed(context, trained, weights=False)
    tuned = tune(
        load_graph(trained.floating, context.student.folded(trained.student)),
        _integer(context, trained),
        [LayerSensitivity(layer=r.layer, weight=r.weight, output=r.output) for r in reports],
        {r.layer: r.price_ms or 0.0 for r in reports},
        _Judge(context, trained.student),
        (context.recipe.gates.max_map_drop or 0.0) / _POINTS,
    )
    write_atomic(folder / "tuning.json", json.dumps(_written(tuned, reports), indent=1))
    context.progress.note(_said(tuned, context.recipe.gates.max_map_drop or 0.0))
    return tuned.kept


def _said(tuned: Tuned, points: float) -> str:
    last = next(t for t in reversed(tuned.trials) if t.kept == tuned.kept) if tuned.trials else None
    lost = _POINTS * (tuned.floating - last.accuracy) if last else 0.0
    named = ", ".join(tuned.kept) or "no layer"
    verdict = "as allowed" if tuned.met else "more than allowed, and no other set is better"
    return (
        f"tuning: {named} in float after {len(tuned.trials)} trials; {lost:+.2f} points lost on "
        f"training images, {verdict} ({points:g})"
    )


def _written(tuned: Tuned, reports: Sequence[LayerReport]) -> dict[str, Any]:
    return {**asdict(tuned), "layers": [asdict(report) for report in reports]}


class _Judge:
    """Accuracy on training images, spread over the split."""

    def __init__(self, context: RunContext, student: Path) -> None:
        self._shop = context
        self._outputs = network_outputs(context.student.load(student), context.card)
        samples = spread(context.train.samples, context.recipe.quantize.tuning_images)
        self._images: Dataset = replace(context.train, samples=tuple(samples))
        self._trial = 0

    def __call__(self, net: nn.Module) -> float:
        def forward(images: Tensor) -> Sequence[Tensor]:
            outputs: Sequence[Tensor] = net(images)[0]
            return outputs

        title = f"tuning, trial {self._trial}" if self._trial else "tuning, float"
        self._trial += 1
        predictions = network_predictions(
            forward,
            self._shop.card,
            self._outputs,
            self._images,
            progress=self._shop.progress,
            title=title,
            device=self._shop.torch_device,
        )
        metrics = score(self._images, predictions)
        return float(getattr(metrics, self._images.task.metric))


def _integer(context: RunContext, trained: Trained) -> GraphModule:
    """Returns the fake-quantized graph as it was trained."""
    if trained.integer is None:
        raise RecipeError("quantize.mode none: there is no int8 to analyse")
    folded = context.student.folded(trained.student)
    return load_graph(trained.integer, graphs.prepared(folded, context.device.quantization))


def _prices(folded: GraphModule, device: Device) -> dict[str, float]:
    """Returns what each layer takes longer in float, predicted for the device, in milliseconds."""
    known = _latency_model(device)
    if known is None:
        return {}

    def milliseconds(node: Node, precision: Precision) -> float:
        return known.milliseconds((_operator(folded, node, precision),))[0]

    return {
        name: milliseconds(node, Precision.FLOAT32) - milliseconds(node, Precision.INT8)
        for name, node in layers(folded).items()
    }


def _latency_model(device: Device) -> LatencyModel | None:
    """Returns what is known of the first runtime that computes in int8; None where of none."""
    for model_format in (Format.TFLITE, Format.ONNX):
        if device.allows(model_format, Precision.INT8):
            known = latency_model(device, model_format)
            if known is not None:
                return known
    return None


def _operator(graph: GraphModule, node: Node, precision: Precision) -> Operator:
    """Returns a layer as a runtime would execute it at batch 1."""
    width = 1 if precision is Precision.INT8 else 4
    given = [tuple(n.meta["val"].shape[1:]) for n in node.all_input_nodes if n.op != "get_attr"]
    made = tuple(int(size) for size in node.meta["val"].shape[1:])
    weights = [n for n in node.all_input_nodes if n.op == "get_attr"]
    sizes = [tuple(n.meta["val"].shape) for n in weights]
    kernel = sizes[0] if node.target in WEIGHTED else ()
    depthwise = len(kernel) == 4 and kernel[1] == 1 and kernel[0] > 1
    kind = OperatorKind.DEPTHWISE_CONV if depthwise else OperatorKind.CONV
    if len(kernel) == 2:
        kind = OperatorKind.FULLY_CONNECTED
    return Operator(
        kind=kind if kernel else OperatorKind.ELEMENTWISE,
        native=node.name,
        name=node.name,
        macs=math.prod(made) * math.prod(kernel[1:]) if kernel else 0,
        parameters=sum(map(math.prod, sizes)),
        input_bytes=width * sum(math.prod(map(int, shape)) for shape in given),
        weight_bytes=width * sum(map(math.prod, sizes)),
        output_bytes=width * math.prod(made),
        precision=precision,
        input_shapes=tuple((1, *map(int, shape)) for shape in given),
        output_shapes=((1, *made),),
        geometry=_geometry(kernel, given[0], made) if kernel else None,
    )


def _geometry(
    kernel: tuple[int, ...], given: tuple[int, ...], made: tuple[int, ...]
) -> Geometry | None:
    """Returns the shape of a layer's multiplication: of a matrix, or of an image."""
    if len(kernel) == 2:
        rows = math.prod(made[:-1])
        return Geometry(inputs=kernel[1], outputs=kernel[0], height=rows, width=1)
    if len(kernel) != 4:
        return None
    return Geometry(
        inputs=given[0],
        outputs=made[0],
        height=made[1],
        width=made[2],
        kernel=kernel[2:],
        stride=max(1, round(given[1] / made[1])),
        groups=max(1, given[0] // kernel[1]),
    )
