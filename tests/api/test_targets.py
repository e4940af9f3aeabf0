"""Runs on labels, values and weighted samples, from arrays to predictions."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, mean_absolute_error, r2_score

import kdcore
from kdcore import ArrayDataset, DataError, RecipeError
from kdcore.data.targets import check_targets
from kdcore.runs.evaluation import evaluate_run
from kdcore_losses.binary_cross_entropy import BinaryCrossEntropy

random = np.random.default_rng(0)
N = 48
TRUE = (random.random((N, 3)) < 0.4).astype(int)
WAVES = np.sin(2 * np.pi * np.array([1, 3, 6.0])[:, None] * np.arange(32) / 32)
CLEAN = np.einsum("nl,lt->nt", TRUE, WAVES)[..., None] * np.array([1, 0.5, 0.2])
SUBJECTS = np.repeat(np.arange(8), 6)
NAMES = ["walk", "talk", "wave"]
HEARTS = 60 + 20 * CLEAN[..., 0].std(1)


def dataset(**told):
    """Of recordings with little and with much noise."""
    noise = np.random.default_rng(1).normal(size=(2, N, 32, 3))
    signals = {"good": (CLEAN + 0.2 * noise[0], 32.0), "bad": (CLEAN + noise[1], 32.0)}
    return kdcore.ArrayDataset(
        {name: (x.astype(np.float32), rate) for name, (x, rate) in signals.items()}, subjects=SUBJECTS, **told
    )


def recipe(supervised, distilled, **changed):
    network = {"transforms": ["normalise"], "encoder": {"name": "cnn1d", "width": 4, "depth": 2}}
    return {
        "version": 1,
        "name": "targets",
        "data": {"protocol": {"name": "cross-subject", "validation_subjects": 1}, "batch_size": 8, **changed.pop("data", {})},
        "teachers": {"t": {"modality": "good", **network}},
        "teacher_losses": [supervised],
        "student": {"modality": "bad", **network},
        "losses": [supervised, distilled],
        "training": {"epochs": 2, "select": "best"},
        **changed,
    }


def values_data(**told):
    return dataset(values={"heart rate": HEARTS}, units={"heart rate": "bpm"}, **told)


def problems(tree, data):
    with pytest.raises(RecipeError) as error:
        kdcore.load_recipe(tree, data=data)
    return [(each.path, str(each)) for each in error.value.problems]


@pytest.fixture(scope="module")
def of_labels(tmp_path_factory):
    """A run on labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDCORE_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.chdir(tmp_path_factory.mktemp("here"))
        return kdcore.run(recipe("binary-cross-entropy", "bce"), data=dataset(labels=TRUE, classes=NAMES))


