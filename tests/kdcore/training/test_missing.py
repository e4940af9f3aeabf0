"""Samples that lack a teacher's signals: which rows each term and each teacher is given, and what they give."""

from __future__ import annotations

import learning
import numpy as np
import pytest
import torch
import toys
from learning import Imitate, Labels, distiller
from torch import nn
from torch.nn import functional as F

from kdcore import Batch, DataError, DistillationLoss, Needs, Outputs, TeacherFusion
from kdcore.data.pipeline import Pipeline
from kdcore.data.preparation import load_table
from kdcore.errors import TrainingError
from kdcore.training.epoch_means import NO_SAMPLES
from kdcore.training.evaluation import predict
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.preflight import preflight
from kdcore.training.step import StageStep
from kdcore.training.teacher_cache import CachedOutputs

GONE = {("s0", "a0", "t0"), ("s0", "a1", "t1"), ("s1", "a0", "t2"), ("s3", "a1", "t0")}
"""Recordings of the ankle that do not exist: three of training, one of the test part."""


def table(folder, gone=GONE, wrist_gone=(), **options):
    (folder / "recordings").mkdir()
    recordings = toys.write(folder / "recordings", trials=3)
    for name, keys in (("ankle", gone), ("wrist", wrist_gone)):
        for key in keys:
            (recordings / f"{name}-{'-'.join(key)}.npy").unlink()
    pipelines = {"teacher": Pipeline([toys.branch(toys.ANKLE, on_batches=[toys.Centre()])])}
    pipelines |= {name: Pipeline([toys.branch()]) for name in ("student", "other")}
    spec = toys.spec(**{"missing": "mask"} | options)
    cache, required = folder / "cache", [frozenset({"wrist"})] if spec.missing == "mask" else None
    made = load_table(toys.Files(recordings), toys.BySubject(), spec, pipelines, cache, 1 << 30, required=required)
    made.batch_transforms = {name: pipeline.batch_transforms for name, pipeline in pipelines.items()}
    return made


def key_of(made, row):
    key = made.keys[int(row)]
    return (key.subject, key.action, key.trial)


def present(made, rows):
    return torch.tensor([key_of(made, row) not in GONE for row in rows])


def build(made, terms=None, **options):
    """Like `learning.distiller`, from rows that everybody has."""
    rows = made.rows["train"]
    whole = made.rows["train"]
    made.rows["train"] = rows[present(made, rows)]
    try:
        return distiller(made, terms, **options)
    finally:
        made.rows["train"] = whole


def test_samples_without_the_teachers_signals_stay_and_those_without_the_students_go(tmp_path):
    with pytest.warns(UserWarning, match=r"teacher: no signals for 3 of 11 in train, 1 of 6 in test; terms that read it"):
        made = table(tmp_path, wrist_gone=[("s1", "a1", "t1")])
    assert len(made.keys) == 23
    assert made.present.keys() == {"teacher"}
    assert {key_of(made, row) for row in (~made.present["teacher"]).nonzero()} == GONE
    assert made.dropped.counts == {"no wrist": 1}


@pytest.mark.parametrize("missing", ["drop", "error"])
def test_without_mask_they_are_dropped_or_refused(tmp_path, missing):
    if missing == "error":
        with pytest.raises(DataError, match="samples lack a modality"):
            table(tmp_path, missing=missing)
        return
    with pytest.warns(UserWarning, match="4 dropped, no ankle"):
        assert len(table(tmp_path, missing=missing).keys) == 20


def test_transforms_are_fitted_on_the_rows_that_have_signals(tmp_path):
    made = table(tmp_path)
    values = [
        np.load(tmp_path / "recordings" / f"ankle-{'-'.join(key_of(made, row))}.npy")
        for row in made.rows["train"]
        if key_of(made, row) not in GONE
    ]
    before = np.stack(values).astype(np.float32).mean()
    rows = made.rows["train"][present(made, made.rows["train"])]
    got = made.batch(rows, ["teacher"]).signals["teacher"]
    expected = np.stack([each.T for each in values]).astype(np.float32) - before
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


