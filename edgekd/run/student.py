"""The student of a run: its network fresh, from a checkpoint, or as a folded graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torch.fx import GraphModule

from edgekd.core.errors import RecipeError
from edgekd.core.files import sha256_of, write_atomic
from edgekd.core.types import OutputContract
from edgekd.nets.card import Card, Net, build, load_card, load_net, load_weights
from edgekd.nets.custom import CustomModel, custom_network, file_of, load_state
from edgekd.nets.outputs import network_outputs
from edgekd.nets.tap import TappedNet
from edgekd.nets.transfer import transfer
from edgekd.quantize.graph import copied, folded_graph


@dataclass(frozen=True, kw_only=True, slots=True)
class Student:
    """Builds the networks of a run's student.

    Attributes:
        card: What it is.
        source: ``my_model.py:function`` that makes it, where it is a network of the user's own.
        start: Checkpoint that its first weights are taken from, as far as they fit.
        seed: Of random weights.
        torch_device: Where its networks are put.
    """

    card: Card
    source: str | None
    start: Path | None
    seed: int
    torch_device: torch.device
    _exported: dict[Path, GraphModule] = field(default_factory=dict, repr=False, compare=False)

    def on(self, device: torch.device) -> Student:
        """Returns the same student, its networks on another device."""
        return replace(self, torch_device=device)

    def fresh(self, note: Callable[[str], None]) -> nn.Module:
        """Returns the network before training: random weights, or the start's as far as they fit.

        Random weights are the same for the same seed. ``note`` gets a line about the start.
        """
        net = self.blank()
        if self.start and isinstance(net, CustomModel):
            load_state(net.net, self.start)
        elif self.start and not isinstance(net, CustomModel):
            done = transfer(net, self.card, load_weights(self.start), load_card(self.start))
            note(f"start: {done.taken} of {done.total} tensors from {self.start.name}")
        return net.to(self.torch_device)

    def blank(self) -> Net | CustomModel:
        """Returns the network with random weights, on the CPU."""
        return self._custom(self.source) if self.source else build(self.card, self.seed)

    def outputs(self) -> tuple[OutputContract, ...]:
        """Returns what the network puts out."""
        return network_outputs(self.blank(), self.card)

    def load(self, checkpoint: Path) -> nn.Module:
        """Returns the network of a checkpoint of this run, in ``eval`` mode, on the CPU."""
        if not self.source:
            return load_net(checkpoint)[0]
        net = self._custom(self.source)
        net.load_state_dict(load_weights(checkpoint))
        return net.eval()

    def folded(self, checkpoint: Path) -> GraphModule:
        """Returns the folded graph, features included, of a checkpoint; exported once for each."""
        if checkpoint not in self._exported:
            net = self.load(checkpoint)
            example = torch.zeros((2, *self.card.input_shape[1:]))
            tapped = TappedNet(net, net.taps)  # type: ignore[arg-type]
            self._exported[checkpoint] = folded_graph(tapped.eval(), example)
        # A copy takes a hundredth of the time of an export.
        return copied(self._exported[checkpoint]).to(self.torch_device)

    @property
    def source_hash(self) -> str | None:
        """SHA-256 of the file that defines a network of the user's own."""
        return sha256_of(file_of(self.source)) if self.source else None

    def _custom(self, source: str) -> CustomModel:
        own = self.card.own
        if own is None:
            raise RecipeError(f"{source}: its card does not say what the network is")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return CustomModel(custom_network(source), own, self.card.channels)


def save_graph(path: Path, graph: GraphModule) -> None:
    """Writes a graph's state as safetensors."""
    # Cloned, because tensors that share a scale share the module, and safetensors wants no sharing.
    state = {k: v.detach().cpu().clone().contiguous() for k, v in graph.state_dict().items()}
    write_atomic(path, safetensors.torch.save(state))


def load_graph(path: Path, graph: GraphModule) -> GraphModule:
    """Puts a saved state into a graph of the same form and returns it."""
    graph.load_state_dict(safetensors.torch.load_file(path))
    return graph
