"""Most recent embeddings of all training samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MemoryBank(nn.Module):
    """Embeddings of the student and the teacher for all training samples, stored in the state dict.

    It is empty until the first batch states the number of samples, and takes the size of a state that it loads. Updates create
    new tensors, so that a later backward pass still has the values of its forward pass.

    Attributes:
        student: (N, size): the student's embeddings.
        teacher: (N, size): the teacher's.
        classes: (N,) int64, -1 where labels are not read.
        seen: (N,) bool: whether a sample has been in a batch.
        scales: Normalising constants of the student's and the teacher's scores; 0 until they are set.
    """

    student: Tensor
    teacher: Tensor
    classes: Tensor
    seen: Tensor
    scales: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.register_buffer("scales", torch.zeros(2))
        for name, value in self._rows(0).items():
            self.register_buffer(name, value)

    def _rows(self, count: int) -> dict[str, Tensor]:
        """`count` rows of samples not seen yet."""
        scales = self.scales
        embeddings = {name: scales.new_zeros(count, self.size) for name in ("student", "teacher")}
        classes = torch.full((count,), -1, dtype=torch.int64, device=scales.device)
        return {**embeddings, "classes": classes, "seen": torch.zeros_like(classes, dtype=torch.bool)}

    def __len__(self) -> int:
        return len(self.seen)

    def resize(self, count: int) -> None:
        """Reset to `count` empty rows."""
        for name, value in self._rows(count).items():
            setattr(self, name, value)
        self.scales = torch.zeros_like(self.scales)

    def extend(self, count: int) -> None:
        """Grow to at least `count` rows; existing rows are kept."""
        if count > len(self):
            for name, value in self._rows(count - len(self)).items():
                setattr(self, name, torch.cat([getattr(self, name), value]))

    @torch.no_grad()
    def update(self, rows: Tensor, student: Tensor, teacher: Tensor, classes: Tensor | None, momentum: float) -> None:
        """Move the rows' embeddings towards new ones, of length one; samples not seen before take the new ones.

        Args:
            rows: (B,).
            student: (B, size).
            teacher: (B, size).
            classes: (B,), or None.
            momentum: Share of the old embedding.
        """
        keep = momentum * self.seen[rows].to(student.dtype)[:, None]
        for name, value in (("student", student), ("teacher", teacher)):
            old = getattr(self, name)
            new = F.normalize(keep * old[rows] + (1 - keep) * value.to(old.dtype), dim=1)
            setattr(self, name, old.index_copy(0, rows, new))
        self.seen = self.seen.index_fill(0, rows, True)
        if classes is not None:
            self.classes = self.classes.index_copy(0, rows, classes)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if prefix + "seen" in state_dict:
            self.resize(len(state_dict[prefix + "seen"]))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[arg-type]
