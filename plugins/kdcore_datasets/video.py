"""Decoding video files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdcore import DataError


def read_video(path: Path) -> tuple[np.ndarray, float | None]:
    """All frames of a video as (T, H, W, 3) uint8 RGB, and its frame rate if the file states one.

    Raises:
        DataError: If the file cannot be decoded or holds no frame.
    """
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: has no video stream")
            stream = container.streams.video[0]
            rate = float(stream.average_rate) if stream.average_rate else None
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be decoded as video ({error})") from error
    if not frames:
        raise DataError(f"{path}: holds no video frame")
    return np.stack(frames), rate
