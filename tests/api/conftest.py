"""Networks and samples to distil."""

from __future__ import annotations

import pytest
import torch
from distil_loops import CLASSES, mlp
from torch.utils.data import TensorDataset


@pytest.fixture
def given():
    """Student, teacher, and samples."""
    torch.manual_seed(0)
    x, y = torch.randn(44, 6), torch.randint(CLASSES, (44,))
    return mlp(8), mlp(16), TensorDataset(x, y)
