"""Keys at a wrong place: the message says where they belong."""

from __future__ import annotations

import pytest

from kdcore import RecipeError, load_recipe

ON_LOSSES = "did you mean 'losses[0].class_weights', an option of the loss 'cross-entropy'?"
ON_TEACHERS = "did you mean 'teacher_losses[0].class_weights', an option of the loss 'cross-entropy'?"


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"class_weights": "balanced"}, ON_LOSSES),
        ({"student": {"class_weights": "balanced"}}, ON_LOSSES),
        ({"teachers": {"skeleton": {"class_weights": "balanced"}}}, ON_TEACHERS),
        ({"data": {"class_weights": {"wave": 2.0}}}, ON_LOSSES),
        ({"training": {"class_weights": "balanced"}}, ON_LOSSES),
        ({"losses": {"soft-target": {"class_weights": "balanced"}}}, ON_LOSSES),
        ({"batch_size": 3}, "did you mean 'data.batch_size'?"),
        ({"data": {"dataset": {"batch_size": 3}}}, "did you mean 'data.batch_size'?"),
        ({"data": {"seeds": [1]}}, "did you mean 'seeds', at the top level?"),
        ({"seed": 3}, "did you mean 'seeds'?"),  # nearly right where it stands, though data.labels has a seed
        ({"training": {"batchsize": 4}}, "did you mean 'batch_size'?"),
    ],
)
def test_a_key_that_is_valid_elsewhere_is_sent_there(change, hint):
    with pytest.raises(RecipeError) as refused:
        load_recipe({"extends": "quickstart", **change})
    assert [each.hint for each in refused.value.problems] == [hint]
