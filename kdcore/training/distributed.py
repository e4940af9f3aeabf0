"""Data-parallel training in which losses and batch normalisation see the global batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdcore.contracts.batch import Outputs


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
    axes = [axis for axis in range(x.dim()) if axis != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    total, mean, variance = _global_moments(x, axes)
    centred = x - mean.view(shape)
    _track(norm, mean.detach(), (variance * total / (total - 1)).detach())
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    normed = centred * scale.view(shape)
    return (normed if norm.bias is None else normed + norm.bias.view(shape)).to(dtype)


def _global_moments(x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Number of values, mean and variance per channel over all ranks.

    Each rank sends the moments of its own share, so that the forward and the backward pass communicate once each.
    """
    channels, count = x.shape[1], x.numel() // x.shape[1]
    variance, mean = torch.var_mean(x, axes, correction=0) if count else (x.sum(axes), x.sum(axes))
    shares = _Gather.apply(torch.cat([mean.new_full((1,), count), mean, variance])[None])
    counts, means, variances = shares.split([1, channels, channels], dim=1)
    weights = counts / counts.sum()
    mean = (weights * means).sum(0)
    return counts.sum(), mean, (weights * (variances + (means - mean).square())).sum(0)


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
