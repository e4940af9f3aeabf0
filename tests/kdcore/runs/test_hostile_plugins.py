"""Plugins that exit, interrupt, seed, print, or return what no loss may: each is named, and costs others nothing."""

from __future__ import annotations

import hashlib
import random
import sys
import threading
import types

import numpy as np
import pytest
import torch
from quick import QUICK
from runs import Home

from kdcore import DistillationLoss, Needs, hookimpl
from kdcore.errors import PluginError, RecipeError, TrainingError
from kdcore.plugin.manager import PluginManager, entry_points
from kdcore.runs.run import run

LATE = 2
"""Calls of a loss that a run makes before its first step: none of these does any harm."""


class Hostile(DistillationLoss):
    needs = Needs(teachers=1)
    does = staticmethod(lambda value, ctx: value)
    late = True
    calls = 0

    def forward(self, ctx):
        Hostile.calls += 1
        value = 0.5 * ctx.student.logits.square().mean()
        return Hostile.does(value, ctx) if not Hostile.late or Hostile.calls > LATE else value


@pytest.fixture
def home(home) -> Home:
    return home.write(**QUICK, seeds=[0], baseline=False)


@pytest.fixture
def plugins(monkeypatch) -> PluginManager:
    """The shipped plugins that a run needs, and a module ``hostile`` with a loss."""
    points = [point for point in entry_points(group="kdcore") if point.name not in ("mlflow", "report", "export")]
    manager = PluginManager(points)
    module = types.ModuleType("hostile")
    module.Hostile, Hostile.__module__, Hostile.forward.__globals__["__name__"] = Hostile, "hostile", "hostile"
    module.register_losses = hookimpl(lambda register: register("hostile", "hostile:Hostile"))
    monkeypatch.setitem(sys.modules, "hostile", module)
    manager.register("hostile", module)
    monkeypatch.setattr("kdcore.runs.run.plugin_manager", lambda: manager)
    monkeypatch.setattr("kdcore.runs.context.plugin_manager", lambda: manager)
    yield manager
    Hostile.forward.__globals__["__name__"], Hostile.__module__ = __name__, __name__


@pytest.fixture
def hostile(home, plugins):
    """Runs the tiny recipe with a loss that does something, at once or only while training."""
    home.write(**QUICK, seeds=[0], baseline=False, losses=["cross-entropy", "hostile"])

    def go(does, late: bool = True):
        Hostile.does, Hostile.late, Hostile.calls = staticmethod(does), late, 0
        return run(home.recipe)

    return go


def exits(value, ctx):
    sys.exit(0)


def interrupts(value, ctx):
    raise KeyboardInterrupt


def ends_generator(value, ctx):
    raise GeneratorExit


def crashes(value, ctx):
    raise KeyError("block")


