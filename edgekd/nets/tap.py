"""Outputs and inner features of a network in one call, also after `torch.export`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgekd.core.errors import ModelError, suggest

Tapped = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


class TappedNet(nn.Module):
    """Wraps a network so that it also returns the outputs of the modules at ``paths``.

    Forward hooks are traced by `torch.export`, so the features survive into a QAT graph.

    Args:
        net: Its ``forward`` returns a tuple of tensors.
        paths: Module paths, such as ``pyramid.out.0``.

    Raises:
        ModelError: There is no module at a path.
    """

    def __init__(self, net: nn.Module, paths: Sequence[str]) -> None:
        super().__init__()
        self.net = net
        self.paths = tuple(paths)
        self._seen: dict[str, Tensor] = {}
        modules = dict(net.named_modules())
        for path in self.paths:
            if path not in modules:
                raise ModelError(
                    f"no module {path!r} in {type(net).__name__}{suggest(path, modules)}"
                )
            modules[path].register_forward_hook(self._keep(path))

    def forward(self, x: Tensor) -> Tapped:
        """Returns ``(outputs, features)``, features in the order of ``paths``."""
        outputs = self.net(x)
        features = tuple(self._seen.pop(path) for path in self.paths)
        return outputs, features

    def _keep(self, path: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self._seen[path] = output

        return hook
