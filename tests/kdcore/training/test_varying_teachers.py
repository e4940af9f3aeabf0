"""Teachers whose outputs for a sample are not always the same are never cached."""

from __future__ import annotations

import signal

import learning
import pytest
import torch
import yaml
from lightning_fabric import Fabric
from runs import Home, results_of, tiny_recipe
from torch import nn

from kdcore import Participant, RecipeError, RunListener, UsageError, load_recipe
from kdcore.runs.outputs import store_outputs
from kdcore.runs.run import dry_run, run
from kdcore.training.sources import cached_sources
from kdcore.training.teacher_cache import outputs_vary


class Noisy(nn.Module):
    """Adds noise in evaluation, too, as Monte-Carlo dropout does."""

    def forward(self, x):
        return x + 1e-6 * torch.randn_like(x)


class Neighbours(nn.Module):
    """Subtracts the mean of the batch, as batch normalisation without running statistics does."""

    def forward(self, x):
        return x - x.mean(0)


@pytest.mark.parametrize(
    ("layer", "varies"),
    [
        (Noisy(), True),
        (Neighbours(), True),
        (nn.BatchNorm1d(6, track_running_stats=False), True),
        (nn.BatchNorm1d(6), False),
        (nn.Dropout(0.5), False),
        (nn.Identity(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_the_outputs_of_two_passes_and_of_a_sample_alone_are_compared(layer, varies):
    member = Participant("net", nn.Sequential(nn.Flatten(), layer, nn.Linear(6, 3)), {"features": "1"}).eval()
    signal = torch.randn(4, 2, 3)
    state = torch.get_rng_state()
    assert outputs_vary(member, signal) == varies
    assert torch.equal(torch.get_rng_state(), state), "the check took random numbers from the run"


def test_a_varying_tap_counts_too():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.centred, self.last = Neighbours(), nn.Linear(6, 3)

        def forward(self, x):
            self.centred(x.flatten(1))
            return self.last(x.flatten(1))

    assert not outputs_vary(Participant("net", Two()).eval(), torch.randn(4, 2, 3))
    assert outputs_vary(Participant("net", Two(), {"features": "centred"}).eval(), torch.randn(4, 2, 3))


@pytest.mark.parametrize("layer", [nn.Identity(), Neighbours(), Noisy()], ids=lambda layer: type(layer).__name__)
def test_inputs_of_several_parts_are_compared(layer):
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.layer = nn.Linear(4, 3), nn.Linear(5, 3), layer

        def forward(self, x):
            one, (other,) = x
            return self.layer(self.first(one) + self.second(other))

    signal = torch.randn(4, 4), (torch.randn(4, 5),)
    assert outputs_vary(Participant("net", Joined()).eval(), signal) == (type(layer) is not nn.Identity)


@pytest.mark.parametrize("trained", [False, True])
def test_a_teacher_that_begins_to_vary_when_it_is_trained_is_not_cached(tmp_path, trained):
    """Its classifier starts with zeros, so the first check finds equal outputs."""
    table = learning.table(tmp_path)
    made = learning.distiller(table)
    member = made.participant("teacher")
    last = next(each for each in reversed([*member.encoder.modules()]) if isinstance(each, nn.Linear))
    assert member.encoder[-1] is last
    nn.init.zeros_(last.weight)
    member.encoder.insert(len(member.encoder) - 1, Neighbours())
    rows = table.rows["train"]
    assert not outputs_vary(made.eval().participant("teacher"), table.batch(rows, ["teacher"]).signals["teacher"])
    if trained:
        nn.init.ones_(last.weight)
    found = cached_sources(made, learning.students(), table, 4, 1 << 20, Fabric(accelerator="cpu"))
    assert (set(found), member.varies) == (set() if trained else {"teacher"}, trained)


NOISY = """
from kdcore import Encoder, hookimpl
import torch
from torch import nn

class Noisy(Encoder):
    def __init__(self, in_shape, num_classes):
        super().__init__()
        self.layer = nn.Linear(in_shape[0] * in_shape[1], num_classes)

    def forward(self, x):
        return self.layer((x + 0.1 * torch.randn_like(x)).flatten(1))

@hookimpl
def register_encoders(register):
    register("noisy", "noisy:Noisy")
"""


def test_a_run_computes_them_in_every_step_and_says_so(tmp_path, database):
    (tmp_path / "noisy.py").write_text(NOISY)
    recipe = tiny_recipe(database, "noisy", plugins=[str(tmp_path / "noisy.py")], seeds=[0])
    recipe["teachers"]["skeleton"]["encoder"] = "noisy"
    home = Home(tmp_path / "home", database)
    home.folder.mkdir()
    home.recipe.write_text(yaml.safe_dump(recipe))
    cached = run(home.recipe)
    live = run(home.recipe, ["engine.teacher_cache=false"])
    assert any("skeleton: its outputs for a sample change" in note for note in cached.summary.notes)
    assert cached.gain == live.gain
    assert [*cached.table["accuracy"]] == [*live.table["accuracy"]]


PEERS = """
from kdcore import DistillationLoss, Needs, hookimpl

class PeerFeatures(DistillationLoss):
    needs = Needs(peers=1, student_taps=("features",), peer_taps=("features",))

    def forward(self, ctx):
        own, *others = (each.features["features"] for each in (ctx.student, *ctx.peers.values()))
        return sum((own - each).square().mean() for each in others)

@hookimpl
def register_losses(register):
    register("peer-features", "peers:PeerFeatures")
"""


def test_taps_of_peers_are_checked_before_training(tmp_path, database):
    (tmp_path / "peers.py").write_text(PEERS)
    recipe = tiny_recipe(database, "peers", plugins=[str(tmp_path / "peers.py")], training={"epochs": 1})
    del recipe["teachers"], recipe["schedule"]
    student = recipe.pop("student")
    recipe["students"] = {"a": {**student, "taps": {"features": "blocks.1"}}, "b": student}
    recipe["losses"] = ["cross-entropy"]
    recipe["students"]["a"] |= {"learns_from": ["b"], "losses": ["cross-entropy", "peer-features"]}
    recipe["students"]["b"] |= {"learns_from": ["a"], "losses": ["cross-entropy", "mutual"]}
    with pytest.raises(RecipeError, match="the loss 'peer-features' needs the tap 'features' of 'b'"):
        load_recipe(recipe)
    recipe["students"]["b"]["taps"] = {"features": "blocks.1"}
    load_recipe(recipe)


BANK = """
import torch
from torch.nn import functional as F
from kdcore import DistillationLoss, hookimpl

class Bank(DistillationLoss):
    def setup(self, example):
        self.register_buffer("bank", torch.zeros(example.num_samples, example.num_classes))

    def forward(self, ctx):
        assert len(self.bank) == len(ctx.batch.table)
        with torch.no_grad():
            self.bank[ctx.batch.rows] = 0.9 * self.bank[ctx.batch.rows] + 0.1 * ctx.student.logits.softmax(1)
        return F.mse_loss(ctx.student.logits.softmax(1), self.bank[ctx.batch.rows].clone())

@hookimpl
def register_losses(register):
    register("bank", "bank:Bank")
"""


def test_a_memory_of_samples_is_sized_in_setup(tmp_path, database):
    (tmp_path / "bank.py").write_text(BANK)
    recipe = tiny_recipe(database, "bank", plugins=[str(tmp_path / "bank.py")], losses=["cross-entropy", "soft-target", "bank"])
    found = dry_run(recipe)
    assert [check.term for check in found.terms if check.learner == "student"] == ["cross-entropy", "soft-target", "bank"]


def test_a_teacher_may_start_from_another_and_freeze_it(database):
    """A head trained on a finished teacher: teachers are in no baseline, so nothing is missing there."""
    recipe = tiny_recipe(database, "probe")
    recipe["teachers"]["probe"] = {"like": "skeleton", "starts_from": "skeleton", "freeze": ["blocks"]}
    recipe["training"] = {"epochs": 2}
    del recipe["schedule"]
    assert load_recipe(recipe).teachers["probe"].starts_from == "skeleton"
    student = {"like": "student", "starts_from": "student", "freeze": ["blocks"]}
    recipe["students"] = {"student": recipe.pop("student"), "tuned": student}
    del recipe["teachers"]["probe"]
    load_recipe(recipe)
    recipe["students"]["tuned"] |= {"starts_from": "skeleton"}
    with pytest.raises(RecipeError):
        load_recipe(recipe)


@pytest.mark.slow
def test_a_killed_run_with_a_loss_that_draws_ends_the_same(tmp_path, database):
    recipe = tiny_recipe(database, "mgd", seeds=[0], losses=["cross-entropy", "mgd"])
    for participant in (recipe["teachers"]["skeleton"], recipe["student"]):
        participant["taps"] = {"features": "blocks.1"}
    homes = [Home(tmp_path / name, database) for name in ("whole", "killed")]
    for home in homes:
        home.folder.mkdir()
        home.recipe.write_text(yaml.safe_dump(recipe))
    whole, killed = homes
    assert whole.run() == 0, whole.said()
    assert killed.run(die=("torch.optim:AdamW.step", 11)) == -signal.SIGKILL, killed.said()
    assert killed.resume() == 0, killed.said()
    ours, theirs = results_of(killed.runs[0]), results_of(whole.runs[0])
    assert [name for name in theirs if ours[name] != theirs[name]] == []


def test_a_student_that_varies_in_evaluation_is_noted(tmp_path, database):
    (tmp_path / "noisy.py").write_text(NOISY)
    recipe = tiny_recipe(database, "noisy", plugins=[str(tmp_path / "noisy.py")], seeds=[0], baseline=False)
    said = []
    listener = type("Notes", (RunListener,), {"say": lambda self, message: said.append(message)})()
    dry_run(recipe, callbacks=[listener])
    assert not any("evaluation mode" in message for message in said)
    recipe["student"] |= {"encoder": "noisy", "taps": {}}
    dry_run(recipe, callbacks=[listener])
    assert any(message.startswith("student: in evaluation mode, too, its outputs for a sample change") for message in said)


@pytest.mark.parametrize(("plugin", "change"), [("shaken", "0.1 * torch.randn_like(x)"), ("centred", "x.mean(0)")])
def test_outputs_that_vary_are_not_stored(tmp_path, database, plugin, change):
    text = NOISY.replace("0.1 * torch.randn_like(x)", change).replace('"noisy', f'"{plugin}')
    (tmp_path / f"{plugin}.py").write_text(text)
    recipe = tiny_recipe(database, "unstored", plugins=[str(tmp_path / f"{plugin}.py")], seeds=[0], baseline=False)
    recipe["teachers"]["skeleton"]["encoder"] = plugin
    home = Home(tmp_path / "home", database)
    home.folder.mkdir()
    home.recipe.write_text(yaml.safe_dump(recipe))
    assert home.run() == 0, home.said()
    (folder,) = home.runs
    with pytest.raises(UsageError, match="the outputs of 'skeleton' change from pass to pass or with the batch"):
        store_outputs(folder, "skeleton", tmp_path / "outputs.npz")
    assert store_outputs(folder, "student", tmp_path / "outputs.npz")["test"] == 9
