"""Joints that pictures link, against the layouts that graphs are made of."""

from __future__ import annotations

import pytest

from kdcore_datasets.modalities import KINECT_20_LINKS, NTU_25_LINKS
from kdcore_skeleton.layouts import find_layout


@pytest.mark.parametrize(("links", "layout"), [(KINECT_20_LINKS, "utd-mhad-20"), (NTU_25_LINKS, "ntu-25")])
def test_links_are_the_layouts_edges(links, layout):
    found = find_layout(layout)
    assert {frozenset(link) for link in links} == {frozenset(map(found.index, edge)) for edge in found.edges}
