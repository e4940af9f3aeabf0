"""Students of different modalities that learn from each other, on samples that lack the signals of one of them."""

from __future__ import annotations

from dataclasses import replace

import learning
import pytest
import torch
import toys
from learning import Labels
from torch.nn import functional as F

from kdcore import DistillationLoss, Example, Needs
from kdcore.data.pipeline import Pipeline
from kdcore.data.preparation import load_table
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.step import StageStep

NO_ANKLE = {("s0", "a0", "t0"), ("s1", "a1", "t1"), ("s3", "a0", "t1")}
NO_WRIST = {("s0", "a1", "t2"), ("s1", "a1", "t1")}
"""Recordings that do not exist. The one of s3 is in the test split."""


class Peers(DistillationLoss):
    """Squared distance to the peer's logits."""

    needs = Needs(peers=1)

    def forward(self, ctx):
        (peer,) = ctx.peers.values()
        return (ctx.student.logits - peer.logits).square().mean()


@pytest.fixture
def table(tmp_path):
    (tmp_path / "recordings").mkdir()
    recordings = toys.write(tmp_path / "recordings", trials=3)
    for name, keys in (("ankle", NO_ANKLE), ("wrist", NO_WRIST)):
        for key in keys:
            (recordings / f"{name}-{'-'.join(key)}.npy").unlink()
    pipelines = {"ankle": Pipeline([toys.branch(toys.ANKLE)]), "wrist": Pipeline([toys.branch()])}
    required = [frozenset({"ankle"}), frozenset({"wrist"})]
    with pytest.warns(UserWarning, match=r"1 dropped, no ankle \(subjects s3\)"):
        return load_table(
            toys.Files(recordings), toys.BySubject(), toys.spec(missing="mask"), pipelines, tmp_path / "cache", 1 << 30,
            required=required,
        )  # fmt: skip


def build(made):
    members = {"ankle": toys.participant("ankle", 3, seed=1), "wrist": toys.participant("wrist", 2, seed=2)}
    net = Distiller({}, members).eval()
    rows = made.complete_rows(["ankle", "wrist"], made.rows["train"])
    batch = made.batch(rows, ["ankle", "wrist"])
    for name, peer in (("ankle", "wrist"), ("wrist", "ankle")):
        example = Example(net(name, batch), {}, 2, peers={peer: net(peer, batch)})
        specs = [TermSpec("labels", 1.0, Labels), TermSpec("peers", 0.5, Peers, peers=(peer,))]
        net.add_terms(name, specs, lambda _, example=example: example)
    return net


def keys(made, rows):
    return {(key.subject, key.action, key.trial) for key in (made.keys[int(row)] for row in rows)}


def test_samples_that_no_student_can_use_are_dropped_and_tests_are_equal_for_all(table):
    every = {(f"s{s}", f"a{a}", f"t{t}") for s in (0, 1) for a in (0, 1) for t in range(3)}
    assert keys(table, table.training_rows("train", ["ankle", "wrist"])) == every - (NO_ANKLE & NO_WRIST)
    assert keys(table, table.training_rows("train", ["ankle"])) == every - NO_ANKLE
    assert keys(table, table.training_rows("train", ["wrist"])) == every - NO_WRIST
    assert ("s3", "a0", "t1") not in keys(table, table.rows["test"])
    assert len(table.rows["test"]) == 5
    assert table.dropped.counts == {"no ankle": 1}


def test_each_student_learns_from_its_own_samples_and_from_its_peer_where_both_have_signals(table):
    net = build(table)
    rows = table.training_rows("train", ["ankle", "wrist"])
    stage = learning.stage("both", ("ankle", "wrist"), learning.Training(epochs=1))
    total, values = StageStep(net, stage, table, True)(rows, rows)
    total.backward()
    found = {name: each.grad.clone() for name, each in net.named_parameters() if each.grad is not None}
    net.zero_grad()
    logits = {
        name: {int(row): net(name, table.batch(row[None], [name])).logits[0] for row in table.training_rows("train", [name])}
        for name in ("ankle", "wrist")
    }
    assert [len(each) for each in logits.values()] == [10, 10]
    both = sorted(logits["ankle"].keys() & logits["wrist"].keys())
    assert len(both) == 9
    expected = []
    for name, peer in (("ankle", "wrist"), ("wrist", "ankle")):
        own = [F.cross_entropy(each, table.train_labels[row]) for row, each in logits[name].items()]
        apart = [(logits[name][row] - logits[peer][row].detach()).square().mean() for row in both]
        expected += [torch.stack(own).mean(), torch.stack(apart).mean()]
    torch.testing.assert_close(torch.stack(values), torch.stack(expected).detach())
    (expected[0] + 0.5 * expected[1] + expected[2] + 0.5 * expected[3]).backward()
    for name, each in net.named_parameters():
        if each.grad is not None:
            torch.testing.assert_close(found[name], each.grad, msg=name)


def test_a_batch_with_one_sample_of_a_student_does_not_train_it(table):
    net = build(table)
    lacking = keys(table, table.rows["train"]) & NO_ANKLE
    rows = torch.tensor([row for row in table.rows["train"].tolist() if keys(table, [row]) <= lacking])
    others = table.complete_rows(["ankle", "wrist"], table.rows["train"])[:1]
    batch = torch.cat([rows, others])
    stage = learning.stage("both", ("ankle", "wrist"), learning.Training(epochs=1))
    StageStep(net, stage, table, True)(batch, batch)[0].backward()
    assert all(not each.grad.any() for each in net.students["ankle"].parameters())
    assert any(each.grad.any() for each in net.students["wrist"].parameters())


def test_the_baseline_of_one_student_has_the_batches_of_both(table):
    """Also if only that student has a baseline: the same rows, steps and optimizer steps as with its peer."""
    both = learning.stage("both", ("ankle", "wrist"), learning.Training(epochs=2))
    alone = replace(both, learners=("wrist",), training={"wrist": both.training["wrist"]})
    steps, batches = [], []
    for stage in (both, alone):
        net = build(table)
        if stage is alone:
            net.specs["wrist"] = {"labels": net.specs["wrist"]["labels"]}
        runner, _ = learning.fit(net, table, [stage])
        steps.append(runner.learners["wrist"].steps)
        batches.append(table.training_rows(stage.split, stage.rows_of).tolist())
    assert steps[0] == steps[1] == 2 * (11 // learning.SETTINGS.batch_size)
    assert batches[0] == batches[1]
    assert len(table.training_rows("train", ["wrist"])) == 10
