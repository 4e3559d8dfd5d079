"""Accuracy-aware tuning: the fewest layers kept in float that bring lost accuracy back.

What each rounding does to the network's outputs is measured alone; the tensors that do most harm
are left unrounded first, until the accuracy is as demanded, and then whatever was not needed after
all is rounded again. neural-compressor's tuning loop tries one after the other: our quantizer is
registered with it as an algorithm, a set of layers is a configuration of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import disable_fake_quant, disable_observer, enable_fake_quant
from torchao.quantization.pt2e import move_exported_model_to_eval as to_eval

from edgekd.core.quiet import errors_only, quietly
from edgekd.quantize.graph import frozen, only_outputs
from edgekd.quantize.mixed import between_layers, end, keep_float, layers
from edgekd.quantize.quantizer import WEIGHTED

Layers = tuple[str, ...]
Evaluate = Callable[[nn.Module], float]
"""A network in evaluation mode to its accuracy, a fraction."""

_ALGORITHM = "edgekd"


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSensitivity:
    """What int8 does to the outputs through one layer alone: noise power over signal power.

    Attributes:
        layer: As `edgekd.quantize.mixed.layers` has it.
        weight: Of rounding its weight; None for an addition or product.
        output: Of rounding what it makes; None where the target does not round that.
    """

    layer: str
    weight: float | None
    output: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One set of layers kept in float, and the accuracy it reached, a fraction."""

    kept: Layers
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What came of tuning.

    Attributes:
        kept: Layers to keep in float, in the order of execution; empty where none is needed.
        met: Whether the accuracy is as demanded with them.
        floating: Accuracy of the float network.
        trials: In order.
    """

    kept: Layers
    met: bool
    floating: float
    trials: tuple[Trial, ...]


@torch.no_grad()
def layer_sensitivities(
    graph: GraphModule, batches: Iterable[Tensor], outputs: int, *, weights: bool = True
) -> Iterator[LayerSensitivity]:
    """Yields what rounding does at each layer, in the order of execution.

    Args:
        graph: Calibrated, trained or not; left as it is.
        batches: Real images ``(B, C, H, W)``.
        outputs: How many of the graph's outputs are the network's.
        weights: Whether to ask what rounding the weights does, too.
    """
    with quietly():
        graph = only_outputs(copy.deepcopy(graph), outputs)
    to_eval(graph)
    graph.apply(disable_observer)
    graph.apply(disable_fake_quant)
    images = list(batches)
    exact = [graph(batch) for batch in images]

    def noise(rounding: nn.Module | None) -> float | None:
        if rounding is None:
            return None
        rounding.apply(enable_fake_quant)
        shares = [_noise(graph(batch), wanted) for batch, wanted in zip(images, exact, strict=True)]
        rounding.apply(disable_fake_quant)
        return sum(shares) / len(shares)

    for name, node in layers(graph).items():
        weighted = weights and node.target in WEIGHTED
        weight = _rounding(graph, cast(Node, node.args[1])) if weighted else None
        made = next((_rounding(graph, user) for user in end(node).users), None)
        yield LayerSensitivity(layer=name, weight=noise(weight), output=noise(made))


def _noise(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Returns noise over signal, the mean over outputs; signal is what moves in a channel."""
    shares = []
    for f, w in zip(found, wanted, strict=True):
        signal = w - w.mean([axis for axis in range(w.ndim) if axis != 1], keepdim=True)
        shares.append(float(((f - w) ** 2).mean() / (signal**2).mean().clamp(min=1e-12)))
    return sum(shares) / len(shares)