@pytest.fixture(scope="module")
def of_values(tmp_path_factory):
    """A run on values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDCORE_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.chdir(tmp_path_factory.mktemp("here"))
        return kdcore.run(recipe("regression", "logits", seeds=[0, 1]), data=values_data())


class TestLabels:
    def test_table_gain_and_facts(self, of_labels):
        assert [*of_labels.table.columns][5:10] == ["map", "macro_f1", "micro_f1", "subset_accuracy", "loss"]
        assert "points of mAP" in of_labels.summary.answer
        facts = json.loads((of_labels.folder / "run.json").read_text())
        assert facts["target"]["kind"] == "labels"
        assert facts["classes"] == NAMES

    def test_the_report_has_labels_and_no_confusion_matrix(self, of_labels):
        page = of_labels.report.read_text()
        assert "Results of each label" in page
        assert "Confusion matrix" not in page

    def test_the_student_answers_with_independent_probabilities(self, of_labels):
        student = of_labels.student()
        assert student.target.kind == "labels"
        x = CLEAN[0].astype(np.float32)
        logits = student(student.preprocess(x)).detach().numpy().astype(np.float64)
        np.testing.assert_allclose(student.predict(x), 1 / (1 + np.exp(-logits)), rtol=1e-6)

    def test_without_its_arrays_the_run_is_still_read(self, of_labels):
        compared = of_labels.folder / "recipe.yaml"
        assert kdcore.load_recipe(compared, files=False).name == "targets"
        with pytest.raises(RecipeError, match="an object that must be passed in Python"):
            list(evaluate_run(str(of_labels.folder)))


class TestValues:
    def test_table_gain_and_facts(self, of_values):
        assert [*of_values.table.columns][5:8] == ["mae", "rmse", "r2"]
        assert "bpm of MAE" in of_values.summary.answer
        assert "lower is better" in of_values.summary.answer

    def test_the_students_file_carries_the_training_statistics(self, of_values):
        told = json.loads((of_values.folder / "students/seed-0/student/student.json").read_text())["target"]
        train = HEARTS[np.isin(SUBJECTS, [0, 2, 4])]  # the first, third, fifth … subject, less one for validation
        assert told["units"] == ["bpm"]
        assert told["mean"] == pytest.approx([train.mean()], rel=1e-5)
        assert told["std"] == pytest.approx([train.std()], rel=1e-5)

    def test_the_student_answers_in_units(self, of_values):
        student = of_values.student()
        x = CLEAN[0].astype(np.float32)
        raw = student(student.preprocess(x)).detach().numpy()
        np.testing.assert_allclose(student.predict(x), raw * student.target.std + student.target.mean, rtol=1e-5)
        assert "values: heart rate [bpm]" in student.extra_repr()

    def test_the_report_has_a_scatter_plot(self, of_values):
        page = of_values.report.read_text()
        assert "Results of each value" in page
        assert "Estimates and true values" in page

    def test_a_damaged_target_is_refused(self, of_values, tmp_path):
        folder = tmp_path / "student"
        folder.mkdir()
        for path in (of_values.folder / "students/seed-0/student").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        told = json.loads((folder / "student.json").read_text())
        told["target"]["std"] = [2 * told["target"]["std"][0]]
        (folder / "student.json").write_text(json.dumps(told))
        with pytest.raises(kdcore.KdcoreError, match="disagree about target"):
            kdcore.load_student(folder)


class TestRefusedBeforeTraining:
    def test_losses_of_classes_name_those_that_do(self):
        tree = recipe("cross-entropy", "soft-target")
        found = dict(problems(tree, dataset(labels=TRUE, classes=NAMES)))
        assert "'binary-cross-entropy'" in found["losses[0]"]
        assert "'bce'" in found["losses[1]"]
        assert "'binary-cross-entropy'" in found["teacher_losses[0]"]
        assert "'regression'" in dict(problems(tree, values_data()))["losses[0]"]

    def test_losses_of_labels_are_not_for_classes(self):
        labels = [NAMES[n % 3] for n in range(N)]
        assert (
            "'cross-entropy'" in dict(problems(recipe("binary-cross-entropy", "logits"), dataset(labels=labels)))["losses[0]"]
        )

    @pytest.mark.parametrize(
        ("changed", "path"),
        [
            ({"data": {"sampler": "balanced"}}, "data.sampler"),
            ({"data": {"label_noise": 0.1}}, "data.label_noise"),
            ({"data": {"protocol": {"name": "stratified-subject-folds", "folds": 2, "fold": 1}}}, "data.protocol"),
            ({"training": {"epochs": 2, "early_stopping": {"patience": 1}}}, "training.early_stopping.metric"),
            (
                {"training": {"learning_rate": {"name": "plateau", "monitor": "validation-accuracy"}}},
                "training.learning_rate.monitor",
            ),
        ],
    )
    def test_what_counts_classes(self, changed, path):
        found = problems(recipe("binary-cross-entropy", "bce", **changed), dataset(labels=TRUE, classes=NAMES))
        assert [each for each, _ in found] == [path]

    def test_standardised_logits_of_values(self):
        tree = recipe("regression", {"name": "logits", "standardise": True})
        assert "with these options" in dict(problems(tree, values_data()))["losses[1]"]

    def test_losses_that_do_not_heed_weights(self):
        labels = [NAMES[n % 3] for n in range(N)]
        found = problems(recipe("cross-entropy", "dkd"), dataset(labels=labels, weights=np.arange(1, N + 1)))
        assert [each for each, _ in found] == ["losses[1]"]
        assert "ignores the weights" in found[0][1]


def student_weights(result):
    return (result.folder / "students/seed-0/student/weights.safetensors").read_bytes()


def test_weights_of_one_are_no_weights_to_the_bit_and_others_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    labels = [NAMES[n % 3] for n in range(N)]
    tree = recipe("cross-entropy", "soft-target", baseline=False, training={"epochs": 1})
    results = [
        kdcore.run(tree, data=dataset(labels=labels, **told))
        for told in ({}, {"weights": np.ones(N)}, {"weights": np.linspace(0.1, 5, N)})
    ]
    plain, ones, others = map(student_weights, results)
    assert ones == plain
    assert others != plain
    outcome = kdcore.read_run(results[2].folder).outcomes["distilled"][0]
    accuracy = (outcome.probabilities["student"].argmax(1) == outcome.labels).mean()
    assert results[2].table.set_index("participant").loc["student", "accuracy"] == pytest.approx(accuracy)
    said = [any("metrics count every sample alike" in note for note in each.summary.notes) for each in results]
    assert said == [False, False, True]


def test_stored_outputs_of_values_are_in_units(tmp_path):
    import torch

    from kdcore.contracts.dataset import SampleKey
    from kdcore.training.stored_outputs import StoredOutputs, join_outputs, load_outputs, write_outputs
    from kdcore.training.teacher_cache import CachedOutputs

    keys, logits = [SampleKey("1", "a", str(n)) for n in range(4)], torch.randn(4, 1)
    target = kdcore.Target("values", ("bpm",), (70.0,), (5.0,))
    cached = CachedOutputs(torch.arange(4), logits, {})
    write_outputs(tmp_path / "out.npz", StoredOutputs.of(keys, [cached], ["heart rate"], {"run": "r"}, target))
    stored = load_outputs(tmp_path / "out.npz")
    np.testing.assert_allclose(stored.logits, logits.numpy() * 5 + 70, rtol=1e-6)
    other = dataclasses.replace(target, mean=(60.0,), std=(10.0,))
    read = join_outputs(tmp_path / "out.npz", stored, keys, ["heart rate"], other)
    np.testing.assert_allclose(read.logits.numpy(), (logits.numpy() * 5 + 70 - 60) / 10, rtol=1e-5)
    with pytest.raises(DataError, match="run's target is 'labels'"):
        join_outputs(tmp_path / "out.npz", stored, keys, ["heart rate"], kdcore.Target("labels"))


class TestArrays:
    def test_lists_of_names(self):
        found = kdcore.ArrayDataset({"a": (np.zeros((3, 8, 1)), 1.0)}, labels=[["talk", "walk"], [], None])
        assert list(found.classes) == ["talk", "walk"]
        assert [each.target for each in found.samples()] == [(1.0, 1.0), (0.0, 0.0), None]
        assert [each.key.action for each in found.samples()] == ["talk+walk", "none", "unlabelled"]

    @pytest.mark.parametrize(
        ("told", "said"),
        [
            ({"labels": [[1, 2]] * 3}, "each 0 or 1"),
            ({"labels": [["run"]] * 3, "classes": ["walk"]}, "'run' is not one of the labels"),
            ({"labels": [1, 2, 3], "values": [1, 2, 3]}, "not both"),
            ({"values": {"x": ["a", "b", "c"]}}, "are not numbers"),
            ({"values": [1, 2, 3], "units": {"y": "m"}}, "there is no value 'y'"),
            ({"values": [1, 2]}, "2 values for 3 samples"),
            ({"labels": [0, 1, 0], "weights": ["heavy", 1, 1]}, "is not a number"),
        ],
    )
    def test_what_does_not_fit_is_said(self, told, said):
        with pytest.raises(DataError, match=said):
            kdcore.ArrayDataset({"a": (np.zeros((3, 8, 1)), 1.0)}, **told)

    @pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
    def test_a_weight_must_be_greater_than_0(self, weight):
        for weights in ([1.0, weight], [weight, weight]):
            with pytest.raises(DataError, match=r"weights: sample \d: its weight must be a number greater than 0"):
                kdcore.ArrayDataset({"a": (np.zeros((2, 8, 1)), 1.0)}, labels=[0, 1], weights=weights)
        found = kdcore.ArrayDataset({"a": (np.zeros((2, 8, 1)), 1.0)}, labels=[0, 1], weights=[1.0, 2.0])
        with pytest.raises(DataError, match="greater than 0"):
            check_targets(found, [dataclasses.replace(each, weight=weight) for each in found.samples()])


@pytest.mark.parametrize("classes", [None, ["a", "b", "c"]])
def test_a_table_of_labels_is_read_by_its_column_names(classes):
    table = pd.DataFrame({"c": [1, 0, 1], "a": [1, 1, 0], "b": [0, 0, 1]})
    data = ArrayDataset({"accelerometer": (np.zeros((3, 20, 3)), 50.0)}, labels=table, classes=classes)
    assert sorted(data.classes) == ["a", "b", "c"]
    for sample, row in zip(data.samples(), table.to_dict("records"), strict=True):
        assert dict(zip(data.classes, sample.target, strict=True)) == row
    with pytest.raises(DataError, match="labels: the columns are c, a, b, and classes names a, b, d"):
        ArrayDataset({"accelerometer": (np.zeros((3, 20, 3)), 50.0)}, labels=table, classes=["a", "b", "d"])


@pytest.mark.parametrize(
    ("values", "weights", "message"),
    [
        (np.linspace(0, 1, 6) + 1e7, None, "less than float32 can tell apart; subtract an offset"),
        (np.linspace(1, 2, 6) * 1e39, None, "beyond float32; give it in another unit"),
        (np.linspace(1, 2, 6), [1, 1, 1, 1, 1, 1e300], "its weight must be between 1e-30 and 1e.30, not 1e.300"),
        (np.linspace(1, 2, 6), [1e-300] * 6, "its weight must be between"),
    ],
)
def test_numbers_that_single_precision_cannot_hold_are_refused(values, weights, message):
    def checked():
        data = ArrayDataset({"accelerometer": (np.zeros((6, 20, 3)), 50.0)}, values={"pulse": values}, weights=weights)
        check_targets(data, list(data.samples()))

    with pytest.raises(DataError, match=message):
        checked()


def test_a_unit_is_text():
    with pytest.raises(DataError, match="units: that of 'pulse' must be text, not 3"):
        ArrayDataset({"accelerometer": (np.zeros((2, 20, 3)), 50.0)}, values={"pulse": [1.0, 2.0]}, units={"pulse": 3})


class TestLabelsThatAreNotKnown:
    partly = np.where(np.random.default_rng(3).random((N, 3)) < 0.2, np.nan, TRUE)

    @pytest.fixture
    def here(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
        monkeypatch.chdir(tmp_path)

    def test_a_run_counts_the_known_ones(self, here):
        data = dataset(labels=self.partly, classes=NAMES)
        result = kdcore.run(recipe("binary-cross-entropy", "bce", baseline=False), data=data)
        outcome = kdcore.read_run(result.folder).outcomes["distilled"][0]
        tested = np.isin(SUBJECTS, [1, 3, 5, 7]) & ~np.isnan(self.partly).all(1)
        np.testing.assert_array_equal(np.sort(outcome.labels, axis=0), np.sort(self.partly[tested], axis=0))
        given, true = outcome.probabilities["student"], outcome.labels
        told = [~np.isnan(true[:, c]) for c in range(3)]
        expected = np.mean([average_precision_score(true[t, c], given[t, c]) for c, t in enumerate(told)])
        assert result.table.set_index("participant").loc["student", "map"] == pytest.approx(expected)
        count = int(np.isnan(true).any(1).sum())
        said = " ".join(result.summary.notes)
        assert f"{count} of {len(true)} test samples lack some labels, which do not count" in said
        assert "training samples lack some labels" in said
        assert f"of {int(told[0].sum())} known" in result.report.read_text()

    def test_a_loss_that_needs_all_labels_is_refused(self, here, monkeypatch):
        monkeypatch.setattr(BinaryCrossEntropy, "partial_labels", False)
        tree = recipe("binary-cross-entropy", "bce", baseline=False)
        with pytest.raises(RecipeError, match="needs all labels of a sample, but some are not known") as error:
            kdcore.run(tree, data=dataset(labels=self.partly, classes=NAMES))
        assert {each.path for each in error.value.problems} == {"teacher_losses[0]", "losses[0]"}

    def test_samples_say_which_labels_they_have(self):
        found = kdcore.ArrayDataset(
            {"a": (np.zeros((3, 8, 1)), 1.0)}, labels=np.array([[1, np.nan], [np.nan] * 2, [0, np.nan]])
        )
        np.testing.assert_array_equal(found.samples()[0].target, [1, np.nan])
        assert found.samples()[1].target is None
        assert [each.key.action for each in found.samples()] == ["label 1", "unlabelled", "none"]
        check_targets(found, found.samples())
        nothing = dataclasses.replace(found.samples()[0], target=(np.nan, np.nan))
        with pytest.raises(DataError, match="none of its labels is known"):
            check_targets(found, [nothing])

    def test_data_check_counts_them(self, here):
        from kdcore_inspect.data_check import unknown_numbers

        data = dataset(labels=self.partly, classes=NAMES)
        told = [each for each in data.samples() if each.target is not None]
        splits = SimpleNamespace(samples={"train": told[:20], "test": told[20:]})
        found = unknown_numbers(splits, data)
        for sentence, split, rows in zip(found, ("train", "test"), (told[:20], told[20:]), strict=True):
            lacking = np.isnan([each.target for each in rows])
            assert sentence.startswith(f"{lacking.any(1).sum()} of {len(rows)} {split} samples lack some labels")
            for name, count in zip(NAMES, lacking.sum(0), strict=True):
                assert (f"{name!r} ({count})" in sentence) == (count > 0)

    @pytest.mark.parametrize("kind", [float, "Int64", object])
    def test_empty_cells_of_a_table(self, kind):
        table = pd.DataFrame({"walk": [1, None, 0], "talk": [0, 1, None]}).astype(kind)
        found = kdcore.ArrayDataset({"a": (np.zeros((3, 8, 1)), 1.0)}, labels=table)
        np.testing.assert_array_equal([each.target for each in found.samples()], [[1, 0], [np.nan, 1], [0, np.nan]])


class TestValuesThatAreNotKnown:
    true = np.stack([60 + 10 * TRUE[:, 0], 1 + 0.2 * TRUE[:, 1]], axis=1) + np.random.default_rng(1).normal(0, 0.01, (N, 2))
    partly = np.where(np.random.default_rng(4).random((N, 2)) < 0.25, np.nan, true)

    @pytest.mark.parametrize("units", [None, {"pulse": "bpm", "speed": "m/s"}])
    def test_a_run_counts_the_known_ones(self, units, tmp_path, monkeypatch):
        monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
        data = dataset(values={"pulse": self.partly[:, 0], "speed": self.partly[:, 1]}, units=units)
        changed = {"data": {"labels": "partial", "protocol": "cross-subject"}, "training": {"epochs": 2}}
        result = kdcore.run(recipe("regression", "bounded-regression", **changed), data=data)
        outcome = kdcore.read_run(result.folder).outcomes["distilled"][0]
        told = ~np.isnan(outcome.labels)
        assert not told.all()
        row, given = (
            result.table.query("participant == 'student' and arm == 'distilled'").iloc[0],
            outcome.probabilities["student"],
        )
        mae = [mean_absolute_error(outcome.labels[t, v], given[t, v]) for v, t in enumerate(told.T)]
        r2 = [r2_score(outcome.labels[t, v], given[t, v]) for v, t in enumerate(told.T)]
        assert row["r2"] == pytest.approx(np.mean(r2))
        if units is None:
            assert row["mae"] == pytest.approx(np.mean(mae))
        trained = self.partly[np.isin(SUBJECTS, [0, 2, 4, 6])]
        assert outcome.target.mean == pytest.approx(np.nanmean(trained, axis=0), rel=1e-6)
        assert outcome.target.std == pytest.approx(np.nanstd(trained, axis=0), rel=1e-4)
        tested = told.any(1)
        assert f"{(~told).any(1)[tested].sum()} of {tested.sum()} test samples lack some values" in " ".join(
            result.summary.notes
        )
        assert f"{told[:, 0].sum()} of {tested.sum()}</td>" in result.report.read_text()
        assert ">nan" not in result.report.read_text()

    def test_a_value_that_is_known_of_no_training_sample_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
        partly = np.where((np.arange(2) == 1) & np.isin(SUBJECTS, [0, 2, 4, 6])[:, None], np.nan, self.true)
        with pytest.raises(DataError, match="'value 2' is known of no training sample"):
            kdcore.run(recipe("regression", "logits"), data=dataset(values=partly))
