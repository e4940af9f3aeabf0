"""The skeleton layouts that recipes can name.

Each is written as chains of joints, from the tip of a limb inwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from kdcore import KdcoreError, Modality
from kdcore_skeleton.layout import Layout

LayoutName = Literal[
    "utd-mhad-20",
    "nucla-20",
    "kinect-v1-20",
    "ntu-25",
    "openpose-18",
    "coco-17",
    "halpe-26",
    "mediapipe-33",
    "h36m-17",
    "smpl-24",
]
LayoutOption = LayoutName | Layout
"""Values of an option `layout`: a name, or a layout of one's own as ``{joints: […], edges: [[…, …], …], centre: …}``."""


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

_KINECT_V1_SDK = _layout("hip-centre spine shoulder-centre head" + _KINECT_V1_LIMBS, _KINECT_V1, centre="shoulder-centre")

LAYOUTS: Mapping[str, Layout] = {
    "utd-mhad-20": _layout("head shoulder-centre spine hip-centre" + _KINECT_V1_LIMBS, _KINECT_V1, centre="shoulder-centre"),
    "nucla-20": _KINECT_V1_SDK,
    "kinect-v1-20": _KINECT_V1_SDK,  # the order of its SDK, in which N-UCLA was recorded
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
    "halpe-26": _layout(  # https://github.com/Fang-Haoshu/Halpe-FullBody
        """
        nose left-eye right-eye left-ear right-ear
        left-shoulder right-shoulder left-elbow right-elbow left-wrist right-wrist
        left-hip right-hip left-knee right-knee left-ankle right-ankle
        head neck hip-centre
        left-big-toe right-big-toe left-small-toe right-small-toe left-heel right-heel
        """,
        """
        left-ear left-eye nose head neck
        right-ear right-eye nose
        left-wrist left-elbow left-shoulder neck
        right-wrist right-elbow right-shoulder neck
        hip-centre neck
        left-small-toe left-heel
        left-big-toe left-heel left-ankle left-knee left-hip hip-centre
        right-small-toe right-heel
        right-big-toe right-heel right-ankle right-knee right-hip hip-centre
        """,
        centre="neck",
    ),
    "mediapipe-33": _layout(  # https://ai.google.dev/edge/mediapipe/solutions/vision/pose_landmarker
        """
        nose left-eye-inner left-eye left-eye-outer right-eye-inner right-eye right-eye-outer
        left-ear right-ear left-mouth right-mouth
        left-shoulder right-shoulder left-elbow right-elbow left-wrist right-wrist
        left-pinky right-pinky left-index right-index left-thumb right-thumb
        left-hip right-hip left-knee right-knee left-ankle right-ankle
        left-heel right-heel left-foot right-foot
        """,
        """
        left-ear left-eye-outer left-eye left-eye-inner nose
        right-ear right-eye-outer right-eye right-eye-inner nose
        left-mouth nose
        right-mouth nose
        left-pinky left-wrist
        left-thumb left-wrist
        left-index left-wrist left-elbow left-shoulder nose
        right-pinky right-wrist
        right-thumb right-wrist
        right-index right-wrist right-elbow right-shoulder nose
        left-foot left-heel left-ankle left-knee left-hip left-shoulder
        right-foot right-heel right-ankle right-knee right-hip right-shoulder
        """,
        centre="nose",
    ),
    "h36m-17": _layout(  # Human3.6M as commonly reduced to 17 joints, https://doi.org/10.1109/TPAMI.2013.248
        """
        hip-centre right-hip right-knee right-ankle left-hip left-knee left-ankle
        spine shoulder-centre neck head
        left-shoulder left-elbow left-wrist right-shoulder right-elbow right-wrist
        """,
        """
        head neck shoulder-centre
        hip-centre spine shoulder-centre
        left-wrist left-elbow left-shoulder shoulder-centre
        right-wrist right-elbow right-shoulder shoulder-centre
        left-ankle left-knee left-hip hip-centre
        right-ankle right-knee right-hip hip-centre
        """,
        centre="hip-centre",
    ),
    "smpl-24": _layout(  # https://doi.org/10.1145/2816795.2818013
        """
        hip-centre left-hip right-hip lower-spine left-knee right-knee spine left-ankle right-ankle
        upper-spine left-foot right-foot neck left-collar right-collar head
        left-shoulder right-shoulder left-elbow right-elbow left-wrist right-wrist left-hand right-hand
        """,
        """
        head neck upper-spine spine lower-spine hip-centre
        left-hand left-wrist left-elbow left-shoulder left-collar upper-spine
        right-hand right-wrist right-elbow right-shoulder right-collar upper-spine
        left-foot left-ankle left-knee left-hip hip-centre
        right-foot right-ankle right-knee right-hip hip-centre
        """,
        centre="hip-centre",
    ),
}


