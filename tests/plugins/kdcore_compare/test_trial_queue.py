"""Workers on one sweep, without any training."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
from optuna.trial import TrialState

from kdcore import METRICS, UsageError
from kdcore_compare.trial_queue import ATTEMPTS, TrialQueue

ACCURACY = METRICS["accuracy"]
POINTS = [{"x": str(value)} for value in range(6)]


@pytest.fixture
def worker(tmp_path):
    """Makes workers on one sweep."""
    made = []

    def make(points=POINTS, prune=False):
        made.append(TrialQueue(f"sqlite:///{tmp_path / 'sweeps.db'}", "test", points, tmp_path / "workers", ACCURACY, prune))
        return made[-1]

    yield make
    for each in made:
        each.close()


def choices(points=POINTS):
    return [each["x"] for each in points]


def work(queue, ran):
    while trial := queue.take():
        with queue.heartbeat(trial):
            ran.append(trial.suggest_categorical("x", choices()))
        queue.complete(trial, float(trial.params["x"]))


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_several_workers_run_every_point_once(worker):
    ran: list[str] = []
    threads = [threading.Thread(target=work, args=(worker(), ran)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ran) == choices()
    queue = worker()
    assert not queue.unfinished()
    assert [trial.value for trial in queue.trials()] == [0, 1, 2, 3, 4, 5]
    assert len(queue.study.trials) == 6


def test_points_that_two_workers_let_wait_are_run_once(worker):
    one, ran = worker(), []
    one._enqueue()
    for slot, values in enumerate(POINTS):  # as if another had begun at the same moment
        one.study.enqueue_trial(values, {"point": slot})
    work(one, ran)
    assert sorted(ran) == choices()
    assert sum(trial.state == TrialState.COMPLETE for trial in one.study.trials) == len(POINTS)


KILLED = """
import sys, os, signal
from pathlib import Path
from kdcore import METRICS
from kdcore_compare.trial_queue import TrialQueue
queue = TrialQueue(sys.argv[1], "test", [{}] * 3, Path(sys.argv[2]), METRICS["accuracy"])
trial = queue.take()
print(trial.suggest_float("x", 0, 1), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(tmp_path):
    """A worker that chooses a value, and is killed; returns the value."""
    command = [sys.executable, "-c", KILLED, f"sqlite:///{tmp_path / 'sweeps.db'}", str(tmp_path / "workers")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return float(done.stdout)


def test_what_a_killed_worker_had_begun_is_begun_again_with_the_same_values(worker, tmp_path):
    value = killed(tmp_path)
    queue = worker([{}] * 3)
    found = {}
    while trial := queue.take():
        found[trial.user_attrs["point"]] = trial.suggest_float("x", 0, 1)
        queue.complete(trial, 0.5)
    assert set(found) == {0, 1, 2}
    assert found[0] == value


def test_a_point_that_kills_its_workers_is_given_up(worker, tmp_path):
    queue = worker([{}])
    for _ in range(ATTEMPTS):
        trial = queue.take()
        assert trial
        queue.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    assert queue.take() is None
    assert not queue.unfinished()


def test_what_is_given_back_waits_again_and_what_failed_does_not(worker):
    queue = worker([{}, {}])
    first, second = queue.take(), queue.take()
    assert first
    assert second
    for _ in range(ATTEMPTS + 1):
        queue.give_back(first)
        first = queue.take()
        assert first
        assert first.user_attrs["point"] == 0
    queue.fail(second, "a loss is not finite")
    queue.complete(first, 1.0)
    assert queue.take() is None
    assert [trial.user_attrs.get("error") for trial in queue.trials()] == [None, "a loss is not finite"]


def test_a_worker_at_work_is_left_alone(worker):
    one, other = worker([{}]), worker([{}])
    assert one.take()
    assert other.take() is None
    assert other.unfinished()


def test_a_search_can_be_made_longer(worker):
    for queue in (worker([{}] * 2), worker([{}] * 3)):
        while trial := queue.take():
            queue.complete(trial, trial.suggest_float("x", 0, 1))
    assert len(queue.trials()) == 3


@pytest.mark.parametrize(
    ("url", "said"),
    {
        "sweeps.db": "--storage sweeps.db: not a database URL; expected sqlite:////FOLDER/FILE.db or postgresql://",
        "sqlite:////no/such/sweeps.db": "unable to open database file",
        "nosuch://me:geheim@host": "--storage nosuch://me:***@host: unknown kind of database",
        "sqlite://me:ge@h/eim@host:five/sweeps": "--storage sqlite://me:***@host:five/sweeps: not a database URL",
        "sqlite://me:geheim": "--storage sqlite://me:***@: not a database URL",
        "sqlite://host:five/sweeps": "--storage sqlite://host:***@: not a database URL",
        "postgresql+nodriver://me:geheim@host/sweeps": "unknown kind of database",
        "mysql+pyodbc://me:geheim@host/sweeps?password=geheim": "--storage mysql+pyodbc://me:***@host/sweeps?password=***: ",
    }.items(),
)
def test_what_is_no_database_is_said_in_a_line_without_the_password(tmp_path, url, said):
    with pytest.raises(UsageError) as refused:
        TrialQueue(url, "test", POINTS, tmp_path / "workers", ACCURACY)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "eim" not in str(refused.value)


def test_a_missing_driver_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    said = r"me:\*\*\*@host/sweeps: the Python package psycopg2? is not installed, install it with pip"
    with pytest.raises(UsageError, match=said):
        TrialQueue("postgresql://me:geheim@host/sweeps", "test", POINTS, tmp_path / "workers", ACCURACY)
