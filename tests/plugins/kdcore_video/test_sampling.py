"""Which frames stand for a recording."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcore_video.sampling import centred


@pytest.mark.parametrize("segments", [3, 8, 25])
@pytest.mark.parametrize("span", [1, 5])
def test_equals_the_published_code(golden, segments, span):
    numbers = golden("d_trn_tsn")
    expected = numbers[f"tsn.seg{segments}_len{span}.test_1based"]
    checked = 0
    for frames, row in zip(numbers["tsn.lengths"], expected, strict=True):
        if (row == -999).any():
            continue
        assert np.array_equal(centred(int(frames), segments, span) + 1, row), frames
        checked += 1
    assert checked >= 9


@given(st.integers(1, 300), st.integers(1, 32), st.integers(1, 6))
def test_one_in_each_stretch(frames, segments, span):
    if frames < span:
        with pytest.raises(ValueError, match="too short"):
            centred(frames, segments, span)
        return
    positions = centred(frames, segments, span)
    assert len(positions) == segments
    assert positions.min() >= 0
    assert positions.max() + span <= frames
    for i, position in enumerate(positions):
        assert i * (frames - span + 1) / segments - 1 < position <= (i + 1) * (frames - span + 1) / segments
