"""Which frames of a recording stand for it."""

from __future__ import annotations

import numpy as np


def centred(frames: int, segments: int, span: int = 1) -> np.ndarray:
    r"""One position in the middle of each of `segments` equal stretches of a recording, shape (segments,).

    .. math:: t_i = \lfloor (i + 1/2) (frames - span + 1) / segments \rfloor

    Positions count from 0 and repeat where there are fewer frames than segments.

    Args:
        frames: Length of the recording.
        segments: How many positions.
        span: Consecutive frames needed from each position on.

    Raises:
        ValueError: If the recording is shorter than `span`.

    Source: Wang et al., Temporal Segment Networks (ECCV 2016); its code's indices at test time.
    """
    starts = frames - span + 1
    if starts < 1:
        raise ValueError(f"a recording of {frames} frames is too short for {span} frames in a row")
    stretch = starts / segments
    # Floating point on purpose: where rounding decides, it decides as it does in the published code.
    return (stretch / 2 + stretch * np.arange(segments)).astype(np.int64)
