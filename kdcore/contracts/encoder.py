"""Encoders, and the participants (teachers and students) made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from kdcore.contracts.batch import Outputs


class Encoder(nn.Module):
    """A network from a tensor ``(B, *in_shape)`` to class logits ``(B, num_classes)``.

    kdcore fills in the constructor parameters ``num_classes`` (int) and ``in_shape`` (tuple without the batch axis);
    every other parameter is an option of the recipe. Any `torch.nn.Module` with such a constructor will do; deriving
    from this class adds `stages`, which fusions need.
    """

    def stages(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Named steps which, run one after the other on the input, give the same logits as `forward`.

        Raises:
            NotImplementedError: If the encoder cannot be cut into stages.
        """
        raise NotImplementedError(f"{type(self).__name__} does not expose stages")


class Participant(nn.Module):
    """A teacher or a student: transforms of batches, an encoder, and taps on its inner activations.

    Args:
        name: As the recipe names it.
        encoder: Tensor → logits.
        taps: Tap name → path of a submodule of `encoder`, whose output is recorded.
        batch_transforms: What is applied to each batch before the encoder; identity by default.
        augment_frozen: Augment its input also while it teaches without learning; otherwise a frozen teacher is
            shown recordings as they are.
        frozen: Paths of modules within `encoder` that stay in evaluation mode, with all below; ``*`` for all.

    Raises:
        KeyError: If a tap names no submodule; the message lists those there are.
    """

    def __init__(
        self,
        name: str,
        encoder: nn.Module,
        taps: Mapping[str, str] | None = None,
        batch_transforms: nn.Module | None = None,
        augment_frozen: bool = False,
        frozen: Sequence[str] = (),
    ):
        super().__init__()
        self.augment_frozen = augment_frozen
        self.name = name
        self.encoder = encoder
        self.batch_transforms = batch_transforms or nn.Identity()
        self.taps = dict(taps or {})
        self._features: dict[str, Tensor] = {}
        modules = dict(encoder.named_modules())
        self._frozen = [  # a list, so that they are not registered twice
            module
            for path, module in modules.items()
            if any(each == "*" or f"{path}.".startswith(f"{each}.") for each in frozen)
        ]
        for tap, path in self.taps.items():
            if path not in modules:
                raise KeyError(path)
            modules[path].register_forward_hook(self._recorder(tap))

    def _recorder(self, tap: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, args: Any, output: Any) -> None:
            self._features[tap] = output

        return record

    def train(self, mode: bool = True) -> Participant:
        """Set the mode of everything but frozen modules, whose running statistics must not change."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self

    def input(self, signal: Tensor | tuple[Tensor, ...]) -> Tensor:
        """The encoder's input, made from a batch's entry for this participant."""
        return self.batch_transforms(signal)

    def collect(self, logits: Tensor) -> Outputs:
        """`logits` with the activations that the taps recorded on the way; forgets them."""
        features, self._features = self._features, {}
        return Outputs(logits, features)

    def forward(self, signal: Tensor | tuple[Tensor, ...]) -> Outputs:
        """Outputs for a batch's entry of this participant."""
        return self.collect(self.encoder(self.input(signal)))
