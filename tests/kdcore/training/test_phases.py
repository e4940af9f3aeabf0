"""Where the time of training goes, by a clock that the test sets."""

from __future__ import annotations

import json
import random

import learning
import pytest
from learning import distiller, engine, same_state, state_of, students, teachers

from kdcore.training import phases as module
from kdcore.training.phases import BACKWARD, FORWARD, LOSSES, OPTIMIZER, OWN, SAMPLED, TRACKING, Phases
from kdcore.training.step_trace import StepTrace


class Clock:
    """Moves only when it is told to, or by a second whenever it is read."""

    def __init__(self, tick=0.0):
        self.time, self.tick = 100.0, tick

    def __call__(self):
        self.time += self.tick
        return self.time


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module.time, "perf_counter", clock)
    return clock


STEP = {OWN: 1.0, FORWARD: 4.0, LOSSES: 2.0, BACKWARD: 8.0, OPTIMIZER: 5.0}


def train(phases, clock, steps, costs=STEP, warmup=0.0):
    for step in range(steps):
        phases.begin_step()
        clock.time += costs[OWN]
        for phase in list(costs)[1:]:
            phases.mark(phase)
            clock.time += costs[phase] + (warmup if step == 0 and phase == OPTIMIZER else 0.0)
    phases.end_steps()


@pytest.mark.parametrize("profile", [False, True])
def test_steps_that_cost_the_same_are_divided_as_if_all_were_measured(clock, profile):
    phases = Phases(profile)
    phases.enter(OWN)
    phases.begin_stage("student", 3 * SAMPLED)
    train(phases, clock, 3 * SAMPLED, warmup=50.0)
    expected = {phase: 3 * SAMPLED * cost for phase, cost in STEP.items()}
    expected[OPTIMIZER] += 50.0  # counted once: the first step says nothing of others
    assert phases.listed() == pytest.approx(expected)


def test_epochs_of_one_step_are_divided_like_the_first(clock):
    phases = Phases()
    phases.enter(OWN)
    phases.begin_stage("student", 4)
    for _ in range(4):
        train(phases, clock, 1)
    assert phases.listed() == pytest.approx({phase: 4 * cost for phase, cost in STEP.items()})


def test_what_interrupts_a_step_is_not_counted_to_it(clock):
    phases = Phases()
    phases.enter(OWN)
    phases.begin_stage("student", 40)
    for _ in range(40):
        phases.begin_step()
        phases.mark(FORWARD)
        clock.time += 3.0
        with phases.during(TRACKING):
            clock.time += 10.0
    assert phases.listed() == pytest.approx({FORWARD: 120.0, TRACKING: 400.0}), "also if the steps were not ended"


def test_every_moment_is_counted_once_whatever_happens(clock):
    """The sum is the time on the clock, for random sequences of steps, epochs, stages and what comes between."""
    for seed in range(50):
        choose = random.Random(seed)
        began, phases = clock.time, Phases(profile=choose.random() < 0.3)
        for _ in range(200):
            clock.time += choose.random()
            act = choose.choice(["step", "step", "step", "now", "now", "during", "end", "stage", "listed"])
            if act == "step":
                phases.begin_step()
            elif act == "now":
                phases.mark(choose.choice([FORWARD, LOSSES]))
            elif act == "during":
                with phases.during(TRACKING):
                    clock.time += choose.random()
            elif act == "end":
                phases.end_steps()
            elif act == "stage":
                phases.end_steps()
                phases.begin_stage("student", 10)
            else:
                phases.listed()
        assert sum(phases.listed().values()) == pytest.approx(clock.time - began)


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


def test_a_profile_changes_no_bit_and_its_traces_can_be_read(table, tmp_path, monkeypatch, capfd):
    clock = Clock(tick=1.0)
    plain = distiller(table)
    engine(plain, table).fit([teachers(), students()])
    monkeypatch.setattr(module.time, "perf_counter", clock)
    profiled, began = distiller(table), clock.time
    phases = Phases(profile=True, began=began)
    phases.trace = StepTrace(tmp_path / "profile", "seed-3-distilled", steps=2)
    engine(profiled, table, phases=phases).fit([teachers(), students()])
    assert same_state(state_of(plain), state_of(profiled))
    assert sum(phases.listed().values()) == pytest.approx(clock.time - began)
    assert phases.seconds.keys() >= {module.BATCHES, FORWARD, BACKWARD, LOSSES, OPTIMIZER, module.EVALUATION, OWN}
    files = sorted((tmp_path / "profile").iterdir())
    assert [file.name for file in files] == ["seed-3-distilled-student.json", "seed-3-distilled-teachers.json"]
    for file, passed in zip(files, (FORWARD, module.TEACHERS_FORWARD), strict=True):
        events = json.loads(file.read_text())["traceEvents"]
        marked = [event["name"] for event in events if event.get("cat") == "user_annotation"]
        assert marked.count(passed) == 2, "two steps are traced"
        assert any(event.get("name", "").startswith("aten::") for event in events)
    assert capfd.readouterr().err == "", "the profiler's library writes nothing of its own"
