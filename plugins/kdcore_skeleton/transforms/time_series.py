"""Conversion of skeletons to time series, and joining of both."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore import Join, Modality, Transform
from kdcore_skeleton.layouts import find_layout


class JointsToChannels(Transform):
    """Lay out coordinates, joints and persons as channels, for encoders of time series.

    Shapes: (B, C, T, V, M) → (B, C·V·M, T).
    """

    def output_spec(self, spec: Modality) -> Modality:
        """Return a plain series, whose channels are named ``person-joint-coordinate`` where joints and persons are known."""
        joints: tuple[str, ...] = ()
        with suppress(ValueError):  # a layout that is not known here, or none
            joints = find_layout(spec.skeleton).names
        people = [f"person{person}-" for person in range(spec.persons or 0)] if spec.persons != 1 else [""]
        names = tuple(f"{person}{joint}-{channel}" for channel in spec.channels for joint in joints for person in people)
        plain = replace(spec, axes=("time", "channel"), layout=("channel", "time"), channels=names)
        return replace(plain, skeleton="", persons=None, links=())

    def forward(self, x: Tensor) -> Tensor:
        """Return the positions as a series."""
        return x.permute(0, 1, 3, 4, 2).flatten(1, 3)


class BroadcastToJoints(Join):
    """Append the sensors' channels to every joint of every person, as PSKD's fusion teacher reads them.

    Ni, Ngu, Yan: Progressive Cross-modal Knowledge Distillation for Human Action Recognition, ACM MM 2022,
    https://doi.org/10.1145/3503161.3548238, section 3.2. The skeleton's channels come first. Sensors of another length are
    interpolated linearly, first sample on first frame and last on last.
    """

    def output_spec(self, specs: tuple[Modality, ...]) -> Modality:
        """Return a skeleton with the sensors' channels after its own."""
        skeleton = next((spec for spec in specs if "joint" in spec.axes), specs[0])
        sensors = [spec for spec in specs if spec is not skeleton]
        if not sensors:
            return skeleton
        known = all(spec.channels for spec in specs)
        extra = tuple(f"{spec.name}.{channel}" for spec in sensors for channel in spec.channels)
        units = skeleton.units if all(spec.units == skeleton.units for spec in sensors) else ""
        name = "+".join(spec.name for spec in (skeleton, *sensors))
        return replace(skeleton, name=name, channels=(*skeleton.channels, *extra) if known else (), units=units)

    def forward(self, parts: tuple[Tensor, ...]) -> Tensor:
        """One skeleton (B, C, T, V, M) and any sensors (B, C_i, T_i), in any order → (B, C + ΣC_i, T, V, M).

        Raises:
            ValueError: If there is not exactly one skeleton, or a part is neither.
        """
        skeletons = [part for part in parts if part.dim() == 5]
        sensors = [part for part in parts if part.dim() == 3]
        if len(skeletons) != 1 or len(sensors) != len(parts) - 1:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise ValueError(f"broadcast-to-joints joins one skeleton (B, C, T, V, M) with sensors (B, C, T), not {shapes}")
        skeleton = skeletons[0]
        spread = [
            _resampled(each, skeleton.shape[2])[..., None, None].expand(-1, -1, -1, *skeleton.shape[3:]) for each in sensors
        ]
        return torch.cat([skeleton, *spread], dim=1)


def _resampled(x: Tensor, frames: int) -> Tensor:
    return x if x.shape[2] == frames else F.interpolate(x, size=frames, mode="linear", align_corners=True)
