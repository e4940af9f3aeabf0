"""The loop: who learns, from what, in which order, at which rate, and how it goes on after a stop."""

from __future__ import annotations

import math
from itertools import chain
from typing import ClassVar

import pytest
import torch
import toys
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import nn
from torch.nn import functional as F

from kdcore import DistillationLoss, Example, LearningRate, Needs, Ramp, Stage, TeacherFusion, Training
from kdcore.errors import StoppedError, TrainingError
from kdcore.training.checkpoint import Checkpoints
from kdcore.training.distiller import Distiller, TermSpec
from kdcore.training.engine import Engine, Listener, Settings, predict
from kdcore.training.pipeline import Pipeline
from kdcore.training.randomness import seed_everything

SETTINGS = Settings(seed=3, batch_size=3, log_every=2, checkpoint_seconds=1e9)


class Labels(DistillationLoss):
    needs = Needs(labels=True)

    def forward(self, ctx):
        return F.cross_entropy(ctx.student.logits, ctx.labels)


class Imitate(DistillationLoss):
    """Squared distance to the teachers' features through a layer of its own."""

    needs = Needs(teachers=1)

    def setup(self, example: Example) -> None:
        self.regressor = nn.Linear(example.student.features["features"].shape[1], 4)

    def forward(self, ctx):
        mine = self.regressor(ctx.student.features["features"])
        return torch.stack([F.mse_loss(mine, each.features["features"]) for each in ctx.teachers.values()]).mean()


