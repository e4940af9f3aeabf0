"""The join of modalities by position, against one by keys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import DataError, Sample, SampleKey, Splits
from kdcore.data.data_cache import Column
from kdcore.data.key_join import KeyJoin

MODALITIES = ("a", "b")


@st.composite
def recordings(draw):
    """Samples with one modality or both, their splits, and the columns, in which some samples have no or several windows."""
    samples = [
        Sample(
            SampleKey(str(number), "1", "1"),
            number % 3 or None,
            dict.fromkeys(draw(st.sampled_from(["a", "b", "ab"]))),
            weight=draw(st.sampled_from([1.0, 0.5 + number])),
        )
        for number in range(draw(st.integers(1, 6)))
    ]
    places = [draw(st.sampled_from(["train", "test", ""])) for _ in samples]
    members = {
        split: tuple(each for each, place in zip(samples, places, strict=True) if place == split) for split in ("train", "test")
    }
    columns = []
    for modality in MODALITIES:
        having = [sample for sample in samples if modality in sample.sources]
        rows = [(number, window) for number in range(len(having)) for window in range(draw(st.integers(0, 3)))]
        recorded, windows = (np.array([row[each] for row in rows], np.int64) for each in (0, 1))
        columns.append(
            Column(
                having,
                recorded,
                windows,
                torch.arange(float(len(rows))),
                {},
                [""] * len(having),
                {},
                *[[1.0] * len(having)] * 2,
            )
        )
    return samples, Splits(members, "drawn"), columns


@settings(deadline=None, max_examples=50)
@given(recordings())
def test_joins_as_keys_do(drawn):
    samples, splits, columns = drawn
    split_of = {sample.key: split for split, members in splits.samples.items() for sample in members}
    by_key = [
        {
            replace(each.samples[recorded].key, window=window): value
            for recorded, window, value in zip(each.recorded, each.windows, each.values.tolist(), strict=True)
        }
        for each in columns
    ]
    expected = []
    for sample in samples:
        for window in range(3):
            key = replace(sample.key, window=window)
            needed = [keys for name, keys in zip(MODALITIES, by_key, strict=True) if name in sample.sources]
            if sample.key in split_of and all(key in keys for keys in needed):
                expected.append((key, sample))
    join = KeyJoin(samples, splits)
    try:
        joined = join.rows([*zip(columns, MODALITIES, strict=True)])
    except DataError:
        assert not expected
        return
    assert list(joined.keys) == [key for key, _ in expected]
    assert joined.labels.tolist() == [-1 if sample.label is None else sample.label for _, sample in expected]
    weights = [sample.weight for _, sample in expected]
    assert (joined.weights is None) == all(each.weight == 1 for each in samples)
    assert joined.weights is None or joined.weights.tolist() == weights
    for split, rows in joined.by_split.items():
        assert rows.tolist() == [row for row, (_, sample) in enumerate(expected) if split_of[sample.key] == split]
    for name, column, keys in zip(MODALITIES, columns, by_key, strict=True):
        assert joined.present(column, name).tolist() == [key in keys for key, _ in expected]
        values = joined.values_of(column, name)
        if keys:
            assert values.tolist() == [keys.get(key, column.values[0].item()) for key, _ in expected]
    used = {sample.key for _, sample in expected}
    for split, members in join.used(joined).samples.items():
        assert members == tuple(each for each in splits.samples[split] if each.key in used)


def test_no_row_in_common_is_an_error():
    sample = Sample(SampleKey("1", "1", "1"), 0, dict.fromkeys(MODALITIES))
    none = np.empty(0, np.int64)
    said = ([""], {}, [1.0], [1.0])
    columns = [Column([sample], np.zeros(1, np.int64), np.array([n]), torch.zeros(1), {}, *said) for n in (0, 1)]
    empty = [Column([sample], none, none, torch.zeros(0), {}, *said)] * 2
    for each in (columns, empty):
        with pytest.raises(DataError, match="no samples are left"):
            KeyJoin([sample], Splits({"train": (sample,)}, "")).rows([*zip(each, MODALITIES, strict=True)])
