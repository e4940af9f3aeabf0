"""Runs in several processes, and their comparison with runs in one."""

from __future__ import annotations

import os
import socket
from collections import defaultdict

import numpy as np
from runs import FORKS, TIME_LIMIT, encoder, job, tracked, watch

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


def _rank(die, *options):
    if die:
        watch(*die)
    job(*options)


def forked(home, *command, processes=2, die=None):
    """Exit statuses of processes that find in their environment what torchrun would have put there.

    With `die`, each process kills itself at the n-th call of ``module:function``.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    every = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": 0}
    every |= {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, **home.environment, "CUDA_VISIBLE_DEVICES": ""}
    ranks = [
        FORKS.Process(
            target=_rank,
            args=(
                die,
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
