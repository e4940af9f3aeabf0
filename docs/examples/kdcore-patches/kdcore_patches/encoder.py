"""The encoder `patches`."""

from collections.abc import Callable, Mapping
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from kdcore import Encoder


class PatchPerceptron(Encoder):
    """Split a window (C, T) into patches, apply the same perceptron to each, and average the results.

    Taps: ``embed`` (B, width, patches), ``mix`` (B, width, patches), ``classifier``.

    Args:
        num_classes: Number of classes.
        in_shape: (C, T).
        patch: Samples per patch.
        width: Features per patch.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        *,
        patch: Annotated[int, Ge(1)] = 8,
        width: Annotated[int, Ge(1)] = 32,
    ):
        super().__init__()
        if len(in_shape) != 2 or in_shape[1] < patch:
            raise ValueError(f"this encoder reads (channels, time) with at least {patch} samples, not {tuple(in_shape)}")
        self.embed = nn.Conv1d(in_shape[0], width, kernel_size=patch, stride=patch)
        self.mix = nn.Sequential(nn.ReLU(), nn.Conv1d(width, width, kernel_size=1), nn.ReLU())
        self.classifier = nn.Linear(width, num_classes)

    def stages(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The steps of `forward`, for fusions that exchange features between them."""
        return {"embed": self.embed, "mix": self.mix, "classify": lambda x: self.classifier(x.mean(dim=-1))}

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of windows (B, C, T)."""
        for step in self.stages().values():
            x = step(x)
        return x
