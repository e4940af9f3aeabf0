"""Weights divided among processes are trained as those of one process."""

from __future__ import annotations

import pytest
import sharded_ranks
import torch
from joint_runs import assert_same_course, forked, without_chance
from runs import FORKS, results_of
from safetensors.torch import load

from kdcore.training.sharding import large_blocks, undividable

OPTIMIZERS = ("adadelta", "adagrad", "adam", "adamax", "adamw", "asgd", "nadam", "radam", "rmsprop", "sgd")
CASES = [
    *(({"name": name, "lr": 0.02}, "all") for name in OPTIMIZERS),
    ({"name": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True}, "all"),
    *(({"name": "adamw", "lr": 0.02}, objective) for objective in ("logits", "inner", "outer", "unread")),
]


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """For each case, (weights, state) of training at a stretch, and of training that was resumed halfway."""
    folder = tmp_path_factory.mktemp("divided")
    processes = [FORKS.Process(target=sharded_ranks.divided, args=(rank, 2, folder, CASES)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{each['name']}-{objective}" for each, objective in CASES])
def test_weights_averages_and_optimizers_are_those_of_one_process(divided, number):
    near = {"rtol": 1e-4, "atol": 1e-4 if CASES[number][0]["name"] == "rmsprop" else 1e-6}
    weights, state = sharded_ranks.train(*CASES[number], False)
    for ours, mine in divided[number]:
        torch.testing.assert_close(ours, weights, **near)
        torch.testing.assert_close(mine["optimizer"]["state"], state["optimizer"]["state"], **near)
        assert mine["optimizer"]["state"] or CASES[number][0] == {"name": "sgd", "lr": 0.02}


def test_blocks_that_a_tap_or_a_shared_weight_crosses_are_gathered_with_the_rest():
    network = sharded_ranks.Network()
    blocks = large_blocks(network, ["blocks.1.first", "blocks.2"], 1)
    assert set(blocks) == {network.blocks[0], network.blocks[2], network.blocks[3]}
    assert set(large_blocks(network, [], 60)) == {network.blocks[each] for each in range(4)}
    assert set(large_blocks(network, [], 1000)) == set()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"name": "Adafactor"}, "the optimizer 'adafactor'"),
        ({"name": "rprop"}, "the optimizer 'rprop'"),
        ({"name": "sgd", "fused": True}, "a fused 'sgd'"),
        ({"name": "adam", "fused": True}, ""),
        ({"lr": 0.1}, ""),
    ],
)
def test_optimizers_that_cannot_be_divided_are_known(options, why):
    assert undividable(options).startswith(why)
    assert bool(undividable(options)) == bool(why)


DATA = {
    "dataset": {"name": "synthetic-motion", "subjects": 3, "trials": 4, "actions": ["wave", "punch", "sit down"]},
    "protocol": {"name": "cross-subject", "train_subjects": [1, 2], "test_subjects": [3], "validation_subjects": 1},
    "batch_size": 4,
}
TRAINING = {"gradient_clip": 0.5, "accumulate": 2, "ema": {"momentum": 0.5, "warmup": False}}
SCHEDULE = {
    "name": "two-stage",
    "teachers": {"epochs": 2, "select": "best", "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}},
    "student": {"epochs": 3, **TRAINING},
}


def of_everything(new_home, **sections):
    """A teacher, a moving average of the student, a best epoch, averaged weights, accumulation, clipping."""
    home = without_chance(new_home, data=DATA, schedule=SCHEDULE, **sections)
    home.recipe.write_text(home.recipe.read_text().replace("teachers:\n  skeleton:", f"teachers:\n  {AVERAGE}\n  skeleton:", 1))
    return home


AVERAGE = "average: {follows: student, momentum: 0.5, warmup: false}"


@pytest.mark.slow
def test_outputs_of_a_run_in_two_processes_are_written_by_one(new_home):
    home = without_chance(new_home, data=DATA)
    half = ["engine.strategy=fsdp", "engine.precision=bf16-mixed", "schedule.teachers.epochs=1", "schedule.student.epochs=1"]
    assert forked(home, "run", str(home.recipe), *half) == [0, 0], home.said()
    assert home.finish("outputs", home.runs[0].name, "--of", "student", "-o", "outputs.npz") == 0, home.said()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [[], ["engine.teacher_cache=false", "engine.on_nan=skip-step", "data.labels={share: 0.6, seed: 1}"]]
)
def test_a_run_killed_and_resumed_in_two_processes_is_that_of_one(new_home, options):
    alone, together = of_everything(new_home), of_everything(new_home)
    assert alone.run(*options) == 0, alone.said()
    fsdp = ("run", str(together.recipe), "engine.strategy=fsdp", *options)
    assert forked(together, *fsdp, die=("torch.optim:AdamW.step", 4)) == [-9, -9], together.said()
    assert forked(together, "resume", together.runs[0].name) == [0, 0], together.said()

    assert_same_course(together, alone)
    ours, theirs = results_of(together.runs[0]), results_of(alone.runs[0])
    assert ours.keys() == theirs.keys()
    assert "teachers/seed-0/average.safetensors" in ours
    for name, content in ours.items():
        if name.endswith(".safetensors"):
            torch.testing.assert_close(load(content), load(theirs[name]), rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["engine.precision=16-mixed"], "16-mixed"),
        (["engine.compile=true"], "engine.compile"),
        (["schedule.student.optimizer.name=rprop"], "the optimizer 'rprop'"),
        (["fusion=spamfm"], "fusion"),
        (["student.classifier_from=skeleton"], "classifiers"),
    ],
)
def test_what_is_not_known_to_work_is_refused(new_home, options, said):
    home = new_home(seeds=[0], data=DATA)
    assert 0 not in forked(home, "run", str(home.recipe), "engine.strategy=fsdp", *options)
    assert said in " ".join(home.said().split()), home.said()
    assert home.runs == []


def test_one_process_is_refused(new_home):
    home = new_home(seeds=[0])
    assert home.run("engine.strategy=fsdp") != 0
    assert "fsdp divides weights among processes" in " ".join(home.said().split())
