"""Several processes train as one would."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest
import ranks
import torch
from runs import FORKS, TIME_LIMIT, encoder, job, results_of, tracked


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
        ranks.objective(model(ranks.batch() * (step + 1))).backward()
        expected.append({name: p.grad.clone() for name, p in model.named_parameters()} | dict(model.state_dict()))
        model.zero_grad()
    evaluated = model.eval()(ranks.batch())

    for found, answers in spawn(ranks.gradients, tmp_path, world_size):
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(answers, evaluated, rtol=1e-10, atol=1e-12)


def test_all_processes_agree_on_when_a_checkpoint_is_due(tmp_path):
    assert spawn(ranks.due_at_different_times, tmp_path, 2) == [True, True]


LOSSES = ["cross-entropy", {"name": "soft-target", "temperature": 4}, {"name": "rkd", "weight": 5.0}]


def without_chance(new_home, **sections):
    """A home whose recipe has no dropout and no augmentation, so that only rounding tells runs apart."""
    plain = [{"name": "resample", "length": 12}]
    return new_home(
        teachers={
            "skeleton": {
                "modality": "skeleton",
                "transforms": [*plain, {"name": "centre", "layout": "utd-mhad-20"}, "joints-to-channels", "normalise"],
                "encoder": encoder(dropout=0.0),
                "taps": {"features": "pool"},
            }
        },
        student={
            "modality": "accelerometer",
            "transforms": [*plain, "normalise"],
            "encoder": encoder(dropout=0.0),
            "taps": {"features": "pool"},
        },
        losses=LOSSES,
        seeds=[0],
        **sections,
    )


def histories(home):
    found = defaultdict(list)
    for key, step, value in tracked(home)["tiny seed 0"][2]:
        found[key].append((step, value))
    return found


def assert_same_course(home, other):
    ours, theirs = histories(home), histories(other)
    assert ours.keys() == theirs.keys()
    for key in theirs:
        if "train/" in key or "learning_rate" in key:
            np.testing.assert_allclose(
                ours[key], theirs[key], rtol=1e-5, atol=1e-6, err_msg=key
            )  # sums of float32 in another order
    assert {"train/student/rkd", "train/skeleton/cross-entropy", "baseline/train/student/cross-entropy"} <= theirs.keys()


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


def forked(home, *command, processes=2):
    """Exit statuses of processes that find in their environment what torchrun would have put there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    every = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": 0}
    every |= {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, **home.environment, "CUDA_VISIBLE_DEVICES": ""}
    ranks = [
        FORKS.Process(
            target=job,
            args=(
                {**os.environ, **{key: str(value) for key, value in every.items()}, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                str(home.folder),
                command,
                *[str(home.folder / f"{name}.txt") for name in ("stdout", "stderr")],
            ),
        )
        for rank in range(processes)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(TIME_LIMIT)
    return [process.exitcode for process in ranks]


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
