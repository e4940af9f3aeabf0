"""Encoders whose layers simply follow one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from kdcore import Encoder


class Chain(Encoder):
    """Named layers, each fed by the one before; every layer is a stage and can be tapped by its name.

    Args:
        blocks: The first layers, called ``blocks.0``, ``blocks.1`` …
        layers: The layers after them, by name.
    """

    def __init__(self, blocks: list[nn.Module], layers: Mapping[str, nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._order = [*(f"blocks.{number}" for number in range(len(blocks))), *layers]

    def stages(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The layers in order, by name."""
        return {name: self.get_submodule(name) for name in self._order}

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of ``x`` (B, *in_shape)."""
        for block in self.blocks:
            x = block(x)
        for name in self._order[len(self.blocks) :]:
            x = self._modules[name](x)  # type: ignore[misc]
        return x


class GlobalAverage(nn.Module):
    """The mean over time or pixels, (B, C, …) → (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Mean over all axes after the channels."""
        return x.flatten(2).mean(dim=2)
