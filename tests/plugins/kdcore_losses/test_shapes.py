"""How activations of unlike shapes meet."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from kdcore_losses.shapes import per_sample, pool, same_positions


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_pooling_is_adaptive_average_pooling(height, width, new_height, new_width):
    x = torch.arange(2 * 3 * height * width, dtype=torch.float64).sin().view(2, 3, height, width)
    ours = pool(pool(x, 2, new_height), 3, new_width)
    torch.testing.assert_close(ours, F.adaptive_avg_pool2d(x, (new_height, new_width)))


@pytest.mark.parametrize(
    ("student", "teacher", "wanted"),
    [
        ((2, 4), (2, 6, 9), ()),
        ((2, 4, 8), (2, 6, 20), (8,)),
        ((2, 4, 8), (2, 6, 5, 20), (5,)),
        ((2, 4, 9, 3), (2, 6, 4, 7), (4, 3)),
        ((2, 4, 2, 9, 3), (2, 6, 4), (2,)),
    ],
)
def test_both_sides_get_the_coarser_positions(student, teacher, wanted):
    ours, theirs = same_positions(torch.ones(student), torch.ones(teacher))
    assert ours.shape == (2, 4, *wanted)
    assert theirs.shape == (2, 6, *wanted)
    torch.testing.assert_close(ours, torch.ones_like(ours))


def test_time_is_what_a_graph_keeps():
    graph = torch.arange(5.0).view(1, 1, 5, 1).expand(1, 2, 5, 7)
    _, kept = same_positions(torch.zeros(1, 3, 5), graph)
    torch.testing.assert_close(kept[0, 0], torch.arange(5.0))


def test_folded_persons_are_averaged_sample_by_sample():
    x = torch.tensor([[0.0], [2.0], [10.0], [20.0]])
    torch.testing.assert_close(per_sample(x, 2), torch.tensor([[1.0], [15.0]]))


@pytest.mark.parametrize("shape", [(5, 3), (4,)])
def test_what_is_no_batch_is_refused(shape):
    with pytest.raises(ValueError, match="cannot be told apart into 2 samples"):
        per_sample(torch.zeros(shape), 2)
