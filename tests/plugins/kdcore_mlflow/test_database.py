"""A new database is whole, or it is not there."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from runs import FORKS

from kdcore_mlflow.database import ensure_database
from kdcore_mlflow.store import MlflowStore


def tables(uri: str) -> None:
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
        database.execute("create table one (a)")
        database.execute("create table two (b)")


def test_what_is_made_is_put_in_place(tmp_path):
    path = tmp_path / "there" / "mlflow.db"
    ensure_database(f"sqlite:///{path}", tables)
    assert {name for (name,) in sqlite3.connect(path).execute("select name from sqlite_master")} == {"one", "two"}
    assert list(path.parent.iterdir()) == [path]


def test_one_that_is_there_stays_and_servers_are_left_alone(tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"somebody's")
    for uri in (f"sqlite:///{path}", "http://localhost:1", "postgresql://localhost/mlflow"):
        ensure_database(uri, lambda uri: pytest.fail(uri))
    assert path.read_bytes() == b"somebody's"


def test_nothing_is_there_if_making_fails_and_the_first_of_two_wins(tmp_path):
    path = tmp_path / "mlflow.db"

    def fails(uri):
        tables(uri)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        ensure_database(f"sqlite:///{path}", fails)
    assert list(tmp_path.iterdir()) == []

    def late(uri):
        tables(uri)
        path.write_bytes(b"the other's")

    ensure_database(f"sqlite:///{path}", late)
    assert path.read_bytes() == b"the other's"
    assert list(tmp_path.iterdir()) == [path]


def open_store(uri: str, number: int) -> None:
    MlflowStore(uri, f"experiment {number}", "0")


@pytest.mark.slow
def test_processes_that_open_a_new_database_at_once_all_can(tmp_path):
    uri = f"sqlite:///{Path(tmp_path / 'mlflow.db')}"
    processes = [FORKS.Process(target=open_store, args=(uri, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found = sqlite3.connect(tmp_path / "mlflow.db").execute("select name from experiments order by name").fetchall()
    assert [name for (name,) in found] == ["Default", "experiment 0", "experiment 1", "experiment 2"]
