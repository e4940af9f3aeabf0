"""Actions, as joint angles that are smooth functions of time.

Times are in seconds at tempo 1. Angles are added to the resting posture of a person. `arm` and `leg` are on the dominant side.
All actions are built from `rise`, whose first three derivatives are continuous, so that accelerations are smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kdcore_datasets.synthetic.skeleton import Pose

TURN = 2 * np.pi


def rise(t: np.ndarray, start: float, seconds: float) -> np.ndarray:
    """Return a smooth step from 0 at `start` to 1 at `start + seconds`: with three zero derivatives at both ends."""
    u = np.clip((t - start) / seconds, 0.0, 1.0)
    return u**4 * (35 - 84 * u + 70 * u**2 - 20 * u**3)


@dataclass(frozen=True)
class Beat:
    """One performance of an action, with its timing.

    Args:
        t: Time since the onset in seconds.
        lead: Time from rest to the posture of the action, and back, in seconds.
        period: Duration of one repetition in seconds.
        repeats: Number of repetitions.
        outward: 1 if the action first moves towards the dominant side, else -1.
    """

    t: np.ndarray
    lead: float
    period: float
    repeats: int
    outward: int = 1

    @property
    def seconds(self) -> float:
        """Duration from onset to offset in seconds."""
        return 2 * self.lead + self.repeats * self.period

    @property
    def held(self) -> np.ndarray:
        """1 in the posture of the action, 0 at rest."""
        return rise(self.t, 0.0, self.lead) - rise(self.t, self.seconds - self.lead, self.lead)

    @property
    def phase(self) -> np.ndarray:
        """Phase in radians, 2π per repetition."""
        return TURN * (self.t - self.lead) / self.period

    @property
    def progress(self) -> np.ndarray:
        """Progress over all repetitions: 0 before, 1 after."""
        return rise(self.t, self.lead, self.repeats * self.period)

    def pulse(self, up: float, stay: float, down: float) -> np.ndarray:
        """Return a pulse 0 → 1 → 0 in each repetition, with these durations in seconds."""
        starts = self.lead + self.period * np.arange(self.repeats)
        return sum((rise(self.t, s, up) - rise(self.t, s + up + stay, down) for s in starts), np.zeros_like(self.t))


@dataclass(frozen=True)
class Action:
    """An action, with its timing and range of repetitions.

    Args:
        name: Class name.
        pose: Function that returns the joint angles of a performance.
        lead: See `Beat`.
        period: See `Beat`.
        repeats: Minimum and maximum number of repetitions.
        rightward: Direction in the room: 1 for right or clockwise, -1 for left or counter clockwise, 0 for none.
        planted: Whether both feet stay flat on the floor.
        family: Actions of a family are performed with the same habits, so that they only differ in the action itself. Default:
            the name.
    """

    name: str
    pose: Callable[[Beat], Pose]
    lead: float
    period: float
    repeats: tuple[int, int] = (1, 1)
    rightward: int = 0
    planted: bool = False
    family: str = ""


def _wave(b: Beat) -> Pose:
    return {
        "arm.flexion": 0.2 * b.held,
        "arm.abduction": 1.2 * b.held,
        "arm.rotation": -1.45 * b.held,
        "arm.elbow": b.held * (1.4 + 0.42 * np.sin(b.phase)),
    }


def _swipe(b: Beat) -> Pose:
    across = b.outward * (2 * b.progress - 1)
    return {
        "arm.flexion": 1.25 * b.held,
        "arm.abduction": b.held * (0.15 + 0.7 * across),
        "arm.elbow": 0.35 * b.held,
        "trunk.twist": -0.12 * b.held * across,
    }


def _circle(b: Beat) -> Pose:
    angle = TURN * b.repeats * b.progress
    return {
        "arm.flexion": b.held * (1.1 + 0.33 * np.cos(angle)),
        "arm.abduction": b.held * (0.05 + 0.33 * b.outward * np.sin(angle)),
        "arm.elbow": 0.25 * b.held,
    }


def _thrust(b: Beat, out: np.ndarray) -> Pose:
    return {
        "arm.flexion": 0.3 * b.held + 1.05 * out,
        "arm.abduction": 0.12 * b.held - 0.1 * out,
        "arm.elbow": 1.75 * b.held - 1.6 * out,
        "trunk.twist": 0.25 * out,
        "trunk.lean": 0.08 * out,
    }


def _punch(b: Beat) -> Pose:
    return _thrust(b, b.pulse(0.22, 0.45, 0.4))


def _push(b: Beat) -> Pose:
    return _thrust(b, b.pulse(0.6, 0.07, 0.4))


def _reach(b: Beat) -> dict[str, np.ndarray]:
    return {"arm.flexion": 0.85 * b.held, "arm.abduction": 0.1 * b.held, "arm.elbow": 0.95 * b.held, "arm.roll": 0.5 * b.held}


def _knock(b: Beat) -> Pose:
    beat = b.held * np.sin(b.phase)
    pose = _reach(b)
    return pose | {"arm.elbow": pose["arm.elbow"] + 0.32 * beat, "arm.flexion": pose["arm.flexion"] + 0.08 * beat}


def _turn_key(b: Beat) -> Pose:
    pose = _reach(b)
    return pose | {"arm.roll": pose["arm.roll"] - 1.1 * b.pulse(0.6, 0.3, 0.6)}


def _turn_screw(b: Beat) -> Pose:
    pose = _reach(b)
    return pose | {"arm.roll": pose["arm.roll"] - 0.55 * b.held * (1 - np.cos(b.phase))}


def _curl(b: Beat, *arms: str) -> Pose:
    bent = 0.5 * b.held * (1 - np.cos(b.phase))
    one = {"flexion": 0.15 * b.held, "elbow": 1.8 * bent, "roll": -0.7 * b.held}
    return {f"{arm}.{angle}": value for arm in arms for angle, value in one.items()}


def _arm_curl(b: Beat) -> Pose:
    return _curl(b, "arm")


def _two_arm_curl(b: Beat) -> Pose:
    return _curl(b, "arm", "other_arm")


def _seated(b: Beat, down: np.ndarray) -> Pose:
    moving = 4 * down * (1 - down)
    legs = {f"{leg}.{angle}": 1.4 * down for leg in ("leg", "other_leg") for angle in ("flexion", "knee")}
    arms = {f"{arm}.flexion": 0.35 * down + 0.3 * moving for arm in ("arm", "other_arm")}
    elbows = {f"{arm}.elbow": 0.75 * down for arm in ("arm", "other_arm")}
    return {**legs, **arms, **elbows, "trunk.lean": 0.08 * down + 0.55 * moving}


def _sit_down(b: Beat) -> Pose:
    return _seated(b, b.progress)


def _stand_up(b: Beat) -> Pose:
    return _seated(b, 1 - b.progress)


def _steps(b: Beat, hip: float, knee: float, swing: float, elbow: float, bob: float) -> dict[str, np.ndarray]:
    pose = {"root.rise": bob * b.held * (1 + np.cos(2 * b.phase))}
    for side, sign in (("", 1.0), ("other_", -1.0)):
        lift = b.held * (0.5 + 0.5 * sign * np.sin(b.phase)) ** 3
        pose[f"{side}leg.flexion"] = hip * lift
        pose[f"{side}leg.knee"] = knee * lift
        pose[f"{side}arm.flexion"] = -swing * sign * b.held * np.sin(b.phase)
        pose[f"{side}arm.elbow"] = elbow * b.held
    return pose


def _walk(b: Beat) -> Pose:
    return _steps(b, hip=0.7, knee=1.2, swing=0.3, elbow=0.35, bob=0.008)


def _jog(b: Beat) -> Pose:
    return {**_steps(b, hip=0.75, knee=1.6, swing=0.45, elbow=1.2, bob=0.025), "trunk.lean": 0.1 * b.held}


def _balance(lifted: np.ndarray) -> dict[str, np.ndarray]:
    return {"arm.abduction": 0.2 * lifted, "other_arm.abduction": 0.2 * lifted, "trunk.tilt": -0.05 * lifted}


def _kick(b: Beat) -> Pose:
    lifted = b.pulse(0.45, 0.25, 0.5)
    backswing = b.pulse(0.3, 0.05, 0.3)
    return {**_balance(lifted), "leg.flexion": 1.1 * lifted, "leg.knee": 1.2 * backswing, "trunk.lean": -0.1 * lifted}


def _lift_knee(b: Beat) -> Pose:
    lifted = b.pulse(0.45, 0.25, 0.5)
    return {**_balance(lifted), "leg.flexion": 1.4 * lifted, "leg.knee": 1.6 * lifted, "trunk.lean": -0.1 * lifted}


ACTIONS = (
    Action("wave", _wave, lead=0.5, period=0.55, repeats=(3, 4)),
    Action("swipe left", _swipe, lead=0.6, period=0.6, rightward=-1, family="swipe"),
    Action("swipe right", _swipe, lead=0.6, period=0.6, rightward=1, family="swipe"),
    Action("draw circle clockwise", _circle, lead=0.5, period=1.3, repeats=(1, 2), rightward=1, family="circle"),
    Action("draw circle counter clockwise", _circle, lead=0.5, period=1.3, repeats=(1, 2), rightward=-1, family="circle"),
    Action("punch", _punch, lead=0.55, period=1.1, repeats=(1, 2), family="thrust"),
    Action("push", _push, lead=0.55, period=1.1, repeats=(1, 2), family="thrust"),
    Action("knock", _knock, lead=0.5, period=0.34, repeats=(4, 6), family="reach"),
    Action("turn key", _turn_key, lead=0.5, period=1.6, family="reach"),
    Action("turn screw", _turn_screw, lead=0.5, period=0.5, repeats=(3, 4), family="reach"),
    Action("arm curl", _arm_curl, lead=0.45, period=1.1, repeats=(2, 3), family="curl"),
    Action("two arm curl", _two_arm_curl, lead=0.45, period=1.1, repeats=(2, 3), family="curl"),
    Action("sit down", _sit_down, lead=0.45, period=1.5, planted=True, family="sit"),
    Action("stand up", _stand_up, lead=0.45, period=1.5, planted=True, family="sit"),
    Action("walk in place", _walk, lead=0.4, period=1.1, repeats=(2, 3), family="steps"),
    Action("jog in place", _jog, lead=0.4, period=0.7, repeats=(4, 5), family="steps"),
    Action("kick", _kick, lead=0.5, period=1.4, repeats=(1, 2), family="lift"),
    Action("lift knee", _lift_knee, lead=0.5, period=1.4, repeats=(1, 2), family="lift"),
)
"""All actions, in the order of their numbers (from 1) in sample keys."""
