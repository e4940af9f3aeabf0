r"""Differentiable building blocks of distillation losses.

In shapes, B is the number of samples of a batch, C the number of classes or channels, K the number of teachers.

Every function computes in float32 at least and outside autocast: half-precision inputs are converted first, because sums
over a whole activation overflow in float16, and differences between samples vanish in bfloat16. float64 stays float64.
Results have the dtype in which they were computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "adaptive_mean",
    "angle_cosines",
    "confidence_weights",
    "cosine_similarities",
    "distances",
    "full_precision",
    "gram_similarities",
    "in_full_precision",
    "known_mean",
    "label_losses",
    "mean_over_frames",
    "mean_over_positions",
    "per_sample",
    "same_positions",
    "softened_kl",
    "unit_rows",
    "weighted_mean",
]

SMALLEST_SQUARE = 1e-12
"""Squared distances below this count as zero: the square root has no finite gradient there."""

_FULL = (torch.float32, torch.float64)

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32 if it is a half-precision tensor, else `x` itself.

    Args:
        x: A floating-point tensor of any shape.
    """
    return x if x.dtype in _FULL else x.to(torch.promote_types(x.dtype, torch.float32))


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that it runs outside autocast and gets its tensors in float32 at least.

    Args:
        function: Takes at least one tensor; integer tensors, such as labels, are passed on as they are.
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        given, named = [_converted(value) for value in args], {name: _converted(value) for name, value in kwargs.items()}
        device = next(value for value in (*given, *named.values()) if isinstance(value, Tensor)).device.type
        if not torch.is_autocast_enabled(device):
            return function(*given, **named)  # type: ignore[arg-type]
        with torch.autocast(device, enabled=False):
            return function(*given, **named)  # type: ignore[arg-type]

    return wrapper


def _converted(value: Any) -> Any:
    return full_precision(value) if isinstance(value, Tensor) and value.is_floating_point() else value


# Logits


@in_full_precision
def softened_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0, *, reverse: bool = False) -> Tensor:
    r"""Kullback-Leibler divergence between softened class probabilities, sample by sample.

    .. math:: \mathrm{KL}(p_T \| p_S) = \sum_c p_{Tc} \log \frac{p_{Tc}}{p_{Sc}}, \quad p = \mathrm{softmax}(z / T)

    or, where `reverse`, :math:`\mathrm{KL}(p_S \| p_T)`. It is not multiplied by T².

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C), or (K, B, C) of several teachers.
        temperature: T, above 0.
        reverse: Which way round: False weighs classes by the teacher's probabilities, as Hinton et al. do; True by the
            student's.

    Returns:
        (B,) or (K, B), at least zero but for rounding.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015,
    https://arxiv.org/abs/1503.02531.
    """
    student, teacher = F.log_softmax(student / temperature, dim=-1), F.log_softmax(teacher / temperature, dim=-1)
    about, reference = (student, teacher) if reverse else (teacher, student)
    return F.kl_div(reference, about, log_target=True, reduction="none").sum(dim=-1)


@in_full_precision
def label_losses(teachers: Tensor, labels: Tensor) -> Tensor:
    r"""Cross-entropy of every teacher with the labels, sample by sample.

    .. math:: e_{kb} = -\log \mathrm{softmax}(z_{kb})_{y_b}

    Args:
        teachers: Logits (K, B, C).
        labels: Class indices (B,).

    Returns:
        (K, B).
    """
    return torch.stack([F.cross_entropy(logits, labels, reduction="none") for logits in teachers])


@in_full_precision
def confidence_weights(losses: Tensor) -> Tensor:
    r"""Weights of several teachers: the smaller a teacher's loss on a sample, the larger its weight there.

    .. math:: w_{kb} = \frac{1 - \mathrm{softmax}_k(e_{kb})}{K - 1}

    They sum to one over the teachers. A single teacher has weight one.

    Args:
        losses: e, a loss of every teacher on every sample, (K, B); see `label_losses`.

    Returns:
        (K, B).

    Source: H. Zhang, D. Chen, C. Wang, "Confidence-Aware Multi-Teacher Knowledge Distillation", ICASSP 2022,
    https://arxiv.org/abs/2201.00007, Eq. (3).
    """
    return (1 - losses.softmax(dim=0)) / (len(losses) - 1) if len(losses) > 1 else torch.ones_like(losses)


# Relations between the samples of a batch


