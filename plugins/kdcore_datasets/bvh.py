"""Reader for motion capture in Biovision's BVH format."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdcore import DataError
from kdcore_datasets.file_formats import require_finite

_POSITIONS = {"Xposition": 0, "Yposition": 1, "Zposition": 2}
_ROTATIONS = {"Xrotation": "X", "Yrotation": "Y", "Zrotation": "Z"}


@dataclass
class _Node:
    """A joint, or the end of a limb, which has no channels."""

    parent: int | None
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))
    channels: tuple[str, ...] = ()


def read_bvh(path: Path) -> tuple[np.ndarray, float]:
    """Read the positions of all joints and limb ends in the file's unit, (T, V, 3), and the frame rate in Hz.

    The position of a node is that of its parent, moved by the node's offset and position channels in the parent's axes. The
    axes of a node are those of its parent, rotated by the node's rotation channels in the order in which they are listed.

    Raises:
        DataError: If the file is damaged or has no frames.
    """
    try:
        hierarchy, _, motion = path.read_text(encoding="utf-8").partition("MOTION")
        nodes = _nodes(hierarchy.split())
        frames, rate = _frames(motion, sum(len(node.channels) for node in nodes))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, IndexError, KeyError) as error:
        raise DataError(f"{path}: is not a readable BVH file ({error})") from error
    require_finite(frames, path, "its motion")
    return require_finite(_positions(nodes, frames), path, "what its offsets and motion give"), rate


def _nodes(words: list[str]) -> list[_Node]:
    nodes: list[_Node] = []
    open_nodes: list[int] = []
    at = 0
    while at < len(words):
        word = words[at]
        if word == "{":
            open_nodes.append(len(nodes) - 1)
        elif word == "}":
            open_nodes.pop()
        elif word in ("ROOT", "JOINT", "End"):
            nodes.append(_Node(open_nodes[-1] if open_nodes else None))
            at += 1
        elif word == "OFFSET":
            nodes[-1].offset = np.array([float(each) for each in words[at + 1 : at + 4]])
            at += 3
        elif word == "CHANNELS":
            count = int(words[at + 1])
            nodes[-1].channels = tuple(words[at + 2 : at + 2 + count])
            at += 1 + count
        at += 1
    if not nodes or open_nodes:
        raise ValueError("its hierarchy of joints is incomplete")
    return nodes


def _frames(motion: str, channels: int) -> tuple[np.ndarray, float]:
    lines = [line.split() for line in motion.splitlines() if line.strip()]
    if len(lines) < 3 or lines[0][0] != "Frames:":
        raise ValueError("it has no frames")
    count, interval = int(lines[0][1]), float(lines[1][-1])
    frames = np.array(lines[2:], dtype=np.float64)
    if frames.shape != (count, channels) or interval <= 0:
        raise ValueError(f"expected {count} frames of {channels} numbers, found shape {frames.shape}")
    return frames, 1 / interval


def _positions(nodes: list[_Node], frames: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    positions = np.zeros((len(frames), len(nodes), 3))
    axes: list[Rotation] = []
    first = 0
    for number, node in enumerate(nodes):
        values = dict(zip(node.channels, frames[:, first : first + len(node.channels)].T, strict=True))
        first += len(node.channels)
        shift = np.tile(node.offset, (len(frames), 1))
        for channel, axis in _POSITIONS.items():
            shift[:, axis] += values.get(channel, 0.0)
        turns = [channel for channel in node.channels if channel in _ROTATIONS]
        order = "".join(_ROTATIONS[turn] for turn in turns)
        angles = np.stack([values[turn] for turn in turns], axis=1) if turns else None
        own = Rotation.identity(len(frames)) if angles is None else Rotation.from_euler(order, angles, degrees=True)
        if node.parent is None:
            positions[:, number], turned = shift, own
        else:
            positions[:, number] = positions[:, node.parent] + axes[node.parent].apply(shift)
            turned = axes[node.parent] * own
        axes.append(turned)
    return positions
