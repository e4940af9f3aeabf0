"""Partly labelled data: which labels training is told, and what is said and refused."""

from __future__ import annotations

from dataclasses import replace

import learning
import pytest
import torch
import toys

from kdcore import DataError, RecipeError, SampleKey, load_recipe
from kdcore.contracts.target import Target
from kdcore.data.labels import recordings_of, training_labels
from kdcore.data.pipeline import Pipeline
from kdcore.data.targets import target_warnings, with_statistics
from kdcore.recipe.data_models import DataSpec


class Gaps(toys.Files):
    """The files, those of some keys without a label."""

    def __init__(self, root, gone):
        super().__init__(root)
        self.gone = gone

    def samples(self):
        return [replace(each, label=None) if self.gone(each.key) else each for each in super().samples()]


def table(folder, gone=lambda key: False, **options):
    (folder / "recordings").mkdir()
    recordings = toys.write(folder / "recordings", trials=3)
    pipelines = {
        name: Pipeline([toys.branch(modality)]) for name, modality in (("student", toys.WRIST), ("teacher", toys.ANKLE))
    }
    made = toys.table(Gaps(recordings, gone), pipelines, folder / "cache", **options)
    made.batch_transforms = {name: pipeline.batch_transforms for name, pipeline in pipelines.items()}
    return made


def told(made):
    """(subject, action, trial) of every row whose label training is told."""
    keys = [made.keys[row] for row in (made.train_labels >= 0).nonzero().flatten().tolist()]
    return {(key.subject, key.action, key.trial) for key in keys}


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ({"subjects": ["s1"]}, {("s1", f"a{a}", f"t{t}") for a in range(2) for t in range(3)}),
        (
            {"recordings": [{"subject": "s0", "action": "a1"}, {"trial": "t2"}]},
            {("s0", "a1", f"t{t}") for t in range(3)} | {(f"s{s}", f"a{a}", "t2") for s in range(2) for a in range(2)},
        ),
    ],
)
def test_listed_samples_alone_keep_their_label(tmp_path, labels, wanted):
    with pytest.warns(UserWarning, match=f"{len(wanted)} of 12 samples of the train split are labelled"):
        made = table(tmp_path, labels=labels)
    assert told(made) == wanted
    assert bool((made.labels >= 0).all()), "evaluation knows them all"


def test_samples_without_a_label_are_learnt_from_and_not_evaluated(tmp_path):
    gone = {("s0", "t1"), ("s1", "t0"), ("s3", "t2"), ("s2", "t0")}
    with pytest.warns(UserWarning, match="labelled|label") as said:
        made = table(tmp_path, lambda key: (key.subject, key.trial) in gone, labels="partial", sampler="balanced")
    messages = [str(each.message) for each in said]
    assert messages == [
        "8 of 12 samples of the train split are labelled",
        "2 of 6 validation samples have no label and are not evaluated",
        "2 of 6 test samples have no label and are not evaluated",
    ]
    assert len(told(made)) == 8
    assert len(made.training_rows("train")) == 12
    _, values = learning.fit(learning.distiller(made), made, [learning.students(epochs=1)])
    scores = values["validation/student/accuracy"].values()
    assert all((4 * score).is_integer() for score in scores), "of the four that have a label"


def test_a_class_whose_training_samples_have_no_label_is_an_alarm(tmp_path):
    gone = lambda key: key.action == "a1" and key.subject in ("s0", "s1")  # noqa: E731
    with pytest.raises(DataError, match="at least two classes"):
        table(tmp_path, gone, labels="partial")
    (tmp_path / "recordings").rename(tmp_path / "other")
    with pytest.warns(UserWarning, match="tested without a labelled training sample: 'class 1'"):
        table(tmp_path, labels={"recordings": [{"action": "a0"}]})