AXES = ("channel", "time", "joint", "person")
"""The axes of a skeleton's tensor, without the batch."""


class UnfitSkeletonError(KdcoreError, ValueError):
    """A skeleton does not fit a component's options: an error of the recipe, not of the plugin."""

    exit_code = 2


def find_layout(layout: LayoutOption | Mapping[str, Any] | str) -> Layout:
    """Return the layout for an option or a dataset.

    Raises:
        ValueError: If there is none of that name, or the mapping of a dataset is no layout; the message names every fault.
    """
    if isinstance(layout, str):
        if layout not in LAYOUTS:
            raise ValueError(
                f"no skeleton layout {layout!r} (known: {', '.join(LAYOUTS)}); or define it with joints, edges and centre"
            )
        return LAYOUTS[layout]
    if isinstance(layout, Layout):
        return layout
    try:
        return TypeAdapter(Layout).validate_python(layout)
    except ValidationError as error:
        faults = [(".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")) for each in error.errors()]
        listed = "; ".join(f"{where}: {what}" if where else what for where, what in faults)
        raise ValueError(f"the dataset's `skeleton`: {listed}") from None


def layout_of(spec: Modality | None, layout: LayoutOption | None) -> Layout:
    """Return the layout of the recorded skeleton: the dataset's, which an option may replace if it has the same joints.

    Args:
        spec: What is known of the input; None for components made in code.
        layout: The option of the component; None for the dataset's layout.

    Raises:
        ValueError: If neither gives a layout, or the two contradict each other.
    """
    recorded = spec.skeleton if spec else ""
    if layout is None:
        if not recorded:
            raise ValueError("the dataset does not define a skeleton layout: set `layout`, or the dataset's `skeleton`")
        return find_layout(recorded)
    found = find_layout(layout)
    if not recorded or layout == recorded:
        return found
    if isinstance(recorded, str) and recorded not in LAYOUTS:
        same = not isinstance(layout, str)  # a name kdcore does not know may well be what the option spells out
    else:
        known = find_layout(recorded)
        same = known.names == found.names if known.named and found.named else len(known) == len(found)
    if same:
        return found
    of_dataset = f"{recorded!r}" if isinstance(recorded, str) else "another one, with other joints"
    of_option = f"{layout!r}" if isinstance(layout, str) else "spells out other joints"
    raise ValueError(f"`layout` {of_option}, but the dataset's skeleton is {of_dataset}; remove `layout`")


def require_skeleton(shape: Sequence[int], layout: Layout | None, spec: Modality | None = None) -> None:
    """Check that the input is a skeleton (C, T, V, M) with the joints of a layout.

    Args:
        shape: Of the tensor, without the batch axis.
        layout: Whose joints it must have; None for any.
        spec: What is known of the tensor.

    Raises:
        UnfitSkeletonError: If the input is not a skeleton, or has another number of joints.
    """
    if len(shape) != 4 or (spec is not None and spec.layout != AXES):
        axes = f" with axes {', '.join(spec.layout)}" if spec else ""
        raise UnfitSkeletonError(f"a skeleton is (channel, time, joint, person), not a tensor of shape {tuple(shape)}{axes}")
    if layout is not None and shape[2] != len(layout):
        name = next((f" ({name})" for name, each in LAYOUTS.items() if each is layout), "")
        raise UnfitSkeletonError(
            f"the input has {shape[2]} joints, but its layout has {len(layout)}{name}; set `layout` to that of the recordings"
        )


def require_joints(x: Tensor, layout: Layout, name: str, coordinates: int = 0) -> None:
    """Check that skeletons (B, C, T, V, M) have the joints of a layout and enough coordinates.

    Args:
        x: The skeletons.
        layout: Whose joints they must have.
        name: What recipes call the transform.
        coordinates: How many they must have at least.

    Raises:
        UnfitSkeletonError: If they do not.
    """
    try:
        require_skeleton(x.shape[1:], layout)
    except UnfitSkeletonError as error:
        raise UnfitSkeletonError(f"{name}: {error}") from error
    require_coordinates(x, coordinates, name)


def require_coordinates(x: Tensor, coordinates: int, name: str) -> None:
    """Check that skeletons (B, C, T, V, M) have enough coordinates.

    Raises:
        UnfitSkeletonError: If C < coordinates.
    """
    if x.shape[1] < coordinates:
        raise UnfitSkeletonError(f"{name}: needs {coordinates} coordinates, these joints have {x.shape[1]}")