@pytest.mark.parametrize(
    ("does", "said"),
    [(exits, "SystemExit: 0"), (interrupts, "KeyboardInterrupt"), (ends_generator, "GeneratorExit")],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_loss_that_ends_the_process_is_a_failure_of_its_plugin(hostile, home, does, said, late):
    with pytest.raises(
        PluginError, match=rf"plugin 'hostile' .*loss 'hostile' failed in {does.__name__}|forward .*{said}"
    ) as error:
        hostile(does, late)
    assert said in str(error.value)
    assert error.value.exit_code != 0
    assert len(home.runs) == late, "nothing is written before the first step"
    if late:
        journal = (home.runs[0] / "tracking" / "journal.jsonl").read_text()
        assert '"status": "FAILED"' in journal


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (lambda value, ctx: value.to("meta"), "it returned a tensor on 'meta', but was given tensors on 'cpu'"),
        (lambda value, ctx: ctx.student.logits.mean(1), r"it must return a scalar tensor, not one of shape \(3,\)"),
        (lambda value, ctx: float(value.detach()), "it must return a scalar tensor, not a float"),
        (lambda value, ctx: None, "it must return a scalar tensor, not a NoneType"),
        (lambda value, ctx: value.long(), "it must return a real number, not one of type torch.int64"),
        (lambda value, ctx: value.to(torch.complex64), "it must return a real number, not one of type torch.complex64"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_what_a_loss_may_not_return_is_attributed(hostile, does, said, late):
    with pytest.raises(TrainingError, match=rf"term 'hostile' of student \(loss 'hostile' of plugin 'hostile'\): {said}"):
        hostile(does, late)


def test_a_loss_that_becomes_nan_is_named_by_step_term_and_rate(hostile):
    said = r"hostile is nan in stage student, epoch 1, step \d+: term 'hostile' of student .*rate: 0\.001 \(student\)"
    with pytest.raises(TrainingError, match=said):
        hostile(lambda value, ctx: value * torch.nan)


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (
            lambda value, ctx: (torch.manual_seed(3), value)[1],
            "changes the seed of torch's random numbers, which affects all other code",
        ),
        (lambda value, ctx: (torch.set_grad_enabled(False), value)[1], "changes whether gradients are recorded"),
        (lambda value, ctx: (torch.set_default_dtype(torch.float64), value)[1], "changes the default dtype"),
        (
            lambda value, ctx: (ctx.student.logits.data.add_(1), value)[1],
            "changes the logits of the student that it is given in place",
        ),
        (lambda value, ctx: (ctx.batch.labels.add_(1), value)[1], "changes the labels that it is given in place"),
    ],
)
def test_side_effects_that_reach_others_are_refused_before_training(hostile, home, does, said):
    with pytest.raises(TrainingError, match=said):
        hostile(does, late=False)
    assert not home.runs
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


class Unrelated:
    """A plugin whose hooks do to shared state what they should not."""

    def __init__(self):
        self.threads = []

    def _meddle(self):
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        torch.rand(7)
        torch.set_default_dtype(torch.float64)
        print("x" * 1000)
        self.threads.append(threading.Thread(target=lambda: None))
        self.threads[-1].start()

    @hookimpl
    def run_started(self, run):
        self._meddle()
        torch.set_default_dtype(torch.float32)

    @hookimpl
    def arm_started(self, run, seed, arm):
        random.seed(1)
        torch.manual_seed(5)

    @hookimpl
    def stage_started(self, stage, seed):
        torch.manual_seed(6)

    @hookimpl
    def epoch_finished(self, stage, seed, epoch, metrics):
        torch.manual_seed(7)
        np.random.seed(3)


def digest(home: Home) -> str:
    [file] = home.runs[-1].glob("students/seed-0/student/weights.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_student_is_the_same_with_and_without_an_unrelated_plugin(home, plugins):
    run(home.recipe)
    alone = digest(home)
    plugins.register("unrelated", Unrelated())
    torch.set_default_dtype(torch.float64)  # as a plugin may when it is imported
    random.seed(99)
    torch.manual_seed(99)
    try:
        run(home.recipe)
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(home.runs) == 2
    assert digest(home) == alone


class Exits:
    @hookimpl
    def epoch_finished(self, stage, seed, epoch, metrics):
        sys.exit(0)


def test_a_hook_that_exits_is_an_error(home, plugins):
    plugins.register("exits", Exits())
    with pytest.raises((PluginError, SystemExit)):
        run(home.recipe)
    assert '"status": "FAILED"' in (home.runs[0] / "tracking" / "journal.jsonl").read_text()


@pytest.mark.parametrize("sections", [{"data.batch_size": 1000}, {"data.batch_size": 1}])
def test_the_smallest_and_largest_batches_train(home, plugins, sections):
    result = run(home.recipe, [f"{key}={value}" for key, value in sections.items()])
    assert result.summary.rows


def test_one_class_is_refused_before_training(home, plugins):
    with pytest.raises(RecipeError, match="classification needs at least two classes"):
        run(home.recipe, ["data.dataset.actions=[wave]"])
    assert not home.runs


def test_one_sample_a_class_trains(home, plugins):
    protocol = "{name: cross-subject, train_subjects: [1], test_subjects: [2]}"
    result = run(home.recipe, ["data.dataset.trials=1", "data.protocol=null", f"data.protocol={protocol}"])
    assert result.summary.rows[0].evaluations[0].n == 3
