"""Labels of `ArrayDataset` in tables and columns of other libraries."""

import numpy as np
import pandas as pd
import pytest

import kdcore
from kdcore import ArrayDataset

WRIST = np.random.default_rng(0).normal(size=(2, 20, 3)).astype(np.float32)


class Polars:
    """What a data frame of polars has: columns without an index."""

    def __init__(self, columns):
        self.frame, self.columns = columns, list(columns)
        self.dtypes = [object()] * len(columns)

    def __getitem__(self, name):
        return self.frame[name]

    def to_numpy(self):
        return np.stack(list(self.frame.values()), 1)


def test_labels_of_a_table_without_an_index_are_read_by_column():
    labels = Polars({"walk": [1, 0], "sit": [0, 1]})
    data = ArrayDataset({"accelerometer": (WRIST, 50.0)}, labels, classes=["sit", "walk"])
    assert [sample.target for sample in data.samples()] == [(0.0, 1.0), (1.0, 0.0)]


@pytest.mark.parametrize("missing", [False, True])
def test_labels_and_subjects_may_be_categorical(missing):
    names = ["walk", None if missing else "sit", "run", "sit"]
    data = kdcore.ArrayDataset(
        {"accelerometer": (np.zeros((4, 5, 3)), 10.0)}, labels=pd.Categorical(names), subjects=pd.Categorical([2, 2, 1, 1])
    )
    found = [(sample.key.subject, None if sample.label is None else data.classes[sample.label]) for sample in data.samples()]
    assert found == list(zip(["2", "2", "1", "1"], names, strict=True))
