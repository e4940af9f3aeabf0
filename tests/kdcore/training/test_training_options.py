"""Options of `training` against plain loops of PyTorch: accumulation, moving averages, groups, rates."""

from __future__ import annotations

import math
from itertools import chain

import learning
import pytest
import torch
from learning import engine, fit, same_state, state_of
from lightning_fabric import Fabric
from lone_student import layers, stage, student
from torch import nn
from torch.nn import functional as F

from kdcore import EarlyStopping, LearningRate, MovingAverage, ParameterGroup, Participant, Training
from kdcore.errors import TrainingError
from kdcore.training.callback import Listener
from kdcore.training.checkpoint import Checkpoint
from kdcore.training.evaluation import predict
from kdcore.training.learner import Learner


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return learning.table(tmp_path_factory.mktemp("data"))


@pytest.fixture
def exact(table, monkeypatch):
    """The table in float64."""
    monkeypatch.setitem(table.inputs, "student", tuple(each.double() for each in table.inputs["student"]))
    torch.set_default_dtype(torch.float64)
    yield table
    torch.set_default_dtype(torch.float32)


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
    assert max(values["train_step/student/labels"]) < steps


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
        again.fit(plan, Checkpoint(weights, state))
        assert same_state(state_of(made), state_of(whole))
        assert again.notes == runner.notes
        assert again.learners["student"].steps == runner.learners["student"].steps
