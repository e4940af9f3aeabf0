"""A training that stops, and goes on to the end it would have come to."""

from __future__ import annotations

from dataclasses import replace

import learning
import pytest
import torch
from learning import Imitate, Labels, Recorded, distiller, engine, one, same_state, state_of, students, teachers
from lightning_fabric.plugins.precision import MixedPrecision

from kdcore import DistillationLoss, LearningRate, Needs, Training
from kdcore.contracts.training import MovingAverage
from kdcore.errors import StoppedError
from kdcore.recipe.data_models import MixSpec
from kdcore.training.checkpoint import Checkpoint, Checkpoints
from kdcore.training.engine import Settings
from kdcore.training.participants import Average, TermSpec


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


STAGES = [
    teachers(select="best", optimizer={"name": "sgd", "lr": 0.5, "momentum": 0.9}),
    students(gradient_clip=1.0, learning_rate=LearningRate("cosine")),
    *[one(Training(epochs=2), "teacher"), one(Training(epochs=2), "other", ("teacher",))] * 2,
]


def run(table, save, state=None, weights=None, asked_after=None):
    made, recorded = distiller(table, students=("student", "other")), Recorded()
    runner = engine(made, table, Settings(3, 3, checkpoint_seconds=0), record=recorded, save=save)
    if asked_after is not None:
        made.losses("teacher")["labels"].register_forward_hook(
            lambda *_: setattr(runner, "stop_requested", runner.learners["teacher"].steps >= asked_after)
        )
    runner.fit(STAGES, Checkpoint(weights, state) if state else None)
    return state_of(made), recorded.values


def chain(table):
    """A teacher, its student, and a student of that student."""
    terms = {"student": learning.default_terms(), "other": [TermSpec("imitate", 1.0, Imitate, ("student",))]}
    made = distiller(table, terms, students=("student", "other"))
    training = {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}}
    last = students(learners=("other",), taught=("student",), select="best", **training)
    return made, [teachers(), students(gradient_clip=0.5, **training), last]


def circle(table):
    """Two students that learn from each other, with trainings of their own."""
    labels = TermSpec("labels", 1.0, Labels)
    terms = {
        name: [labels, TermSpec("agree", 0.5, Agree, ("teacher",), (peer,))]
        for name, peer in (("student", "other"), ("other", "student"))
    }
    made = distiller(table, terms, students=("student", "other"))
    both = students(epochs=3, learners=("student", "other"), select="best")
    own = {"student": Training(3, {"name": "sgd", "lr": 0.1}, select="best"), "other": both.training["other"]}
    return made, [replace(both, training=own)]


def joint(table):
    """A teacher that learns alone first, then beside its student; both draw random numbers."""
    made = distiller(table)
    alone = learning.stage("alone", ("teacher",), Training(3), epochs=1)
    return made, [alone, learning.stage("joint", ("teacher", "student"), Training(3), epochs=2)]


def average(table):
    """A moving average of the student that is shown an augmentation of its own."""
    table.inputs["teacher"], table.batch_transforms["teacher"] = table.inputs["student"], table.batch_transforms["student"]
    made = distiller(table, teacher={"augment_frozen": True, "channels": 2})
    made.averages = {"teacher": Average("student", MovingAverage(0.9))}
    return made, [students(epochs=3)]


def mixed(table):
    """Batches balanced over classes, some of them mixed, for teacher and student."""
    table.sampler, table.mix = "balanced", MixSpec(name="mixup", probability=0.6, learners="all")
    return distiller(table), [teachers(), students()]


class Agree(Imitate):
    """Squared distance to teachers' features, and to peers' logits."""

    def forward(self, ctx):
        return super().forward(ctx) + sum((ctx.student.logits - p.logits).square().mean() for p in ctx.peers.values())


def run_of(table, scenario, save, checkpoint=None):
    made, stages = scenario(table)
    recorded = Recorded()
    engine(made, table, Settings(3, 3, checkpoint_seconds=0), record=recorded, save=save).fit(
        stages, checkpoint and Checkpoint(*checkpoint)
    )
    return state_of(made), recorded.values


class Consistent(DistillationLoss):
    """Runs the student with its dropout and a teacher on noisy inputs; logs a number in every eighth step."""

    needs = Needs(teachers=1, forward_passes="all")

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, ctx):
        self.calls += 1
        x = ctx.input() + torch.randn_like(ctx.input())
        if ctx.progress.step % 8 == 0:
            ctx.log("first", x.mean())
        theirs = [ctx.forward(ctx.input(name), of=name).logits.mean() for name in ctx.teachers]
        return (ctx.forward(x).logits.square().mean() - torch.stack(theirs).mean()) ** 2 + self.calls * 0.01


