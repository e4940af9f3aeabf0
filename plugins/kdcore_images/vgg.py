"""VGG16 with batch normalisation, with the small fully connected layers of sensor teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from kdcore import Encoder

GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of the convolutions of each group of VGG16."""


class Vgg16Bn(Encoder):
    r"""VGG16 with batch normalisation after each convolution and two fully connected layers of a few hundred units.

    Stages, which are also the tap paths: ``block1`` … ``block5`` (each ends with the last activation of its group; the pooling
    that follows opens the next stage), ``fc1`` (after its ReLU), ``fc2`` (before its ReLU, so that it can be compared with
    class embeddings, which have negative entries), ``classifier``.

    Args:
        num_classes: Number of classes.
        in_shape: (C, H, W), at least 32 × 32.
        hidden: Units of fc1 and fc2.
        width: Factor on all convolutions' channels; 1 is VGG16, 0.125 trains on a CPU.
        pool: The last map is pooled to `pool` × `pool` before fc1, whatever the images' size; 7 in VGG16.
        drop_rate: Dropout before fc2 and before the classifier.

    Source: Simonyan and Zisserman, Very Deep Convolutional Networks (ICLR 2015, https://arxiv.org/abs/1409.1556), configuration
    D; layer sizes of the sensor teachers from Liu et al., Semantics-aware Adaptive Knowledge Distillation (TIP 2021,
    https://arxiv.org/abs/2009.00210), Section IV.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        *,
        hidden: Annotated[int, Ge(1)] = 300,
        width: Annotated[float, Gt(0)] = 1.0,
        pool: Annotated[int, Ge(1)] = 7,
        drop_rate: Annotated[float, Ge(0), Lt(1)] = 0.5,
    ):
        super().__init__()
        if len(in_shape) != 3:
            raise ValueError(f"images are (channels, height, width); these inputs are {tuple(in_shape)}")
        if min(in_shape[-2:]) < 32:
            raise ValueError(f"VGG16 halves its input five times: images need 32 x 32 pixels, these have {in_shape[-2:]}")
        channels = in_shape[0]
        for number, group in enumerate(GROUPS, start=1):
            outputs = [max(1, round(width * size)) for size in group]
            self.add_module(f"block{number}", _block(channels, outputs, halve=number > 1))
            channels = outputs[-1]
        top = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(pool))
        self.fc1 = nn.Sequential(top, nn.Flatten(), nn.Linear(channels * pool**2, hidden), nn.ReLU())
        self.fc2 = nn.Sequential(nn.Dropout(drop_rate), nn.Linear(hidden, hidden))
        self.classifier = nn.Sequential(nn.ReLU(), nn.Dropout(drop_rate), nn.Linear(hidden, num_classes))

    def stages(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """All children, in order."""
        return dict(self.named_children())

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, C, H, W)."""
        for stage in self.children():
            x = stage(x)
        return x


def _block(channels: int, outputs: list[int], halve: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.MaxPool2d(2)] if halve else []
    for size in outputs:
        convolution = nn.Conv2d(channels, size, 3, padding=1)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        layers += [convolution, nn.BatchNorm2d(size), nn.ReLU()]
        channels = size
    return nn.Sequential(*layers)
