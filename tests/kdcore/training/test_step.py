"""One step on partly labelled batches: which rows a term is computed on."""

from __future__ import annotations

from dataclasses import replace

import learning
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learning import Imitate, Labels, distiller
from torch.nn import functional as F

from kdcore import Batch, LossContext, Needs, Outputs
from kdcore.training.epoch_means import NO_SAMPLES
from kdcore.training.participants import TermSpec
from kdcore.training.step import StageStep


class Watch(Imitate):
    """Keeps what it was shown."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def forward(self, ctx):
        self.kept.append(ctx)
        return super().forward(ctx)


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


def partly_labelled(table, labelled):
    """The table with labels for those training rows alone that `labelled` chooses."""
    taught = table.train_labels.clone()
    rows = table.rows["train"]
    taught[rows[~torch.tensor(labelled)]] = -1
    return replace(table, train_labels=taught)


@pytest.mark.parametrize("shown", [[True] * 12, [True, False] * 6, [False] * 11 + [True], [True] + [False] * 11])
def test_the_supervised_term_is_the_mean_over_labelled_rows(table, shown):
    kept = []
    made = distiller(table, [TermSpec("labels", 1.0, Labels), TermSpec("watch", 0.5, lambda: Watch(kept), ("teacher",))])
    kept.clear()
    step = StageStep(made, learning.students(), partly_labelled(table, shown), True)
    rows = table.rows["train"]
    total, values = step(rows, rows)
    logits = kept[0].student.logits
    assert len(logits) == 12, "a term without labels sees every row"
    single = [F.cross_entropy(logits[i], table.train_labels[rows[i]]) for i in range(12) if shown[i]]
    expected = torch.stack(single).mean()
    torch.testing.assert_close(values[0], expected.detach())
    torch.testing.assert_close(total.detach(), values[0] + 0.5 * values[1])


def test_a_batch_without_labels_adds_nothing_and_has_finite_gradients(table):
    made = distiller(table)
    rows = table.rows["train"]
    step = StageStep(made, learning.students(), partly_labelled(table, [False] * 9 + [True] * 3), True)
    total, values = step(rows[:3], rows[:3])
    assert values[0] == NO_SAMPLES
    total.backward()
    found = [parameter.grad.clone() for parameter in made.participant("student").parameters()]
    assert all(bool(torch.isfinite(each).all()) for each in found)
    made.zero_grad()
    (0.5 * step.contexts(rows[:3], rows[:3])[1][0].loss(step.contexts(rows[:3], rows[:3])[1][1])).backward()
    for parameter, each in zip(made.participant("student").parameters(), found, strict=True):
        torch.testing.assert_close(each, parameter.grad if parameter.grad is not None else torch.zeros_like(each))


def test_tracked_values_leave_out_batches_without_samples(table):
    """One of the batches of an epoch has a label: the mean is its value, not a quarter of it."""
    spec = [TermSpec("labels", 1.0, Tenth), TermSpec("imitate", 1.0, Imitate, ("teacher",))]
    partly = partly_labelled(table, [True] + [False] * 11)
    _, tracked = learning.fit(distiller(table, spec), partly, [learning.students(epochs=2)])
    assert list(tracked["train/student/labels"].values()) == pytest.approx([0.1, 0.1])
    assert list(tracked["train_step/student/labels"].values()) == pytest.approx(
        [0.1] * len(tracked["train_step/student/labels"])
    )


class Tenth(Labels):
    """0.1 for any batch with labels."""

    def forward(self, ctx):
        return ctx.student.logits.sum() * 0 + 0.1


def test_a_batch_without_labels_and_other_terms_leaves_weights_as_they_are(table):
    made = distiller(table, [TermSpec("labels", 1.0, Labels)])
    rows = table.rows["train"]
    step = StageStep(made, learning.students(taught=()), partly_labelled(table, [False] * 9 + [True] * 3), True)
    total, _ = step(rows[:3], rows[:3])
    total.backward()
    assert all(not parameter.grad.any() for parameter in made.participant("student").parameters())


def test_training_on_partly_labelled_rows_stays_finite(table):
    shown = [True] + [False] * 11
    made = distiller(table)
    _, values = learning.fit(made, partly_labelled(table, shown), [learning.students(epochs=3)])
    assert all(torch.isfinite(torch.tensor(list(history.values()))).all() for history in values.values())
    assert all(bool(torch.isfinite(tensor).all()) for tensor in made.state_dict().values())


@given(st.integers(1, 6), st.integers(2, 4), st.data())
@settings(max_examples=40, deadline=None)
def test_a_context_of_some_rows_has_those_rows_of_everything(count, folds, data):
    """Also of activations with several rows per sample, and of outputs for all-zero inputs."""
    chosen = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count, unique=True))
    mixed = data.draw(st.booleans())

    def outputs(offset):
        logits = torch.arange(count * 2.0).view(count, 2) + offset
        frames = torch.arange(count * folds * 3.0).view(count * folds, 3) + offset
        blank = (
            Outputs(logits * 2, {"frames": frames * 2}) if mixed else Outputs(logits[:1] * 2, {"frames": frames[:folds] * 2})
        )
        return Outputs(logits, {"frames": frames, "late": logits * 3}, blank)

    batch = Batch(
        torch.arange(count) + 10, {"a": torch.arange(count), "b": (torch.arange(count) * 2,)}, torch.arange(count) % 2
    )
    whole = LossContext(outputs(0.0), {"t": outputs(100.0)}, batch, {"p": outputs(200.0)})
    found = whole.select(torch.tensor(chosen))
    assert found.batch.rows.tolist() == [each + 10 for each in chosen]
    assert found.batch.signals["a"].tolist() == chosen
    assert found.batch.signals["b"][0].tolist() == [each * 2 for each in chosen]
    assert found.labels.tolist() == [each % 2 for each in chosen]
    pairs = [(found.student, whole.student), (found.teachers["t"], whole.teachers["t"]), (found.peers["p"], whole.peers["p"])]
    for some, every in pairs:
        by_hand = {"logits": every.logits, "frames": every.features["frames"], "late": every.features["late"]}
        rows = [row for each in chosen for row in range(each * folds, (each + 1) * folds)]
        assert torch.equal(some.logits, torch.stack([by_hand["logits"][each] for each in chosen]))
        assert torch.equal(some.features["late"], torch.stack([by_hand["late"][each] for each in chosen]))
        assert torch.equal(some.features["frames"], torch.stack([by_hand["frames"][row] for row in rows]))
        if mixed:
            assert torch.equal(some.ablated.logits, torch.stack([every.ablated.logits[each] for each in chosen]))
            assert torch.equal(some.ablated.features["frames"], every.ablated.features["frames"][rows])
        else:
            assert torch.equal(some.ablated.logits, every.ablated.logits)
            assert torch.equal(some.ablated.features["frames"], every.ablated.features["frames"])


def test_needs_say_which_terms_a_baseline_keeps():
    assert Needs(labels=True).in_baseline
    assert not Needs(teachers=1).in_baseline
    assert not Needs(peers=1).in_baseline
    assert not Needs(baseline=False).in_baseline
