"""`kdcore.run` on arrays, and what it returns."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from runs import results_of

import kdcore
from kdcore import DataError, RecipeError, UsageError
from kdcore.runs.progress import ProgressDisplay, in_notebook

TRANSFORMS = [{"name": "resample", "length": 16}, "joints-to-channels", "normalise"]
RNG = np.random.default_rng(0)
CLIPS = {
    (subject, action, trial): RNG.normal(size=(15 + trial, 5, 3)).astype(np.float32) + 0.5 * (action == "b")
    for subject in ("1", "2")
    for action in ("a", "b")
    for trial in ("1", "2", "3")
    for trial in [int(trial)]
}


def recipe(**changes: Any) -> dict[str, Any]:
    encoder = {"name": "cnn1d", "width": 4, "depth": 2}
    member = {"modality": "skeleton", "transforms": TRANSFORMS, "encoder": encoder}
    return {
        "version": 1,
        "name": "arrays",
        "data": {"protocol": "cross-subject", "batch_size": 4},
        "teachers": {"big": member},
        "student": {**member, "transforms": [*TRANSFORMS, {"name": "jitter", "std": 0.1}]},
        "losses": ["cross-entropy", "soft-target"],
        "training": {"epochs": 2},
        "seeds": [0, 1],
        "engine": {"accelerator": "cpu", "threads": 1},
        **changes,
    }


def dataset(clips=CLIPS, **options: Any) -> kdcore.ArrayDataset:
    keys = list(clips)
    return kdcore.ArrayDataset(
        {"skeleton": (list(clips.values()), 30.0)},
        labels=[action for _, action, _ in keys],
        subjects=[subject for subject, _, _ in keys],
        trials=[trial for *_, trial in keys],
        **options,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for runs and what they track."""
    folder = tmp_path_factory.mktemp("python")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDCORE_RUNS", str(folder / "runs"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        yield folder


@pytest.fixture(scope="module")
def result(place):
    found = kdcore.run(recipe(), data=dataset())
    assert found is not None
    return found


def test_arrays_give_the_bits_that_the_same_recordings_in_files_give(result, place):
    folder = place / "clips"
    folder.mkdir()
    for (subject, action, trial), values in CLIPS.items():
        np.savez(folder / f"{subject}_{action}_{trial}.npz", joints=values)
    stored = {"name": "skeleton-npz", "root": str(folder), "pattern": "{subject}_{action}_{trial}.npz", "rate": 30.0}
    files = recipe(data={"dataset": stored, "protocol": "cross-subject", "batch_size": 4})
    other = kdcore.run(files)
    assert other is not None
    mine, theirs = results_of(result.folder), results_of(other.folder)
    assert mine.keys() == theirs.keys()
    assert any(name.endswith(".safetensors") for name in mine)
    for name in mine:
        if name.endswith(".safetensors"):  # the metadata of files name the dataset that the weights were trained on
            mine[name], theirs[name] = (
                content[8 + int.from_bytes(content[:8], "little") :] for content in (mine[name], theirs[name])
            )
        assert mine[name] == theirs[name], name


def test_the_table_has_every_participant_arm_and_seed(result):
    table = result.table
    assert isinstance(table, pd.DataFrame)
    rows = set(table[["participant", "arm", "seed"]].itertuples(index=False, name=None))
    assert rows == {
        (name, arm, seed)
        for seed in (0, 1)
        for name, arm in (("big", "distilled"), ("student", "distilled"), ("student", "baseline"))
    }
    run = kdcore.read_run(result.folder)
    for row in table.itertuples():
        outcome = run.outcomes[row.arm][row.seed]
        assert row.accuracy == (outcome.probabilities[row.participant].argmax(1) == outcome.labels).mean()


