import pytest
import torch

from kdcore_video.difference import RgbDifference


def test_differences_add_up_to_the_whole_change():
    clip = torch.rand(2, 6, 3, 4, 4, dtype=torch.float64)
    total = RgbDifference(gain=2.0)(clip).sum(1)
    torch.testing.assert_close(total, 2 * (clip[:, -1] - clip[:, 0]))


def test_what_stands_still_vanishes():
    assert not RgbDifference()(torch.rand(1, 1, 3, 4, 4).expand(1, 5, 3, 4, 4)).any()


@pytest.mark.parametrize("clip", [torch.rand(1, 1, 3, 4, 4), torch.zeros(1, 4, 3, 4, 4, dtype=torch.uint8)])
def test_unfit_clips_are_refused(clip):
    with pytest.raises(ValueError, match="rgb-difference"):
        RgbDifference()(clip)
