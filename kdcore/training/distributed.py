"""Data-parallel training in which losses and batch normalisation see the global batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from kdcore.contracts.batch import Outputs
from kdcore.errors import TrainingError


class _Gather(torch.autograd.Function):
    """All-gather along the batch axis; the backward pass sums the gradients of all ranks for this rank's share."""

    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        shares = [torch.empty_like(share) for _ in range(dist.get_world_size())]
        dist.all_gather(shares, share.contiguous())
        ctx.size = len(share)
        return torch.cat(shares)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        _refuse_second_derivatives()
        gradient = grads[0].clone(memory_format=torch.contiguous_format)  # other inputs of a sum get the same tensor
        dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.size
        return gradient[start : start + ctx.size]


def gatherer(world_size: int) -> Callable[[Tensor], Tensor] | None:
    """Return a differentiable all-gather along the batch axis; None in a single process.

    Every rank then computes the same loss of the global batch. The backward pass sums these equal losses over ranks and DDP
    averages over ranks, so parameters get the same gradient as in a single process.
    """
    return _Gather.apply if world_size > 1 else None


def synchronise_batch_norm(module: nn.Module) -> None:
    """Make every batch normalisation in `module` use the statistics of the global batch, on any device.

    PyTorch's ``SyncBatchNorm`` runs on GPUs only. This function replaces `forward` and keeps modules, names and buffers.
    """
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            norm.forward = partial(_synced, norm, type(norm).forward)  # type: ignore[method-assign]


def _synced(norm: _BatchNorm, plain: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> Tensor:
    if not norm.training:
        return plain(norm, x)
    dtype, x = x.dtype, x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if x.device.type == "cpu":
        normed, total, mean, variance = _Normalise.apply(x, norm.weight, norm.bias, norm.eps)
    else:
        normed, total, mean, variance = _normalise(x, norm.weight, norm.bias, norm.eps)
    _track(norm, mean.detach(), (variance * total / (total - 1)).detach())
    return normed.to(dtype)


class _Normalise(torch.autograd.Function):
    r"""`_normalise` in the kernels of PyTorch's batch normalisation, which read and write `x` fewer times.

    With :math:`\hat x = (x - \mu) / \sigma`, the gradient :math:`g` of the result and the sums over the :math:`N` values of a
    channel in all processes, the gradient of `x` is

    .. math:: \frac{w}{\sigma} \left(g - \frac{1}{N} \sum g - \frac{\hat x}{N} \sum g \hat x\right)
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels, count = x.shape[1], x.numel() // x.shape[1]
        mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0) if count else x.new_zeros(2, channels)
        share = torch.cat([mean.new_full((1,), count), mean, variance])
        shares = share.new_empty(dist.get_world_size(), len(share))
        dist.all_gather(list(shares), share)
        total, mean, variance = _combined(shares)
        ctx.save_for_backward(x, weight, total, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(total, mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), total, mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        _refuse_second_derivatives()
        x, weight, total, mean, variance = ctx.saved_tensors
        mask = [False, True, True]
        backward = torch.ops.aten.native_batch_norm_backward
        _, products, sums = backward(grads[0], x, weight, mean, variance, None, None, False, ctx.eps, mask)
        of_x = None
        if ctx.needs_input_grad[0]:
            scale = torch.rsqrt(variance + ctx.eps) * (1.0 if weight is None else weight)
            whole = torch.stack([products, sums])
            dist.all_reduce(whole)
            slopes, offsets = -scale / total * whole
            of_x = F.batch_norm(x, mean, variance, slopes, offsets, eps=ctx.eps).addcmul_(grads[0], _per_channel(scale, x))
        return of_x, products if ctx.needs_input_grad[1] else None, sums if ctx.needs_input_grad[2] else None, None


def _normalise(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Batch normalisation with the statistics of all processes.

    Args:
        x: (b, C, …), this process's share of the batch.
        weight: (C,), or None for 1.
        bias: (C,), or None for 0.
        eps: Added to the variance.

    Returns:
        The result, like `x`; the number of values per channel; their means (C,) and biased variances (C,). The last three are
        those of all processes.
    """
    count, axes = x.numel() // x.shape[1], [axis for axis in range(x.dim()) if axis != 1]
    variance, mean = torch.var_mean(x, axes, correction=0) if count else (x.sum(axes), x.sum(axes))
    total, mean, variance = _combined(_Gather.apply(torch.cat([mean.new_full((1,), count), mean, variance])[None]))
    scale = torch.rsqrt(variance + eps)
    normed = (x - _per_channel(mean, x)) * _per_channel(scale if weight is None else scale * weight, x)
    return normed if bias is None else normed + _per_channel(bias, x), total, mean, variance


def _combined(shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number of values, mean and variance per channel over all processes.

    Args:
        shares: (processes, 1 + 2 C), the same numbers of each process's share. Sums of squares would lose digits.
    """
    channels = shares.shape[1] // 2
    counts, means, variances = shares.split([1, channels, channels], dim=1)
    weights = counts / counts.sum()
    mean = (weights * means).sum(0)
    return counts.sum(), mean, (weights * (variances + (means - mean).square())).sum(0)


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view([1, -1] + [1] * (x.dim() - 2))


def _refuse_second_derivatives() -> None:
    """Refuse to record a backward pass: the sums over processes in it would be left out of its derivative."""
    if torch.is_grad_enabled():
        raise TrainingError(
            "a loss computes gradients with create_graph=True, and second derivatives are not supported in several processes; "
            "use one process"
        )


@torch.no_grad()
def _track(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance, momentum)


def gather_outputs(outputs: Outputs, gather: Callable[[Tensor], Tensor], mixed: bool) -> Outputs:
    """Gather a participant's outputs from all processes.

    Args:
        outputs: Outputs for this process's share of the batch.
        gather: See `gatherer`.
        mixed: Whether there is an ablated output per sample; a single one is the same in every process.
    """
    ablated = gather_outputs(outputs.ablated, gather, False) if outputs.ablated is not None and mixed else outputs.ablated
    return Outputs(gather(outputs.logits), {tap: gather(x) for tap, x in outputs.features.items()}, ablated)