@pytest.mark.parametrize(
    ("gone", "labels", "said"),
    [
        (lambda key: key.subject == "s0", "given", r"train split has samples without a label: 6, .*data\.labels: partial"),
        (lambda key: key.subject == "s3", "partial", "no sample of the test split has a label"),
        (None, {"subjects": ["s1", "s11"]}, r"no training sample is subject s11 \(did you mean 's1'\?\)"),
        (None, {"subjects": ["s3"]}, "no training sample is subject s3"),
        (
            None,
            {"recordings": [{"subject": "s0", "trial": 9}]},
            r"no training sample is subject s0, trial 9 \(trial is one of: .+\)",
        ),
        (None, {"recordings": [{"action": "wave"}]}, r"no training sample is action wave \(action is one of: a0, a1"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, gone, labels, said):
    with pytest.raises(DataError, match=said):
        table(tmp_path, gone or (lambda key: False), labels=labels)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("{share: 0.1, subjects: [1]}", r"data\.labels\.subjects: 'subjects' does not go with 'share'"),
        ("{seed: 3}", "have one of 'share', 'subjects' and 'recordings'"),
        ("{subjects: [1], seed: 3}", "'seed' requires 'share'"),
        ("{subjects: []}", "must not be empty"),
        ("{recordings: [{subjct: 1}]}", "subjct"),
        ("partly", "did you mean 'partial'"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused_at_validation(labels, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe("quickstart", ["data.labels=null", f"data.labels={labels}"])


@pytest.mark.parametrize(("rows", "said"), [([[1, 0], [0, 1]], True), ([[1, 1], [0, 1]], False), ([[0, 0], [0, 1]], False)])
def test_labels_that_exclude_each_other_are_said_to_look_like_classes(rows, said):
    labels = torch.tensor(rows * 2, dtype=torch.float32)
    found = target_warnings(labels, labels, {"train": torch.arange(2), "test": torch.arange(2, 4)}, Target("labels"), "ab")
    assert any("give classes instead" in each for each in found) == said


def test_values_are_normalised_by_the_training_samples_alone():
    told = torch.tensor([[1.0], [3.0], [100.0], [torch.nan], [500.0]])
    rows = {"train": torch.tensor([0, 1, 3]), "transfer": torch.tensor([2]), "test": torch.tensor([4])}
    found = with_statistics(Target("values"), told, rows, ["a"])
    assert (found.mean, found.std) == ((2.0,), (1.0,))
    rows["train"] = torch.tensor([3])
    told[3:, 0], rows["transfer"] = torch.nan, torch.tensor([0, 1])
    assert with_statistics(Target("values"), told, rows, ["a"]).mean == (2.0,), "of what else is learnt from"


def test_nothing_is_said_of_a_label_that_no_test_sample_is_told():
    train, test = [[1.0, 0.0], [0.0, 1.0]], [[1.0, torch.nan], [0.0, torch.nan]]
    labels = torch.tensor(train + test)
    found = target_warnings(labels, labels, {"train": torch.arange(2), "test": torch.arange(2, 4)}, Target("labels"), "ab")
    assert found == ["2 of 2 test samples lack some labels, which do not count: 'b' (2)"]


@pytest.mark.parametrize(
    ("kind", "answer", "action"),
    [
        ("classes", 1, "b"),
        ("classes", None, "unlabelled"),
        ("labels", (1.0, 0.0, 1.0), "a+c"),
        ("labels", (torch.nan, 0.0, 1.0), "c"),
        ("labels", (0.0, 0.0, 0.0), "none"),
        ("values", (1.0, 1.0, 1.0), "recording"),
    ],
)
def test_an_action_says_what_a_sample_has(kind, answer, action):
    assert Target(kind).action_of(answer, "abc") == action


def test_labels_that_are_not_known_are_not_among_those_a_sample_has():
    assert Target("labels").labels_of((1.0, torch.nan, 0.0), "abc") == ["a"]


@pytest.mark.parametrize("windows", [1, 7])
@pytest.mark.parametrize(
    "options", [{"labels": {"share": 0.3}}, {"label_noise": 0.3}, {"labels": {"share": 0.3}, "label_noise": 0.2}]
)
def test_shares_and_noise_are_drawn_by_recording(options, windows):
    keys = [SampleKey(f"s{number % 5}", "walk", f"t{number}", window=w) for number in range(40) for w in range(1, windows + 1)]
    labels = torch.tensor([number % 3 for number in range(40)])
    spec = DataSpec(dataset={"name": "x"}, protocol={"name": "y"}, **options)
    found = training_labels(labels.repeat_interleave(windows), {"train": torch.arange(40 * windows)}, spec, 3, keys)
    found = found.reshape(40, windows)
    assert bool((found == found[:, :1]).all()), "all windows of a recording have the same training label"
    whole = [replace(key, window=0) for key in keys[::windows]]
    assert torch.equal(found[:, 0], training_labels(labels, {"train": torch.arange(40)}, spec, 3, whole))
    if "label_noise" not in options:
        counts = {label: int((found[:, 0] == label).sum()) for label in range(3)}
        assert counts == {label: round(0.3 * int((labels == label).sum())) for label in range(3)}
    elif "labels" not in options:
        assert int((found[:, 0] != labels).sum()) == round(0.3 * 40)


def test_windows_are_grouped_by_recording_in_any_order():
    names = [("a", 3), ("b", 1), ("a", 1), ("b", 2), ("c", 0)]
    first, recording = recordings_of([SampleKey(subject, "walk", "1", window=window) for subject, window in names])
    assert first.tolist() == [0, 1, 4]
    assert recording.tolist() == [0, 1, 0, 1, 2]
