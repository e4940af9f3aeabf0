r"""Partitions of the neighbours of a joint into subsets, each with separate weights.

Each gives matrices :math:`A` of shape (K, V, V), float64, indexed ``[subset, from, to]``, so that a graph convolution is
:math:`y_w = \sum_k W_k \sum_v A_{kvw}\, x_v`. Every column of :math:`\sum_k A_k` that an ST-GCN partition gives sums to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch_geometric.data import Data

Strategy = Literal["uniform", "distance", "spatial", "agcn-spatial"]


def partition(graph: Data, strategy: Strategy, max_hop: int = 1) -> Tensor:
    """Return the matrices of a skeleton's graph.

    Args:
        graph: As `Layout.graph` gives it.
        strategy: ``uniform``, ``distance`` and ``spatial`` as in ST-GCN (Yan et al., AAAI 2018,
        https://arxiv.org/abs/1801.07455, section 3.3);
            ``agcn-spatial`` as in 2s-AGCN (Shi et al., CVPR 2019, section 3.1), always of one hop.
        max_hop: How far away a neighbour may be, in bones.
    """
    return agcn_spatial(graph) if strategy == "agcn-spatial" else _STRATEGIES[strategy](graph, max_hop)


def uniform(graph: Data, max_hop: int = 1) -> Tensor:
    """All neighbours alike, shape (1, V, V)."""
    return _normalised(_hops(graph, max_hop).isfinite())[None]


def distance(graph: Data, max_hop: int = 1) -> Tensor:
    """One subset for each number of hops, the joint itself first, shape (1 + max_hop, V, V)."""
    hops = _hops(graph, max_hop)
    weights = _normalised(hops.isfinite())
    return torch.stack([weights * (hops == hop) for hop in range(max_hop + 1)])


def spatial(graph: Data, max_hop: int = 1) -> Tensor:
    """By hop, and by whether the neighbour is nearer to the centre, shape (1 + 2 max_hop, V, V).

    The order is the joint itself, then for each hop the neighbours not nearer and those nearer than the joint. As in the
    published code, distances to the centre beyond `max_hop` all count as infinite, hence equal.
    """
    hops = _hops(graph, max_hop)
    weights = _normalised(hops.isfinite())
    to_centre = hops[:, graph.centre]
    nearer = to_centre[:, None] < to_centre[None, :]
    rings = [part for hop in range(1, max_hop + 1) for part in ((hops == hop) & ~nearer, (hops == hop) & nearer)]
    return torch.stack([weights * subset for subset in (hops == 0, *rings)])


def agcn_spatial(graph: Data) -> Tensor:
    """Return the joint itself, its neighbour towards the centre, those away from it; each normalised alone, shape (3, V, V)."""
    from torch_geometric.utils import to_dense_adj

    child_to_parent = to_dense_adj(graph["edge_index"], max_num_nodes=graph.num_nodes)[0]
    itself = torch.eye(len(child_to_parent))
    return torch.stack([_normalised(each) for each in (itself, child_to_parent.T, child_to_parent)])


_STRATEGIES: Mapping[str, Callable[..., Tensor]] = {"uniform": uniform, "distance": distance, "spatial": spatial}


def _hops(graph: Data, max_hop: int) -> Tensor:
    """Bones between any two joints, infinite where more than `max_hop`, shape (V, V)."""
    from scipy.sparse.csgraph import shortest_path
    from torch_geometric.utils import to_scipy_sparse_matrix, to_undirected

    edges = to_undirected(graph["edge_index"], num_nodes=graph.num_nodes)
    hops = torch.from_numpy(shortest_path(to_scipy_sparse_matrix(edges, num_nodes=graph.num_nodes).tocsr(), unweighted=True))
    return hops.masked_fill(hops > max_hop, torch.inf)


def _normalised(adjacency: Tensor) -> Tensor:
    """Each column divided by its sum, :math:`A D^{-1}`; columns of zeros stay."""
    adjacency = adjacency.double()
    return adjacency / adjacency.sum(dim=0).clamp(min=1)
