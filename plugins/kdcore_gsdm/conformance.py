"""Case for `kdcore.testing`: two maps and a final feature."""

from kdcore.testing import Case

cases = {
    "gsdm": Case(
        options={"pairs": [["block1", "conv1"], ["block2", "conv2"]]},
        inputs={"block1": (6, 8, 8), "block2": (8, 4, 4), "conv1": (4, 6, 6), "conv2": (6, 3, 3), "fc0": (8,), "fc2": (10,)},
    )
}
