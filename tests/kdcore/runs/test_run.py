"""A run from recipe to report, and what its student can do afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml
from runs import Home, encoder, tiny_recipe, tracked

from kdcore import hookimpl
from kdcore.deploy.saved_student import load_student
from kdcore.errors import CheckpointError, DataError, PluginError, RecipeError, StoppedError, TrainingError
from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.recipe.build import Builder
from kdcore.recipe.load import load_recipe
from kdcore.recipe.plan import make_plan
from kdcore.runs.arms import trained_stages
from kdcore.runs.outcome import read_outcome
from kdcore.runs.run import RunListener, dry_run, run
from kdcore.runs.run_folder import make_folder
from kdcore.runs.session import RunSession
from kdcore.runs.state import RunState

SHORT = {
    "schedule": {"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 1}},
    "seeds": [0],
    "baseline": False,
    "engine": {"accelerator": "cpu"},
}


class Calls:
    """A plugin that listens to everything."""

    def __init__(self):
        self.made = []

    @hookimpl
    def run_started(self, run):
        self.made.append(("run_started", run.recipe.name, tuple(run.recipe.seeds)))

    @hookimpl
    def arm_started(self, run, seed, arm):
        self.made.append(("arm_started", seed, arm))

    @hookimpl
    def arm_finished(self, run, seed, arm, outcome):
        self.made.append(("arm_finished", seed, arm, outcome.arm))

    @hookimpl
    def stage_started(self, stage, seed):
        self.made.append(("stage_started", stage.name, seed))

    @hookimpl
    def epoch_finished(self, stage, seed, epoch, metrics):
        self.made.append(("epoch_finished", stage.name, epoch, f"train/{stage.learners[0]}/cross-entropy" in metrics))

    @hookimpl
    def stage_finished(self, stage, seed):
        self.made.append(("stage_finished", stage.name, seed))

    @hookimpl
    def run_finished(self, run, summary, report):
        self.made.append(
            ("run_finished", run.recipe.name, report == run.folder / "report.html", summary.row("teacher").participant)
        )


def test_a_split_set_apart_for_teachers_is_not_left_idle(home):
    home.write(**SHORT)
    apart = "data.protocol={name: disjoint-subjects, teacher_subjects: [1], student_subjects: [2], test_subjects: [3]}"
    with pytest.raises(
        RecipeError, match=r"no participant learns from the 'teacher' split .*set schedule.teacher_split to 'teacher'"
    ):
        dry_run(home.recipe, [apart])
    assert dry_run(home.recipe, [apart, "schedule.teacher_split=teacher"])


@pytest.mark.slow
def test_teachers_of_other_runs_are_taken_unless_all_is_to_be_done_retrain(home):
    class Reused(RunListener):
        def __init__(self):
            self.stages = []

        def stage_reused(self, stage):
            self.stages.append(stage.name)

    home.write(**SHORT)
    found = []
    for retrain in (False, False, True):
        listener = Reused()
        run(home.recipe, ["engine.reuse_teachers=true"], callbacks=[listener], retrain=retrain)
        found.append(listener.stages)
    assert found == [[], ["teachers"], []]


def test_a_resumed_run_takes_teachers_of_other_runs_as_it_began(home):
    home.write(**SHORT)
    plugins = plugin_manager()
    recipe = load_recipe(home.recipe, ["engine.reuse_teachers=true"], plugins)
    for retrain in (False, True):
        plan = make_plan(recipe)
        begun = RunSession(plan, plugins, RunListener(), RunState(retrain=retrain))
        folder = make_folder(plan, begun.fabric, begun.state)
        resumed = RunSession(plan, plugins, RunListener(), RunState.read(folder), folder)
        assert [(trained_stages(plan, 0, each.state.retrain) is None) for each in (begun, resumed)] == [retrain, retrain]


def test_a_student_that_diverges_is_named(home):
    home.write(**SHORT)
    said = "student: its outputs are not finite numbers; try a smaller learning rate"
    with pytest.raises(TrainingError, match=said):
        run(home.recipe, ["schedule.student.optimizer.lr=1e30", "data.batch_size=100"])


@pytest.mark.slow
def test_plugins_are_told_in_order(home, monkeypatch):
    calls, plugins = Calls(), PluginManager()
    plugins.register("calls", calls)
    monkeypatch.setattr("kdcore.runs.run.plugin_manager", lambda: plugins)
    result = run(home.write(**SHORT).recipe)
    assert calls.made == [
        ("run_started", "tiny", (0,)),
        ("arm_started", 0, "distilled"),
        ("stage_started", "teachers", 0),
        ("epoch_finished", "teachers", 0, True),
        ("stage_finished", "teachers", 0),
        ("stage_started", "student", 0),
        ("epoch_finished", "student", 0, True),
        ("stage_finished", "student", 0),
        ("arm_finished", 0, "distilled", "distilled"),
        ("run_finished", "tiny", True, "skeleton"),
    ]
    assert result is not None
    assert [result.folder] == home.runs
    assert result.report.read_text().startswith("<!")
    saved = yaml.safe_load((result.folder / "recipe.yaml").read_text())
    assert load_recipe(result.folder / "recipe.yaml").hash == load_recipe(home.recipe).hash
    assert saved["schedule"]["student"]["epochs"] == 1
    assert json.loads((result.folder / "progress.json").read_text())["complete"]
    assert not (result.folder / "checkpoints").exists()


class StopsLate:
    """A plugin that asks a run to stop when nothing is left to be trained."""

    @hookimpl
    def run_finished(self):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_being_asked_to_stop_after_training_is_not_forgotten(home, monkeypatch):
    plugins = PluginManager()
    plugins.register("late", StopsLate())
    monkeypatch.setattr("kdcore.runs.run.plugin_manager", lambda: plugins)
    with pytest.raises(StoppedError, match="after the run was finished"):
        run(home.write(**SHORT).recipe)
    assert json.loads((home.runs[0] / "progress.json").read_text())["complete"]


def test_a_dry_run_trains_and_keeps_nothing(home):
    found = dry_run(home.write().recipe)
    assert [(check.learner, check.term) for check in found.terms] == [
        ("skeleton", "cross-entropy"),
        ("student", "cross-entropy"),
        ("student", "soft-target"),
    ]
    assert found.inputs == {"skeleton": (60, 12), "student": (3, 12)}
    assert home.runs == []


@pytest.mark.parametrize(
    ("override", "error", "said"),
    [
        ("student.taps.features=nowhere", RecipeError, r"student\.taps\.features.*no module 'nowhere'"),
        ("student.encoder.name=cnn2d", RecipeError, r"student\.encoder: student cannot|student\.encoder: .*cnn2d"),
        (
            "schedule.student.optimizer.name=adamm",
            RecipeError,
            r"schedule\.student\.optimizer: no optimizer 'adamm'; did you mean",
        ),
        ("data.protocol.validation_subjects=0", RecipeError, r"schedule\.teachers\.select: .* no labelled validation samples"),
        ("data.protocol.test_subjects=[9]", RecipeError, r"recipe\.yaml:\d+: data\.protocol: no samples with subject 9"),
        ("data.protocol.test_subjects=[2]", RecipeError, r"data\.protocol: subject 2 is listed for both"),
        ("data.dataset.actions=[wave]", RecipeError, r"data\.protocol: .*at least two classes"),
        ("student.weights=/nowhere.safetensors", RecipeError, r"student\.weights: there is no file '/nowhere\.safetensors'"),
        ("student.weights.file=/nowhere.pt", RecipeError, r"student\.weights: there is no file '/nowhere\.pt'"),
        ("student.freeze=[block]", RecipeError, r"student\.freeze\[0\]: .*'block' \(did you mean 'blocks'\?\)"),
        ("student.freeze=['*']", RecipeError, r"student\.freeze: all of 'student' is frozen, so a student has"),
        ("engine.accelerator=abacus", RecipeError, r"engine\.accelerator: must be 'auto'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(home, override, error, said):
    with pytest.raises(error, match=said):
        run(home.write().recipe, [override])
    assert home.runs == []


def test_a_teacher_that_is_frozen_whole_teaches_without_learning(home):
    found = dry_run(home.write(**SHORT).recipe, ["teachers.skeleton.freeze=['*']"])
    assert {check.learner for check in found.terms} == {"student"}
    assert found.parameters["skeleton"] > 0
    assert found.trained["skeleton"] == 0


def test_recordings_are_counted_while_they_are_read(home, monkeypatch):
    monkeypatch.setenv("KDCORE_CACHE", str(home.folder / "cache"))
    told = []

    class Listening(RunListener):
        def reading(self, done, total, what):
            told.append((done, total, what))

    dry_run(home.write().recipe, callbacks=[Listening()])
    assert {what for _, _, what in told} == {"skeleton, accelerometer"}
    assert [done for done, _, _ in told] == list(range(28))
    assert {total for _, total, _ in told} == {27}


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named(new_home):
    stopped = new_home()
    assert stopped.run(die=("torch.optim:AdamW.step", 4)) == -signal.SIGKILL
    newest = max((stopped.runs[0] / "checkpoints").iterdir())
    state = newest / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    assert stopped.resume() == CheckpointError.exit_code
    said = "".join(stopped.said().split())
    assert f"{newest.name}/state.pt:damaged" in said
    assert "Traceback" not in said


# Students

PREDICT = """
import importlib.metadata, sys
import numpy as np

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("kdcore_datasets", "kdcore_skeleton", "mlflow", "lightning_fabric"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from kdcore import Signal
from kdcore.plugin.manager import PluginManager
from kdcore.deploy.saved_student import load_student
from pathlib import Path

every = importlib.metadata.entry_points(group="kdcore")
needed = [point for point in every if point.name in ("losses", "schedules", "signals")]
student = load_student(Path(sys.argv[1]), PluginManager(needed))
with np.load(sys.argv[2]) as recorded:
    count, rate = int(recorded["count"]), float(recorded["rate"])
    signals = [Signal(recorded[f"values{n}"], rate, float(recorded[f"start{n}"])) for n in range(count)]
np.save(sys.argv[3], np.concatenate([student.predict({"accelerometer": each}) for each in signals]))
"""


def raw(recipe, outcome, modalities):
    """Of each row of the results, the recordings as the dataset gives them; one entry per recording, in order."""
    dataset = Builder(recipe, plugin_manager()).dataset()
    by_key = {str(sample.key): sample for sample in dataset.samples()}
    keys = list(dict.fromkeys(key.partition(", window")[0] for key in outcome.keys))
    return [{name: dataset.read(by_key[key], name) for name in modalities} for key in keys]


@pytest.mark.slow
def test_a_student_answers_elsewhere_as_it_did_in_its_run(uninterrupted, tmp_path):
    """In a process that has neither its dataset's plugin nor its teacher's."""
    folder = uninterrupted.runs[0]
    outcome = read_outcome(folder / "results" / "seed-1-distilled.npz")
    signals = [each["accelerometer"] for each in raw(load_recipe(uninterrupted.recipe), outcome, ["accelerometer"])]
    recorded = {f"values{n}": signal.values for n, signal in enumerate(signals)}
    starts = {f"start{n}": signal.start for n, signal in enumerate(signals)}
    np.savez(tmp_path / "recorded.npz", rate=signals[0].rate, count=len(signals), **recorded, **starts)
    student = folder / "students" / "seed-1" / "student"
    command = [sys.executable, "-c", PREDICT, str(student), str(tmp_path / "recorded.npz"), str(tmp_path / "answers.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy"), outcome.probabilities["student"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_student_of_two_sensors_answers_for_windows(home):
    resample = {"name": "resample", "length": 16}
    data = tiny_recipe(home.database, "unused")["data"]
    student = {
        "modality": ["gyroscope", "accelerometer"],
        "transforms": {"gyroscope": [resample], "accelerometer": [resample, "normalise"], "joined": ["normalise"]},
        "encoder": encoder(),
    }
    window = {"length": 0.8, "hop": 0.4}
    home.write(**SHORT | {"data": data | {"window": window}, "teachers": {}, "student": student, "losses": ["cross-entropy"]})
    result = run(home.recipe)
    assert result is not None
    outcome = read_outcome(result.folder / "results" / "seed-0-distilled.npz")
    loaded = load_student(result.folder / "students" / "seed-0" / "student")
    assert loaded.modalities == ["gyroscope", "accelerometer"]
    answers = [loaded.predict(signals) for signals in raw(load_recipe(home.recipe), outcome, loaded.modalities)]
    assert all(len(each) > 1 for each in answers)
    np.testing.assert_allclose(np.concatenate(answers), outcome.probabilities["student"], rtol=1e-5, atol=1e-6)
    signals = raw(load_recipe(home.recipe), outcome, ["gyroscope"])[0]
    with pytest.raises(DataError, match="the student needs accelerometer; given: gyroscope"):
        loaded.predict(signals)


@pytest.mark.slow
def test_a_student_that_cannot_be_loaded_is_named(uninterrupted, tmp_path):
    saved = uninterrupted.runs[0] / "students" / "seed-0" / "student"
    with pytest.raises(CheckpointError, match="holds no saved student"):
        load_student(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    description = json.loads((saved / "student.json").read_text())
    (broken / "student.json").write_text(json.dumps(description))
    (broken / "weights.safetensors").write_bytes((saved / "weights.safetensors").read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        load_student(broken)
    (broken / "weights.safetensors").write_bytes((saved / "weights.safetensors").read_bytes())
    (broken / "student.json").write_text(json.dumps(description | {"encoder": {"name": "cnn1d", "width": 5}}))
    with pytest.raises(CheckpointError, match="does not fit the encoder"):
        load_student(broken)
    with pytest.raises(PluginError, match="no transform 'resample'"):
        load_student(saved, PluginManager([]))
    (broken / "student.json").write_text(json.dumps(description | {"encoder": {"name": "cnn1d", "wide": 4}}))
    with pytest.raises(PluginError, match=r"could not construct encoder 'cnn1d' of plugin 'signals': it has no option 'wide'"):
        load_student(broken)
    for damage in ("[]", "{}", "{", '{"modalities": [{}]}', json.dumps(description | {"transforms": {}})):
        (broken / "student.json").write_text(damage)
        with pytest.raises(CheckpointError, match=r"student\.json: (not the description of a student|damaged): .+$"):
            load_student(broken)


@pytest.mark.parametrize(
    ("learner", "there"), [("student", {"tiny": "FAILED", "tiny seed 0": "FAILED"}), ("teachers", {"tiny": "FAILED"})]
)
def test_a_run_that_diverges_is_tracked_as_failed(home, tmp_path, learner, there):
    wild = {"epochs": 2, "optimizer": {"name": "sgd", "lr": 1e30}}
    schedule = {"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 1}, learner: wild}
    path = tmp_path / "diverges.yaml"
    experiment = f"diverging {learner}"
    path.write_text(yaml.safe_dump(tiny_recipe(home.database, experiment) | SHORT | {"schedule": schedule}))
    said = r"is (nan|inf|-inf) in stage .*\(loss 'cross-entropy' of plugin 'losses'\).* try a smaller learning rate"
    with pytest.raises(TrainingError, match=said):
        run(path)
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home.database}")
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert {each.info.run_name: each.info.status for each in found} == there


def test_seeds_that_were_trained_before_a_run_failed_are_finished(home, tmp_path, monkeypatch):
    class Fails:
        @hookimpl
        def arm_started(self, seed):
            if seed == 1:
                raise TrainingError("enough")

    plugins = PluginManager()
    plugins.register("fails", Fails())
    monkeypatch.setattr("kdcore.runs.run.plugin_manager", lambda: plugins)
    with pytest.raises(TrainingError, match="enough"):
        run((failing := Home(tmp_path / "failing", home.database).write(**SHORT | {"seeds": [0, 1]})).recipe)
    statuses = {name: status for name, (status, _, _) in tracked(failing).items()}
    assert statuses == {"tiny": "FAILED", "tiny seed 0": "FINISHED"}
