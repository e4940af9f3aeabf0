"""How `kdcore.testing` tests these encoders: small, to be quick."""

from kdcore.testing import Case

cases = {
    "st-gcn": Case({"width": 8, "depth": 3, "embedding": 6}),
    "agcn": Case({"width": 8, "depth": 3, "dropout": 0.5}),
    "agcn-two-stream": Case({"width": 8, "depth": 3}),
    "hcn": Case({"width": 8, "embedding": 16}),
}