def runs_networks(table):
    """A student whose loss draws random numbers, runs networks, and keeps a buffer."""
    made = distiller(table, [*learning.default_terms(), TermSpec("consistent", 0.5, Consistent, ("teacher",))])
    training = {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}}
    return made, [teachers(), students(epochs=3, **training)]


SCENARIOS = [None, chain, circle, joint, average, mixed, runs_networks]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__ if each else "turns")
def test_going_on_from_any_checkpoint_ends_the_same(table, tmp_path, scenario):
    kept = []

    def save(weights, state):
        folder = Checkpoints(tmp_path / f"{len(kept)}")
        folder.save(weights, state)
        kept.append(folder)

    def trained(save, checkpoint=None):
        if scenario:
            return run_of(table, scenario, save, checkpoint)
        return run(table, save, *(reversed(checkpoint) if checkpoint else ()))

    expected, values = trained(save)
    assert len(kept) >= 11
    within = 0
    for number, folder in enumerate(kept):
        weights, state = folder.load()
        within += bool(state["step"])
        torch.manual_seed(number)
        found, again = trained(lambda weights, state: None, (weights, state))
        assert same_state(found, expected), (number, state["stage"], state["epoch"], state["step"])
        for key, history in again.items():
            assert history.items() <= values[key].items(), key
    assert within >= 8, "checkpoints within an epoch"


def test_a_number_logged_before_a_checkpoint_is_tracked_after_it(table):
    """Once for each epoch in which the loss logs it, as without an interruption."""
    saved = []
    _, values = run_of(table, runs_networks, lambda weights, state: saved.append((state_of_dict(weights), state)))
    logged = values["train/student/consistent/first"]
    assert len(table.rows["train"]) // 3 == 4, "steps of an epoch"
    assert [*logged] == [1, 3]
    within = [each for each in saved if each[1]["stage"] == 1 and each[1]["epoch"] == 0 and each[1]["step"]]
    for checkpoint in within:
        _, again = run_of(table, runs_networks, lambda weights, state: None, checkpoint)
        assert again["train/student/consistent/first"] == logged
    assert within


def test_half_precision_clips_what_is_not_scaled_and_goes_on_at_the_same_scale(table):
    """Losses are scaled up before their gradients are taken, the clipped gradients are those of the plain loss."""
    saved = []

    def train(state=None, weights=None):
        made, settings = distiller(table, students=("student", "other")), Settings(3, 3, checkpoint_seconds=0)
        training = {"optimizer": {"name": "sgd", "lr": 1.0}, "gradient_clip": 0.01}
        both = students(epochs=2, learners=("student", "other"), **training)
        own = {"student": both.training["student"], "other": replace(both.training["other"], gradient_clip=None)}
        scaler = torch.amp.GradScaler("cpu")
        keep = lambda weights, state: saved.append((state_of_dict(weights), state))  # noqa: E731
        runner = engine(made, table, settings, save=keep, scaler=scaler)
        precision = MixedPrecision("16-mixed", "cpu", scaler)  # which Fabric itself gives to GPUs only
        runner.fabric._precision = runner.fabric._strategy.precision = precision
        before = {name: torch.nn.utils.parameters_to_vector(made.participant(name).parameters()).detach() for name in own}
        runner.fit([replace(both, training=own)], Checkpoint(weights, state) if state else None)
        after = {name: torch.nn.utils.parameters_to_vector(made.participant(name).parameters()).detach() for name in own}
        moved = {name: float((after[name] - before[name]).norm()) for name in own}
        return state_of(made), moved

    expected, moved = train()
    assert 0.005 < moved["student"] <= 8 * 0.0101
    assert 8 * 0.0101 < moved["other"] < 100, "not clipped, and unscaled"
    weights, state = saved[4]
    last = saved[-1][1]["scaler"]
    assert last["scale"] > 1000
    assert last["_growth_tracker"] == state["scaler"]["_growth_tracker"] + 2
    found, _ = train(state, weights)
    assert same_state(found, expected)
    assert saved[-1][1]["scaler"] == last


@pytest.mark.parametrize("asked_after", [0, 1, 3, 4, 7])
def test_asked_to_stop_it_saves_first(table, asked_after):
    saved = []
    with pytest.raises(StoppedError):
        run(table, lambda weights, state: saved.append((state_of_dict(weights), state)), asked_after=asked_after)
    weights, state = saved[-1]
    expected, _ = run(table, lambda weights, state: None)
    found, _ = run(table, lambda weights, state: None, state, weights)
    assert same_state(found, expected)


def state_of_dict(weights):
    return {name: tensor.clone() for name, tensor in weights.items()}
