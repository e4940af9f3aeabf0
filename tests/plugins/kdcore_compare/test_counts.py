"""Counts of samples with each label or value in tables of comparisons."""

from types import SimpleNamespace

import numpy as np

from kdcore import LabelEvaluation, Target, ValueEvaluation
from kdcore_compare.comparison_report import _support


def test_what_is_not_known_is_not_counted():
    labels = {"one": [1, -1, 0], "two": [1, 0, -1], "three": [0, 1, 1]}
    of_labels = LabelEvaluation(np.full((3, 3), 0.5), np.array(list(labels.values())))
    assert _support(SimpleNamespace(labels=labels, example=of_labels)) == [2, 1, 1]  # type: ignore[arg-type]
    values = {"one": [61.0, np.nan], "two": [62.0, 1.5], "three": [np.nan, np.nan]}
    of_values = ValueEvaluation(np.zeros((3, 2)), np.array(list(values.values())), ("a", "b"), Target("values"))
    assert _support(SimpleNamespace(labels=values, example=of_values)) == [2, 1]  # type: ignore[arg-type]
