"""A training that stops, and goes on to the end it would have come to."""

from __future__ import annotations

import learning
import pytest
import torch
from learning import Recorded, distiller, engine, one, same_state, state_of, students, teachers
from lightning_fabric.plugins.precision import MixedPrecision

from kdcore import LearningRate, Training
from kdcore.errors import StoppedError
from kdcore.training.checkpoint import Checkpoints
from kdcore.training.engine import Settings


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
    runner.fit(STAGES, (weights, state) if state else None)
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
        scaler = torch.amp.GradScaler("cpu")
        keep = lambda weights, state: saved.append((state_of_dict(weights), state))  # noqa: E731
        runner = engine(made, table, settings, save=keep, scaler=scaler)
        precision = MixedPrecision("16-mixed", "cpu", scaler)  # which Fabric itself gives to GPUs only
        runner.fabric._precision = runner.fabric._strategy.precision = precision
        before = [parameter.detach().clone() for parameter in made.participant("student").parameters()]
        runner.fit([students(epochs=2, **training)], (weights, state) if state else None)
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
