"""Several learners in one stage: each is trained as if it were alone, whoever learns beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import learning
import pytest
import torch
import toys
from learning import Imitate, Labels, engine, fit, same_state, state_of
from torch import nn

from kdcore import DistillationLoss, Example, LearningRate, Participant, TeacherFusion, Training
from kdcore.contracts.training import MovingAverage
from kdcore.training.callback import Listener
from kdcore.training.participants import Average, Distiller, TermSpec
from kdcore.training.trained_teachers import TrainedStages

LABELS = TermSpec("labels", 1.0, Labels)


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


def quiet(name, channels, seed, **options):
    """A participant that draws no random numbers."""
    made = toys.participant(name, channels, seed=seed, **options)
    made.encoder[5] = nn.Identity()
    return made


def with_terms(made, table, terms: Mapping[str, list[TermSpec]]):
    """Gives each learner its terms."""
    made.eval()
    batch = table.batch(table.rows["train"], made.networks)
    with torch.no_grad():
        outputs = {name: made.forward(name, batch) for name in made.networks}
    for name, own in terms.items():
        torch.manual_seed(7)
        made.add_terms(name, own, lambda spec, name=name: Example(outputs[name], {s: outputs[s] for s in spec.teachers}, 2))
    return made


# Optimizers


DIFFERENT = {
    "student": Training(2, {"name": "sgd", "lr": 0.5}, LearningRate("cosine"), gradient_clip=0.1),
    "other": Training(2, {"name": "adamw", "lr": 0.01}, LearningRate("exponential", gamma=0.5)),
}


def of_two(table, names):
    made = Distiller({}, {name: quiet(name, 2, seed) for seed, name in enumerate(DIFFERENT) if name in names})
    return with_terms(made, table, {name: [LABELS] for name in names})


def side_by_side(trainings):
    stage = learning.stage("both", tuple(trainings), Training(2))
    return replace(stage, training=trainings, order="the same")


def test_each_learner_has_an_optimizer_rate_and_clip_of_its_own(table):
    together = of_two(table, DIFFERENT)
    runner, values = fit(together, table, [side_by_side(DIFFERENT)])
    for name, training in DIFFERENT.items():
        alone = of_two(table, [name])
        _, expected = fit(alone, table, [side_by_side({name: training})])
        assert same_state(state_of(together.participant(name)), state_of(alone.participant(name)))
        for key in (f"train/{name}/labels", f"validation/{name}/accuracy", f"learning_rate/{name}"):
            assert values[key] == expected[key]
    kinds = {name: type(learner.optimizer).__name__ for name, learner in runner.learners.items()}
    assert kinds == {"student": "SGD", "other": "AdamW"}


# The best epoch


class Epochs(Listener):
    """Remembers everyone's weights and accuracy after each epoch."""

    def __init__(self, made):
        self.made, self.states, self.accuracy = made, [], []

    def epoch_finished(self, stage, epoch, metrics):
        self.states.append({name: state_of(self.made.participant(name)) for name in stage.learners})
        self.accuracy.append({name: metrics[f"validation/{name}/accuracy"] for name in stage.learners})


def test_each_learner_keeps_its_own_best_epoch(table):
    rates = {"student": 2.0, "other": 0.05}
    trainings = {name: Training(8, {"name": "sgd", "lr": rate}, select="best") for name, rate in rates.items()}
    made = of_two(table, trainings)
    seen = Epochs(made)
    fit(made, table, [replace(side_by_side(trainings), epochs=8)], listener=seen)
    best = {}
    for name in trainings:
        history = [each[name] for each in seen.accuracy]
        best[name] = history.index(max(history))
        assert same_state(state_of(made.participant(name)), seen.states[best[name]][name])
    assert best["student"] != best["other"], "both have the same best epoch: choose other learning rates"


class Adding(TeacherFusion):
    """Adds a learnt offset."""

    batch_dependent: ClassVar[bool] = False

    def setup(self, teachers, batch):
        self.offset = nn.Parameter(torch.zeros(2))

    def forward(self, teachers, batch):
        return {
            name: replace(each, logits=each.logits + self.offset) for name, each in super().forward(teachers, batch).items()
        }


