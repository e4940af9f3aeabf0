"""The skeleton layouts that recipes can name.

Each is written as chains of joints, from the tip of a limb inwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from kdcore_skeleton.layout import Layout

LayoutName = Literal["utd-mhad-20", "ntu-25", "openpose-18", "coco-17", "nucla-20"]
LayoutOption = LayoutName | Layout
"""What an option `layout` accepts: a name, or a layout of one's own as ``{joints: […], edges: [[…, …], …], centre: …}``."""


def _layout(joints: str, chains: str, centre: str, root: str | None = None) -> Layout:
    edges = tuple(edge for chain in chains.strip().splitlines() for edge in pairwise(chain.split()))
    return Layout(tuple(joints.split()), edges, centre, root)


_KINECT_V1 = """
    head shoulder-centre
    hip-centre spine shoulder-centre
    left-hand left-wrist left-elbow left-shoulder shoulder-centre
    right-hand right-wrist right-elbow right-shoulder shoulder-centre
    left-foot left-ankle left-knee left-hip hip-centre
    right-foot right-ankle right-knee right-hip hip-centre
"""
_KINECT_V1_LIMBS = """
    left-shoulder left-elbow left-wrist left-hand right-shoulder right-elbow right-wrist right-hand
    left-hip left-knee left-ankle left-foot right-hip right-knee right-ankle right-foot
"""

LAYOUTS: Mapping[str, Layout] = {
    "utd-mhad-20": _layout("head shoulder-centre spine hip-centre" + _KINECT_V1_LIMBS, _KINECT_V1, centre="shoulder-centre"),
    "nucla-20": _layout("hip-centre spine shoulder-centre head" + _KINECT_V1_LIMBS, _KINECT_V1, centre="shoulder-centre"),
    "ntu-25": _layout(
        """
        hip-centre spine neck head
        left-shoulder left-elbow left-wrist left-hand right-shoulder right-elbow right-wrist right-hand
        left-hip left-knee left-ankle left-foot right-hip right-knee right-ankle right-foot
        shoulder-centre left-hand-tip left-thumb right-hand-tip right-thumb
        """,
        """
        head neck shoulder-centre
        hip-centre spine shoulder-centre
        left-hand-tip left-thumb left-hand left-wrist left-elbow left-shoulder shoulder-centre
        right-hand-tip right-thumb right-hand right-wrist right-elbow right-shoulder shoulder-centre
        left-foot left-ankle left-knee left-hip hip-centre
        right-foot right-ankle right-knee right-hip hip-centre
        """,
        centre="shoulder-centre",
    ),
    "openpose-18": _layout(
        """
        nose neck
        right-shoulder right-elbow right-wrist left-shoulder left-elbow left-wrist
        right-hip right-knee right-ankle left-hip left-knee left-ankle
        right-eye left-eye right-ear left-ear
        """,
        """
        right-wrist right-elbow right-shoulder neck
        left-wrist left-elbow left-shoulder neck
        right-ankle right-knee right-hip right-shoulder
        left-ankle left-knee left-hip left-shoulder
        right-ear right-eye nose neck
        left-ear left-eye nose
        """,
        centre="neck",
        root="nose",
    ),
    "coco-17": _layout(
        """
        nose left-eye right-eye left-ear right-ear
        left-shoulder right-shoulder left-elbow right-elbow left-wrist right-wrist
        left-hip right-hip left-knee right-knee left-ankle right-ankle
        """,
        """
        left-ear left-eye nose
        right-ear right-eye nose
        left-wrist left-elbow left-shoulder nose
        right-wrist right-elbow right-shoulder nose
        left-ankle left-knee left-hip left-shoulder
        right-ankle right-knee right-hip right-shoulder
        """,
        centre="nose",
    ),
}


def find_layout(layout: LayoutOption | Mapping[str, Any] | str) -> Layout:
    """The layout that an option means.

    Raises:
        ValueError: If there is none of that name.
    """
    if isinstance(layout, str):
        if layout not in LAYOUTS:
            raise ValueError(f"no skeleton layout {layout!r} (known: {', '.join(LAYOUTS)})")
        return LAYOUTS[layout]
    return layout if isinstance(layout, Layout) else Layout(**layout)


def layout_of(in_shape: tuple[int, ...], layout: LayoutOption | Mapping[str, Any] | str) -> Layout:
    """The layout that an option means, if it fits an input of shape (C, T, V, M). Of joints it sees the number, not the order.

    Raises:
        ValueError: If the input is no skeleton, or has another number of joints.
    """
    if len(in_shape) != 4:
        raise ValueError(f"a skeleton is (channel, time, joint, person), not a tensor of shape {tuple(in_shape)}")
    found = find_layout(layout)
    if in_shape[2] != len(found):
        name = f" ({layout})" if isinstance(layout, str) else ""
        raise ValueError(f"the input has {in_shape[2]} joints, its layout {len(found)}{name}; set `layout` to the one recorded")
    return found
