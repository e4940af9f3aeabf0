from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from kdcore import DataError
from kdcore_datasets.bvh import read_bvh

CHAIN = """HIERARCHY
ROOT a
{{
  OFFSET 1 2 3
  CHANNELS 6 Xposition Yposition Zposition {first}
  JOINT b
  {{
    OFFSET 10 0 0
    CHANNELS 3 {second}
    End Site
    {{
      OFFSET 0 5 0
    }}
  }}
  JOINT c
  {{
    OFFSET 0 0 7
    CHANNELS 3 Zrotation Xrotation Yrotation
  }}
}}
MOTION
Frames: 1
Frame Time: 0.01
4 5 6 {angles}
"""
ORDERS = ["Zrotation Xrotation Yrotation", "Zrotation Yrotation Xrotation", "Xrotation Yrotation Zrotation"]


def turn(axis: str, degrees: float) -> np.ndarray:
    """Rotation matrix, written out."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array(
        {
            "X": [[1, 0, 0], [0, c, -s], [0, s, c]],
            "Y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "Z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis]
    )


def turns(order: str, angles: list[float]) -> np.ndarray:
    matrices = [turn(name[0], angle) for name, angle in zip(order.split(), angles, strict=True)]
    return matrices[0] @ matrices[1] @ matrices[2]


@pytest.mark.parametrize("first", ORDERS)
@pytest.mark.parametrize("second", ORDERS)
def test_positions_against_products_of_matrices(tmp_path: Path, first: str, second: str):
    angles = [30.0, -50.0, 110.0, 15.0, 70.0, -25.0, 1.0, 2.0, 3.0]
    path = tmp_path / "chain.bvh"
    path.write_text(CHAIN.format(first=first, second=second, angles=" ".join(map(str, angles))))
    positions, rate = read_bvh(path)
    assert rate == pytest.approx(100)
    root = np.array([5.0, 7.0, 9.0])
    outer, inner = turns(first, angles[:3]), turns(second, angles[3:6])
    b = root + outer @ [10, 0, 0]
    expected = [root, b, b + outer @ inner @ [0, 5, 0], root + outer @ [0, 0, 7]]
    np.testing.assert_allclose(positions[0], expected, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "hierarchy"),
        (lambda text: text[: len(text) // 3], "incomplete"),
        (lambda text: text.replace("Frames: 1", "Frames: 2"), "expected 2 frames of 12"),
        (lambda text: text.replace("4 5 6 ", "4 5 "), "expected 1 frames of 12"),
        (lambda text: text.replace("4 5 6 ", "4 5 nan "), "motion has 1 value.s. that are not finite"),
        (lambda text: text.replace("4 5 6 ", "4 5 1e308 "), "motion has 1 value.s. that are too large"),
        (lambda text: text.replace("OFFSET 10", "OFFSET nan"), "offsets and motion give has .* not finite"),
        (lambda text: text.replace("OFFSET 10", "OFFSET ten"), "ten"),
        (lambda text: text.partition("Frames")[0], "no frames"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, change, said: str):
    path = tmp_path / "chain.bvh"
    path.write_text(change(CHAIN.format(first=ORDERS[0], second=ORDERS[0], angles="0 0 0 0 0 0 0 0 0")))
    with pytest.raises(DataError, match=f"chain.bvh.*{said}"):
        read_bvh(path)
