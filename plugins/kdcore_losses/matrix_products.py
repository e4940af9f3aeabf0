"""Distance between products of matrices."""

from __future__ import annotations

from torch import Tensor


def squared_distance(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Compute the squared Frobenius distance of two products, one per sample.

    .. math:: \\|A B^\\top - C D^\\top\\|_F^2 = \\|X Y^\\top\\|_F^2 = \\langle X^\\top X, Y^\\top Y \\rangle, \\quad
        X = [A - C, C], \\quad Y = [B, B - D]

    The products have M × N entries, the matrices on the right 2P × 2P. The distance is computed in the way that takes fewer
    operations.

    Args:
        a: (B, M, P).
        b: (B, N, P).
        c: (B, M, Q); the matrices on the right require Q = P.
        d: (B, N, Q).

    Returns:
        (B,) distances.
    """
    rows, columns, inner = a.shape[1], b.shape[1], a.shape[2]
    if inner != c.shape[2] or 2 * inner * (rows + columns) >= rows * columns:
        return (a @ b.mT - c @ d.mT).square().sum(dim=(1, 2))
    # Every term below contains a difference twice, so nearly equal products do not lose their distance in rounding, as they
    # would in ‖ABᵀ‖² + ‖CDᵀ‖² - 2⟨ABᵀ, CDᵀ⟩.
    left, right = a - c, b - d
    first = (left.mT @ left) * (b.mT @ b)
    second = (c.mT @ c) * (right.mT @ right)
    mixed = (left.mT @ c) * (b.mT @ right)
    return (first + second + 2 * mixed).sum(dim=(1, 2))
