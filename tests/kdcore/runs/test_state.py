"""State files that were edited or damaged, and processes that meet at one run."""

from __future__ import annotations

import json
import multiprocessing
import os
import re

import pytest

from kdcore import Journal
from kdcore.errors import CheckpointError
from kdcore.runs.lock import locked
from kdcore.runs.state import RunState, check_state

GOOD = {"done": [[0, "distilled"]], "journal": 7, "complete": False, "command": ["kdcore"], "split": "test", "retrain": False}
GOOD |= {"trained": {"0/distilled": {"student": [2, 8, ""]}}, "extends": {}}


def test_a_state_is_read_as_it_was_written(tmp_path):
    trained = {"0/distilled": {"student": (2, 8, "")}}
    state = RunState([(0, "distilled")], 7, False, ("kdcore",), "test", False, trained)
    state.write(tmp_path)
    assert RunState.read(tmp_path) == state
    assert json.loads((tmp_path / "progress.json").read_text()) == GOOD


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{\n"done": [,', "progress.json:2: damaged: "),
        ("[]", "progress.json:1: damaged: 'done' is missing"),
        ("null", "progress.json:1: damaged: 'done' is missing"),
        (json.dumps({**GOOD, "journal": "7"}), "progress.json:1: damaged: 'journal' is missing, or is not what was written"),
        (json.dumps({**GOOD, "done": [[0]]}), "'done' is missing, or"),
        (json.dumps({**GOOD, "done": [["0", "distilled"]]}), "'done' is missing, or"),
        (json.dumps({**GOOD, "trained": {"0/distilled": {"student": [2, 8]}}}), "'trained' is missing, or"),
        (json.dumps({**GOOD, "complete": 0}), "'complete' is missing, or"),
        (json.dumps({**GOOD, "command": "kdcore"}), "'command' is missing, or"),
        (json.dumps({name: each for name, each in GOOD.items() if name != "split"}), "'split' is missing, or"),
    ],
)
def test_a_damaged_state_is_named_by_file_and_line(tmp_path, content, said):
    (tmp_path / "progress.json").write_text(content)
    with pytest.raises(CheckpointError, match=re.escape(said) + ".*; restore the file, or start again: kdcore run "):
        RunState.read(tmp_path)


@pytest.mark.parametrize("state", [{}, {"seed": 0, "arm": "distilled"}, {"seed": "0", "arm": "distilled", "journal": 1}])
def test_a_checkpoint_without_what_a_run_needs_is_named(tmp_path, state):
    with pytest.raises(CheckpointError, match=r"state\.pt is damaged: '(seed|journal)' is missing"):
        check_state(state, tmp_path)


def test_a_damaged_line_of_the_journal_costs_that_line_alone(tmp_path):
    journal = Journal(tmp_path, "there", "e")
    for number in range(4):
        journal.append({"kind": "metrics", "run": "root", "number": number})
    journal.commit()
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[2] = b'{"kind": "met\n'
    journal.path.write_bytes(b"".join(lines))
    found = [record for _, record in Journal(tmp_path, writable=False).read(0)]
    assert [each.get("number") for each in found] == [0, None, 2, 3]
    assert found[1] == {"kind": "damaged", "run": "", "line": 3}


def hold(folder, ready, leave):
    with locked(folder):
        ready.set()
        leave.wait(60)


def test_the_holder_of_a_run_is_named_and_a_dead_one_holds_nothing(tmp_path):
    processes = multiprocessing.get_context("fork")
    ready, leave = processes.Event(), processes.Event()
    other = processes.Process(target=hold, args=(tmp_path, ready, leave))
    other.start()
    try:
        assert ready.wait(60)
        said = rf"{tmp_path.name} is being run by process {other.pid} on {os.uname().nodename}, since 20.*; wait until it ends"
        with pytest.raises(CheckpointError, match=said), locked(tmp_path):
            pass
    finally:
        other.kill()
        other.join()
    assert (tmp_path / "run.lock.json").exists()  # left behind by the one that was killed
    with locked(tmp_path):
        assert json.loads((tmp_path / "run.lock.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "run.lock.json").exists()


def test_a_missing_state_is_not_that_of_a_new_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"progress\.json is missing; restore the file, or start again: kdcore run "):
        RunState.read(tmp_path)
