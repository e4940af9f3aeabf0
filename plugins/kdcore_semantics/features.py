"""What the losses of this plugin ask of a tap."""

from __future__ import annotations

from torch import Tensor

from kdcore import Outputs


def embedding_at(outputs: Outputs, tap: str) -> Tensor:
    """The activation (B, n) at `tap`; features of frames, (B, S, n) or (B·S, n), are averaged over them.

    Raises:
        ValueError: If it has another shape, such as a map's.
    """
    value, batch = outputs.features[tap], len(outputs.logits)
    frames = value.unflatten(0, (batch, -1)) if len(value) != batch else value
    if frames.dim() not in (2, 3):
        raise ValueError(f"tap {tap!r} gives {tuple(value.shape)}; an embedding has the shape (batch, width)")
    return frames.mean(dim=1) if frames.dim() == 3 else frames
