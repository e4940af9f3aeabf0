"""A file system that fails at any write of a run, and many runs in one process."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import shutil
import threading

import pytest
from disk_faults import faults
from quick import QUICK
from runs import Home

from kdcore.errors import KdcoreError
from kdcore.plugin.manager import PluginManager, entry_points
from kdcore.runs.run import resume, run

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)

EVERY = int(os.environ.get("KDCORE_TEST_FAULTS", "0"))
"""Set to 1 to let each operation fail in turn, with each error; takes minutes."""

RUNS = int(os.environ.get("KDCORE_TEST_SOAK", "0")) or 6
"""Runs of the soak; set to 200 for the long one."""


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    made = Home(tmp_path / "home", tmp_path / "none.db")
    made.folder.mkdir()
    monkeypatch.chdir(made.folder)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    points = [point for point in entry_points(group="kdcore") if point.name not in ("mlflow", "report", "export")]
    plugins = PluginManager(points)
    monkeypatch.setattr("kdcore.runs.run.plugin_manager", lambda: plugins)
    monkeypatch.setattr("kdcore.runs.context.plugin_manager", lambda: plugins)
    return made.write(**QUICK, seeds=[0], baseline=False)


def digest(folder) -> str:
    files = sorted(path for path in folder.rglob("*.safetensors") if "checkpoints" not in path.parts)
    assert files
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@pytest.mark.slow
def test_a_run_survives_any_write_that_fails(home):
    """Each failure is an error with a sentence; what is there afterwards is resumed, or begun again, to the same bits."""
    with faults(home.folder / "runs") as counted:
        run(home.recipe)
    expected = digest(home.runs[0])
    assert counted.count > 40
    step = 1 if EVERY else 7
    errors = ERRORS if EVERY else ERRORS[:1]
    failed = 0
    for at in range(1, counted.count + 1, step):
        for error in errors:
            error = error if EVERY else ERRORS[at // step % 3]
            shutil.rmtree(home.folder / "runs")
            said = message_of_run(home, at, error)
            failed += bool(said)
            assert not said or os.strerror(error) in said or "the disk is full" in said, f"operation {at}: {said}"
            assert digests_after_going_on(home) == [expected], f"operation {at} failed with {os.strerror(error)}"
    assert failed > counted.count / step / 2


def message_of_run(home: Home, at: int, error: int) -> str:
    """The output of a run in which one operation fails; empty if the run does not need it."""
    with faults(home.folder / "runs", at, error):
        try:
            run(home.recipe)
        except KdcoreError as failure:
            return str(failure)
        except OSError as failure:  # said by the command line with the file's name
            return f"{failure.filename}: {failure.strerror}"
    return ""


def digests_after_going_on(home: Home) -> list[str]:
    """Resume the run that was begun, or begin again if there is none; digests of all that ended."""
    begun = [folder for folder in home.runs if (folder / "recipe.yaml").exists()]
    if begun:
        resume(begun[0].name)
    else:
        run(home.recipe)
    return [digest(folder) for folder in home.runs if (folder / "results").exists()]


def in_use() -> tuple[int, int]:
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="counts open files and memory as Linux tells them")
def test_many_runs_in_one_process_leave_nothing_behind(home):
    for _ in range(3):
        run(home.recipe)
    before, memory = in_use(), resident()
    for _ in range(RUNS):
        run(home.recipe)
        shutil.rmtree(home.folder / "runs")
    assert in_use() == before
    assert resident() - memory < (32 << 20) + RUNS * (100 << 10), "memory grows with every run"