def test_the_gain_is_that_of_the_table(result):
    by_arm = result.table[result.table["participant"] == "student"].pivot_table("accuracy", "seed", "arm")
    differences = by_arm["distilled"] - by_arm["baseline"]
    assert result.gain.per_seed == pytest.approx(tuple(differences))
    assert result.gain.mean == pytest.approx(differences.mean())
    assert result.gain.low <= result.gain.mean <= result.gain.high
    assert result.gains.keys() == {"student"}


def test_a_run_without_a_baseline_has_no_gain(place):
    found = kdcore.run(recipe(baseline=False, seeds=[0]), data=dataset())
    assert found is not None
    assert found.gain is None
    assert "baseline: false" in found._repr_html_()


def test_a_run_records_what_was_dropped(place):
    third = {("3", action, 1): np.zeros((15, 5, 3), np.float32) for action in ("a", "b")}
    rule = {"name": "explicit", "train_subjects": [1], "test_subjects": [2]}
    changes = recipe(data={"protocol": rule, "batch_size": 4}, seeds=[0], training={"epochs": 1}, baseline=False)
    found = kdcore.run(changes, data=dataset({**CLIPS, **third}))
    assert found is not None
    dropped = kdcore.read_run(found.folder).facts.dropped
    assert dropped["count"] == 2
    assert dropped["reasons"]["in no split"]["subjects"] == {"3": 2}
    listed = [each["what"] for each in dropped["reasons"]["in no split"]["recordings"]]
    assert listed == ["subject 3, action a, trial 1", "subject 3, action b, trial 1"]
    assert any(note.startswith("2 dropped, in no split") for note in found.summary.notes)


def test_students_are_modules_that_predict(result):
    clip = CLIPS["2", "a", 1]
    student = result.student(seed=1)
    assert isinstance(student, torch.nn.Module)
    assert not student.training
    assert student.classes == ["a", "b"]
    one = student.predict(clip[..., None])
    batch = student.predict([clip[..., None], CLIPS["2", "b", 3][..., None]])
    np.testing.assert_allclose(batch[:1], one, atol=1e-6)
    with torch.no_grad():
        logits = student(student.preprocess(clip[..., None]))
    np.testing.assert_allclose(logits.softmax(-1).numpy(), one, atol=1e-6)
    outcome = kdcore.read_run(result.folder).outcomes["distilled"][1]
    where = list(outcome.keys).index("subject 2, action a, trial 1")
    np.testing.assert_allclose(outcome.probabilities["student"][where], one[0], atol=1e-5)
    assert not np.allclose(result.student(seed=0).predict(clip[..., None]), one)


def test_what_a_student_reads_is_shown(result):
    shown = repr(result.student())
    assert "skeleton: (time, joint 5, channel 3, person 1) in m at 30 Hz" in shown
    assert "classes: a, b" in shown


def test_text_is_a_path(result, tmp_path):
    folder = str(kdcore.find_student(str(result.folder), seed=0))
    assert kdcore.load_student(folder).classes == kdcore.load_predictor(folder).classes == ["a", "b"]
    np.save(tmp_path / "clip.npy", CLIPS["1", "a", 1][..., None])
    student = kdcore.load_student(folder)
    np.testing.assert_array_equal(
        student.predict(str(tmp_path / "clip.npy")), student.predict({"skeleton": CLIPS["1", "a", 1][..., None]})
    )
    with pytest.raises(kdcore.KdcoreError, match=r"it holds .*students/seed-0/student"):
        kdcore.load_student(str(result.folder))
    with pytest.raises(DataError, match="trained on arrays, so no dataset that can read files is known"):
        student.predict(str(tmp_path / "clip.json") if (tmp_path / "clip.json").write_text("[]") else "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"seed": 5}, r"no seed 5 \(it has: 0, 1\)"), ({"name": "studnt"}, "did you mean 'student'")],
)
def test_students_that_are_not_there(result, arguments, message):
    with pytest.raises(UsageError, match=message):
        result.student(**arguments)


def test_a_notebook_shows_the_table(result):
    html = result._repr_html_()
    assert html.count("<tr") == 4
    for text in ("<td>distilled</td>", "<td>baseline</td>", "seed 1", str(result.folder)):
        assert text in html
    assert result.summary.answer in html.replace("&#x27;", "'")
    assert result.summary.answer in repr(result)


