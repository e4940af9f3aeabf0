"""Options of `training` against plain loops of PyTorch: accumulation, moving averages, groups, rates, early stopping."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import chain

import learning
import numpy as np
import pytest
import torch
from learning import Labels, Recorded, engine, fit, same_state, state_of
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import nn
from torch.nn import functional as F

from kdcore import EarlyStopping, LearningRate, MovingAverage, ParameterGroup, Participant, Training
from kdcore.errors import StoppedError, TrainingError
from kdcore.training.callback import Listener, reason_to_stop
from kdcore.training.evaluation import predict
from kdcore.training.learner import Learner
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.trained_teachers import TrainedStages
from kdcore.training.validation import Scores

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return learning.table(tmp_path_factory.mktemp("data"))


def layers(norm=True):
    middle = nn.BatchNorm1d(4) if norm else nn.Identity()
    return [nn.Conv1d(2, 4, 3), middle, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)]


class Rows(Labels):
    """Cross-entropy; notes the rows of each batch, and the parameters before it."""

    def __init__(self, rows, encoder=None, weights=None):
        super().__init__()
        self.rows, self.watched, self.weights = rows, [encoder], weights

    def forward(self, ctx):
        self.rows.append(ctx.batch.rows.tolist())
        if self.weights is not None:
            self.weights.append([p.detach().double().clone() for p in self.watched[0].parameters()])
        return super().forward(ctx)


def student(table, norm=False, double=True, weights=None):
    """A student that draws no random numbers, its first state, and the batches that it will see."""
    torch.manual_seed(5)
    encoder = nn.Sequential(*layers(norm))
    rows: list[list[int]] = []
    made = Distiller({}, {"student": Participant("student", encoder)})
    made.add_terms("student", [TermSpec("labels", 1.0, lambda: Rows(rows, encoder, weights))], lambda _: None)
    return made, copy.deepcopy(encoder), rows


@pytest.fixture
def exact(table, monkeypatch):
    """The table in float64."""
    monkeypatch.setitem(table.inputs, "student", tuple(each.double() for each in table.inputs["student"]))
    torch.set_default_dtype(torch.float64)
    yield table
    torch.set_default_dtype(torch.float32)


def stage(epochs=2, **options):
    made = learning.students(epochs=epochs, taught=(), **{"optimizer": SGD} | options)
    return replace(made, accumulate=options.get("accumulate", 1))


def loss_of(encoder, table, rows):
    batch = table.batch(torch.tensor(rows), ["student"])
    return F.cross_entropy(encoder(batch.signals["student"]), batch.labels)


def agree(found, expected):
    for mine, theirs in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine.detach(), theirs.detach(), rtol=1e-9, atol=1e-12)


# Accumulation


@pytest.mark.parametrize(("accumulate", "clip"), [(2, None), (3, None), (3, 0.05), (9, 0.05)])
def test_accumulation_is_one_step_on_the_samples_of_all_its_batches(exact, accumulate, clip):
    """Four batches of three an epoch: groups of 2 and 2, of 3 and 1, and of 4."""
    made, reference, rows = student(exact)
    runner, values = fit(made, exact, [stage(accumulate=accumulate, gradient_clip=clip)])
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9)
    for epoch in (rows[:4], rows[4:]):
        for start in range(0, 4, accumulate):
            optimizer.zero_grad()
            loss_of(reference, exact, list(chain(*epoch[start : start + accumulate]))).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(reference.parameters(), clip)
            optimizer.step()
    agree(made.participant("student").encoder, reference)
    steps = 2 * math.ceil(4 / accumulate)
    assert runner.learners["student"].steps == steps
    assert max(values["train/student/labels (step)"]) < steps


def test_no_checkpoint_is_made_while_gradients_wait(table):
    made, _, _ = student(table)
    kept = []
    settings = learning.Settings(seed=3, batch_size=3, checkpoint_seconds=0)
    engine(made, table, settings, save=lambda weights, state: kept.append((state["epoch"], state["step"]))).fit(
        [stage(accumulate=3)]
    )
    assert kept == [(0, 3), (1, 0), (1, 3)]


# Moving average


@pytest.mark.parametrize(("momentum", "warmup", "accumulate"), [(0.9, False, 1), (0.9, True, 2), (0.5, True, 1)])
def test_the_average_is_its_closed_form_and_is_what_is_evaluated_and_kept(exact, momentum, warmup, accumulate):
    weights: list[list[torch.Tensor]] = []
    made, first, _ = student(exact, norm=True, weights=weights)
    training = {"ema": MovingAverage(momentum, warmup), "accumulate": accumulate}
    runner, values = fit(made, exact, [stage(**training)])
    encoder = made.participant("student").encoder
    again, _, _ = student(exact, norm=True)
    fit(again, exact, [stage(accumulate=accumulate)])  # the parameters that are averaged do not depend on the average
    live = again.participant("student").encoder
    points = [*weights[accumulate::accumulate], [p.detach() for p in live.parameters()]]
    keeps = [min(momentum, n / (n + 1)) if warmup else momentum for n in range(len(points))]
    for place, (found, start) in enumerate(zip(encoder.parameters(), first.parameters(), strict=True)):
        expected = start.detach() * math.prod(keeps)
        for n, point in enumerate(points):
            expected = expected + math.prod(keeps[n + 1 :]) * (1 - keeps[n]) * point[place]
        torch.testing.assert_close(found.detach(), expected, rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(encoder.buffers(), live.buffers(), strict=True):
        assert torch.equal(mine, theirs)
    found = predict(made, ["student"], exact.rows["validation"], exact, 3, Fabric(accelerator="cpu", devices=1))
    labels = exact.labels[exact.rows["validation"]].numpy()
    assert values["validation/student/accuracy"][2] == (found["student"].argmax(1) == labels).mean()
    assert len(runner.learners["student"].average.values) == len(list(encoder.parameters()))


def test_an_average_is_that_of_torch(table):
    weights: list[list[torch.Tensor]] = []
    made, first, _ = student(table, weights=weights)
    fit(made, table, [stage(ema=MovingAverage(0.7, warmup=False))])
    again, live, _ = student(table)
    fit(again, table, [stage()])
    expected = torch.optim.swa_utils.AveragedModel(first, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.7))
    expected.n_averaged.fill_(1)  # torch copies the first update, which here counts from the initial weights
    for point in [*weights[1:], [p.detach().double() for p in again.participant("student").encoder.parameters()]]:
        for parameter, value in zip(live.parameters(), point, strict=True):
            parameter.data.copy_(value)
        expected.update_parameters(live)
    for mine, theirs in zip(made.participant("student").encoder.parameters(), expected.module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


# Parameter groups


def test_groups_are_those_of_a_loop_by_hand(exact):
    groups = (ParameterGroup(("0",), lr_factor=0.1, weight_decay=0.3), ParameterGroup(("5",), frozen_epochs=1))
    optimizer = {"name": "adamw", "lr": 0.01, "weight_decay": 0.2}
    rate = LearningRate("exponential", gamma=0.5)
    made, reference, rows = student(exact, norm=True)
    options = {"parameter_groups": groups, "decay_norms_and_biases": False}
    _, values = fit(made, exact, [stage(optimizer=optimizer, learning_rate=rate, **options)])
    conv, norm, head = reference[0], reference[1], reference[5]
    told = [
        {"params": [conv.weight], "lr": 0.001, "weight_decay": 0.3},
        {"params": [conv.bias], "lr": 0.001, "weight_decay": 0.0},
        {"params": [norm.weight, norm.bias], "lr": 0.01, "weight_decay": 0.0},
        {"params": [head.weight], "lr": 0.01, "weight_decay": 0.2},
        {"params": [head.bias], "lr": 0.01, "weight_decay": 0.0},
    ]
    other = torch.optim.AdamW(told)
    for epoch, batches in enumerate((rows[:4], rows[4:])):
        for batch in batches:
            other.zero_grad()
            loss_of(reference, exact, batch).backward()
            if epoch == 0:
                head.weight.grad = head.bias.grad = None
            other.step()
        for group in other.param_groups:
            group["lr"] *= 0.5
    agree(made.participant("student").encoder, reference)
    assert values["learning_rate/student"] == pytest.approx({1: 0.01, 2: 0.005})


def test_modules_frozen_at_first_keep_their_running_statistics_until_then(table):
    made, _, _ = student(table, norm=True)
    seen = []

    class After(Listener):
        def epoch_finished(self, stage, epoch, metrics):
            seen.append(made.participant("student").encoder[1].running_mean.clone())

    fit(made, table, [stage(3, parameter_groups=(ParameterGroup(("1",), frozen_epochs=2),))], listener=After())
    assert torch.equal(seen[0], torch.zeros(4))
    assert torch.equal(seen[1], torch.zeros(4))
    assert not torch.equal(seen[2], torch.zeros(4))


def test_a_pattern_that_matches_nothing_is_refused(table):
    made, _, _ = student(table)
    with pytest.raises(TrainingError, match="no trainable parameter of its encoder matches 'layer9'"):
        fit(made, table, [stage(parameter_groups=(ParameterGroup(("0", "layer9"), lr_factor=0.1),))])


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"parameter_groups": (ParameterGroup(("0",), weight_decay=0.1),)}, "parameter_groups"),
        ({"decay_norms_and_biases": False}, "decay_norms_and_biases: false"),
    ],
)
def test_weight_decay_that_the_optimizer_does_not_have_is_refused(options, key):
    training = Training(optimizer={"name": "rprop"}, **options)
    with pytest.raises(TrainingError, match=f"{key} is about weight decay, which Rprop does not have"):
        Learner.of("student", [Participant("student", nn.Sequential(*layers()))], training)


# Rates


def test_one_cycle_is_that_of_torch_stepped_with_the_optimizer(exact):
    rule = LearningRate("one-cycle", pct_start=0.4, div_factor=10, final_div_factor=50)
    made, reference, rows = student(exact)
    fit(made, exact, [stage(3, learning_rate=rule, accumulate=2)])
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9)
    options = {"pct_start": 0.4, "div_factor": 10, "final_div_factor": 50, "cycle_momentum": False}
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=6, **options)
    for start in range(0, 12, 2):
        optimizer.zero_grad()
        loss_of(reference, exact, rows[start] + rows[start + 1]).backward()
        optimizer.step()
        scheduler.step()
    agree(made.participant("student").encoder, reference)


@pytest.mark.parametrize("monitor", ["validation-loss", "validation-accuracy", "training-loss"])
def test_a_plateau_is_that_of_torch(table, monitor):
    rule = LearningRate("plateau", gamma=0.5, patience=0, threshold=0.05, monitor=monitor)
    made, _, _ = student(table)
    _, values = fit(made, table, [stage(8, learning_rate=rule)])
    mode = "max" if monitor == "validation-accuracy" else "min"
    key = {"training-loss": "train/student/total"}.get(monitor, f"validation/student/{monitor[11:]}")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, 0.5, 0, 0.05)
    expected = {}
    for epoch in range(1, 9):
        expected[epoch] = optimizer.param_groups[0]["lr"]
        scheduler.step(values[key][epoch])
    assert values["learning_rate/student"] == pytest.approx(expected)
    assert expected[8] < 0.1, "the metric improves in every epoch: choose a larger threshold"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"name": "cosine", "power": 2.0}, "'power' does not go with 'cosine'; it is for 'polynomial'"),
        ({"name": "constant", "patience": 3}, "'patience' does not go with 'constant'; it is for 'plateau'"),
        ({"name": "one-cycle", "warmup": 2}, "'warmup' does not go with 'one-cycle'"),
    ],
)
def test_options_of_other_rules_are_refused(rule, said):
    with pytest.raises(ValueError, match=said):
        LearningRate(**rule)


# Early stopping


def test_scores_by_loops():
    chances = np.random.default_rng(0).dirichlet(np.ones(3), 20).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 3, 20)
    found = Scores.of(chances, labels)
    assert found.loss == pytest.approx(-sum(math.log(chances[n][labels[n]]) for n in range(20)) / 20, rel=1e-6)
    assert found.value == sum(max(range(3), key=lambda c, n=n: chances[n][c]) == labels[n] for n in range(20)) / 20
    missing = np.vstack([chances, np.full((4, 3), np.nan)])
    assert Scores.of(missing, np.append(labels, [0, 0, 0, 0])) == found


def epochs_by_hand(scores, patience, least):
    """The epochs that are trained, by the definition."""
    for epoch in range(1, len(scores) + 1):
        records = [n for n in range(epoch) if all(scores[n] > each + least for each in running(scores[:n], least))]
        if epoch - 1 - records[-1] >= patience:
            return epoch
    return len(scores)


def running(scores, least):
    """Scores that counted as improvements."""
    found = []
    for each in scores:
        if not found or each > found[-1] + least:
            found.append(each)
    return found


@pytest.mark.parametrize(("metric", "patience", "least"), [("accuracy", 2, 0.0), ("loss", 2, 0.0), ("loss", 1, 0.05)])
def test_training_stops_when_it_no_longer_improves_and_restores_the_best(table, metric, patience, least):
    sgd = {"name": "sgd", "lr": 1.0}
    full, _, _ = student(table, norm=True)
    states, scores = [], []

    class Keeper(Listener):
        def epoch_finished(self, stage, epoch, metrics):
            states.append(state_of(full))

    watching = EarlyStopping(10**6, metric)
    _, values = fit(full, table, [stage(20, optimizer=sgd, early_stopping=watching)], listener=Keeper())
    sign = 1 if metric == "accuracy" else -1
    scores = [sign * each for each in values[f"validation/student/{metric}"].values()]
    length = epochs_by_hand(scores, patience, least)
    assert 1 < length < 20, "it does not stop early: choose another learning rate"
    made, _, _ = student(table, norm=True)
    rule = EarlyStopping(patience, metric, least)
    runner, _ = fit(made, table, [stage(20, optimizer=sgd, early_stopping=rule, select="best")])
    assert runner.learners["student"].epochs == length
    best = max(range(length), key=lambda epoch: (scores[epoch], -epoch))
    assert same_state(state_of(made), states[best])
    assert [each for each in runner.notes if f"ended after {length} of 20 epochs: validation {metric}" in each]


# Callbacks that stop a stage


class Stops(Listener):
    def __init__(self, after):
        self.after = after

    def epoch_finished(self, stage, epoch, metrics):
        return "enough" if epoch + 1 == self.after else None


def test_a_callback_ends_a_stage_and_the_next_one_begins(table, tmp_path):
    store = TrainedStages(tmp_path / "kept", {})
    states = []
    for listener in (Stops(1), None):
        made = learning.distiller(table)
        runner, _ = fit(
            made, table, [learning.teachers(epochs=3), learning.students(epochs=2)], listener=listener, trained=store
        )
        states.append(state_of(made.participant("teacher")))
        assert runner.learners["teacher"].epochs == (1 if listener else 3)
        assert runner.learners["student"].epochs == (1 if listener else 2)
        if listener:
            assert runner.notes == [
                "teachers ended after 1 of 3 epochs: enough",
                "student ended after 1 of 2 epochs: enough",
            ]
    assert not same_state(*states), "the stopped stage was reused"


@pytest.mark.parametrize("answer", [True, 3, ""])
def test_an_answer_that_is_no_reason_is_refused(answer):
    with pytest.raises(TrainingError, match="return the reason to end the stage as text, or None"):
        reason_to_stop([None, answer])
    assert reason_to_stop([None, "one", "other"]) == "one; other"


# Resuming

OPTIONS = {
    "everything": {
        "ema": MovingAverage(0.8),
        "accumulate": 2,
        "learning_rate": LearningRate("one-cycle"),
        "parameter_groups": (ParameterGroup(("0",), lr_factor=0.5, frozen_epochs=1),),
        "decay_norms_and_biases": False,
        "select": "best",
        "early_stopping": EarlyStopping(3, "loss"),
    },
    "plateau": {"learning_rate": LearningRate("plateau", patience=0, threshold=0.2), "ema": MovingAverage(0.9)},
    "stopped": {"early_stopping": EarlyStopping(1, "accuracy"), "select": "best"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_resumed_from_every_checkpoint_training_ends_with_the_same_bits(table, options, tmp_path):
    kept = []
    settings = learning.Settings(seed=3, batch_size=3, checkpoint_seconds=0)
    plan = [stage(4, **options)]

    def save(weights, state):
        buffer = tmp_path / "state.pt"
        torch.save(state, buffer)
        kept.append(({key: value.clone() for key, value in weights.items()}, torch.load(buffer, weights_only=True)))

    whole, _, _ = student(table, norm=True)
    runner = engine(whole, table, settings, save=save)
    runner.fit(plan)
    assert len(kept) >= 3
    for weights, state in list(kept):
        made, _, _ = student(table, norm=True)
        again = engine(made, table, settings)
        again.fit(plan, (weights, state))
        assert same_state(state_of(made), state_of(whole))
        assert again.notes == runner.notes
        assert again.learners["student"].steps == runner.learners["student"].steps


def test_a_stage_that_stops_early_as_the_process_is_asked_to_stop_is_not_trained_on(table):
    kept = []

    class Ends(Stops):
        def epoch_finished(self, stage, epoch, metrics):
            runner.stop_requested = epoch == 0
            return super().epoch_finished(stage, epoch, metrics)

    made, _, _ = student(table)
    runner = engine(made, table, save=lambda weights, state: kept.append((weights, state)), listener=Ends(1))
    with pytest.raises(StoppedError):
        runner.fit([stage(5)])
    again, _, _ = student(table)
    resumed = engine(again, table)
    resumed.fit([stage(5)], kept[-1])
    assert resumed.learners["student"].epochs == 1
    assert resumed.notes == ["student ended after 1 of 5 epochs: enough"]


# float16


def scaled(table, made, scaler, plan, **options):
    """An engine whose losses a scaler scales, as for float16, with arithmetic that stays as it is."""
    runner = engine(made, table, scaler=scaler, record=Recorded(), **options)
    precision = MixedPrecision("bf16-mixed", "cpu")
    precision.scaler = scaler
    runner.fabric._precision = runner.fabric._strategy.precision = precision
    runner.fit(plan)
    return runner


@pytest.mark.parametrize("options", [{}, {"accumulate": 3, "gradient_clip": 0.05}], ids=["plain", "accumulated"])
def test_the_scale_of_a_loss_changes_nothing(table, options):
    states = []
    for scale in (1.0, 2.0**12):
        made, _, _ = student(table)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
        runner = engine(made, table, scaler=scaler)
        runner.updates.begin = lambda state: None
        precision = MixedPrecision("bf16-mixed", "cpu")
        precision.scaler = scaler
        runner.fabric._precision = runner.fabric._strategy.precision = precision
        runner.fit([stage(**options)])
        assert scaler.get_scale() == scale
        states.append(state_of(made))
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-4, atol=1e-6)


class Overflows(Labels):
    """Cross-entropy whose gradient is infinite while the loss is scaled by 2 ** 14 or more."""

    def forward(self, ctx):
        logits = ctx.student.logits.clone()
        logits.register_hook(lambda gradient: gradient / 0 if float(gradient.abs().max()) > self.most else gradient)
        return F.cross_entropy(logits, ctx.labels)


@pytest.mark.parametrize("skipped", [None, 0])
def test_an_overflow_lowers_the_scale_and_is_no_step_that_is_skipped(table, skipped):
    Overflows.most = 2.0**13
    made, _, _ = student(table)
    made.terms["student"]["labels"] = Overflows()
    settings = replace(learning.SETTINGS, skipped_steps=skipped)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    runner = scaled(table, made, scaler, [stage()], settings=settings)
    assert 2.0**10 < scaler.get_scale() < 2.0**16
    assert runner.learners["student"].steps == 8
    assert all(bool(torch.isfinite(each).all()) for each in made.state_dict().values())


def test_gradients_that_no_scale_makes_finite_are_an_error(table):
    Overflows.most = 0.0
    made, _, _ = student(table)
    made.terms["student"]["labels"] = Overflows()
    with pytest.raises(TrainingError, match="in 16-mixed, gradients are not finite numbers however small the loss is scaled"):
        scaled(table, made, torch.amp.GradScaler("cpu"), [stage(20)])
