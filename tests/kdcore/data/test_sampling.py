"""The order of an epoch: balanced over classes, and the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import RecipeError, load_recipe
from kdcore.data.table import balanced, shuffled


@given(labels=st.lists(st.integers(-1, 4), min_size=1, max_size=60), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_every_class_is_drawn_equally_often_all_along_the_epoch(labels, seed):
    found = balanced(torch.tensor(labels), seed).tolist()
    assert len(found) == len(labels)
    drawn = [labels[place] for place in found]
    unlabelled = [place for place in found if labels[place] < 0]
    assert sorted(unlabelled) == [place for place, label in enumerate(labels) if label < 0]
    known, classes = [label for label in drawn if label >= 0], set(labels) - {-1}
    for start in range(0, len(known), len(classes) or 1):
        turn = known[start : start + len(classes)]
        assert len(set(turn)) == len(turn), "a class comes again before all others have come"
    times = Counter(found)
    for each in classes:
        counts = [times[place] for place, label in enumerate(labels) if label == each]
        assert max(counts) - min(counts) <= 1, "a sample comes again before all others of its class have come"


def test_the_seed_alone_decides():
    labels = torch.tensor([0] * 9 + [1] * 3)
    state = torch.get_rng_state()
    assert torch.equal(balanced(labels, 5), balanced(labels, 5))
    assert not torch.equal(balanced(labels, 5), balanced(labels, 6))
    assert torch.equal(torch.get_rng_state(), state)


def test_classes_come_in_another_order_in_every_turn():
    drawn = torch.arange(4).repeat(50)[balanced(torch.arange(4).repeat(50), 0)]
    assert len({tuple(turn) for turn in drawn.reshape(50, 4).tolist()}) > 12, "of 24 possible orders"


def test_without_labels_it_is_a_permutation():
    assert sorted(balanced(torch.full((7,), -1), 0).tolist()) == sorted(shuffled(7, 0).tolist()) == list(range(7))


def test_labels_that_are_withheld_are_not_read():
    with pytest.raises(RecipeError, match=r"data\.sampler: 'balanced' reads labels, which are withheld from students"):
        load_recipe("quickstart", ["data.sampler=balanced", "data.labels=withheld"])
