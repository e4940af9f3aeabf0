"""Encoders, and the participants (teachers and students) made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kdcore.contracts.batch import Classifier, Outputs


class Encoder(nn.Module):
    """Base class of encoders: networks from a tensor ``(B, *in_shape)`` to class logits ``(B, num_classes)``.

    kdcore passes the constructor parameters ``num_classes`` (int) and ``in_shape`` (tuple without the batch axis); all other
    parameters are options of the recipe. Any `torch.nn.Module` with such a constructor can be an encoder; this base class adds
    `stages`, which some fusions require. If the constructor has a parameter ``class_embeddings``, it receives those of
    the recipe, (classes, D). Register them as a buffer of that name.

    An option `pretrained`, and options that are paths, are taken as sources of initial weights. They are ignored when a trained
    student is loaded.

    Attributes:
        fixed: True for a network without accessible modules, such as an exported one in a file. It has no taps and cannot be
            trained: recipes must set ``freeze: ["*"]``.
        notes: Facts about the network for the run's record, such as source and licence of pretrained weights.
    """

    fixed: ClassVar[bool] = False
    notes: tuple[str, ...] = ()

    def stages(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Name → function; applied in order to the input, they compute the same logits as `forward`.

        Raises:
            NotImplementedError: If the encoder is not divided into stages.
        """
        raise NotImplementedError(f"{type(self).__name__} does not expose stages")


class Participant(nn.Module):
    """A teacher or a student: batch transforms, an encoder, and taps on its activations.

    Args:
        name: Name in the recipe.
        encoder: Network from the transformed input to logits.
        taps: Tap → path of a submodule of `encoder` whose output is recorded.
        batch_transforms: Applied to each batch before the encoder; identity by default.
        augment_frozen: Augment the input even while the participant is frozen.
        frozen: Paths of modules in `encoder` that stay in evaluation mode, including submodules; ``*`` for all.
        layout: Axis names of the encoder's input, without the batch axis; empty if unknown.
        columns: For each class of the run, the column of its logit in the encoder's outputs, or -1 for a class that the encoder
            does not know: its logit is minus infinity. None if the outputs are the run's classes in order.

    Attributes:
        varies: True if its outputs for a sample change from pass to pass in evaluation mode, or with the other samples of the
            batch. They are never cached.

    Raises:
        KeyError: If a tap names no submodule.
    """

    columns: Tensor | None

    def __init__(
        self,
        name: str,
        encoder: nn.Module,
        taps: Mapping[str, str] | None = None,
        batch_transforms: nn.Module | None = None,
        augment_frozen: bool = False,
        frozen: Sequence[str] = (),
        columns: Sequence[int] | None = None,
        layout: Sequence[str] = (),
    ):
        super().__init__()
        self.register_buffer("columns", None if columns is None else torch.tensor(columns), persistent=False)
        self.augment_frozen = augment_frozen
        self.varies = False
        self.name = name
        self.layout = tuple(layout)
        self.mix: Callable[[Tensor, tuple[str, ...], str], Tensor] | None = None
        self.encoder = encoder
        self.batch_transforms = batch_transforms or nn.Identity()
        self.taps = dict(taps or {})
        self._features: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []
        self.last_layer: list[nn.Linear] = []  # in a list, nn.Module does not register it a second time
        modules = dict(encoder.named_modules())
        self._frozen = [  # in a list, nn.Module does not register them a second time
            module
            for path, module in modules.items()
            if any(each == "*" or f"{path}.".startswith(f"{each}.") for each in frozen)
        ]
        for tap, path in self.taps.items():
            if path not in modules:
                raise KeyError(path)
            self._hooks.append(modules[path].register_forward_hook(self._recorder(tap)))

    @property
    def known_classes(self) -> Tensor | None:
        """The classes of the run that the encoder knows, (k,) int64; None for all."""
        if self.columns is None or bool((self.columns >= 0).all()):
            return None
        return (self.columns >= 0).nonzero().flatten()

    @property
    def classifier(self) -> Classifier | None:
        """The linear layer that computes the logits, one row per class of the run; None unless `find_classifier` found one.

        Classes that the encoder does not know have a bias of minus infinity.
        """
        if not self.last_layer:
            return None
        weight, bias = self.last_layer[0].weight, self.last_layer[0].bias
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        if self.columns is None:
            return Classifier(weight, bias)
        rows = self.columns.clamp_min(0)
        return Classifier(weight[rows], bias[rows].masked_fill(self.columns < 0, -torch.inf))

    def find_classifier(self, signal: Tensor | tuple[Tensor, ...]) -> nn.Linear | None:
        """Find the linear layer whose output the encoder returns, by running the encoder.

        Args:
            signal: The participant's entry of a batch.

        Returns:
            The layer, which `classifier` returns from then on; None if the encoder does not return a linear layer's output.
        """
        outputs: list[tuple[nn.Module, Any]] = []

        def record(module: nn.Module, args: Any, output: Any) -> None:
            outputs.append((module, output))

        hooks = [each.register_forward_hook(record) for each in self.encoder.modules() if isinstance(each, nn.Linear)]
        try:
            logits = self.encoder(self.input(signal))
        finally:
            for hook in hooks:
                hook.remove()
            self._features = {}
        self.last_layer = [layer for layer, output in outputs if output is logits and isinstance(layer, nn.Linear)]
        return self.last_layer[0] if self.last_layer else None

    def _recorder(self, tap: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, args: Any, output: Any) -> None:
            self._features[tap] = output

        return record

    def release(self) -> nn.Module:
        """Remove the hooks that record taps, and return the encoder."""
        for hook in self._hooks:
            hook.remove()
        return self.encoder

    def train(self, mode: bool = True) -> Participant:
        """Set the mode of all modules except frozen ones, whose running statistics must not change."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self

    def input(self, signal: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Compute the encoder's input from the participant's entry of a batch: batch transforms, then mixup or cutmix."""
        x: Any = signal if type(self.batch_transforms) is nn.Identity else self.batch_transforms(signal)
        return x if self.mix is None else self.mix(x, self.layout, self.name)

    def collect(self, logits: Tensor) -> Outputs:
        """Combine the encoder's `logits`, reordered to the run's classes, with the recorded taps; clears the record."""
        features: Mapping[str, Tensor] = {}
        if self.taps:
            features, self._features = self._features, {}
        if self.columns is not None:
            logits = logits[:, self.columns.clamp_min(0)].masked_fill(self.columns < 0, -torch.inf)
        return Outputs(logits, features)

    def forward(self, signal: Tensor | tuple[Tensor, ...]) -> Outputs:
        """Compute the outputs for the participant's entry of a batch."""
        return self.collect(self.encoder(self.input(signal)))
