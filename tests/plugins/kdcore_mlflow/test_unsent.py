"""Records left over by a run whose server was slow, gone, or refused a call."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kdcore import Journal, RunJournal
from kdcore_mlflow.sender import RefusedError
from kdcore_mlflow.store import MlflowStore
from kdcore_mlflow.tracker import MlflowTracker, sync
from kdcore_mlflow.unsent import folders_of_unsent, note_unsent, notes, send_unsent


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))


class Server:
    """An MLflow server of one experiment that answers, waits, or refuses calls that end in a word."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.refused, self.status, self.released = "nothing", 400, threading.Event()
        self.released.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                call = self.path.partition("?")[0].rpartition("/")[2]
                server.calls.append(call)
                server.released.wait(20)
                bad = call == server.refused
                run = {"info": {"run_id": "r", "status": "RUNNING"}, "data": {}}
                body = {"experiment": {"experiment_id": "1", "name": "e", "lifecycle_stage": "active"}, "run": run}
                error = json.dumps({"error_code": "BAD_REQUEST"}) if server.status == 400 else "<html>too large</html>"
                said = (error if bad else json.dumps(body)).encode()
                self.send_response(server.status if bad else 200)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_POST = do_PATCH = do_GET  # noqa: N815 - names that the base class looks for

            def log_message(self, *_) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    made = Server()
    yield made
    made.close()


def recorded(folder, uri, said) -> RunJournal:
    journal = RunJournal(folder, MlflowTracker(uri, said.append), "e")
    journal.start("root", "name")
    for step in range(50):
        journal.metrics("root", {"loss": 1.0}, step)
        journal.commit()
    journal.tags("root", {"a": "b"})
    journal.finish("root")
    journal.commit()
    return journal


def test_a_server_that_does_not_answer_holds_up_nothing_and_gets_everything_later(tmp_path, server):
    """The command at the end of which it is sent is another process's; here, the note has another process's number."""
    server.released.clear()
    said: list[str] = []
    began = time.monotonic()
    journal = recorded(tmp_path / "run", server.uri, said)
    recording = time.monotonic() - began
    assert not journal.close(0.1)
    assert recording < 2
    assert time.monotonic() - began - recording < 1
    assert "53 records are waiting" in said[-1]
    assert f"kdcore sync {tmp_path / 'run'}" in said[-1]
    assert folders_of_unsent() == {}  # this command has done what it could
    server.released.set()
    journal.tracker._thread.join(30)
    [note] = notes().iterdir()
    note.write_text(f"0 {tmp_path / 'run'}")
    os.utime(note, (0, 0))
    send_unsent(lambda folder, stop: sync(folder, say=said.append, stop=stop.is_set), said.append, 30)
    assert said[-1].endswith(f"records that were waiting in {tmp_path / 'run'} are sent")
    assert not notes().exists()
    assert server.calls[-1] == "update"  # the end of the run


@pytest.mark.parametrize("status", [400, 413])
def test_a_refused_call_does_not_hold_up_the_others(tmp_path, server, status):
    server.refused, server.status = "log-batch", status
    said: list[str] = []
    journal = recorded(tmp_path / "run", server.uri, said)
    assert journal.close(30)
    assert len(said) == 1
    assert "cannot be tracked and stays in" in said[0]
    assert server.calls[-1] == "update"  # the end of the run


def waiting(folder, process: int = 0) -> Journal:
    journal = Journal(folder, "sqlite:///x.db", "e")
    journal.append({"kind": "start", "run": "root", "parent": None})
    journal.commit()
    note_unsent(journal)
    for note in notes().iterdir():
        text = note.read_text().partition(" ")[2]
        note.write_text(f"{process} {text}")
        os.utime(note, (0, 0))
    return journal


def test_a_failure_is_said_once_a_minute_and_never_raised(tmp_path):
    waiting(tmp_path / "run")
    said: list[str] = []

    def send(folder, stop):
        raise OSError("no network")

    for _ in range(3):
        send_unsent(send, said.append)
    assert len(said) == 1
    assert "no network" in said[0]
    assert f"kdcore sync {tmp_path / 'run'}" in said[0]


def test_a_command_waits_for_a_while_only(tmp_path):
    waiting(tmp_path / "run"), waiting(tmp_path / "other")
    said: list[str] = []
    began = time.monotonic()
    send_unsent(lambda folder, stop: stop.wait(20), said.append, 0.1)
    assert time.monotonic() - began < 5
    assert len(said) == 1
    assert "responds slowly" in said[0]


def test_what_is_gone_is_forgotten(tmp_path):
    journal = waiting(tmp_path / "run")
    assert list(folders_of_unsent().values()) == [tmp_path / "run"]
    journal.path.unlink()
    assert folders_of_unsent() == {}
    assert list(notes().iterdir()) == []


@pytest.mark.parametrize("content", [b"this is no database", b""])
def test_a_database_that_cannot_be_used_is_named_without_its_statement(tmp_path, content):
    file = tmp_path / "m.db"
    file.write_bytes(content or b"SQLite format 3\0" + bytes(100))
    said: list[str] = []
    journal = RunJournal(tmp_path / "run", MlflowTracker(f"sqlite:///{file}", said.append), "e")
    journal.start("root", "name")
    journal.commit()
    assert not journal.close(30)
    assert f"MLflow at sqlite:///{file} cannot be used (" in said[-1]
    assert "SELECT" not in said[-1]
    assert "sqlalche.me" not in said[-1]


def test_which_errors_of_a_store_are_final(monkeypatch):
    from mlflow.exceptions import MlflowException

    store = object.__new__(MlflowStore)
    for code, final in ((400, True), (413, True), (500, False), (503, False), (401, False), (429, False)):
        error = MlflowException(f"API request failed with error code {code} != 200")
        monkeypatch.setattr(store, "tags", lambda *_, error=error: (_ for _ in ()).throw(error), raising=False)
        with pytest.raises(RefusedError if final else MlflowException):
            store.send("r", [{"kind": "tags"}], None)
