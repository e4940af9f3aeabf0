"""Labels of loss terms, by which overrides, logs and reports name them."""

from __future__ import annotations

import pytest

from kdcore.recipe.merge import term_labels


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["dkd", "dkd", "dkd"], ["dkd", "dkd-2", "dkd-3"]),
        (["ours/margin", "theirs/margin"], ["margin", "theirs-margin"]),
        (["margin", "theirs/margin", "theirs/margin"], ["margin", "theirs-margin", "margin-2"]),
        (["theirs/margin", "theirs/margin"], ["margin", "margin-2"]),
    ],
)
def test_terms_of_one_name_are_told_apart(names, labels):
    assert term_labels((name, None) for name in names) == labels


def test_given_ids_are_kept_and_never_given_twice():
    assert term_labels([("theirs/margin", None), ("a/margin", None), ("x", "a-margin")]) == ["margin", "margin-2", "a-margin"]
