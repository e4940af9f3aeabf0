"""Partitions against those of the published code, and what must hold for any skeleton."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdcore_skeleton.layout import Layout
from kdcore_skeleton.layouts import LAYOUTS
from kdcore_skeleton.partition import agcn_spatial, distance, partition, spatial, uniform

PUBLISHED = {
    "openpose": "openpose-18",
    "ntu-rgb+d": "ntu-25",
    "utd20": "utd-mhad-20",
    "ntu25": "ntu-25",
    "kinetics18": "openpose-18",
}
CHAIN = Layout(("a", "b", "c", "d"), (("a", "b"), ("b", "c"), ("c", "d")), centre="b")
"""a - b - c - d, centred on b."""


@pytest.mark.parametrize("strategy", ["uniform", "distance", "spatial"])
@pytest.mark.parametrize("layout", ["openpose", "ntu-rgb+d", "utd20"])
def test_equals_published_st_gcn(golden, layout, strategy):
    expected = golden("c_adjacency")[f"stgcn.{layout}.{strategy}"]
    found = partition(LAYOUTS[PUBLISHED[layout]].graph(), strategy)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("layout", ["ntu25", "kinetics18", "utd20"])
def test_equals_published_agcn(golden, layout):
    expected = golden("c_adjacency")[f"agcn.{layout}.spatial"]
    found = partition(LAYOUTS[PUBLISHED[layout]].graph(), "agcn-spatial")
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=0)


def test_equals_published_st_gcn_of_two_hops(golden):
    expected = golden("c_adjacency")["stgcn.ntu-rgb+d.spatial_maxhop2"]
    np.testing.assert_allclose(spatial(LAYOUTS["ntu-25"].graph(), 2).numpy(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("strategy", ["uniform", "distance", "spatial"])
def test_equals_published_st_gcn_on_a_layout_of_ones_own(golden, strategy):
    links = (
        "1-2 3-2 4-3 5-2 6-5 7-6 8-7 9-2 10-9 11-10 12-11 13-1 14-13 15-14 16-15 17-1 18-17 19-18 20-19 21-22 22-8 23-24 24-12"
    )
    edges = tuple(tuple(link.split("-")) for link in links.split())
    layout = Layout(tuple(str(joint + 1) for joint in range(24)), edges, centre="3")  # type: ignore[arg-type]
    expected = golden("c_adjacency")[f"stgcn.ntu_edge.{strategy}"]
    np.testing.assert_allclose(partition(layout.graph(), strategy).numpy(), expected, rtol=1e-12, atol=0)


def test_inward_edges_equal_published(golden):
    numbers = golden("c_adjacency")
    for key in ("ntu25", "kinetics18", "utd20"):
        assert set(map(tuple, LAYOUTS[PUBLISHED[key]].inward)) == set(map(tuple, numbers[f"agcn.{key}.inward"]))


@pytest.mark.parametrize("name", LAYOUTS)
def test_columns_sum_to_one(name):
    graph = LAYOUTS[name].graph()
    for parts in (uniform(graph), distance(graph), spatial(graph), spatial(graph, 3)):
        torch.testing.assert_close(parts.sum(dim=(0, 1)), torch.ones(len(LAYOUTS[name]), dtype=torch.float64))


def test_from_comes_before_to():
    itself, nearer, farther = agcn_spatial(CHAIN.graph())
    assert itself.equal(torch.eye(4, dtype=torch.float64))
    assert nearer.nonzero().tolist() == [[1, 0], [1, 2], [2, 3]], "a, c and d hear from the joint before them"
    assert farther.nonzero().tolist() == [[0, 1], [2, 1], [3, 2]], "b and c hear from the joints after them"
    assert farther[:, 1].tolist() == [0.5, 0, 0.5, 0]


def test_spatial_subsets_by_hand():
    longer = Layout((*CHAIN.joints, "e"), (*CHAIN.edges, ("d", "e")), centre="b")
    itself, others, nearer = spatial(longer.graph())
    assert itself.diagonal().tolist() == [1 / 2, 1 / 3, 1 / 3, 1 / 3, 1 / 2]
    assert nearer.nonzero().tolist() == [[1, 0], [1, 2], [2, 3]], "d and e count as equally far, for both are beyond one bone"
    assert others.nonzero().tolist() == [[0, 1], [2, 1], [3, 2], [3, 4], [4, 3]]


@pytest.mark.parametrize("strategy", ["uniform", "distance", "spatial", "agcn-spatial"])
def test_follows_a_permutation_of_joints(strategy):
    layout = LAYOUTS["utd-mhad-20"]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    shuffled = Layout(tuple(layout.joints[i] for i in order), layout.edges, layout.centre)
    expected = partition(layout.graph(), strategy)[:, order][:, :, order]
    torch.testing.assert_close(partition(shuffled.graph(), strategy), expected)
