from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcore.contracts.tracker import Tracker
from kdcore.errors import KdcoreError, TrainingError
from kdcore.runs.journal import Journal, RunJournal


def committed(journal, start=0):
    return [record["n"] for _, record in journal.read(start)]


def add(journal, *numbers):
    for n in numbers:
        journal.append({"kind": "metrics", "n": n})


def test_only_what_is_committed_is_read(tmp_path):
    journal = Journal(tmp_path, "uri", "experiment")
    add(journal, 1, 2)
    assert committed(journal) == []
    journal.commit()
    add(journal, 3)
    assert committed(journal) == [1, 2]
    assert committed(Journal(tmp_path, writable=False)) == [1, 2]


def test_positions_resume_reading_behind_a_record(tmp_path):
    journal = Journal(tmp_path)
    add(journal, 1, 2, 3)
    journal.commit()
    positions = [position for position, _ in journal.read(0)]
    assert [committed(journal, position) for position in positions] == [[2, 3], [3], []]


def test_a_new_journal_says_where_it_belongs_and_an_old_one_keeps_saying_it(tmp_path):
    first = Journal(tmp_path, "http://one", "a").header
    again = Journal(tmp_path, "http://two", "b").header
    assert first == again
    assert again["uri"] == "http://one"
    assert Journal(tmp_path / "other").header["id"] != first["id"]


def test_rewinding_to_a_checkpoint_taken_between_flush_and_commit_keeps_what_it_knew(tmp_path):
    journal = Journal(tmp_path)
    add(journal, 1)
    journal.commit()
    add(journal, 2, 3)
    checkpoint = journal.flush()
    journal.close()  # killed before commit
    resumed = Journal(tmp_path)
    assert committed(resumed) == [1]
    resumed.rewind(checkpoint)
    assert committed(resumed) == [1, 2, 3]
    assert committed(Journal(tmp_path, writable=False)) == [1, 2, 3]


def test_rewinding_forgets_what_came_after_the_checkpoint(tmp_path):
    journal = Journal(tmp_path)
    add(journal, 1)
    checkpoint = journal.flush()
    journal.commit()
    add(journal, 2)
    journal.commit()
    resumed = Journal(tmp_path)
    resumed.rewind(checkpoint)
    add(resumed, 20)
    resumed.commit()
    assert committed(resumed) == [1, 20]
    resumed.rewind(0)
    assert committed(resumed) == []
    assert resumed.header == journal.header


@given(st.integers(0, 400))
def test_a_file_cut_anywhere_loses_only_its_end(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder, "u", "e")
    for n in range(4):
        add(journal, n)
        journal.commit()
    content = journal.path.read_bytes()
    kept = content[:cut]
    journal.path.write_bytes(kept)
    reopened = Journal(folder, "u", "e")
    commits = kept.count(b'"commit"}\n')
    assert committed(reopened) == list(range(commits))
    add(reopened, 99)
    reopened.commit()
    assert committed(reopened)[-1] == 99


def test_a_folder_without_a_journal_and_a_file_that_is_none_are_named(tmp_path):
    with pytest.raises(KdcoreError, match="holds no journal"):
        Journal(tmp_path, writable=False)
    (tmp_path / "journal.jsonl").write_text("something else\n")
    with pytest.raises(KdcoreError, match="is not a journal"):
        Journal(tmp_path, writable=False)


def test_a_disk_that_takes_no_more_leaves_whole_lines(tmp_path):
    journal = Journal(tmp_path)
    add(journal, 1)
    inner = journal._file

    class Full:
        def write(self, line):
            return inner.write(line[: len(line) // 2])

        def __getattr__(self, name):
            return getattr(inner, name)

    journal._file = Full()
    with pytest.raises(TrainingError, match="disk is full"):
        add(journal, 2)
    journal._file = inner
    journal.commit()
    assert committed(Journal(tmp_path)) == [1]


def test_no_two_names_become_one_and_trackers_take_them_all(tmp_path):
    from mlflow.utils.validation import _validate_metric_name

    journal = RunJournal(tmp_path, Tracker(), "experiment")
    names = ["höhe", "hähe", "h_he", "a+b", "a*b", "a_b", "/a", "a/", "a//b", "a/./b", "mae/..", "..", ".", "é", "a\n", "a"]
    names += ["x" * 250, "x" * 251, "x" * 252, "e\u0302\u0303", "日本/語"]
    journal.metrics("root", {name: n for n, name in enumerate(names)}, 0)
    journal.params("root", {name: n for n, name in enumerate(names)})
    journal.commit()
    metrics, params = (record["values"] for _, record in journal.file.read(0))
    assert [*metrics.values()] == [float(n) for n in range(len(names))]
    assert [*params.values()] == [str(n) for n in range(len(names))]
    for name in (*metrics, *params):
        _validate_metric_name(name)
        assert len(name) <= 250
    assert {"höhe", "a_b", "日本/語", "x" * 250} <= {*metrics}, "what is valid stays as it is"


def test_runs_under_way_are_listed_latest_first_so_that_seeds_end_before_their_parent(tmp_path):
    journal = RunJournal(tmp_path)
    journal.start("root", "run")
    for seed in (0, 1, 2):
        journal.start(f"seed-{seed}", f"seed {seed}", "root")
    journal.finish("seed-1")
    journal.commit()
    journal.start("seed-3", "seed 3", "root")  # not committed
    assert journal.under_way() == ["seed-2", "seed-0", "root"]