def test_teachers_of_one_fusion_keep_one_epoch_the_best_by_their_mean(table):
    table.inputs["second"] = table.inputs["student"]
    fusion = Adding()
    fusion.setup({}, table.batch(torch.arange(2), []))
    made = Distiller({"teacher": quiet("teacher", 3, 1), "second": quiet("second", 2, 4)}, {}, fusion)
    with_terms(made, table, {"teacher": [LABELS], "second": [LABELS]})
    trainings = dict.fromkeys(("teacher", "second"), Training(8, {"name": "sgd", "lr": 1.0}, select="best"))
    offsets = []

    class Both(Epochs):
        def epoch_finished(self, stage, epoch, metrics):
            super().epoch_finished(stage, epoch, metrics)
            offsets.append(fusion.offset.detach().clone())

    seen = Both(made)
    fit(made, table, [replace(side_by_side(trainings), epochs=8)], listener=seen)
    means = [sum(each.values()) for each in seen.accuracy]
    best = means.index(max(means))
    assert best < 7, "the last epoch is the best one: choose another learning rate"
    for name in trainings:
        assert same_state(state_of(made.participant(name)), seen.states[best][name])
    assert torch.equal(fusion.offset, offsets[best])
    assert not torch.equal(offsets[best], offsets[-1])


# Both arms


class Seen(Labels):
    """Cross-entropy; notes rows, inputs and steps."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes

    def forward(self, ctx):
        self.notes.append((ctx.batch.rows.tolist(), ctx.progress.epoch, ctx.progress.step, ctx.student.logits.detach().clone()))
        return super().forward(ctx)


def of_arm(table, distilled, notes):
    """A student that draws random numbers, with or without a teacher that draws some, too."""
    students = {"student": toys.participant("student", 2, seed=2, batch_transforms=table.batch_transforms["student"])}
    teachers = (
        {"teacher": toys.participant("teacher", 2, seed=1, batch_transforms=table.batch_transforms["student"])}
        if distilled
        else {}
    )
    watched = TermSpec("labels", 1.0, lambda: Seen(notes))
    distils = [TermSpec("imitate", 0.0, Imitate, ("teacher",))] if distilled else []
    terms = {"student": [watched, *distils]} | ({"teacher": [LABELS]} if distilled else {})
    return with_terms(Distiller(teachers, students), table, terms)


@pytest.mark.parametrize("before", [0, 1, 3])
def test_without_weight_on_distillation_a_joint_stage_gives_the_baselines_student(table, before):
    """Same order of samples, random numbers, epochs and steps, also where the teacher learnt alone before."""
    table.inputs["teacher"] = table.inputs["student"]
    notes = {True: [], False: []}
    students = {}
    for distilled in (True, False):
        made = of_arm(table, distilled, notes[distilled])
        notes[distilled].clear()
        learners = ("teacher", "student") if distilled else ("student",)
        joint = replace(learning.stage("joint", learners, Training(3 if not before else 3 + before)), epochs=3, order="both")
        alone = learning.stage("teachers", ("teacher",), Training(3 + before), epochs=before)
        fit(made, table, [*([alone] if distilled and before else []), joint])
        students[distilled] = state_of(made.participant("student"))
    assert same_state(students[True], students[False])
    assert len(notes[True]) == 12
    for one, other in zip(notes[True], notes[False], strict=True):
        assert one[:3] == other[:3]
        assert torch.equal(one[3], other[3])


def test_each_learners_metrics_are_recorded_at_its_own_epoch(table):
    """A student that learnt alone before its teacher joins it goes on where it was."""
    table.inputs["teacher"] = table.inputs["student"]
    made = of_arm(table, True, [])
    alone = learning.stage("alone", ("student",), Training(5), epochs=2, sources=("teacher",))
    joint = learning.stage("joint", ("teacher", "student"), Training(5), epochs=3)
    _, values = fit(made, table, [alone, joint])
    for key in ("train/{}/labels", "learning_rate/{}", "validation/{}/accuracy"):
        assert list(values[key.format("student")]) == [1, 2, 3, 4, 5]
        assert list(values[key.format("teacher")]) == [1, 2, 3]
    assert list(values["train_step/student/labels"]) == list(range(0, 20, 2))
    assert list(values["train_step/teacher/labels"]) == list(range(0, 12, 2))
    assert "train/teacher and student/total" in values
    assert [name for name in values if not re.fullmatch(r"[\w.\-/ ]+", name)] == []  # MLflow would refuse others


class Noisy(DistillationLoss):
    """Keeps the inputs of its learner and of its teacher."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def forward(self, ctx):
        self.kept.append((ctx.student.features["input"], ctx.teachers["average"].features["input"]))
        return ctx.student.logits.square().mean()


class Jitter(toys.Noise):
    """Adds uniform noise alone."""

    def forward(self, x):
        return super().forward(x) - 100 if self.training else x


def averaged(table, momentum, warmup, terms=None, augmented=False):
    """A student and its moving average, which starts from other weights."""

    def participant(name, seed):
        torch.manual_seed(seed)
        layers = [nn.Identity(), nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()]
        live = Jitter() if augmented else None
        return Participant(name, nn.Sequential(*layers, nn.Linear(4, 2)), {"input": "0", "features": "5"}, live, augmented)

    table.inputs["average"] = table.inputs["student"]
    averages = {"average": Average("student", MovingAverage(momentum, warmup))}
    made = Distiller({"average": participant("average", 5)}, {"student": participant("student", 2)}, averages=averages)
    default = [LABELS, TermSpec("imitate", 0.5, Imitate, ("average",))]
    return with_terms(made, table, {"student": terms or default})


