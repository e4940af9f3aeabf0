"""The loop: who learns, from what, in which order, at which rate."""

from __future__ import annotations

import math
from itertools import chain
from typing import ClassVar

import learning
import pytest
import torch
import toys
from learning import Imitate, Labels, distiller, engine, fit, one, same_state, state_of, students, teachers
from lightning_fabric import Fabric
from torch import nn

from kdcore import DistillationLoss, LearningRate, Ramp, TeacherFusion, Training
from kdcore.data.pipeline import Pipeline
from kdcore.errors import TrainingError
from kdcore.training.callback import Listener
from kdcore.training.engine import Settings
from kdcore.training.evaluation import predict
from kdcore.training.participants import TermSpec


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


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


# Teachers


def test_a_frozen_teacher_is_left_as_it_is(table):
    made = distiller(table)
    before, learner = state_of(made.teachers), state_of(made.students)
    fit(made, table, [students()])
    assert same_state(state_of(made.teachers), before)
    assert all(parameter.grad is None for parameter in made.teachers.parameters())
    assert not same_state(state_of(made.students), learner)


def test_the_next_batch_is_read_ahead_of_its_step(table, monkeypatch):
    events, batch = [], type(table).batch

    def read(self, rows, *args, **options):
        events.append(("read", rows.tolist()))
        return batch(self, rows, *args, **options)

    monkeypatch.setattr(type(table), "batch", read)
    monkeypatch.setattr(
        type(table), "read_ahead", lambda self, batches, names: events.append(("ahead", [*map(torch.Tensor.tolist, batches)]))
    )
    fit(distiller(table), table, [students(epochs=1)])
    ahead = [(place, rows) for place, (what, rows) in enumerate(events) if what == "ahead"]
    assert len(ahead) > 2
    for place, rows in ahead[:-1]:
        assert [what for what, _ in events[place + 1 : place + 4]] == ["read", "ahead", "read"]
        assert [events[place + 3][1]] == rows
    assert ahead[-1][1] == []


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
        table.batch_transforms["teacher"] = Pipeline([toys.branch(toys.ANKLE, on_batches=[toys.Noise()])]).batch_transforms
    made = distiller(table, **options)
    calls = count_calls(made, "teacher")
    fit(made, table, [students(epochs=3)])
    # 12 training rows in steps of 3, and two passes that find out whether outputs vary
    assert len(calls) == (2 + 4 if asked_once else 12)


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
    assert len(calls) == 2 + 1 + 12


# Losses and labels


def test_a_loss_with_parameters_is_trained_and_saved(table):
    made = distiller(table)
    names = [name for name in made.state_dict() if "regressor" in name]
    before = state_of(made)
    runner, _ = fit(made, table, [students()])
    assert len(names) == 2
    assert all(not torch.equal(made.state_dict()[name], before[name]) for name in names)
    optimised = {id(p) for entry in runner.learners["student"].optimizer.param_groups for p in entry["params"]}
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
    made = distiller(table, [TermSpec("imitate", ramp, Imitate, ("teacher",))])
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

    def watch(peer):
        def build():
            watches.append(Watch())
            return watches[-1]

        return [TermSpec("watch", 1.0, build, ("teacher",), (peer,))]

    made = distiller(table, {"student": watch("other"), "other": watch("student")}, students=("student", "other"))
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
    assert [sorted(epoch) for epoch in epochs] == [sorted(table.rows["train"].tolist())] * 2
    assert epochs[0] != epochs[1]


def test_test_rows_are_not_touched_before_evaluation(table):
    for tensors in table.inputs.values():
        tensors[0][table.rows["test"]] = math.nan
    table.labels[table.rows["test"]] = 99
    table.train_labels[table.rows["test"]] = 99
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
        steps = {int(state["step"]) for state in runner.learners[name].optimizer.state.values()}
        assert steps == {12}
        assert values[f"learning_rate/{name}"] == pytest.approx({1: 1e-3, 2: 5e-4, 3: 2.5e-4})


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


@pytest.mark.parametrize("final", [0.0, 0.2])
@pytest.mark.parametrize("warmup", [0, 3])
def test_a_cosine_comes_to_its_final_factor_when_the_last_epoch_is_over(final, warmup):
    rate = LearningRate("cosine", final=final, warmup=warmup)
    assert rate.factor(warmup, 6 + warmup) == 1
    last = final + (1 - final) * (1 + math.cos(math.pi * 5 / 6)) / 2
    assert rate.factor(5 + warmup, 6 + warmup) == pytest.approx(last)
    assert rate.factor(6 + warmup, 6 + warmup) == pytest.approx(final)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "step"}, "'step' requires 'milestones'"),
        ({"name": "cosine", "milestones": (3,)}, "'milestones' cannot be used with 'cosine', only with 'step'"),
        ({"name": "step", "milestones": (5, 3)}, r"'milestones' must be increasing and at least 1, not \[5, 3\]"),
        ({"name": "step", "milestones": (3, 3)}, "must be increasing"),
        ({"name": "step", "milestones": (0, 3)}, "must be increasing"),
    ],
)
def test_a_change_of_rate_that_does_nothing_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        LearningRate(**options)


def moved(table, names, clip):
    """The distance that one step of SGD at rate 1 moves each of the students `names`."""
    made = distiller(table, [TermSpec("huge", 1.0, Huge)], students=names)
    before = {name: [p.detach().clone() for p in made.participant(name).parameters()] for name in names}
    training = {"optimizer": {"name": "sgd", "lr": 1.0}, "gradient_clip": clip}
    fit(made, table, [students(epochs=1, learners=names, batch_size=12, **training)])
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


def test_the_best_epoch_on_the_validation_split_is_kept(table):
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
    probabilities = predict(made, ["student"], table.rows["validation"], table, 3, Fabric(accelerator="cpu", devices=1))
    labels = table.labels[table.rows["validation"]].numpy()
    assert (probabilities["student"].argmax(1) == labels).mean() == scores[best]


def test_asking_for_probabilities_leaves_everybody_as_they_were(table):
    made = distiller(table)
    made.students.train()
    modes, state = [module.training for module in made.modules()], state_of(made)
    predict(made, ["teacher", "student"], table.rows["test"], table, 4, Fabric(accelerator="cpu", devices=1))
    assert [module.training for module in made.modules()] == modes
    assert same_state(state_of(made), state)


def test_a_batch_that_processes_cannot_share_is_refused(table, monkeypatch):
    runner = engine(distiller(table), table)
    monkeypatch.setattr(type(runner.fabric), "world_size", 2)
    with pytest.raises(TrainingError, match="batch_size 3 cannot be shared equally by 2 processes"):
        runner.fit([students()])
