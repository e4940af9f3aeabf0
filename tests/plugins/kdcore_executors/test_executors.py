"""Executors: their environment, and Slurm's through submitit's executor for this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from kdcore import Job, UsageError, __version__, make_executor
from kdcore_compare.parallel import Parallel
from kdcore_executors.command import Command


@pytest.mark.parametrize(("executor", "module", "extra"), [("ray", "ray", "ray"), ("slurm", "submitit", "slurm")])
def test_a_library_that_is_not_installed_is_named_with_its_extra(monkeypatch, executor, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"is not installed; install it with pip install 'kdcore\[{extra}\]'"):
        make_executor(executor)


def test_slurm_is_asked_for_where_it_is(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="this machine has no srun; run the command on a login node"):
        make_executor("slurm")


def test_a_command_takes_along_what_decides_its_results(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDCORE_RUNS", "runs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    job = Job("a", ["--version"], tmp_path / "a.log")
    told = Command.of(job, 5)
    assert told.environment["KDCORE_RUNS"] == str(tmp_path / "runs")
    assert told.environment["MLFLOW_TRACKING_URI"] == "http://there"
    assert told.environment["OMP_NUM_THREADS"] == "3"
    assert "HOME" not in told.environment
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert Command.of(job, 5).environment["OMP_NUM_THREADS"] == "5"


PARENT = """
import sys
from pathlib import Path
from kdcore import Job
from kdcore_executors import command
job = command.Command(("-c",), ".", {}, sys.argv[1])
command.sys.executable = sys.argv[2]
print(job.start().pid, flush=True)
input()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_a_command_is_asked_to_stop_when_the_process_that_runs_it_is_killed(tmp_path):
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 600\n")
    sleeper.chmod(0o755)
    words = [sys.executable, "-c", PARENT, str(tmp_path / "log"), str(sleeper)]
    parent = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_slurm_jobs_run_through_submitit(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'kdcore[slurm]'")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "swordfish")
    said: list[str] = []
    commands = {"version": ["--version"], "wrong": ["nonsense"]}
    ended = Parallel(2, "{name: slurm, cluster: local}").run(commands, tmp_path / "logs", said.append)
    assert ended == {"version": 0, "wrong": 2}
    assert __version__ in (tmp_path / "logs" / "version.log").read_text()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".pkl" for path in files)
    assert not [path for path in files if b"swordfish" in path.read_bytes()]
