"""Whatever interrupts a run, it can be resumed, and every metric is sent once.

A run is played in this process: real journal, real sender, real files; only MLflow is a set in memory. A process that is killed
loses what it holds in memory, wherever it is.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import Journal, RunJournal, Tracker
from kdcore_mlflow.sender import Sender

STEPS = 12


class KilledError(BaseException):
    """The process is gone."""


class Store:
    """MLflow: a row that is sent again is the same row."""

    def __init__(self):
        self.rows, self.statuses = set(), {}

    def start(self, record, parent):
        self.statuses[record["run"]] = "RUNNING"
        return record["run"]

    def send(self, run, records, folder):
        for record in records:
            if record["kind"] == "metrics":
                self.rows.add((record["step"], record["values"]["loss"]))
            elif record["kind"] == "finish":
                self.statuses[run] = record["status"]


class Sends(Tracker):
    """Sends at each commit, unless its process is too slow for that, or dies of it."""

    address = "there"

    def __init__(self, store, slow=False, die=None):
        self.store, self.slow, self.die = store, slow, die

    def open(self, journal):
        self.sender = Sender(journal, self.address, lambda: self.store, refused)

    def rewind(self, position):
        if self.die == "before the note":
            raise KilledError
        self.sender.rewind(position)
        if self.die == "after the note":
            raise KilledError

    def committed(self):
        if self.slow:
            return
        if self.die == "before noting":
            self.sender._remember = self.killed
        self.sender.send()
        if self.die == "after sending":
            raise KilledError

    def killed(self, *_, **__):
        raise KilledError


class Machine:
    """A folder with a run, and the processes that work on it one after another."""

    def __init__(self, folder):
        self.folder, self.store, self.recorded, self.complete = folder, Store(), 0, False
        self.checkpoint = folder / "checkpoint.json"

    def process(self, steps, slow, die, stop):
        """Start or resume the run for at most so many steps, then stop it as SIGTERM does, or be killed."""
        saved = json.loads(self.checkpoint.read_text()) if self.checkpoint.exists() else {"step": 0, "journal": 0}
        journal = RunJournal(self.folder, Sends(self.store, slow, die if die and "note" in die else None), "e")
        journal.rewind(saved["journal"])
        journal.tracker.die = die
        journal.start("root", "run")
        for step in range(saved["step"], STEPS):
            if steps == 0:
                break
            steps -= 1
            self.recorded += 1
            journal.metrics("root", {"loss": float(self.recorded)}, step)
            if step % 2:
                self.save(journal, step + 1, die)
        else:
            journal.finish("root")
            self.save(journal, STEPS, None)
            self.complete = True
        if die == "between steps":
            raise KilledError
        if not self.complete and stop:
            self.save(journal, step, None) if steps == 0 and step % 2 == 0 else None
            journal.rewind(journal.position)
            for name in journal.under_way():
                journal.finish(name, "KILLED")
            journal.commit()

    def save(self, journal, step, die):
        position = journal.flush()
        if die == "before the checkpoint":
            raise KilledError
        self.checkpoint.write_text(json.dumps({"step": step, "journal": position}))
        if die == "before the commit":
            raise KilledError
        journal.commit()

    def sync(self):
        if (self.folder / "journal.jsonl").exists():
            journal = Journal(self.folder, writable=False)
            Sender(journal, "there", lambda: self.store, refused).send()


def refused(text):
    raise AssertionError(f"a record was not understood: {text}")


DEATHS = ("between steps", "before the checkpoint", "before the commit", "before noting", "after sending", "before the note")
DEATHS += ("after the note",)
PROCESS = st.tuples(st.integers(0, STEPS), st.booleans(), st.sampled_from((None, *DEATHS)), st.booleans())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(PROCESS, st.just("sync")), max_size=6))
def test_no_metric_is_lost_or_sent_twice(operations):
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        for operation in operations:
            with suppress(KilledError):
                if operation == "sync":
                    machine.sync()
                elif not machine.complete:
                    machine.process(*operation)
        if not machine.complete:
            machine.process(STEPS, False, None, False)
        machine.sync()
        rows = machine.store.rows
        assert sorted(step for step, _ in rows) == list(range(STEPS))
        assert machine.store.statuses == {"root": "FINISHED"}
        assert [line for line in (Path(folder) / "journal.jsonl").read_text().splitlines() if not line.startswith("{")] == []


def test_a_note_of_another_journal_is_not_trusted(tmp_path):
    """The journal was cut and written on by a process without this plugin: what was sent of the old one says nothing."""
    machine = Machine(tmp_path)
    machine.process(4, False, None, True)
    journal = RunJournal(tmp_path, None, "e")
    journal.rewind(json.loads(machine.checkpoint.read_text())["journal"])
    for step in range(4, STEPS):
        journal.metrics("root", {"loss": 100.0 + step}, step)
    journal.finish("root")
    journal.commit()
    machine.sync()
    assert sorted(step for step, _ in machine.store.rows) == list(range(STEPS))
    assert machine.store.statuses == {"root": "FINISHED"}
