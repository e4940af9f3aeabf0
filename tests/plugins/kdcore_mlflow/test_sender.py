from __future__ import annotations

import pytest

from kdcore import Journal
from kdcore.errors import KdcoreError
from kdcore_mlflow.sender import RefusedError, Sender


class FakeStore:
    """Remembers what it is sent, and breaks when told to."""

    def __init__(self):
        self.got = []
        self.break_after = None
        self.refuses = set()

    def _hit(self):
        if self.break_after is not None:
            if self.break_after == 0:
                raise ConnectionError("no answer")
            self.break_after -= 1

    def start(self, record, parent):
        self._hit()
        self.got.append(("start", record["run"], parent))
        return f"id-of-{record['run']}"

    def send(self, run, records, folder):
        self._hit()
        if self.refuses & {record["n"] for record in records}:
            raise RefusedError("not a number")
        self.got.append((run, [record["n"] for record in records]))


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path, "there", "e")


def begin(journal, run="root", parent=None):
    journal.append({"kind": "start", "run": run, "parent": parent})


def metrics(journal, *numbers, run="root", width=1):
    for n in numbers:
        journal.append({"kind": "metrics", "run": run, "n": n, "values": dict.fromkeys(map(str, range(width)), 0.0)})


def sender_of(journal, store, said=None, uri="there"):
    return Sender(journal, uri, lambda: store, (said if said is not None else []).append)


def test_records_go_in_order_metrics_together_and_only_once(journal):
    store = FakeStore()
    begin(journal)
    metrics(journal, 1, 2)
    journal.append({"kind": "tags", "run": "root", "n": 3})
    metrics(journal, 4)
    journal.commit()
    sender = sender_of(journal, store)
    assert sender.waiting() == 5
    assert sender.send() == 5
    assert store.got == [("start", "root", None), ("id-of-root", [1, 2]), ("id-of-root", [3]), ("id-of-root", [4])]
    assert sender_of(journal, store).send() == 0
    assert sender.waiting() == 0


def test_children_know_their_parents_id_also_after_a_restart(journal):
    store = FakeStore()
    begin(journal)
    journal.commit()
    sender_of(journal, store).send()
    begin(journal, "seed-0", parent="root")
    journal.commit()
    sender = sender_of(journal, store)
    sender.send()
    assert store.got[-1] == ("start", "seed-0", "id-of-root")
    assert sender.runs == {"root": "id-of-root", "seed-0": "id-of-seed-0"}


def test_batches_hold_one_runs_metrics_and_at_most_a_thousand(journal):
    store = FakeStore()
    begin(journal, "a")
    begin(journal, "b")
    metrics(journal, 1, 2, run="a", width=400)
    metrics(journal, 3, run="b", width=400)
    metrics(journal, 4, 5, 6, run="b", width=300)
    journal.commit()
    sender_of(journal, store).send()
    assert store.got[2:] == [("id-of-a", [1, 2]), ("id-of-b", [3, 4, 5]), ("id-of-b", [6])]


@pytest.mark.parametrize("hits", range(4))
def test_a_broken_connection_loses_nothing_and_repeats_nothing_that_was_noted(journal, hits):
    store = FakeStore()
    begin(journal)
    for n in range(3):
        journal.append({"kind": "tags", "run": "root", "n": n})
    journal.commit()
    store.break_after = hits
    sender = sender_of(journal, store)
    with pytest.raises(ConnectionError):
        sender.send()
    assert sender.waiting() == 4 - hits
    store.break_after = None
    assert sender_of(journal, store).send() == 4 - hits
    assert store.got == [("start", "root", None), ("id-of-root", [0]), ("id-of-root", [1]), ("id-of-root", [2])]


def test_a_refused_record_does_not_hold_up_the_others_and_is_said_once(journal):
    store, said = FakeStore(), []
    store.refuses = {2, 3}
    begin(journal)
    metrics(journal, 1, 2, 3, 4)
    metrics(journal, 5, run="never-started")
    journal.commit()
    sender_of(journal, store, said).send()
    assert store.got[1:] == [("id-of-root", [1]), ("id-of-root", [4])]
    assert len(said) == 1
    assert "metrics of 'root'" in said[0]
    assert "not a number" in said[0]


def test_another_place_is_sent_everything(journal):
    store, other = FakeStore(), FakeStore()
    begin(journal)
    metrics(journal, 1)
    journal.commit()
    sender_of(journal, store).send()
    sender_of(journal, other, uri="elsewhere").send()
    assert other.got == store.got


def test_a_damaged_note_means_sending_again(journal):
    store = FakeStore()
    begin(journal)
    journal.commit()
    (journal.path.parent / "sent.json").write_text('{"uri": "there"')
    assert sender_of(journal, store).send() == 1


def test_sending_stops_when_told_and_goes_on_later(journal):
    store = FakeStore()
    begin(journal)
    journal.append({"kind": "tags", "run": "root", "n": 1})
    journal.commit()
    sender = sender_of(journal, store)
    assert sender.send(lambda: len(store.got) == 1) == 1
    assert sender.send() == 1


def test_one_journal_is_sent_by_one_process_at_a_time(journal):
    class Nosy(FakeStore):
        def start(self, record, parent):
            with pytest.raises(KdcoreError, match="another process"):
                sender_of(journal, FakeStore()).send()
            return super().start(record, parent)

    begin(journal)
    journal.commit()
    assert sender_of(journal, Nosy()).send() == 1


def test_records_committed_while_others_are_sent_are_not_skipped(journal):
    class Slow(FakeStore):
        def start(self, record, parent):
            metrics(journal, 1)
            journal.commit()
            return super().start(record, parent)

    store = Slow()
    begin(journal)
    journal.commit()
    sender = sender_of(journal, store)
    assert sender.send() == 1
    assert sender.waiting() == 1
    sender.send()
    assert store.got[-1] == ("id-of-root", [1])
