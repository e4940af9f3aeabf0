"""2s-AGCN with both its streams."""

from __future__ import annotations

from torch import Tensor

from kdcore import Encoder, Modality
from kdcore_skeleton.encoders.agcn import Agcn
from kdcore_skeleton.encoders.graph_encoder import Count, Kernel, Share, Width
from kdcore_skeleton.layouts import LayoutOption
from kdcore_skeleton.transforms.differences import Bones


class AgcnTwoStream(Encoder):
    """2s-AGCN: one adaptive network on joints, one on bones; their logits are summed.

    Shi, Zhang, Cheng, Lu, CVPR 2019, https://arxiv.org/abs/1805.07694, figure 5. The paper trains each stream alone and sums
    probabilities; here both learn from the sum. Both can be tapped: ``joint.fc0``, ``bone.blocks.9`` and so on. It cannot be
    cut into stages.

    Args:
        num_classes: Number of classes.
        in_shape: (C, T, V, M), any number of channels, frames, joints and persons.
        spec: Description of the input.
        layout: Skeleton layout: a name, or joints, edges and centre. Default: the dataset's layout.
        coordinates: Number of leading channels that are positions and become bones; others (of a sensor) do not change.
        width: Channels of the first blocks; later ones have two and four times as many.
        depth: Number of blocks.
        kernel: Temporal kernel size in frames; odd.
        dropout: Dropout probability of the classifiers' input.
        embedding: Width of a linear layer ``fc0`` before each classifier, None for none; a ReLU follows it.

    Raises:
        ValueError: If no layout is known, the input does not have its joints, or the kernel is even.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        spec: Modality | None = None,
        *,
        layout: LayoutOption | None = None,
        coordinates: Count = 3,
        width: Width = 64,
        depth: Count = 10,
        kernel: Kernel = 9,
        dropout: Share = 0.0,
        embedding: Count | None = None,
    ):
        super().__init__()

        def stream() -> Agcn:
            return Agcn(
                num_classes,
                in_shape,
                spec,
                layout=layout,
                width=width,
                depth=depth,
                kernel=kernel,
                dropout=dropout,
                embedding=embedding,
            )

        self.to_bones = Bones(layout=layout, coordinates=coordinates, spec=spec)
        self.joint = stream()
        self.bone = stream()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of skeletons (B, C, T, V, M)."""
        return self.joint(x) + self.bone(self.to_bones(x))
