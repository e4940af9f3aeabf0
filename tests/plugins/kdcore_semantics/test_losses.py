"""Losses on semantic embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdcore import Batch, Example, LossContext, Needs, Outputs
from kdcore_semantics.losses import SemanticMatch, SemanticPreserving


def outputs(features, tap="fc2", batch=None):
    return Outputs(torch.zeros(batch or len(features), 3), {tap: features})


def context(student, teachers=None, labels=None, table=None):
    batch = Batch(torch.arange(len(student.logits)), {}, labels)
    return LossContext(student, teachers or {}, batch, class_embeddings=table)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_preserving_is_the_mean_squared_distance_to_the_labels_embedding(rng):
    features, table, labels = rng.normal(size=(4, 5)), rng.normal(size=(3, 5)), [2, 0, 0, 1]
    expected = np.mean([np.mean((h - table[y]) ** 2) for h, y in zip(features, labels, strict=True)])
    student = outputs(torch.tensor(features, requires_grad=True))
    loss = SemanticPreserving()(context(student, labels=torch.tensor(labels), table=torch.tensor(table)))
    loss.backward()
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-12)
    gradient = 2 * (features - table[labels]) / features.size
    np.testing.assert_allclose(student.features["fc2"].grad.numpy(), gradient, rtol=1e-12)


def test_preserving_on_published_embeddings_vanishes_at_them(recordings):
    table = torch.tensor(np.load(recordings / "class-embeddings" / "utd-mhad.glove-840b-300d.npy"))
    labels = torch.arange(27)
    assert SemanticPreserving()(context(outputs(table.clone()), labels=labels, table=table)) == 0
    off = SemanticPreserving()(context(outputs(table + 0.5), labels=labels, table=table))
    assert off.item() == pytest.approx(0.25)


def test_preserving_says_which_widths_differ():
    ctx = context(outputs(torch.zeros(2, 5)), labels=torch.zeros(2, dtype=torch.long), table=torch.zeros(3, 4))
    with pytest.raises(ValueError, match="'fc2' has 5 units, class embeddings 4"):
        SemanticPreserving()(ctx)


def test_preserving_refuses_maps():
    with pytest.raises(ValueError, match=r"'fc2' gives \(2, 5, 4, 4\)"):
        SemanticPreserving().setup(Example(outputs(torch.zeros(2, 5, 4, 4))))


@pytest.mark.parametrize("folded", [True, False])
def test_features_of_frames_are_averaged(rng, folded):
    frames, table = rng.normal(size=(2, 3, 5)), rng.normal(size=(3, 5))
    given = torch.tensor(frames.reshape(6, 5) if folded else frames)
    labels = torch.tensor([1, 2])
    loss = SemanticPreserving()(context(outputs(given, batch=2), labels=labels, table=torch.tensor(table)))
    np.testing.assert_allclose(loss.item(), np.mean((frames.mean(axis=1) - table[[1, 2]]) ** 2), rtol=1e-12)


def test_match_reduces_to_the_golden_mean(golden):
    file = golden("g_pskd_acs")
    student = outputs(torch.tensor(file["in.student_feat"], requires_grad=True), "fc0")
    teachers = {f"t{k}": outputs(torch.tensor(each), "fc2") for k, each in enumerate(file["in.teacher_feat"])}
    loss = SemanticMatch()(context(student, teachers))
    assert loss.item() == pytest.approx(float(file["mid.L_S.mean"]), rel=1e-9)
    loss.backward()
    difference = file["in.student_feat"] - file["in.teacher_feat"].mean(axis=0)
    np.testing.assert_allclose(student.features["fc0"].grad.numpy(), 2 * difference / difference.size, rtol=1e-9)


def test_match_names_the_teacher_whose_width_differs():
    teachers = {"acc": outputs(torch.zeros(2, 5)), "gyro": outputs(torch.zeros(2, 4))}
    with pytest.raises(ValueError, match=r"'fc0' of the student has 5 units, tap 'fc2' of teacher 'gyro' has 4"):
        SemanticMatch().setup(Example(outputs(torch.zeros(2, 5), "fc0"), teachers))
    del teachers["gyro"]
    SemanticMatch().setup(Example(outputs(torch.zeros(2, 5), "fc0"), teachers))


def test_needs_name_the_taps():
    assert SemanticPreserving(tap="h").needs == Needs(labels=True, class_embeddings=True, student_taps=("h",))
    assert SemanticMatch(student_tap="a", teacher_tap="b").needs == Needs(teachers=1, student_taps=("a",), teacher_taps=("b",))
