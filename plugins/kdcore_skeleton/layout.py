"""Skeleton layouts: joints, and the bones that connect them.

scipy and torch are imported where they are needed, since schemas of options refer to this module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator

if TYPE_CHECKING:
    from torch_geometric.data import Data

Joint = str | int
"""A joint's name, or its position along the joint axis."""


def _listed(value: Any, wanted: str, fits: Callable[[Any], bool]) -> tuple[Any, ...]:
    """Convert a list to a tuple. An invalid list is a single problem that names the first invalid entry."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be {wanted}, not {value!r}")
    for number, entry in enumerate(value):
        if not fits(entry):
            raise ValueError(f"must be {wanted}; entry {number} is {entry!r}")
    return tuple(tuple(entry) if isinstance(entry, list) else entry for entry in value)


def _is_joint(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_joint, value))


def _joints(value: Any) -> Any:
    number = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if number else _listed(value, "the joints' names, or their number", lambda entry: isinstance(entry, str))


def _edges(value: Any) -> Any:
    return _listed(value, "pairs of joints, by name or by number from 0", _is_pair)


@dataclass(frozen=True)
class Layout:
    """The joints of a skeleton, and the bones that connect them.

    Names say what joints are: those that start with ``left-`` and ``right-`` and are otherwise equal are a pair, and
    transforms look for ``left-shoulder``, ``left-hip`` and so on. A joint may also be given by its index.

    Args:
        joints: Names, in the order in which recordings have them; or how many there are.
        edges: Pairs of neighbouring joints, in either direction; together they connect all joints.
        centre: The joint from which partitions of the graph measure distance.
        root: The joint from which bones point outwards; `centre` by default.

    Raises:
        ValueError: If a joint is unknown or a name used twice, or some joint cannot be reached.
    """

    joints: Annotated[tuple[str, ...] | int, BeforeValidator(_joints)]
    edges: Annotated[tuple[tuple[Joint, Joint], ...], BeforeValidator(_edges)]
    centre: Joint
    root: Joint | None = None
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names):
            raise ValueError("a skeleton's joints must have different names")
        for joint in [self.centre, self.origin, *(end for edge in self.edges for end in edge)]:
            self.index(joint)
        if np.isinf(self._steps_from(self.centre)).any():
            raise ValueError("a skeleton's edges must connect all of its joints")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The joints' names; their numbers where they have none."""
        return tuple(map(str, range(self.joints))) if isinstance(self.joints, int) else tuple(self.joints)

    @property
    def named(self) -> bool:
        """True if the joints have names."""
        return not isinstance(self.joints, int)

    @property
    def origin(self) -> Joint:
        """The joint from which bones point outwards."""
        return self.centre if self.root is None else self.root

    def index(self, joint: Joint) -> int:
        """Return the position of a joint along the joint axis.

        Raises:
            ValueError: If there is no such joint; the message names the nearest.
        """
        if isinstance(joint, int):
            if not 0 <= joint < len(self):
                raise ValueError(f"the skeleton has joints 0 to {len(self) - 1}, not {joint}")
            return joint
        if joint not in self.names:
            near = get_close_matches(joint, self.names, n=1)
            raise ValueError(f"the skeleton has no joint {joint!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return self.names.index(joint)

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
        """(child, parent) of every joint but the root, on a shortest path to it; joint indices, shape (V - 1, 2)."""
        from scipy.sparse.csgraph import breadth_first_order

        order, parents = breadth_first_order(self._matrix(), self.index(self.origin), directed=False)
        return np.array([(child, parents[child]) for child in sorted(order[1:])], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def pairs(self) -> np.ndarray:
        """(left, right) joint indices, shape (P, 2)."""
        twins = [(name, name.replace("left-", "right-", 1)) for name in self.names if name.startswith("left-")]
        found = [(self.index(left), self.index(right)) for left, right in twins if right in self.names]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def graph(self) -> Data:
        """Return the skeleton as a PyTorch Geometric graph.

        Its ``edge_index`` (2, E) points inwards, to the centre. Beside it are ``joints`` (names), ``centre`` (index),
        ``bones`` (V - 1, 2) as (child, parent), and ``pairs`` (P, 2) as (left, right).
        """
        import torch
        from torch_geometric.data import Data

        return Data(
            edge_index=torch.from_numpy(self.inward.T.copy()),
            num_nodes=len(self),
            joints=self.names,
            centre=self.index(self.centre),
            bones=torch.from_numpy(self.bones),
            pairs=torch.from_numpy(self.pairs),
        )

    def _matrix(self) -> Any:
        from scipy.sparse import coo_array

        return coo_array((np.ones(len(self.links)), self.links.T), shape=(len(self), len(self))).tocsr()

    def _steps_from(self, joint: Joint) -> np.ndarray:
        """(V,) the number of edges from `joint` to each joint, infinite where none leads there."""
        neighbours: dict[int, list[int]] = {}
        for one, other in self.links.tolist():
            neighbours.setdefault(one, []).append(other)
            neighbours.setdefault(other, []).append(one)
        steps = np.full(len(self), np.inf)
        near, step = {self.index(joint)}, 0
        while near:
            steps[list(near)] = step
            near = {each for one in near for each in neighbours.get(one, ()) if np.isinf(steps[each])}
            step += 1
        return steps