@in_full_precision
def unit_rows(x: Tensor, smallest: float = 1e-12) -> Tensor:
    r"""Flatten every sample and scale it to length one.

    .. math:: \hat a_b = \frac{a_b}{\max(\|a_b\|_2, \varepsilon)}

    Args:
        x: (B, …).
        smallest: ε. A row of zeros stays one.

    Returns:
        (B, n), n the number of a sample's entries.
    """
    return F.normalize(x.flatten(1), dim=1, eps=smallest)


@in_full_precision
def cosine_similarities(x: Tensor) -> Tensor:
    r"""Cosine of the angle between any two samples, seen from the origin.

    .. math:: c_{ij} = \hat a_i \cdot \hat a_j

    Args:
        x: (B, …); every sample is flattened.

    Returns:
        (B, B).
    """
    rows = unit_rows(x)
    return rows @ rows.T


@in_full_precision
def gram_similarities(x: Tensor) -> Tensor:
    r"""Inner products of any two samples, every row scaled to length one.

    .. math:: \tilde G_i = \frac{G_i}{\|G_i\|_2}, \quad G = A A^\top

    Args:
        x: (B, …); every sample is flattened to a row of A.

    Returns:
        (B, B), not symmetric in general.

    Source: F. Tung, G. Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, https://arxiv.org/abs/1907.09682, Eqs.
    (1)-(3).
    """
    rows = x.flatten(1)
    return F.normalize(rows @ rows.T, dim=1)


@in_full_precision
def distances(x: Tensor) -> Tensor:
    r"""Euclidean distance between any two samples.

    .. math:: d_{ij} = \|a_i - a_j\|_2

    Computed from inner products, so memory does not grow with B² times the number of features. The diagonal is exactly
    zero; identical samples are 1e-6 apart, with gradient zero.

    Args:
        x: (B, …); every sample is flattened.

    Returns:
        (B, B).
    """
    gram = _centred_gram(x)
    return _squared_distances(gram).sqrt() * ~torch.eye(len(x), dtype=torch.bool, device=x.device)


@in_full_precision
def angle_cosines(x: Tensor) -> Tensor:
    r"""Cosine of the angle that any two samples form at a third.

    .. math:: c_{vij} = \frac{(a_i - a_v) \cdot (a_j - a_v)}{\|a_i - a_v\|_2 \, \|a_j - a_v\|_2}

    It is zero where a side has no length. Memory grows with B³, not with the number of features.

    Args:
        x: (B, …); every sample is flattened.

    Returns:
        (B, B, B): vertex v, then i and j.

    Source: W. Park et al., "Relational Knowledge Distillation", CVPR 2019, https://arxiv.org/abs/1904.05068, Eq. (9).
    """
    gram = _centred_gram(x)
    squares = _squared_distances(gram)
    norms = gram.diagonal()
    apart = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    inverse = torch.where(apart & (squares > SMALLEST_SQUARE), squares.rsqrt(), 0.0)
    products = gram[None] - gram[:, :, None] - gram[:, None, :] + norms[:, None, None]
    return products * inverse[:, :, None] * inverse[:, None, :]


def _centred_gram(x: Tensor) -> Tensor:
    rows = x.flatten(1)
    rows = rows - rows.mean(dim=0)  # distances and angles do not change, rounding errors shrink
    return rows @ rows.T


def _squared_distances(gram: Tensor) -> Tensor:
    norms = gram.diagonal()
    return (norms[:, None] + norms[None, :] - 2 * gram).clamp_min(SMALLEST_SQUARE)


# Activations of unlike shapes
#
# An activation is (B, C, *positions): a vector has no positions, a sequence has (T,), a graph (T, V), an image (H, W), a
# volume (T, H, W). Persons or frames may be folded into the batch, sample by sample: (B·n, C, …).


@in_full_precision
def per_sample(x: Tensor, batch: int) -> Tensor:
    """Average persons or frames that are folded into the batch, so that there is one activation a sample.

    Args:
        x: (B·n, C, …).
        batch: B.

    Returns:
        (B, C, …).

    Raises:
        ValueError: If `x` has no axis C, or its rows cannot be divided into `batch` samples.
    """
    if x.ndim < 2 or x.shape[0] % batch:
        raise ValueError(f"an activation of shape {tuple(x.shape)} cannot be divided into {batch} samples")
    return x if x.shape[0] == batch else x.unflatten(0, (batch, -1)).mean(dim=1)


