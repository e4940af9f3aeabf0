"""Sweeps in a PostgreSQL database that the tests start, with workers that believe to be on different machines."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState
from quick import QUICK, runs_of
from runs import Home

from kdcore import METRICS
from kdcore_compare.trial_queue import TrialQueue

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'kdcore[postgresql]'")

POINTS = 8


@pytest.fixture(scope="module")
def database_url():
    """An empty database of a server that ends with the module."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's initdb and postgres are not here: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="kdcore-pg-"))
    someone: dict = {}
    if os.getuid() == 0:  # PostgreSQL refuses to be run by root
        user = pwd.getpwnam("nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        someone = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    data = str(folder / "data")
    initdb = [str(binaries / "initdb"), "-D", data, "-U", "kdcore", "--auth=trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder, env=environment, **someone)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(binaries / "postgres"), "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder, env=environment, **someone)
    url = f"postgresql://kdcore@127.0.0.1:{port}/postgres"
    try:
        _wait_for(url, server, folder / "log")
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
        shutil.rmtree(folder)


def _binaries() -> Path | None:
    """The folder of PostgreSQL's programs."""
    found = [Path(each) for each in (shutil.which("initdb"), shutil.which("postgres")) if each]
    places = [each.resolve().parent for each in found] + sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((each for each in places if (each / "initdb").exists() and (each / "postgres").exists()), None)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)


WORKER = """
import os, signal, socket, sys, time
from pathlib import Path
url, folder, host, points = sys.argv[1:5]
points = [str(number) for number in range(int(points))]
socket.gethostname = lambda: host
from kdcore import METRICS
from kdcore_compare import trial_queue
trial_queue.HEARTBEAT, trial_queue.GRACE = 1, 4
queue = trial_queue.TrialQueue(url, "shared", [{"x": each} for each in points], Path(folder) / host, METRICS["accuracy"])
while queue.unfinished():
    trial = queue.take()
    if trial is None:
        time.sleep(0.2)
        continue
    with queue.heartbeat(trial):
        print(trial.user_attrs["point"], flush=True)
        if host == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        x = trial.suggest_categorical("x", points)
        time.sleep(0.05)
    queue.complete(trial, float(x))
queue.close()
"""


def test_workers_on_several_machines_run_every_point_once_and_take_over_from_a_dead_one(database_url, tmp_path):
    points = [{"x": str(n)} for n in range(POINTS)]
    queue = TrialQueue(database_url, "shared", points, tmp_path, METRICS["accuracy"])  # creates the tables
    queue.close()
    start = [sys.executable, "-c", WORKER, database_url, str(tmp_path)]
    dies = subprocess.run([*start, "dies", str(POINTS)], capture_output=True, text=True)
    assert dies.returncode == -signal.SIGKILL, dies.stderr
    workers = [subprocess.Popen([*start, host, str(POINTS)], stdout=subprocess.PIPE, text=True) for host in ("one", "two")]
    ran = Counter(int(line) for each in workers for line in each.communicate(timeout=120)[0].split())
    assert [each.returncode for each in workers] == [0, 0]
    assert ran == dict.fromkeys(range(POINTS), 1)
    assert int(dies.stdout) in ran
    trials = queue.trials()
    assert [each.value for each in trials] == list(map(float, range(POINTS)))
    assert sum(each.state == TrialState.COMPLETE for each in queue.study.trials) == POINTS


@pytest.mark.slow
def test_a_sweep_in_postgresql_finds_what_one_in_a_file_finds(database_url, database, tmp_path):
    tables = []
    for name, options in (("file", ()), ("server", ("--storage", database_url, "--jobs", "2"))):
        home = Home(tmp_path / name, database).write(**QUICK, seeds=[0], name="tiny")
        grid = ("--grid", "losses.soft-target.weight=0.1,1", "--output", "table.csv")
        assert home.finish("sweep", str(home.recipe), *grid, *options) == 0, home.said()
        assert len(runs_of(home)) == 2
        tables.append((home.folder / "table.csv").read_text())
    assert tables[0] == tables[1]
