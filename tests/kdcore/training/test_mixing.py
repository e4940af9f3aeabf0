"""Mixed batches: the same mixture for every participant and in both arms, and labels by their shares."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import learning
import numpy as np
import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from learning import Imitate, Labels, distiller, students, teachers
from lightning_fabric import Fabric
from torch.nn import functional as F

from kdcore import Batch, DataError, Needs, RecipeError, load_recipe
from kdcore.data.pipeline import Pipeline
from kdcore.errors import TrainingError
from kdcore.recipe.data_models import MixSpec
from kdcore.training.epoch_means import NO_SAMPLES
from kdcore.training.mixing import Mix, draw
from kdcore.training.participants import TermSpec
from kdcore.training.preflight import preflight
from kdcore.training.sources import cached_sources
from kdcore.training.step import StageStep

CPU = torch.device("cpu")
LAYOUT = ("channel", "time")


@pytest.fixture
def table(tmp_path):
    """Without augmentation, so that a student's input is known."""
    (tmp_path / "recordings").mkdir()
    recordings = toys.write(tmp_path / "recordings", trials=3)
    pipelines = {"teacher": Pipeline([toys.branch(toys.ANKLE)]), "student": Pipeline([toys.branch()])}
    made = toys.table(toys.Files(recordings), pipelines, tmp_path / "cache")
    made.batch_transforms = {name: pipeline.batch_transforms for name, pipeline in pipelines.items()}
    return made


def watched(made, kept):
    """Notes every input of each participant's encoder in training."""
    for name in ("teacher", "student"):
        member = made.participant(name)
        member.layout = LAYOUT

        def note(module, args, name=name):
            kept.setdefault(name, []).append(args[0])

        member.encoder.register_forward_pre_hook(note)


