"""Conformance test cases with small backbones and clips."""

import numpy as np

from kdcore import Signal
from kdcore.testing import Case

# The kit's own guess is a clip one pixel wide, on which convolutions in bfloat16 on some CPUs return uninitialised memory.
CASE = Case({"backbone": "resnet10t"}, inputs=(4, 3, 32, 32))


def _walker() -> Signal:
    """A body that walks in front of a wall, in millimetres."""
    depth = np.full((6, 40, 48, 1), 4000, np.uint16)
    for frame in range(6):
        depth[frame, 10:34, 8 + 4 * frame : 16 + 4 * frame] = 2500
    return Signal(depth, rate=30.0)


WALKER = Case({"size": 24, "background": 4000, "distance": 2500, "still": "keep"}, inputs=_walker())

cases = {
    "motion-crop": WALKER,
    "frames": CASE,
    "tsn": CASE,
    "trn": CASE,
    "tsm": [CASE, Case({"backbone": "resnet10t", "embedding": 6}, inputs=CASE.inputs)],
}