def test_a_row_without_signals_is_never_read_in_silence(tmp_path):
    made = table(tmp_path)
    with pytest.raises(TrainingError, match="lacks the signals of one of student, teacher"):
        made.batch(made.rows["train"], ["student", "teacher"])


def test_the_gradient_of_a_term_is_that_of_the_present_rows(tmp_path):
    """Labels on all rows, imitation on those with a teacher: values and gradients worked out row by row."""
    made = table(tmp_path)
    net = build(made).eval()
    rows = made.rows["train"]
    step = StageStep(net, learning.students(), made, True)
    total, values = step(rows, rows)
    total.backward()
    found = {name: each.grad.clone() for name, each in net.named_parameters() if each.grad is not None}
    net.zero_grad()
    with torch.no_grad():
        there = rows[present(made, rows)]
        theirs = net.teachers["teacher"](made.batch(there, ["teacher"]).signals["teacher"]).features["features"]
    mine = net("student", made.batch(rows, ["student"]))
    labels = torch.stack([F.cross_entropy(mine.logits[i], made.train_labels[row]) for i, row in enumerate(rows)]).mean()
    regressor = net.losses("student")["imitate"].regressor
    picked = [i for i, row in enumerate(rows) if key_of(made, row) not in GONE]
    squared = [((regressor(mine.features["features"][i]) - theirs[n]) ** 2).mean() for n, i in enumerate(picked)]
    imitation = torch.stack(squared).mean()
    assert len(picked) == 9
    torch.testing.assert_close(torch.stack(values), torch.stack([labels, imitation]).detach())
    (labels + 0.5 * imitation).backward()
    expected = {name: each.grad for name, each in net.named_parameters() if each.grad is not None}
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        torch.testing.assert_close(found[name], each, msg=name)


def test_a_batch_without_any_present_row_gives_nothing(tmp_path):
    made = table(tmp_path)
    rows = made.rows["train"]
    absent = rows[~present(made, rows)]
    net = build(made, [TermSpec("imitate", 0.5, Imitate, teachers=("teacher",))]).eval()
    total, values = StageStep(net, learning.students(), made, True)(absent, absent)
    assert values == [NO_SAMPLES]
    assert total == 0
    total.backward()
    gradients = [each.grad for each in net.students["student"].parameters()]
    assert gradients
    assert all(each is not None and not each.any() for each in gradients)


def test_a_batch_that_is_whole_gives_what_it_gives_without_missing_signals(tmp_path):
    made = table(tmp_path)
    rows = made.rows["train"][present(made, made.rows["train"])]
    net = build(made).eval()
    masked = StageStep(net, learning.students(), made, True)
    assert masked.networks.present
    plain = StageStep(net, learning.students(), made, True)
    plain.networks.present = {}
    (total, values), (other, others) = masked(rows, rows), plain(rows, rows)
    for one, two in zip([total, *values], [other, *others], strict=True):
        assert torch.equal(one, two)


def test_a_teacher_is_trained_on_the_rows_it_has(tmp_path):
    made = table(tmp_path)
    net, seen = build(made), []
    net.teachers["teacher"].encoder.register_forward_hook(
        lambda module, args, output: seen.append(module.training * len(output))
    )
    learning.fit(net, made, [learning.teachers(epochs=1)])
    assert sum(seen) == 9
    assert made.training_rows("train", ["teacher"]).tolist() == made.rows["train"][present(made, made.rows["train"])].tolist()
    assert len(made.training_rows("train", ["teacher", "student"])) == 12


def test_training_with_a_cached_teacher_equals_training_with_a_live_one(tmp_path):
    made, states = table(tmp_path), []
    for cached in (True, False):
        net = build(made)
        settings = learning.Settings(seed=3, batch_size=3, teacher_cache=cached)
        # not Adam: it turns the rounding of a gradient that is 0, as of a bias before normalisation, into steps
        learning.fit(net, made, [learning.students(epochs=2, optimizer={"name": "sgd", "lr": 0.1})], settings)
        states.append(learning.state_of(net))
    for name, one in states[0].items():  # equal but for rounding: a matrix product's depends on the number of rows
        torch.testing.assert_close(one, states[1][name], rtol=1e-5, atol=1e-6)
    assert all(bool(torch.isfinite(each).all()) for each in states[0].values())