@in_full_precision
def mean_over_frames(x: Tensor, batch: int) -> Tensor:
    """Feature vectors of samples, averaged over their frames if there are any.

    Args:
        x: (B, n), or features of frames: (B, S, n) or (B·S, n).
        batch: B.

    Returns:
        (B, n).

    Raises:
        ValueError: If `x` has another shape, such as a feature map's.
    """
    frames = x.unflatten(0, (batch, -1)) if x.ndim and len(x) != batch and len(x) % batch == 0 else x
    if len(frames) != batch or frames.dim() not in (2, 3):
        raise ValueError(f"an activation of shape {tuple(x.shape)} does not hold feature vectors of {batch} samples")
    return frames.mean(dim=1) if frames.dim() == 3 else frames


@in_full_precision
def mean_over_positions(x: Tensor) -> Tensor:
    r"""Global average pooling.

    .. math:: s_{bc} = \mathrm{mean}_p \, x_{bcp}

    Args:
        x: (B, C, …) with any number of position axes, or none.

    Returns:
        (B, C).
    """
    return x.flatten(2).mean(dim=2) if x.dim() > 2 else x


@in_full_precision
def adaptive_mean(x: Tensor, axis: int, length: int) -> Tensor:
    r"""Adaptive average pooling of one axis, shorter or longer than before.

    .. math:: y_i = \mathrm{mean}\{x_j : \lfloor i n / m \rfloor \le j < \lceil (i + 1) n / m \rceil\}

    for n entries to become m. It equals PyTorch's adaptive average pooling, but its gradient is deterministic on CUDA,
    because it is a product with a matrix.

    Args:
        x: Any shape.
        axis: The axis to pool.
        length: m, the axis's new length.
    """
    size = x.shape[axis]
    if size == length:
        return x
    bins = torch.arange(length, device=x.device)
    first, last = (bins * size) // length, ((bins + 1) * size + length - 1) // length
    entries = torch.arange(size, device=x.device)[:, None]
    inside = ((entries >= first) & (entries < last)).to(x.dtype)
    return (x.movedim(axis, -1) @ (inside / inside.sum(dim=0))).movedim(-1, axis)


@in_full_precision
def same_positions(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Bring two activations to the coarser positions of the two; channels stay as they are.

    The activation with more position axes is averaged over its last ones until both have as many: the first axis, which
    stays longest, is time in sequences, graphs and volumes. Then each axis is pooled to the shorter side's length.

    Args:
        one: (B, C₁, …).
        other: (B, C₂, …).

    Returns:
        Both, with the same axes after the channels.
    """
    axes = min(one.ndim, other.ndim) - 2
    one, other = (x.flatten(2 + axes).mean(dim=-1) if x.ndim > 2 + axes else x for x in (one, other))
    for axis in range(2, 2 + axes):
        length = min(one.shape[axis], other.shape[axis])
        one, other = adaptive_mean(one, axis, length), adaptive_mean(other, axis, length)
    return one, other


@in_full_precision
def known_mean(loss: Callable[[Tensor], Tensor], labels: Tensor, weights: Tensor | None) -> Tensor:
    r"""Weighted mean of the losses of all labels or values that are known.

    .. math:: \frac{\sum_b w_b \sum_c k_{bc}\, \ell_{bc}}{\sum_b w_b \sum_c k_{bc}}

    with k = 1 for a label that is known and 0 for another.

    Args:
        loss: From labels or values (B, L), 0 in place of unknown ones, to the losses (B, L).
        labels: (B, L), NaN where unknown; at least one is known.
        weights: (B,), greater than 0; None for 1.
    """
    is_known = labels == labels
    if bool(is_known.all()):
        return weighted_mean(loss(labels), weights)
    losses = loss(torch.where(is_known, labels, 0.0))
    share = is_known.to(losses) if weights is None else is_known * weights.to(losses)[:, None]
    return (share * losses).sum() / share.sum()


@in_full_precision
def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    r"""Weighted mean over samples of the means of their other axes.

    .. math:: \frac{\sum_b w_b \bar x_b}{\sum_b w_b}

    Args:
        values: (B, …).
        weights: (B,), greater than 0; None for the plain mean of all.

    Returns:
        A scalar.
    """
    if weights is None:
        return values.mean()
    weights = weights.to(values)
    return (weights * values.flatten(1).mean(dim=1) if values.ndim > 1 else weights * values).sum() / weights.sum()