def test_names_are_escaped_in_html(result):
    from dataclasses import replace

    row = replace(result.summary.rows[0], participant="<b>x</b>")
    shown = kdcore.Result(replace(result.summary, rows=[row], name="<script>"), result.folder)._repr_html_()
    assert "<script>" not in shown
    assert "<b>x</b>" not in shown


def test_data_take_the_place_of_the_recipes_dataset():
    named = recipe(data={"dataset": "synthetic-motion", "protocol": "cross-subject", "batch_size": 4})
    found = kdcore.dry_run(named, data=dataset())
    assert found is not None
    assert found.inputs["student"] == (15, 16)
    with pytest.raises(RecipeError, match=r"data.dataset: .*missing|the key 'dataset' is missing"):
        kdcore.dry_run(recipe())
    with pytest.raises(RecipeError, match="the dataset passed as data has no modality 'skeletn'"):
        kdcore.dry_run(recipe(student={**recipe()["student"], "modality": "skeletn"}), data=dataset())
    with pytest.raises(RecipeError, match=r"data\.protocol"):
        kdcore.dry_run(recipe(data={}), data=dataset())


def test_a_recipe_object_for_data_passed_in_python_needs_no_dataset():
    written = kdcore.Recipe(**recipe())
    found = kdcore.dry_run(written, data=dataset())
    assert found is not None
    assert kdcore.load_recipe(written, data=dataset()).hash == kdcore.load_recipe(recipe(), data=dataset()).hash
    with pytest.raises(RecipeError, match=r"data.dataset: this dataset is an object that must be passed .*pass data="):
        kdcore.dry_run(written)


@pytest.mark.parametrize("data", [{"skeleton": np.zeros((2, 15, 5, 3))}, np.zeros(3), kdcore.ArrayDataset])
def test_data_of_another_type_are_refused(data):
    for function in (kdcore.run, kdcore.dry_run):
        with pytest.raises(UsageError, match=r"data must be a kdcore\.Dataset, such as kdcore.ArrayDataset"):
            function(recipe(), data=data)


def test_a_callback_without_a_list_is_refused():
    with pytest.raises(UsageError, match="callbacks must be a list, not RunListener"):
        kdcore.dry_run(recipe(), data=dataset(), callbacks=kdcore.RunListener())


def test_one_subject_cannot_be_split_by_subject():
    data = kdcore.ArrayDataset({"skeleton": (list(CLIPS.values()), 30.0)}, labels=[action for _, action, _ in CLIPS])
    with pytest.raises(RecipeError, match=r"data\.protocol"):
        kdcore.dry_run(recipe(), data=data)


def test_a_run_on_arrays_needs_them_again(result):
    with pytest.raises(RecipeError, match="must be passed in Python"):
        kdcore.resume(result.folder)
    again = kdcore.resume(result.folder, data=dataset())
    assert again is not None
    assert again.gain == result.gain
    assert json.loads((result.folder / "run.json").read_text())["fingerprint"]
    other = {key: values + 1 for key, values in CLIPS.items()}
    with pytest.raises(kdcore.KdcoreError, match="began with other recordings"):
        kdcore.resume(result.folder, data=dataset(other))


def test_prepared_data_are_found_again_by_content(place, tmp_path, monkeypatch):
    monkeypatch.setenv("KDCORE_CACHE", str(tmp_path))
    read = []

    class Counted(kdcore.ArrayDataset):
        def read(self, sample, modality):
            read.append(sample.key)
            return super().read(sample, modality)

    def counted(clips):
        keys = list(clips)
        return Counted(
            {"skeleton": (list(clips.values()), 30.0)}, [action for _, action, _ in keys], [subject for subject, *_ in keys]
        )

    changed = {key: values * 1.5 for key, values in CLIPS.items()}
    counts = []
    for clips in (CLIPS, {key: values.copy() for key, values in CLIPS.items()}, changed):
        read.clear()
        kdcore.dry_run(recipe(), data=counted(clips))
        counts.append(len(read))
    assert counts[0] >= len(CLIPS)
    assert counts[1] == 0
    assert counts[2] >= len(CLIPS)


