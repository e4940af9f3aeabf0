"""Conformance test cases with small encoders."""

from kdcore.testing import Case

_LAYOUT = {"layout": "utd-mhad-20"}

cases = {
    **{name: Case(_LAYOUT) for name in ("centre", "view-align", "skeleton-scale", "bones")},
    "st-gcn": Case({**_LAYOUT, "width": 8, "depth": 3, "embedding": 6}),
    "agcn": Case({**_LAYOUT, "width": 8, "depth": 3, "dropout": 0.5}),
    "agcn-two-stream": Case({**_LAYOUT, "width": 8, "depth": 3}),
    "hcn": Case({"width": 8, "embedding": 16}),
}
