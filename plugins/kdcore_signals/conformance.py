"""Conformance test cases with small encoders."""

from kdcore.testing import Case

cases = {
    "crop": Case({"length": 8}),
    "pad": Case({"length": 64}),
    "resample": Case({"length": 32, "anti_aliasing": True}),
    "cnn1d": [Case({"width": 8, "depth": 2, "embedding": 6}), Case({"width": 8, "depth": 2, "projector": 10})],
    "cnn1d-late-fusion": Case({"groups": [4, 2], "width": 8, "depth": 2, "embedding": 6}),
    "cnn2d": [Case({"width": 8, "depth": 2, "norm": "group"}), Case({"width": 8, "depth": 2, "projector": 10})],
    "lstm": Case({"hidden": 8, "bidirectional": True, "embedding": 6}),
}