def test_a_run_leaves_the_process_as_it_was(place):
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(2), np.random.rand(2)
    torch.manual_seed(3)
    np.random.seed(3)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    first = kdcore.run(recipe(seeds=[0]), data=dataset())
    assert torch.equal(torch.rand(2), expected[0])
    assert np.array_equal(np.random.rand(2), expected[1])
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    kdcore.run(recipe(seeds=[4], losses=["cross-entropy", "dist"]), data=dataset())
    torch.manual_seed(77)
    second = kdcore.run(recipe(seeds=[0]), data=dataset())
    assert first is not None
    assert second is not None
    assert first.folder != second.folder
    assert results_of(first.folder) == results_of(second.folder)


def test_a_run_works_outside_the_main_thread(place):
    """Notebooks and servers may call it there; signals are then left alone."""
    found = []
    thread = threading.Thread(target=lambda: found.append(kdcore.run(recipe(seeds=[0]), data=dataset())))
    thread.start()
    thread.join()
    assert found
    assert found[0] is not None


def test_callbacks_are_told_in_order_and_nothing_is_printed(place, capsys):
    seen: dict[str, list[str]] = {"one": [], "two": []}

    class Noting(kdcore.RunListener):
        def __init__(self, name):
            self.name = name

        def arm_started(self, seed, arm, stages):
            seen[self.name].append(f"{seed} {arm}")

        def epoch_finished(self, stage, epoch, metrics):
            seen[self.name].append(f"{stage.name} {epoch}")

    kdcore.run(recipe(seeds=[0]), data=dataset(), callbacks=[Noting("one"), Noting("two")])
    arm = ["student 0", "student 1"]
    assert seen["one"] == ["0 distilled", "big 0", "big 1", *arm, "0 baseline", *arm] == seen["two"]
    assert "\x1b" not in "".join(capsys.readouterr())
    with pytest.raises(UsageError, match="must be an instance of a subclass of"):
        kdcore.run(recipe(), data=dataset(), callbacks=[print])  # type: ignore[list-item]


def test_progress_in_a_notebook_is_html_that_is_updated(monkeypatch):
    """IPython's own display functions, as a kernel has them, are replaced by a record."""
    shown: list[tuple[str, str]] = []

    class Handle:
        def update(self, html):
            shown.append(("update", html.data))

    import IPython
    import IPython.display

    def display(html, display_id=False):
        shown.append(("new", html.data))
        return Handle() if display_id else None

    class Shell:
        kernel = object()

    monkeypatch.setattr(IPython, "get_ipython", Shell)
    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr("kdcore.runs.progress.INTERVAL", 0.0)
    assert in_notebook()
    kdcore.dry_run(recipe(), data=dataset())  # never shows progress
    assert shown == []
    progress = ProgressDisplay()
    progress.arm_started(0, "distilled", ())
    stage = next(iter(kdcore.make_plan(kdcore.load_recipe(recipe(), data=dataset())).stages["distilled"]))
    progress.stage_started(stage, 4)
    progress.stepped(stage, 0, 2)
    progress.stepped(stage, 1, 4)
    progress.stage_finished(stage)
    kinds, texts = zip(*shown, strict=True)
    assert kinds == ("new", "update", "update")
    assert '<progress value="0.250" max="1">' in texts[0]
    assert '<progress value="1.000" max="1">' in texts[1]
    assert texts[2].startswith("seed 0, distilled: big, 2 epochs in")
    assert "\x1b" not in "".join(texts)


def test_outside_a_notebook_nothing_of_ipython_is_needed():
    assert not in_notebook()
    assert "ipywidgets" not in sys.modules