LEARN = learning.students(epochs=3, taught=("average",), optimizer={"name": "sgd", "lr": 0.1})


@pytest.mark.parametrize(("momentum", "warmup"), [(0.9, False), (0.6, True), (0.999, True), (0.0, False)])
def test_a_moving_average_is_what_its_closed_form_says(table, momentum, warmup):
    weights = []

    class Watching(Labels):
        def forward(self, ctx):
            weights.append({name: p.detach().double().clone() for name, p in student.named_parameters()})
            return super().forward(ctx)

    made = averaged(table, momentum, warmup, [TermSpec("labels", 1.0, Watching), TermSpec("i", 0.5, Imitate, ("average",))])
    student, average = made.participant("student").encoder, made.participant("average").encoder
    first = {name: p.detach().double().clone() for name, p in average.named_parameters()}
    fit(made, table, [LEARN])
    steps = [*weights[1:], {name: p.detach().double() for name, p in student.named_parameters()}]
    assert len(steps) == 12
    keeps = [min(momentum, n / (n + 1)) if warmup else momentum for n in range(12)]
    for name, found in average.named_parameters():
        expected = first[name] * torch.tensor(keeps, dtype=torch.float64).prod()
        for n, each in enumerate(steps):
            share = torch.tensor(keeps[n + 1 :], dtype=torch.float64).prod() * (1 - keeps[n])
            expected = expected + share * each[name]
        torch.testing.assert_close(found.detach().double(), expected, rtol=1e-5, atol=1e-6)
        assert found.grad is None
    if warmup and momentum > 11 / 12:
        mean = torch.stack([each["1.weight"] for each in steps]).mean(0)
        torch.testing.assert_close(average[1].weight.detach().double(), mean, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(average.buffers(), student.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_moving_average_sees_an_augmentation_of_its_own(table):
    kept = []
    made = averaged(table, 0.9, True, [TermSpec("noisy", 1.0, lambda: Noisy(kept), ("average",))], augmented=True)
    kept.clear()
    fit(made, table, [LEARN])
    assert len(kept) == 12
    for mine, theirs in kept:
        assert not torch.isclose(mine, theirs).any()


def test_a_teacher_that_an_average_follows_is_trained_again_rather_than_reused(table, tmp_path):
    """The weights kept of a stage are those of its learners, and not those of their averages."""
    store = TrainedStages(tmp_path / "kept", {})
    table.inputs["average"] = table.inputs["teacher"]
    states = []
    for _ in range(2):
        members = {name: quiet(name, 3, seed) for name, seed in (("teacher", 1), ("average", 5))}
        made = Distiller(members, {}, averages={"average": Average("teacher", MovingAverage(0.9))})
        with_terms(made, table, {"teacher": [LABELS]})
        runner = engine(made, table, trained=store)
        runner.fit([learning.teachers()])
        states.append(state_of(made))
    assert same_state(*states)
    assert not same_state(state_of(made.participant("average")), state_of(quiet("average", 3, 5)))


# Frozen modules


@pytest.mark.parametrize(("frozen", "moves"), [(["1"], False), (["*"], False), ([], True)])
def test_running_statistics_of_frozen_modules_stay_unless_told_otherwise(table, frozen, moves):
    """Weights are frozen in each case; without `frozen`, as `freeze_statistics: false` has it, statistics move."""
    student = quiet("student", 2, 2, frozen=frozen)
    student.encoder[1].requires_grad_(False)
    made = with_terms(Distiller({}, {"student": student}), table, {"student": [LABELS]})
    before = {name: tensor.clone() for name, tensor in student.encoder[1].state_dict().items()}
    fit(made, table, [learning.students(taught=())])
    for name, tensor in student.encoder[1].state_dict().items():
        assert torch.equal(tensor, before[name]) == (not moves or name in ("weight", "bias")), name
    assert not torch.equal(student.encoder[6].weight, quiet("student", 2, 2).encoder[6].weight)


def test_statistics_of_a_frozen_teacher_stay_while_its_fusion_learns(table):
    fusion = Adding()
    fusion.setup({}, table.batch(torch.arange(2), []))
    teacher = quiet("teacher", 3, 1, frozen=["*"])
    teacher.encoder.requires_grad_(False)
    made = with_terms(Distiller({"teacher": teacher}, {}, fusion), table, {"teacher": [LABELS]})
    before = state_of(teacher)
    fit(made, table, [learning.teachers()])
    assert same_state(state_of(teacher), before)
    assert bool(fusion.offset.detach().abs().sum() > 0)