def _rounding(graph: GraphModule, node: Node) -> nn.Module | None:
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def tune(
    floating: nn.Module,
    graph: GraphModule,
    found: Sequence[LayerSensitivity],
    prices: Mapping[str, float],
    evaluate: Evaluate,
    tolerable: float,
    most: int = 12,
) -> Tuned:
    """Returns the fewest layers whose staying in float keeps the loss of accuracy tolerable.

    Args:
        floating: The float network that the loss is counted against.
        graph: Fake-quantized, not frozen; left as it is.
        found: From `layer_sensitivities`.
        prices: What a layer costs more in float, of any unit; among sets of one size the cheaper
            goes first.
        evaluate: Judges a network.
        tolerable: Loss of accuracy, a fraction.
        most: Tensors left unrounded at most.
    """
    order = {name: rank for rank, name in enumerate(layers(graph))}
    sensitivity = {item.layer: item.output or 0.0 for item in found}
    tensors = sorted(between_layers(graph).values(), key=lambda names: -sensitivity[names[0]])[
        :most
    ]

    def union(chosen: Iterable[Layers]) -> Layers:
        return tuple(sorted({name for names in chosen for name in names}, key=order.__getitem__))

    def price(kept: Layers) -> tuple[int, float]:
        return len(kept), sum(prices.get(name, 0.0) for name in kept)

    trials: list[Trial] = []

    def tried(sets: Sequence[Layers]) -> bool:
        known = {trial.kept for trial in trials}
        new = [kept for kept in dict.fromkeys(sets) if kept not in known]
        if not new:
            return False  # Each of them was too little before.
        trials.extend(_autotune(floating, graph, new, judge, tolerable))
        return trials[-1].accuracy >= judge(floating) - tolerable

    judge = _remembered(evaluate, floating)
    if judge(floating) <= 0:  # There is nothing to lose, and nothing to divide a loss by.
        return Tuned(kept=(), met=True, floating=0.0, trials=())
    prefixes = [tensors[:count] for count in range(len(tensors) + 1)]
    met = tried([union(prefix) for prefix in prefixes])
    if not met:
        best = max(trials, key=lambda trial: trial.accuracy)
        return Tuned(kept=best.kept, met=False, floating=judge(floating), trials=tuple(trials))
    chosen = next(prefix for prefix in prefixes if union(prefix) == trials[-1].kept)
    while len(chosen) > 1:
        fewer = [[t for t in chosen if t is not left] for left in chosen]
        fewer.sort(key=lambda part: price(union(part)))
        if not tried([union(part) for part in fewer]):
            break
        chosen = next(part for part in fewer if union(part) == trials[-1].kept)
    return Tuned(kept=union(chosen), met=True, floating=judge(floating), trials=tuple(trials))


def _remembered(evaluate: Evaluate, floating: nn.Module) -> Evaluate:
    """Returns ``evaluate``, which judges the float network once."""
    known: list[float] = []

    def judge(net: nn.Module) -> float:
        if net is not floating:
            return evaluate(net)
        if not known:
            known.append(evaluate(net))
        return known[0]

    return judge


class _Pair(nn.Module):
    """What the tuning loop holds: the float network, and the graph that our algorithm starts from.

    Copied by the loop for every trial; neither part is changed, so a copy shares both.
    """

    def __init__(self, floating: nn.Module, graph: GraphModule) -> None:
        super().__init__()
        self.parts = (floating, graph)

    def __deepcopy__(self, _memo: dict[int, Any]) -> _Pair:
        return _Pair(*self.parts)


def _autotune(
    floating: nn.Module,
    graph: GraphModule,
    sets: Sequence[Layers],
    evaluate: Evaluate,
    tolerable: float,
) -> list[Trial]:
    """Returns the trials of neural-compressor's loop, which ends at the first that will do."""
    with quietly():
        from neural_compressor.torch.quantization import TuningConfig, autotune

        config = _registered()
    trials: list[Trial] = []

    def judge(net: nn.Module) -> float:
        if isinstance(net, _Pair):
            return evaluate(floating)
        accuracy = evaluate(net)
        trials.append(Trial(kept=sets[len(trials)], accuracy=accuracy))
        return accuracy

    # Its loss is relative to the baseline.
    relative = tolerable / evaluate(floating)
    tuning = TuningConfig(
        config_set=[config(",".join(kept)) for kept in sets],
        tolerable_loss=relative,
        max_trials=len(sets),
    )
    with errors_only("neural_compressor"):
        autotune(_Pair(floating, graph), tune_config=tuning, eval_fn=judge)
    return trials


@cache
def _registered() -> Callable[[str], Any]:
    """Registers our quantizer with neural-compressor; returns its class of configurations."""
    from neural_compressor.common.base_config import BaseConfig, register_config
    from neural_compressor.torch.utils.utility import register_algo

    @register_config(framework_name="torch", algo_name=_ALGORITHM)
    class KeepFloatConfig(BaseConfig):  # type: ignore[misc]
        """Layers to keep in float, joined by commas: a list would be taken for alternatives."""

        name = _ALGORITHM
        params_list = ("kept",)

        def __init__(self, kept: str = "", white_list: Any = None) -> None:  # noqa: ANN401
            super().__init__(white_list=white_list)
            self.kept = kept

        @classmethod
        def register_supported_configs(cls) -> None:
            cls.supported_configs = []

        @staticmethod
        def get_model_info(model: nn.Module) -> list[Any]:
            return []

        def to_config_mapping(self, **_given: Any) -> dict[tuple[str, str], Any]:  # noqa: ANN401
            return {("network", "network"): self}

        @classmethod
        def get_config_set_for_tuning(cls) -> Any:  # noqa: ANN401 - as its base declares it
            return cls()

    @register_algo(name=_ALGORITHM)  # type: ignore[untyped-decorator]
    def keep(model: _Pair, mapping: dict[Any, Any], *_args: Any, **_more: Any) -> GraphModule:  # noqa: ANN401
        (config,) = mapping.values()
        with quietly():
            graph = copy.deepcopy(model.parts[1])
        return frozen(keep_float(graph, [name for name in config.kept.split(",") if name]))

    return cast(Callable[[str], Any], KeepFloatConfig)