class Watch(DistillationLoss):
    """Labels where they are given; keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.contexts = []

    def forward(self, ctx):
        self.contexts.append(ctx)
        return ctx.student.logits.square().mean()


class Huge(DistillationLoss):
    def forward(self, ctx):
        return 1e4 * ctx.student.logits.square().mean()


class Breaks(DistillationLoss):
    """Not a number from the second epoch on."""

    def forward(self, ctx):
        return ctx.student.logits.mean() * (math.nan if ctx.progress.epoch else 1.0)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return toys.write(tmp_path_factory.mktemp("recordings"), trials=3)


@pytest.fixture
def table(recordings, tmp_path):
    pipelines = {"teacher": Pipeline([toys.branch(toys.ANKLE)])}
    pipelines |= {name: Pipeline([toys.branch(on_batches=[toys.Noise()])]) for name in ("student", "other")}
    made = toys.table(toys.Files(recordings), pipelines, tmp_path / "cache", label_noise=0.1)
    made.lives = {name: pipeline.live for name, pipeline in pipelines.items()}
    return made


def distiller(table, terms=None, students=("student",), fusion=None, teacher=None):
    members = {
        "teacher": toys.participant("teacher", 3, seed=1, live=table.lives["teacher"], **(teacher or {})),
        **{name: toys.participant(name, 2, seed=number + 2, live=table.lives[name]) for number, name in enumerate(students)},
    }
    made = Distiller({"teacher": members.pop("teacher")}, members, fusion).eval()
    batch = table.batch(table.parts["train"], ("teacher", *students))
    with torch.no_grad():
        taught = made.teach(["teacher"], batch)
        made.add_terms("teacher", [TermSpec("labels", 1.0, Labels)], Example(taught["teacher"], {}, 2))
        for name in students:
            seed_everything(7)
            made.add_terms(name, terms or default_terms(), Example(made.answer(name, batch), taught, 2))
    return made


def default_terms():
    return [TermSpec("labels", 1.0, Labels), TermSpec("imitate", 0.5, Imitate)]


def teachers(epochs=2, **training):
    return Stage("teachers", ("teacher",), Training(epochs=epochs, **training), epochs)


def students(epochs=2, learners=("student",), taught=("teacher",), **training):
    return Stage("student", learners, Training(epochs=epochs, **training), epochs, teachers=taught)


class Recorded:
    """What an engine tracked: key → {step: value}."""

    def __init__(self):
        self.values = {}

    def __call__(self, metrics, step):
        for key, value in metrics.items():
            assert step not in self.values.setdefault(key, {}), f"{key} is tracked twice for step {step}"
            self.values[key][step] = value


def engine(made, table, settings=SETTINGS, **parts):
    fabric = Fabric(accelerator="cpu", devices=1)
    return Engine(fabric, made, table, settings, **parts)


def fit(made, table, stages, settings=SETTINGS, **parts):
    recorded = Recorded()
    runner = engine(made, table, settings, record=recorded, **parts)
    runner.fit(stages)
    return runner, recorded.values


def state_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same_state(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


# Teachers


def test_a_frozen_teacher_is_left_as_it_is(table):
    made = distiller(table)
    before, learner = state_of(made.teachers), state_of(made.students)
    fit(made, table, [students()])
    assert same_state(state_of(made.teachers), before)
    assert all(parameter.grad is None for parameter in made.teachers.parameters())
    assert not same_state(state_of(made.students), learner)


def count_calls(made, name):
    calls = []
    made.participant(name).encoder.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    return calls


class Mixing(TeacherFusion):
    batch_dependent: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("noisy", "options", "asked_once"),
    [
        (False, {}, True),
        (False, {"fusion": Mixing()}, False),
        (True, {}, True),
        (True, {"teacher": {"augment_frozen": True}}, False),
        (False, {"teacher": {"augment_frozen": True}}, True),
    ],
    ids=["plain", "batch-dependent", "not augmented while frozen", "augmented while frozen", "nothing to augment"],
)
def test_a_teacher_is_asked_once_where_that_changes_nothing(table, noisy, options, asked_once):
    if noisy:
        table.lives["teacher"] = Pipeline([toys.branch(toys.ANKLE, on_batches=[toys.Noise()])]).live
    made = distiller(table, **options)
    calls = count_calls(made, "teacher")
    fit(made, table, [students(epochs=3)])
    # 12 training rows in steps of 3
    assert len(calls) == (4 if asked_once else 12)


def test_asking_once_gives_the_losses_of_asking_every_time(table):
    found = [
        fit(distiller(table), table, [students(epochs=3)], Settings(3, 3, teacher_cache=cache))[1] for cache in (True, False)
    ]
    assert found[0].keys() == found[1].keys()
    for key in found[0]:
        assert list(found[0][key].values()) == pytest.approx(list(found[1][key].values()), rel=1e-5), key


def test_answers_that_would_not_fit_into_memory_are_not_kept(table):
    made = distiller(table)
    calls = count_calls(made, "teacher")
    fit(made, table, [students(epochs=3)], Settings(3, 3, cache_limit=64))
    assert len(calls) == 1 + 12


# Losses and labels


def test_a_loss_with_parameters_is_trained_and_saved(table):
    made = distiller(table)
    names = [name for name in made.state_dict() if "regressor" in name]
    before = state_of(made)
    runner, _ = fit(made, table, [students()])
    assert len(names) == 2
    assert all(not torch.equal(made.state_dict()[name], before[name]) for name in names)
    optimised = {id(p) for entry in runner.groups["student"].optimizer.param_groups for p in entry["params"]}
    assert {id(parameter) for parameter in made.terms["student"].parameters()} <= optimised


def test_withheld_labels_never_reach_the_student(table):
    watch = Watch()
    made = distiller(table, [TermSpec("watch", 1.0, lambda: watch)])
    seen = []
    made.losses("teacher")["labels"].register_forward_pre_hook(lambda module, args: seen.append(args[0].batch.labels))
    _, values = fit(made, table, [teachers(), students()], Settings(3, 3, labels_withheld=True))
    assert {context.batch.labels for context in watch.contexts} == {None}
    assert all(labels is not None for labels in seen)
    assert not any(key.startswith("validation/student") for key in values)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_weight_that_changes_over_epochs(table, shape):
    ramp = Ramp(0.5, 2.5, 4, shape)
    made = distiller(table, [TermSpec("imitate", ramp, Imitate)])
    _, values = fit(made, table, [students(epochs=6)])
    weights = [values["train/student/total"][epoch] / values["train/student/imitate"][epoch] for epoch in range(1, 7)]
    grown = [min(1, epoch / 4) for epoch in range(6)]
    curve = grown if shape == "linear" else [(1 - math.cos(math.pi * u)) / 2 for u in grown]
    assert weights == pytest.approx([0.5 + 2 * u for u in curve], rel=1e-5)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_loss_that_is_not_finite_is_named(table, clip):
    made = distiller(table, [TermSpec("labels", 1.0, Labels), TermSpec("breaks", 1.0, Breaks)])
    with pytest.raises(TrainingError, match=r"student/breaks is nan in stage student, epoch 2, step 1"):
        fit(made, table, [students(epochs=3, gradient_clip=clip)])


def test_students_see_each_other_without_a_graph(table):
    watches = []

    def watch():
        watches.append(Watch())
        return watches[-1]

    made = distiller(table, [TermSpec("watch", 1.0, watch)], students=("student", "other"))
    fit(made, table, [students(learners=("student", "other"))])
    for own, peer in zip(watches, ("other", "student"), strict=True):
        for context in own.contexts:
            assert set(context.peers) == {peer}
            assert context.student.logits.requires_grad
            outputs = [*context.peers.values(), *context.teachers.values()]
            assert not any(tensor.requires_grad for each in outputs for tensor in (each.logits, *each.features.values()))
    first = watches[0].contexts[0], watches[1].contexts[0]
    assert torch.equal(first[0].peers["other"].logits, first[1].student.logits)


# Rows


def test_batches_come_in_the_same_order_whoever_teaches(table):
    orders = []
    for taught in (("teacher",), ()):
        watch = Watch()
        made = distiller(table, [TermSpec("watch", 1.0, lambda watch=watch: watch)])
        fit(made, table, [*([teachers()] if taught else []), students(taught=taught)])
        orders.append([context.batch.rows.tolist() for context in watch.contexts])
    assert orders[0] == orders[1]
    epochs = [list(chain(*orders[0][start : start + 4])) for start in (0, 4)]
    assert [sorted(epoch) for epoch in epochs] == [sorted(table.parts["train"].tolist())] * 2
    assert epochs[0] != epochs[1]


def test_test_rows_are_not_touched_before_evaluation(table):
    for parts in table.inputs.values():
        parts[0][table.parts["test"]] = math.nan
    table.labels[table.parts["test"]] = 99
    table.taught[table.parts["test"]] = 99
    made = distiller(table)
    _, values = fit(made, table, [teachers(select="best"), students(select="best")])
    assert all(math.isfinite(value) for history in values.values() for value in history.values())
    assert all(bool(torch.isfinite(tensor).all()) for tensor in made.state_dict().values())


# Optimizers


def test_an_optimizer_goes_on_from_stage_to_stage(table):
    training = Training(epochs=3, learning_rate=LearningRate("exponential", gamma=0.5))
    rounds = [one(training, "teacher"), one(training, "student", ("teacher",))] * 3
    runner, values = fit(distiller(table), table, rounds)
    for name in ("teacher", "student"):
        steps = {int(state["step"]) for state in runner.groups[name].optimizer.state.values()}
        assert steps == {12}
        assert values[f"learning_rate/{name}"] == pytest.approx({1: 1e-3, 2: 5e-4, 3: 2.5e-4})


def one(training, learner, taught=()):
    return Stage(learner, (learner,), training, 1, teachers=taught)


@pytest.mark.parametrize(
    ("rate", "reference"),
    [
        (LearningRate("constant"), lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
        (LearningRate("cosine", final=0.1), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12, eta_min=0.01)),
        (LearningRate("step", milestones=(3, 7), gamma=0.3), lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7], 0.3)),
        (LearningRate("exponential", gamma=0.8), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.8)),
        (
            LearningRate("cosine-restarts", period=5, final=0.2),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 5, eta_min=0.02),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, LearningRate) else "",
)
def test_learning_rates_are_those_of_torch(table, rate, reference):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, expected = reference(optimizer), []
    for _ in range(12):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    training = {"optimizer": {"name": "sgd", "lr": 0.1}, "learning_rate": rate}
    _, values = fit(distiller(table), table, [students(epochs=12, **training)])
    assert list(values["learning_rate/student"].values()) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_warm_up_grows_evenly_to_the_whole_rate():
    factors = [LearningRate("constant", warmup=4).factor(epoch, 10) for epoch in range(7)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0])


def moved(table, names, clip):
    """How far one step of SGD at rate 1 takes each of the students `names`."""
    made = distiller(table, [TermSpec("huge", 1.0, Huge)], students=names)
    before = {name: [p.detach().clone() for p in made.participant(name).parameters()] for name in names}
    training = {"optimizer": {"name": "sgd", "lr": 1.0}, "gradient_clip": clip}
    fit(made, table, [students(epochs=1, learners=names, **training)], Settings(3, 12))
    return {
        name: torch.cat([(p - q).flatten() for p, q in zip(made.participant(name).parameters(), old, strict=True)]).detach()
        for name, old in before.items()
    }


def test_gradients_are_clipped_learner_by_learner(table):
    free, clipped = moved(table, ("student", "other"), None), moved(table, ("student", "other"), 0.25)
    for name in free:
        assert float(free[name].norm()) > 1
        assert float(clipped[name].norm()) == pytest.approx(0.25, rel=1e-3)
        torch.testing.assert_close(clipped[name] / 0.25, free[name] / free[name].norm(), rtol=1e-3, atol=1e-4)


def test_the_best_epoch_on_the_validation_part_is_kept(table):
    made = distiller(table)
    after, scores = [], []

    class Keeper(Listener):
        def epoch_finished(self, stage, epoch, metrics):
            after.append(state_of(made))
            scores.append(metrics["validation/student/accuracy"])

    training = {"optimizer": {"name": "sgd", "lr": 2.0}, "select": "best"}
    fit(made, table, [students(epochs=8, **training)], listener=Keeper())
    best = scores.index(max(scores))
    assert best < 7, "the last epoch is the best one: choose another learning rate"
    assert same_state(state_of(made), after[best])
    assert not same_state(after[best], after[-1])
    probabilities = predict(made, ["student"], table.parts["validation"], table, 3, Fabric(accelerator="cpu", devices=1))
    labels = table.labels[table.parts["validation"]].numpy()
    assert (probabilities["student"].argmax(1) == labels).mean() == scores[best]


def test_asking_for_probabilities_leaves_everybody_as_they_were(table):
    made = distiller(table)
    made.students.train()
    modes, state = [module.training for module in made.modules()], state_of(made)
    predict(made, ["teacher", "student"], table.parts["test"], table, 4, Fabric(accelerator="cpu", devices=1))
    assert [module.training for module in made.modules()] == modes
    assert same_state(state_of(made), state)


# Stopping


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
            lambda *_: setattr(runner, "stop_asked", runner.groups["teacher"].steps >= asked_after)
        )
    runner.fit(STAGES, weights, state)
    return state_of(made), recorded.values


def test_going_on_from_any_checkpoint_ends_the_same(table, tmp_path):
    kept = []

    def save(weights, state):
        folder = Checkpoints(tmp_path / f"{len(kept)}")
        folder.save(weights, state)
        kept.append(folder)

    expected, values = run(table, save)
    assert len(kept) >= 20
    for number, folder in enumerate(kept):
        weights, state = folder.load()
        torch.manual_seed(number)
        found, again = run(table, lambda weights, state: None, state, weights)
        assert same_state(found, expected), (number, state["stage"], state["epoch"], state["step"])
        for key, history in again.items():
            assert history.items() <= values[key].items(), key


def test_half_precision_clips_what_is_not_scaled_and_goes_on_at_the_same_scale(table):
    """Losses are scaled up before their gradients are taken, the clipped gradients are those of the plain loss."""
    saved = []

    def train(state=None, weights=None):
        made, settings = distiller(table), Settings(3, 3, checkpoint_seconds=0)
        training = {"optimizer": {"name": "sgd", "lr": 1.0}, "gradient_clip": 0.01}
        runner = engine(made, table, settings, save=lambda weights, state: saved.append((state_of_dict(weights), state)))
        precision = MixedPrecision("16-mixed", "cpu")  # which Fabric itself gives to GPUs only
        runner.fabric._precision = runner.fabric._strategy.precision = precision
        before = [parameter.detach().clone() for parameter in made.participant("student").parameters()]
        runner.fit([students(epochs=2, **training)], weights, state)
        after = made.participant("student").parameters()
        return state_of(made), torch.cat([(p - q).flatten() for p, q in zip(after, before, strict=True)]).norm().item()

    expected, distance = train()
    assert 0.005 < distance <= 8 * 0.0101
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


def test_a_batch_that_processes_cannot_share_is_refused(table, monkeypatch):
    runner = engine(distiller(table), table)
    monkeypatch.setattr(type(runner.fabric), "world_size", 2)
    with pytest.raises(TrainingError, match="batch_size 3 cannot be shared equally by 2 processes"):
        runner.fit([students()])
