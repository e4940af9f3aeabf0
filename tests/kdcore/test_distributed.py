"""Several processes train as one would."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import ranks
import torch
from joint_runs import assert_same_course, forked, without_chance
from lightning_fabric import Fabric
from runs import FORKS, TIME_LIMIT, results_of, tracked


def spawn(target, folder, world_size):
    processes = [FORKS.Process(target=target, args=(rank, world_size, folder)) for rank in range(world_size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * world_size
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world_size)]


@pytest.mark.parametrize("world_size", [2, 3])
def test_gradients_and_running_statistics_are_those_of_one_process(tmp_path, world_size):
    model = ranks.network()
    expected = []
    for step in range(2):
        ranks.objective(ranks.outputs_of(model, ranks.batch() * (step + 1))).backward()
        expected.append(
            {f"gradient of {name}": p.grad.clone() for name, p in model.named_parameters()} | dict(model.named_buffers())
        )
        model.zero_grad()
    evaluated = model.eval()(ranks.batch())

    for found, answers in spawn(ranks.gradients, tmp_path, world_size):
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(answers, evaluated, rtol=1e-10, atol=1e-12)


def test_second_derivatives_are_refused_since_they_would_be_wrong(tmp_path):
    for errors in spawn(ranks.second_derivatives, tmp_path, 2):
        assert len(errors) == 2
        assert all("second derivatives are not supported in several processes" in error for error in errors)


def test_a_stage_that_is_slower_than_in_one_process_says_so_once(tmp_path):
    for slower, faster in spawn(ranks.compared_with_one_process, tmp_path, 2):
        assert len(slower) == 1
        assert re.match(r"stage student is slower in 2 processes \(.* ms per step\) than in one \(1e-06 ms\)", slower[0])
        assert faster == []


def test_losses_read_all_samples_before_an_epoch_as_in_one_process(tmp_path):
    (tmp_path / "alone").mkdir()
    alone = ranks.centres_of_epochs(tmp_path / "alone", Fabric(accelerator="cpu", devices=1))
    first, second = spawn(ranks.epoch_starts, tmp_path, 2)
    assert alone["centres"].shape == (3, 2)
    assert alone["centres"].unique(dim=0).shape == (3, 2)
    assert first.keys() == second.keys() == alone.keys()
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, rtol=1e-4, atol=1e-5)


def test_all_processes_agree_on_when_a_checkpoint_is_due(tmp_path):
    assert spawn(ranks.due_at_different_times, tmp_path, 2) == [True, True]


def torchrun(home, *command, processes=2):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, **home.environment, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*launcher, "-m", "kdcore", *command],
        cwd=home.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_learn_as_one(new_home):
    data = {
        "dataset": {"name": "synthetic-motion", "subjects": 3, "trials": 4, "actions": ["wave", "punch", "sit down"]},
        "protocol": {"name": "cross-subject", "train_subjects": [1, 2], "test_subjects": [3], "validation_subjects": 1},
        "batch_size": 4,
    }
    alone, together = without_chance(new_home, data=data), without_chance(new_home, data=data)
    assert alone.run() == 0, alone.said()
    ended = torchrun(together, "run", str(together.recipe))
    assert ended.returncode == 0, ended.stderr
    assert not re.search(r"GLOBAL_RANK|distributed_backend|\[rank\d\]|Warning", ended.stderr), ended.stderr
    assert_same_course(together, alone)

    assert len(together.runs) == 1
    assert together.runs[0].joinpath("report.html").exists()
    assert len(tracked(together)) == 2
    assert ended.stdout.count("report ") == 1
    assert ended.stderr.count("seed 0, distilled: student") == 1
    ours, theirs = results_of(together.runs[0]), results_of(alone.runs[0])
    assert ours.keys() == theirs.keys()
    probabilities = [each["seed-0-distilled.npz"]["probabilities.student"] for each in (ours, theirs)]
    np.testing.assert_allclose(*probabilities, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_learn_in_half_precision(new_home):
    home = new_home(seeds=[0], baseline=False)
    data = ["data.batch_size=2", "engine.precision=bf16-mixed", "schedule.teachers.epochs=1", "schedule.student.epochs=1"]
    assert forked(home, "run", str(home.recipe), *data) == [0, 0], home.said()
    assert len(home.runs) == 1


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_equally_is_refused_before_anything_is_written(new_home):
    home = new_home(seeds=[0])
    assert 0 not in forked(home, "run", str(home.recipe), "data.batch_size=3")
    assert "batch_size 3 cannot be shared equally by 2 processes" in " ".join(home.said().split()), home.said()
    assert home.runs == []
