"""A warning where several processes are slower than one."""

from __future__ import annotations

import learning
import pytest
import torch
from learning import same_state, state_of

from kdcore.training.engine import Settings
from kdcore.training.fabric import OneCpu
from kdcore.training.phases import BACKWARD, CHECKS, FORWARD, OPTIMIZER, Phases
from kdcore.training.process_check import ProcessCheck
from kdcore.training.randomness import random_state, seed_everything
from kdcore.training.sources import begin_stage, cached_sources
from kdcore.training.step import StageStep


class Timed(ProcessCheck):
    """A step takes `alone` seconds in one process."""

    def __init__(self, alone, shortest=1):
        super().__init__(shortest)
        self.alone = alone

    def _seconds(self, step, batches, fabric):
        return self.alone


class Together:
    """Timed steps in several processes."""

    def __init__(self, seconds, count=4):
        self.found = count, seconds

    def typical_step(self):
        return self.found


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


@pytest.fixture
def step(table):
    made, stage = learning.distiller(table), learning.students(epochs=3)
    begin_stage(made, stage, [])
    return StageStep(made, stage, table, True, cached_sources(made, stage, table, 3, 1 << 20, OneCpu()))


def begun(check, step, steps=8, processes=2):
    check.begin_stage(step, step.table.training_rows("train", ["student"]), 3, steps, OneCpu(world_size=processes))
    return check


@pytest.mark.parametrize(
    ("together", "alone", "count", "warns"),
    [(5.2e-3, 3.1e-3, 4, True), (3.2e-3, 3.1e-3, 4, False), (2e-3, 3.1e-3, 4, False), (5.2e-3, 3.1e-3, 3, False)],
)
def test_the_warning_gives_both_times_and_the_remedy(step, together, alone, count, warns):
    check = begun(Timed(alone), step)
    said = check.warning("student", Together(together, count), 16, 2)
    expected = (
        "stage student is slower in 2 processes (5.2 ms per step) than in one (3.1 ms): communication takes longer than it "
        "saves. Use one process, and the others for other seeds (kdcore seeds --jobs), or increase data.batch_size from 16"
    )
    assert said == (expected if warns else "")


def test_too_few_timed_steps_are_completed_by_the_next_epoch(step):
    check = begun(Timed(1e-3), step)
    assert [bool(check.warning("student", Together(1.0, count), 16, 2)) for count in (2, 5, 8)] == [False, True, False]


def test_the_same_learners_are_checked_once_and_short_stages_never(step):
    assert not begun(Timed(1e-3, shortest=5), step, steps=9).warning("student", Together(1.0), 16, 2)
    check = begun(Timed(1e-3, shortest=5), step, steps=10)
    assert check.warning("student", Together(1.0), 16, 2)
    assert not begun(check, step).warning("student", Together(1.0), 16, 2), "the baseline's student, or another seed's"


def test_timing_a_step_changes_neither_weights_nor_random_numbers(step):
    seed_everything(3)
    before, random = state_of(step.distiller), random_state()
    modes = [module.training for module in step.distiller.modules()]
    check = begun(ProcessCheck(1), step)
    assert check._alone > 0
    assert same_state(state_of(step.distiller), before)
    assert torch.equal(random_state()["torch"], random["torch"])
    assert random_state()["python"] == random["python"]
    assert [module.training for module in step.distiller.modules()] == modes
    assert all(parameter.grad is None for parameter in step.distiller.parameters())


def test_a_typical_step_is_the_mean_of_those_that_were_timed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("kdcore.training.phases.time.perf_counter", lambda: now[0])
    phases = Phases(profile=True)
    phases.begin_stage("student", 4)
    for seconds in (9.0, 1.0, 2.0, 6.0):  # the first one warms up
        phases.begin_step()
        for phase in (FORWARD, BACKWARD, OPTIMIZER, CHECKS):
            phases.mark(phase)
            now[0] += seconds
    phases.end_steps()
    assert phases.typical_step() == (3, pytest.approx(6.0))
    phases.begin_stage("other", 4)
    assert phases.typical_step() == (0, 0.0)


def test_one_process_is_not_checked(table):
    check = Timed(1e-9)
    runner, _ = learning.fit(
        learning.distiller(table),
        table,
        [learning.students(epochs=4)],
        Settings(3, 3),
        process_check=check,
        phases=Phases(True),
    )
    assert runner.notes == []
    assert not check._checked


def test_a_batch_that_does_not_fit_on_one_device_is_not_checked(step, monkeypatch):
    before, weight = state_of(step.distiller), next(step.distiller.parameters())

    def forward(self, rows, whole):
        with torch.no_grad():
            weight.add_(1)
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(StageStep, "forward", forward)
    check = begun(ProcessCheck(1), step)
    assert not check.warning("student", Together(1.0), 16, 2)
    assert same_state(state_of(step.distiller), before)
