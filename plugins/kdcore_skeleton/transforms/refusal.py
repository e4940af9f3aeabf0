"""What transforms say of skeletons that they were not set up for."""

from __future__ import annotations

from torch import Tensor

from kdcore import KdcoreError
from kdcore_skeleton.layouts import LayoutOption, layout_of


class UnfitSkeletonError(KdcoreError, ValueError):
    """A skeleton that a transform's options do not fit: for the recipe to mend, so it is no plugin's failure."""

    exit_code = 2


def require_layout(x: Tensor, layout: LayoutOption, name: str) -> None:
    """Nothing, if skeletons (B, C, T, V, M) have the joints of a layout.

    Args:
        x: The skeletons.
        layout: The option of the transform.
        name: What recipes call it.

    Raises:
        UnfitSkeletonError: If they have not.
    """
    try:
        layout_of(tuple(x.shape[1:]), layout)
    except ValueError as error:
        raise UnfitSkeletonError(f"{name}: {error}") from error


def require_three_coordinates(x: Tensor, name: str) -> None:
    """Nothing, if skeletons (B, C, T, V, M) can be turned in space.

    Raises:
        UnfitSkeletonError: If C < 3.
    """
    if x.shape[1] < 3:
        raise UnfitSkeletonError(f"{name}: needs three coordinates, these joints have {x.shape[1]}")