def test_a_learner_with_one_row_of_a_batch_sits_it_out(tmp_path):
    """Batch normalisation cannot normalise one row; nothing breaks, and nothing moves."""
    made = table(tmp_path)
    rows = made.rows["train"]
    there = present(made, rows)
    batch = torch.cat([rows[there][:1], rows[~there][:2]])
    net = build(made).train()
    before = learning.state_of(net.teachers["teacher"])
    joint = learning.stage("both", ("teacher", "student"), learning.Training(epochs=1))
    total, values = StageStep(net, joint, made, True)(batch, batch)
    total.backward()
    assert values[0] == NO_SAMPLES
    assert learning.same_state(before, learning.state_of(net.teachers["teacher"]))
    gradients = [each.grad for each in net.teachers["teacher"].parameters()]
    assert all(each is not None and not each.any() for each in gradients), "zero, not None, which DDP would wait for"


class Guided(Imitate):
    """Imitation on labelled samples."""

    needs = Needs(teachers=1, labels=True)


def test_a_term_of_labels_and_a_teacher_gets_the_rows_that_have_both(tmp_path):
    made = table(tmp_path, labels={"recordings": [{"trial": "t0"}, {"trial": "t1"}]})
    rows = made.rows["train"]
    net = build(made, [TermSpec("guided", 1.0, Guided, teachers=("teacher",))])
    [(_, context)] = StageStep(net, learning.students(), made, True).contexts(rows, rows)
    expected = [row for row in rows.tolist() if key_of(made, row) not in GONE and key_of(made, row)[2] != "t2"]
    assert len(expected) == 6
    assert context.batch.rows.tolist() == expected


class Logits(DistillationLoss):
    """Squared distance to the teacher's logits."""

    needs = Needs(teachers=1)

    def forward(self, ctx):
        [teacher] = ctx.teachers.values()
        return (ctx.student.logits - teacher.logits).square().mean()


def test_a_term_gets_only_the_samples_that_a_file_of_outputs_has(tmp_path):
    made = table(tmp_path, gone=())
    rows = made.rows["train"]
    covered, logits = rows[[1, 2, 7, 10]], torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    position = torch.full((len(made.keys),), -1)
    position[covered] = torch.arange(4)
    source = distiller(made, [TermSpec("logits", 1.0, Logits, teachers=("teacher",))])
    stored = {"teacher": CachedOutputs(position, logits, {})}
    net = Distiller({}, dict(source.students), stored=stored).eval()
    net.terms, net.specs = source.terms, source.specs
    _, [value] = StageStep(net, learning.students(), made, True)(rows, rows)
    with torch.no_grad():
        own = [net("student", made.batch(covered[n : n + 1], ["student"])).logits[0] for n in range(4)]
    expected = torch.stack([((one - other) ** 2).mean() for one, other in zip(own, logits, strict=True)]).mean()
    torch.testing.assert_close(value, expected)


def test_learners_side_by_side_each_learn_from_the_rows_that_they_have(tmp_path):
    made = table(tmp_path)
    rows = made.rows["train"]
    net = build(made, [TermSpec("labels", 1.0, Labels)]).train()
    joint = learning.stage("both", ("teacher", "student"), learning.Training(epochs=1))
    (_, context), (_, other) = StageStep(net, joint, made, True).contexts(rows, rows)
    assert context.batch.rows.tolist() == rows[present(made, rows)].tolist()
    assert len(context.student.logits) == 9
    assert context.batch.signals.keys() == {"teacher"}
    assert other.batch.rows.tolist() == rows.tolist()


class Together(TeacherFusion):
    """Adds the mean of both teachers' logits; keeps which rows it was shown."""

    def __init__(self):
        super().__init__()
        self.seen: list[list[int]] = []
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, teachers, batch: Batch):
        self.seen.append(batch.rows.tolist())
        found = super().forward(teachers, batch)
        mean = torch.stack([each.logits for each in found.values()]).mean(0) * self.scale
        return {name: Outputs(each.logits + mean, each.features) for name, each in found.items()}


