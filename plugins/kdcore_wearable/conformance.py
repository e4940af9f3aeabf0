"""How `kdcore.testing` tests these encoders: small, to be quick."""

from kdcore.testing import Case

cases = {
    "cnn1d": Case({"width": 8, "depth": 2, "embedding": 6}),
    "cnn2d": Case({"width": 8, "depth": 2, "norm": "group"}),
    "lstm": Case({"hidden": 8, "bidirectional": True, "embedding": 6}),
}