@given(name=st.sampled_from(["mixup", "cutmix"]), alpha=st.sampled_from([0.1, 1.0, 4.0]), seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_mixtures_are_those_of_loops(name, alpha, seed):
    mix = draw(MixSpec(name=name, alpha=alpha), 5, seed, CPU)
    partner = mix.partner.tolist()
    assert sorted(partner) == list(range(5))
    assert 0 <= mix.share <= 1
    for layout, length in ((LAYOUT, 40), (("time", "channel"), 16)):
        x = torch.randn(5, *(length if axis == "time" else 2 for axis in layout), dtype=torch.float64)
        found = mix(x, layout, "x")
        along = layout.index("time")
        for i in range(5):
            for t in range(length):
                one, other = (each.movedim(along, 0)[t] for each in (x[i], x[partner[i]]))
                if name == "mixup":
                    wanted = mix.share * one + (1 - mix.share) * other
                else:
                    taken = round(mix.span[0] * length) <= t < round(mix.span[1] * length)
                    wanted = other if taken else one
                torch.testing.assert_close(found[i].movedim(along, 0)[t], wanted)
    if name == "cutmix":
        start, stop = mix.span
        assert 0 <= start <= stop + 1e-12 <= 1 + 2e-12
        assert stop - start == pytest.approx(1 - mix.share)


def test_the_seed_alone_decides_and_some_batches_stay_as_they_are():
    spec = MixSpec(name="mixup", alpha=0.4, probability=0.3)
    drawn = [draw(spec, 4, seed, CPU) for seed in range(400)]
    assert 0.2 < np.mean([each is not None for each in drawn]) < 0.4
    again = draw(spec, 4, next(seed for seed, each in enumerate(drawn) if each), CPU)
    first = next(each for each in drawn if each)
    assert torch.equal(again.partner, first.partner)
    assert again.share == first.share
    assert draw(spec, 4, None, CPU) is not None, "the check before training always mixes"


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_teacher_and_student_see_the_same_mixture_and_labels_count_by_their_shares(table, name):
    table.mix = MixSpec(name=name)
    made, kept = distiller(table), {}
    watched(made, kept)
    step = StageStep(made, students(), table, True)
    step.mix_seed, rows = 11, table.rows["train"]
    _, values = step(rows, rows)
    mix = draw(table.mix, len(rows), 11, CPU)
    for member in ("teacher", "student"):
        torch.testing.assert_close(kept[member][-1], mix(table.inputs[member][0][rows], LAYOUT, member))
    made.eval()
    labels = table.train_labels[rows]
    with torch.no_grad():
        step.mix_seed = 11
        values = step(rows, rows)[1]
        logits = made.participant("student").encoder(kept["student"][-1])
    expected = mix.share * F.cross_entropy(logits, labels) + (1 - mix.share) * F.cross_entropy(logits, labels[mix.partner])
    torch.testing.assert_close(values[0], expected)


@pytest.mark.parametrize("known", [[True, False] * 6, [False] * 12])
def test_labels_that_are_not_told_count_on_neither_side(table, known):
    rows = table.rows["train"]
    told = table.train_labels.clone()
    told[rows[~torch.tensor(known)]] = -1
    made = distiller(table, [TermSpec("labels", 1.0, Labels)]).eval()
    mixed = replace(table, mix=MixSpec(name="mixup"), train_labels=told)
    step = StageStep(made, students(taught=()), mixed, True)
    step.mix_seed = 3
    total, values = step(rows, rows)
    mix, kept = draw(mixed.mix, len(rows), 3, CPU), told[rows]
    logits = made.participant("student").encoder(mix(table.inputs["student"][0][rows], LAYOUT, "student"))
    parts = [(mix.share, kept), (1 - mix.share, kept[mix.partner])]
    expected = sum(w * F.cross_entropy(logits[y >= 0], y[y >= 0]) for w, y in parts) if any(known) else torch.zeros(())
    torch.testing.assert_close(values[0], expected.detach() if any(known) else torch.tensor(NO_SAMPLES))
    torch.testing.assert_close(total, expected)
    total.backward()
    assert all(bool(p.grad.isfinite().all()) for p in made.participant("student").parameters() if p.grad is not None)


class Weighed(Labels):
    sample_weights = True

    def forward(self, ctx):
        return (ctx.weights * F.cross_entropy(ctx.student.logits, ctx.labels, reduction="none")).sum() / ctx.weights.sum()


def test_each_label_of_a_mixed_sample_counts_by_the_weight_of_the_sample_that_it_comes_from(table):
    rows, weights = table.rows["train"], torch.arange(1.0, len(table.keys) + 1)
    made = distiller(table, [TermSpec("labels", 1.0, Weighed)]).eval()
    mixed = replace(table, mix=MixSpec(name="mixup"), weights=weights)
    step = StageStep(made, students(taught=()), mixed, True)
    step.mix_seed = 3
    with torch.no_grad():
        value = step(rows, rows)[1][0]
        mix, labels, own = draw(mixed.mix, len(rows), 3, CPU), table.train_labels[rows], weights[rows]
        logits = made.participant("student").encoder(mix(table.inputs["student"][0][rows], LAYOUT, "student"))
    expected = 0.0
    for share, whose in ((mix.share, range(len(rows))), (1 - mix.share, mix.partner.tolist())):
        losses = torch.stack([F.cross_entropy(logits[i], labels[j]) * own[j] for i, j in enumerate(whose)])
        expected += share * losses.sum() / own[list(whose)].sum()
    torch.testing.assert_close(value, expected)


def test_outputs_of_teachers_are_not_looked_up_for_mixed_batches(table):
    made, fabric = distiller(table), Fabric(accelerator="cpu", devices=1)
    stage = students()
    assert set(cached_sources(made, stage, table, 3, 1 << 30, fabric)) == {"teacher"}
    mixed = replace(table, mix=MixSpec(name="mixup"))
    assert cached_sources(made, stage, mixed, 3, 1 << 30, fabric) == {}


@pytest.mark.parametrize("sampler", ["shuffled", "balanced"])
def test_the_baseline_sees_the_same_batches_and_the_same_mixtures(table, sampler):
    table.mix, table.sampler = MixSpec(name="mixup", probability=0.7), sampler
    inputs = []
    for terms, taught in ((None, ("teacher",)), ([TermSpec("labels", 1.0, Labels)], ())):
        made, kept = distiller(table, terms), {}
        watched(made, kept)
        learning.fit(made, table, [students(epochs=2, taught=taught)])
        inputs.append(kept["student"])
    assert len(inputs[0]) == len(inputs[1]) >= 8
    assert all(torch.equal(one, other) for one, other in zip(*inputs, strict=True))


def test_teachers_that_learn_alone_are_mixed_only_if_asked(table):
    for learners, mixed in (("students", False), ("all", True)):
        table.mix = MixSpec(name="mixup", learners=learners)
        step = StageStep(distiller(table), teachers(), table, True)
        assert (step.mix is not None) == mixed


class Remembers(Imitate):
    def forward(self, ctx):
        return super().forward(ctx) + ctx.batch.rows.sum() * 0


def test_a_loss_that_remembers_samples_is_refused_before_training(table):
    table.mix = MixSpec(name="mixup", probability=0.01)
    made = distiller(table, [TermSpec("bank", 1.0, Remembers, ("teacher",))])
    with pytest.raises(DataError, match="term 'bank' of student: this loss remembers samples, and mixed ones are none"):
        preflight(made, [students()], table, 3, False)


def test_whole_numbers_are_not_mixed():
    with pytest.raises(TrainingError, match=r"the input of video is torch\.uint8"):
        Mix(torch.tensor([1, 0]), 0.5)(torch.zeros(2, 3, dtype=torch.uint8), ("channel",), "video")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["data.mix=mixup", "data.missing=mask"], r"data\.mix: does not go with missing: mask"),
        (
            ["data.mix=mixup", "teachers.offline={outputs: kept.npz}"],
            "the stored outputs of 'offline' are not those of mixed",
        ),
        (["data.mix=cutmixx"], "did you mean 'cutmix'"),
    ],
)
def test_what_cannot_be_mixed_is_refused_at_validation(changes, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe("quickstart", changes)


@pytest.mark.parametrize(
    ("labels", "partly", "classes", "empty"),
    [
        ([-1, -1], True, None, True),
        ([-1, 2], True, None, False),
        ([-1, -1], False, torch.tensor([0, 1]), True),  # of classes that the term's networks do not know
        ([0, -1], False, torch.tensor([0, 1]), False),
        ([0, 1], False, None, False),
    ],
)
def test_a_mixed_batch_without_a_known_label_is_empty_for_a_labelled_term(labels, partly, classes, empty):
    step = SimpleNamespace(_mixing=object(), _partly_labelled=partly)
    term = SimpleNamespace(classes=classes, loss=SimpleNamespace(needs=Needs(labels=True)))
    context = SimpleNamespace(batch=Batch(torch.arange(2), {}, torch.tensor(labels), ()))
    assert StageStep._is_empty(step, term, context) is empty