def test_fused_teachers_are_present_where_all_of_them_are(tmp_path):
    (tmp_path / "recordings").mkdir()
    recordings = toys.write(tmp_path / "recordings", trials=3)
    (recordings / "ankle-s0-a0-t0.npy").unlink()
    (recordings / "wrist-s0-a0-t1.npy").unlink()
    pipelines = {"ankle": Pipeline([toys.branch(toys.ANKLE)]), "wrist": Pipeline([toys.branch()])}
    dataset, spec = toys.Files(recordings), toys.spec(missing="mask")
    for together, gone in (((), 1), (("ankle", "wrist"), 2)):
        made = load_table(
            dataset, toys.BySubject(), spec, pipelines, tmp_path / "cache", 1 << 30, required=[frozenset()], together=together
        )  # fmt: skip
        assert {name: int((~mask).sum()) for name, mask in made.present.items()} == {"ankle": gone, "wrist": gone}


def test_probabilities_are_those_of_the_rows_that_are_there_and_nan_elsewhere(tmp_path):
    made = table(tmp_path)
    net, rows = build(made).eval(), made.rows["test"]
    found = predict(net, ["teacher", "student"], rows, made, 4, learning.Fabric(accelerator="cpu", devices=1))
    there = present(made, rows).numpy()
    assert np.isnan(found["teacher"]).all(1).tolist() == (~there).tolist()
    assert np.isfinite(found["student"]).all()
    with torch.no_grad():
        own = rows[torch.from_numpy(there)]
        expected = net.teachers["teacher"](made.batch(own, ["teacher"]).signals["teacher"]).logits.softmax(1)
    np.testing.assert_allclose(found["teacher"][there], expected.numpy(), rtol=1e-6)


def test_the_checks_before_training_pass_where_most_rows_lack_signals(tmp_path):
    gone = {(f"s{s}", f"a{a}", f"t{t}") for s in (0, 1) for a in (0, 1) for t in (0, 1)}
    made = table(tmp_path, gone=gone)
    rows = made.rows["train"]
    made.rows["train"] = rows[made.present["teacher"][rows]]
    net = distiller(made)
    made.rows["train"] = rows
    found = preflight(net, [learning.students()], made, 3, False)
    assert {check.term for check in found.terms} == {"labels", "imitate"}
    assert all(check.gradient > 0 for check in found.terms)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_share_of_the_training_signals_is_left_out_by_seed(tmp_path, seed):
    with pytest.warns(UserWarning, match=rf"ankle: left out of 3 training samples \(25 %, at random, seed {seed}\)"):
        made = table(tmp_path, gone=(), missing_shares={"ankle": 0.25}, missing_seed=seed)
    absent = ~made.present["teacher"]
    assert int(absent[made.rows["train"]].sum()) == 3
    assert not absent[made.rows["validation"]].any()
    assert not absent[made.rows["test"]].any()
    again = table(
        (tmp_path / "again").mkdir() or tmp_path / "again", gone=(), missing_shares={"ankle": 0.25}, missing_seed=seed
    )
    assert torch.equal(again.present["teacher"], made.present["teacher"])
    assert again.fingerprint == made.fingerprint
    other = table((tmp_path / "x").mkdir() or tmp_path / "x", gone=(), missing_shares={"ankle": 0.25}, missing_seed=seed + 5)
    assert not torch.equal(other.present["teacher"], made.present["teacher"])


def test_a_share_of_the_students_own_signals_drops_samples(tmp_path):
    made = table(tmp_path, gone=(), missing_shares={"wrist": 0.5})
    assert len(made.rows["train"]) == 6
    assert len(made.rows["test"]) == 6
    assert made.dropped.counts == {"no wrist, left out": 6}


def test_a_share_of_a_modality_that_nobody_reads_is_refused(tmp_path):
    with pytest.raises(DataError, match="the recipe does not use 'hip'"):
        table(tmp_path, gone=(), missing_shares={"hip": 0.5})
