"""The distance of two products, computed without either of them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdcore_losses.ickd import InterChannelCorrelation
from kdcore_losses.matrix_products import squared_distance


def products(rows: int, columns: int, inner: int, other: int | None = None, dtype=torch.float64):
    """Random factors of two products."""
    torch.manual_seed(0)
    shapes = [(3, rows, inner), (3, columns, inner), (3, rows, other or inner), (3, columns, other or inner)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize(
    ("rows", "columns", "inner", "other"),
    [(40, 30, 4, None), (40, 30, 1, None), (30, 40, 2, None), (5, 6, 7, None), (40, 30, 4, 3)],
    ids=["few-positions", "one-position", "wide", "many-positions", "positions-differ"],
)
def test_equals_distance_of_products(rows, columns, inner, other):
    """Values and gradients are those of the products computed in full."""
    factors = products(rows, columns, inner, other)
    a, b, c, d = factors
    direct = torch.einsum("bmp,bnp->bmn", a, b) - torch.einsum("bmp,bnp->bmn", c, d)
    expected, found = direct.pow(2).sum((1, 2)), squared_distance(a, b, c, d)
    torch.testing.assert_close(found, expected)
    for x, y in zip(torch.autograd.grad(found.sum(), factors), torch.autograd.grad(expected.sum(), factors), strict=True):
        torch.testing.assert_close(x, y)


def test_nearly_equal_products_keep_their_distance():
    """In float32, a relative difference of 1e-5 is measured to a thousandth."""
    a, b, _, _ = (x.detach() for x in products(256, 256, 4))
    c, d = a * (1 + 1e-5 * torch.randn_like(a)), b * (1 + 1e-5 * torch.randn_like(b))
    exact = (a @ b.mT - c @ d.mT).square().sum((1, 2))
    a, c, b, d = (x.float() for x in (a, c, b, d))
    rounded = (a.double() @ b.double().mT - c.double() @ d.double().mT).square().sum((1, 2))
    torch.testing.assert_close(squared_distance(a, b, c, d).double(), rounded, rtol=1e-3, atol=0)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0)  # what is left is the rounding of the inputs


@pytest.mark.parametrize("positions", [2, 9, 64], ids=str)
def test_ickd_equals_mse_of_normalised_correlations(positions):
    """With 40 channels, 2 and 9 positions take the short way and 64 the long one; a dead channel has a finite gradient."""
    torch.manual_seed(1)
    student = torch.randn(4, 40, positions, dtype=torch.float64)
    student[:, 3] = 0
    student.requires_grad_()
    teacher = torch.randn(4, 40, positions, dtype=torch.float64)
    expected = nn.MSELoss()(*(F.normalize(x @ x.mT, dim=2) for x in (student, teacher)))
    found = InterChannelCorrelation().compare("", student, teacher)
    torch.testing.assert_close(found, expected)
    mine, theirs = (torch.autograd.grad(value, student)[0] for value in (found, expected))
    torch.testing.assert_close(mine, theirs)
    assert mine.isfinite().all()
