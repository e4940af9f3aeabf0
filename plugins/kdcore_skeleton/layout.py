"""Skeleton layouts: joints, and the bones that connect them.

scipy and torch are imported where they are needed, since schemas of options refer to this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from torch_geometric.data import Data


@dataclass(frozen=True)
class Layout:
    """A skeleton's joints and bones.

    Names say what joints are: those that start with ``left-`` and ``right-`` and are otherwise equal are a pair, and
    transforms look for ``left-shoulder``, ``left-hip`` and so on.

    Args:
        joints: Names, in the order in which recordings have them.
        edges: Pairs of neighbouring joints, in either direction; together they connect all joints.
        centre: The joint from which partitions of the graph measure distance.
        root: The joint from which bones point outwards; `centre` by default.

    Raises:
        ValueError: If a name is unknown or used twice, or some joint cannot be reached.
    """

    joints: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    centre: str
    root: str | None = None
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if len(set(self.joints)) < len(self.joints):
            raise ValueError("a skeleton's joints must have different names")
        for name in [self.centre, self.root or self.centre, *(end for edge in self.edges for end in edge)]:
            self.index(name)
        if np.isinf(self._steps_from(self.centre)).any():
            raise ValueError("a skeleton's edges must connect all of its joints")

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Position of a joint along the joint axis.

        Raises:
            ValueError: If there is no such joint; the message names the nearest.
        """
        if joint not in self.joints:
            near = get_close_matches(joint, self.joints, n=1)
            raise ValueError(f"the skeleton has no joint {joint!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return self.joints.index(joint)

    @cached_property
    def links(self) -> np.ndarray:
        """Edges as joint indices, shape (E, 2), as given."""
        return np.array([[self.index(a), self.index(b)] for a, b in self.edges], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def inward(self) -> np.ndarray:
        """Edges as joint indices, each from its end farther from the centre to the nearer one, shape (E, 2)."""
        steps = self._steps_from(self.centre)
        return np.array([(a, b) if steps[a] >= steps[b] else (b, a) for a, b in self.links], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def bones(self) -> np.ndarray:
        """(child, parent) of every joint but the root, on a shortest way to it; joint indices, shape (V - 1, 2)."""
        from scipy.sparse.csgraph import breadth_first_order

        order, parents = breadth_first_order(self._matrix(), self.index(self.root or self.centre), directed=False)
        return np.array([(child, parents[child]) for child in sorted(order[1:])], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def pairs(self) -> np.ndarray:
        """(left, right) joint indices, shape (P, 2)."""
        twins = [(name, name.replace("left-", "right-", 1)) for name in self.joints if name.startswith("left-")]
        found = [(self.index(left), self.index(right)) for left, right in twins if right in self.joints]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def graph(self) -> Data:
        """The skeleton as a PyTorch Geometric graph.

        Its ``edge_index`` (2, E) points inwards, to the centre. Beside it are ``joints`` (names), ``centre`` (index),
        ``bones`` (V - 1, 2) as (child, parent), and ``pairs`` (P, 2) as (left, right).
        """
        import torch
        from torch_geometric.data import Data

        return Data(
            edge_index=torch.from_numpy(self.inward.T.copy()),
            num_nodes=len(self),
            joints=self.joints,
            centre=self.index(self.centre),
            bones=torch.from_numpy(self.bones),
            pairs=torch.from_numpy(self.pairs),
        )

    def _matrix(self) -> Any:
        from scipy.sparse import coo_array

        return coo_array((np.ones(len(self.links)), self.links.T), shape=(len(self), len(self))).tocsr()

    def _steps_from(self, joint: str) -> np.ndarray:
        from scipy.sparse.csgraph import shortest_path

        return shortest_path(self._matrix(), directed=False, unweighted=True, indices=self.index(joint))
