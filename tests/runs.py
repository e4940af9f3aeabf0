"""Runs of a tiny recipe in processes of their own, which can be killed at a chosen call of a chosen function."""

from __future__ import annotations

import importlib
import io
import json
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from cheap_runs import leave_out_figures, leave_out_package_scan
from forked_jobs import JobServer, fork_jobs

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "kdcore.cli.main",
        "kdcore.runs.run",
        "kdcore_compare.commands",
        "kdcore_mlflow.events",
        "kdcore_report.rewrite",
        "kdcore_report.recordings",
        "kdcore_datasets.protocols.subjects",
        "kdcore_datasets.synthetic.dataset",
        "kdcore_skeleton.transforms.placement",
        "kdcore_skeleton.transforms.time_series",
        "kdcore_losses.cross_entropy",
        "kdcore_losses.soft_target",
        "kdcore_signals.augmentations",
        "kdcore_signals.encoders",
        "kdcore_signals.lengths",
        "kdcore_signals.transforms",
        "lightning_fabric",  # loads torch's compiler, which takes longer than a tiny run
        "matplotlib.backends.backend_agg",
        "mlflow",
        "mlflow.pyfunc",
        "mlflow.store.tracking.sqlalchemy_store",
        "scipy.spatial",
        "sqlalchemy.dialects.sqlite",
        "runs",
    ]
)

SIGNAL_LENGTH = 12
TIME_LIMIT = 600
"""Of a run, in seconds, on a machine that is busy with others."""


def encoder(**options: Any) -> dict[str, Any]:
    return {"name": "cnn1d", "width": 4, "depth": 2, **options}


def tiny_recipe(database: Path, experiment: str, **sections: Any) -> dict[str, Any]:
    """A teacher, a student with dropout and augmentation, a validation split, and four short stages over two arms and seeds."""
    skeleton = [
        {"name": "resample", "length": SIGNAL_LENGTH},
        {"name": "centre", "layout": "utd-mhad-20"},
        "joints-to-channels",
        "normalise",
    ]
    accelerometer = [{"name": "resample", "length": SIGNAL_LENGTH}, "normalise", {"name": "jitter", "std": 0.1}]
    return {
        "version": 1,
        "name": "tiny",
        "data": {
            "dataset": {"name": "synthetic-motion", "subjects": 3, "trials": 3, "actions": ["wave", "punch", "sit down"]},
            "protocol": {"name": "cross-subject", "train_subjects": [1, 2], "test_subjects": [3], "validation_subjects": 1},
            "batch_size": 3,
        },
        "teachers": {"skeleton": {"modality": "skeleton", "transforms": skeleton, "encoder": encoder()}},
        "student": {"modality": "accelerometer", "transforms": accelerometer, "encoder": encoder()},
        "losses": ["cross-entropy", {"name": "soft-target", "temperature": 4}],
        "schedule": {
            "name": "two-stage",
            "teachers": {"epochs": 2, "select": "best"},
            "student": {"epochs": 2, "learning_rate": {"name": "cosine"}},
        },
        "seeds": [0, 1],
        "tracking": {"uri": f"sqlite:///{database}", "experiment": experiment},
        "engine": {"accelerator": "cpu", "threads": 1, "checkpoint_seconds": 0, "log_every": 2},
        **sections,
    }


@dataclass(frozen=True)
class Home:
    """A folder with a recipe, in which runs are made.

    Args:
        folder: The folder.
        database: MLflow's.
        figures: Draw the figures of reports.
    """

    folder: Path
    database: Path
    figures: bool = False

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "KDCORE_RUNS": str(self.folder / "runs"),
            "KDCORE_CACHE": str(self.database.parent / "cache"),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def runs(self) -> list[Path]:
        return sorted((self.folder / "runs").glob("[!.]*"))

    def write(self, **sections: Any) -> Home:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.recipe.write_text(yaml.safe_dump(tiny_recipe(self.database, self.folder.name, **sections)))
        return self

    def start(self, *command: str, die: tuple[str, int] | None = None) -> BaseProcess:
        """``kdcore COMMAND…`` in a process of its own, which kills itself at the n-th call of ``module:function``."""
        jobs = job_server().address if "--jobs" in command else None
        process = FORKS.Process(target=_main, args=(self.environment, self.folder, command, die, self.figures, jobs))
        process.start()
        return process

    def finish(self, *command: str, die: tuple[str, int] | None = None) -> int:
        """As `start`, to its end; the exit status, negative for a signal."""
        process = self.start(*command, die=die)
        process.join(TIME_LIMIT)
        assert process.exitcode is not None, "the run hangs"
        return process.exitcode

    def run(self, *overrides: str, die: tuple[str, int] | None = None) -> int:
        return self.finish("run", str(self.recipe), *overrides, die=die)

    def resume(self, die: tuple[str, int] | None = None) -> int:
        return self.finish("resume", self.runs[0].name, die=die)

    def said(self) -> str:
        """The stderr of all processes."""
        return (self.folder / "stderr.txt").read_text()

    def calls(self, command: str) -> dict[str, int]:
        """The number of calls of the functions in `COUNTED` by the last ``kdcore COMMAND`` here that was not killed."""
        counts = self.folder / f"calls-{command}.json"
        return json.loads(counts.read_text()) if counts.exists() else {}


