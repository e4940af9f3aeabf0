"""Centred kernel alignment."""

from __future__ import annotations

import torch
from torch import Tensor

from kdcore.functional import full_precision
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs


class KernelAlignment(FeatureLoss):
    """One minus the alignment of the batch's linear kernels, which is invariant to rotations and scalings of the features.

    .. math:: L = 1 - \\frac{\\langle K_S, K_T \\rangle_F}{\\|K_S\\|_F\\, \\|K_T\\|_F}, \\quad K = A A^\\top

    with A (B, features), the mean over the batch subtracted from each feature if centred. S. Kornblith et al., "Similarity of
    Neural Network Representations Revisited", ICML 2019, https://arxiv.org/abs/1905.00414; as a loss: A. Saha, A. Bialkowski,
    S. Khalifa, "Distilling Representational Similarity using Centered Kernel Alignment", BMVC 2022. Not centred, it is the
    kernel alignment (KTA) of N. Cristianini et al., "On Kernel-Target Alignment", NIPS 2001. A centred batch of one has no
    relations: the loss is 0 there. Persons and frames are averaged, then each side is flattened, so shapes may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        centred: Centre the features over the batch.
    """

    def __init__(self, *, pairs: Pairs = DEFAULT, centred: bool = True):
        super().__init__(pairs)
        self.centred = centred

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return one minus the alignment."""
        if self.centred and len(student) < 2:
            return student.sum() * 0.0
        with torch.autocast(student.device.type, enabled=False):
            return 1 - (self._kernel(full_precision(student)) * self._kernel(full_precision(teacher))).sum()

    def _kernel(self, x: Tensor) -> Tensor:
        """Return the kernel scaled to length one."""
        x = x.flatten(1)
        x = x / x.detach().abs().amax().clamp_min(torch.finfo(x.dtype).tiny)  # for the range of numbers; no scale matters
        x = x - x.mean(dim=0) if self.centred else x
        kernel = x @ x.T
        return kernel / kernel.norm().clamp_min(1e-8)
