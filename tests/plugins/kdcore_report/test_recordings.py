from __future__ import annotations

import re

import numpy as np
import pytest

from kdcore import Modality, Signal
from kdcore_report.recordings import animation, draw_input, draw_signal, linked_joints

SENSOR = Modality("wrist", ("time", "channel"), ("channel", "time"), "m/s^2", 10.0, ("x", "y", "z"))
PEOPLE = Modality("skeleton", ("time", "joint", "channel", "person"), ("channel", "time", "joint", "person"), "m", 30.0)
FLAT = Modality("pose", ("time", "joint", "channel"), ("channel", "time", "joint"), "px", 30.0)
COLOUR = Modality("rgb", ("time", "height", "width", "channel"), ("time", "channel", "height", "width"), "0..255", 15.0)
DEEP = Modality("depth", ("time", "height", "width", "channel"), ("time", "channel", "height", "width"), "mm", 15.0)
FLOW = Modality("flow", ("time", "height", "width", "channel"), ("time", "channel", "height", "width"), "px", 15.0)


def stick_figure(frames=20):
    """Hips, neck, head and two hands that wave; y upwards, as (time, joint, channel)."""
    rest = np.array([[0, 0, 2], [0, 0.6, 2], [0, 0.8, 2], [-0.3, 0.3, 2], [0.3, 0.3, 2]], dtype=float)
    moving = np.repeat(rest[None], frames, axis=0)
    moving[:, 4, 1] += 0.2 * np.sin(np.linspace(0, 6, frames))
    return moving


RECORDED = [
    (SENSOR, np.random.default_rng(0).normal(size=(50, 3))),
    (PEOPLE, np.stack([stick_figure(), np.zeros((20, 5, 3))], axis=-1)),
    (FLAT, stick_figure()[..., :2]),
    (COLOUR, np.full((9, 12, 16, 3), 200, dtype=np.uint8)),
    (DEEP, np.full((9, 12, 16, 1), 900, dtype=np.uint16)),
    (FLOW, np.ones((1, 12, 16, 2), dtype=np.float32)),
]


@pytest.mark.parametrize(("modality", "values"), RECORDED, ids=lambda each: getattr(each, "name", ""))
def test_every_kind_of_signal_is_drawn(modality, values, tmp_path):
    from matplotlib.image import imread

    draw_signal(modality, Signal(values, modality.rate), tmp_path / "drawn.png")
    assert imread(tmp_path / "drawn.png")[..., :3].std() > 0.01


def test_what_an_encoder_sees_is_drawn(tmp_path):
    from matplotlib.image import imread

    draw_input(np.random.default_rng(0).normal(size=(3, 8, 8)), tmp_path / "three.png")
    draw_input(np.random.default_rng(0).normal(size=(1, 8, 8)), tmp_path / "one.png")
    assert imread(tmp_path / "three.png").shape[1] > 2 * imread(tmp_path / "one.png").shape[1]


def test_joints_are_linked_as_a_body_is():
    found = {frozenset(pair) for pair in linked_joints(stick_figure())}
    assert len(found) == 4
    assert {frozenset((1, 2)), frozenset((0, 3))} <= found  # head on neck, resting hand at the hip


def test_a_skeleton_moves_and_the_absent_person_is_not_drawn():
    moving = animation(PEOPLE, Signal(RECORDED[1][1], 30.0))
    assert moving.count("<line ") == 4
    assert "script" not in moving
    heights = [re.search(r'"y1" values="([^"]+)"', line) for line in moving.split("<line ")[1:]]
    assert all(each and each[1].count(";") == 19 for each in heights)
    assert animation(SENSOR, Signal(RECORDED[0][1], 10.0)) == ""


def test_heads_are_up():
    """In space the largest axis grows upwards; in a picture, y grows downwards already."""
    for modality, values in ((PEOPLE, RECORDED[1][1]), (FLAT, RECORDED[2][1])):
        moving = animation(modality, Signal(values, 30.0))
        links = [
            {int(v) for v in re.findall(r'attributeName="y[12]" values="(-?\d+)', line)} for line in moving.split("<line ")[1:]
        ]
        heights = set.union(*links)
        # Head and neck are the shortest link that is not level, and above the middle.
        neck = min((ends for ends in links if len(ends) == 2), key=lambda ends: max(ends) - min(ends))
        assert (max(neck) < (max(heights) + min(heights)) / 2) == (modality is PEOPLE)


def test_links_that_are_known_are_drawn():
    known = PEOPLE.renamed("known", links=((0, 1), (1, 2)))
    assert animation(known, Signal(RECORDED[1][1], 30.0)).count("<line ") == 2