COUNTED = ("os:fsync", "os:unlink", "torch.optim:AdamW.step", "pathlib:Path.rename", "pathlib:Path.replace")


@cache
def job_server() -> JobServer:
    """Starts the jobs of commands with ``--jobs``."""
    return JobServer(FORKS, job)


def job(environment: Mapping[str, str], folder: str | Path, command: Sequence[str], stdout: str, stderr: str) -> None:
    """``kdcore COMMAND…`` in a folder, with its output in files."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    _write_to(stdout=stdout, stderr=stderr)
    _run(command)


def typed(*command: str, folder: str | Path = ".", **environment: str) -> CompletedProcess[str]:
    """``kdcore COMMAND…`` as a user types it, in a process forked from one that has loaded what is slow to load."""
    with TemporaryDirectory() as temporary:
        files = [f"{temporary}/{name}" for name in ("stdout", "stderr")]
        process = FORKS.Process(target=job, args=({**os.environ, **environment}, Path(folder).absolute(), command, *files))
        process.start()
        process.join(TIME_LIMIT)
        assert process.exitcode is not None, "the command hangs"
        return CompletedProcess(command, process.exitcode, *(Path(file).read_text(encoding="utf-8") for file in files))


def _write_to(**files: str | Path) -> None:
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(files[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
        setattr(sys, name, io.TextIOWrapper(os.fdopen(number, "wb", closefd=False, buffering=0), write_through=True))


def _run(command: Sequence[str], figures: bool = False) -> None:
    leave_out_package_scan()
    if not figures:
        leave_out_figures()
    from kdcore.cli.main import main

    sys.argv = ["kdcore", *command]
    main()


def _main(
    environment: Mapping[str, str],
    folder: Path,
    command: Sequence[str],
    die: tuple[str, int] | None,
    figures: bool,
    jobs: Any,
) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    _write_to(stdout=folder / "stdout.txt", stderr=folder / "stderr.txt")
    if jobs:
        fork_jobs(jobs)
    calls = {name: watch(name, die[1] if die and die[0] == name else 0) for name in COUNTED}
    try:
        _run(command, figures)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        (folder / f"calls-{command[0]}.json").write_text(json.dumps({name: len(made) for name, made in calls.items()}))


def watch(name: str, fatal: int) -> list[None]:
    """Note the calls of ``module:function`` in this process, which kills itself at call number `fatal`, counted from 1."""
    module, _, path = name.partition(":")
    *outer, attribute = path.split(".")
    owner = importlib.import_module(module)
    for each in outer:
        owner = getattr(owner, each)
    real, calls = getattr(owner, attribute), []

    def watched(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, attribute, watched)
    return calls


def results_of(run: Path) -> dict[str, Any]:
    """The files that a run left: bytes of every weights file, and its results but for how long they took.

    A checkpoint is numbered by how often it was written, and a run that was killed may write one again, so the number
    is left out of the name.
    """
    found: dict[str, Any] = {
        "/".join(part for part in path.relative_to(run).parts if not part.isdecimal()): path.read_bytes()
        for path in run.rglob("*.safetensors")
    }
    for path in (run / "results").glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name].tolist() for name in file.files}
        head = json.loads(content.pop("head"))
        head.pop("seconds")
        head.pop("memory")
        found[path.name] = {**content, **head}
    return found


def tracked(home: Home) -> dict[str, Any]:
    """MLflow run → status, parameters and every (key, step, value) it holds, repeated ones as often as they are there."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home.database}")
    experiment = client.get_experiment_by_name(home.folder.name)
    assert experiment is not None
    found: dict[str, Any] = {}
    for run in client.search_runs([experiment.experiment_id]):
        history = [
            (m.key, m.step, m.value)
            for key in run.data.metrics
            if not key.startswith("system/")
            for m in client.get_metric_history(run.info.run_id, key)
        ]
        assert run.info.run_name not in found, "a run is tracked twice"
        params = {key: value for key, value in run.data.params.items() if not key.startswith("tracking.")}
        found[run.info.run_name] = (run.info.status, params, sorted(history))
    return found
