"""A run that was stopped anywhere ends as if it had not been."""

from __future__ import annotations

import getpass
import json
import os
import random
import re
import signal
import time

import pytest
from runs import results_of, tracked

pytestmark = pytest.mark.slow
KILLED = -signal.SIGKILL


def assert_same_end(home, uninterrupted):
    assert len(home.runs) == 1
    ours, theirs = results_of(home.runs[0]), results_of(uninterrupted.runs[0])
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []
    ours, theirs = tracked(home), tracked(uninterrupted)
    assert ours.keys() == theirs.keys()
    assert [(run, part) for run in theirs for part in range(3) if ours[run][part] != theirs[run][part]] == []


def done(home):
    return json.loads((home.runs[0] / "progress.json").read_text())["done"]


def test_an_uninterrupted_run_leaves_what_is_compared_here(uninterrupted):
    left = results_of(uninterrupted.runs[0])
    assert {name for name in left if name.endswith(".npz")} == {
        f"seed-{seed}-{arm}.npz" for seed in (0, 1) for arm in ("distilled", "baseline")
    }
    assert {f"students/seed-{seed}/student/weights.safetensors" for seed in (0, 1)} <= left.keys()
    assert {f"teachers/seed-{seed}/skeleton.safetensors" for seed in (0, 1)} <= left.keys()
    runs = tracked(uninterrupted)
    assert {status for status, _, _ in runs.values()} == {"FINISHED"}
    assert len(runs) == 3
    history = runs["tiny seed 1"][2]
    assert [step for key, step, _ in history if key == "train/student/soft-target"] == [1, 2]
    assert left["students/seed-0/student/weights.safetensors"] != left["students/seed-1/student/weights.safetensors"]


def test_a_tracked_run_says_what_it_is_and_is_found_by_its_options(uninterrupted):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{uninterrupted.database}")
    experiment = client.get_experiment_by_name(uninterrupted.folder.name)
    assert experiment
    found = client.search_runs([experiment.experiment_id], "params.`losses.soft-target.temperature` = '4.0'")
    assert {run.info.run_name for run in found} == {"tiny", "tiny seed 0", "tiny seed 1"}, "seeds can be told apart by options"
    [root] = [run for run in found if run.info.run_name == "tiny"]
    first = next(run for run in found if run.info.run_name == "tiny seed 0")
    assert 0 < first.data.metrics["system/system_memory_usage_percentage"] <= 100
    assert not any(name.startswith("system/") for name in root.data.metrics)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "| student | distilled | accelerometer |" in root.data.tags["mlflow.note.content"]
    assert "| student | baseline |" in first.data.tags["mlflow.note.content"]
    assert root.outputs.model_outputs[0].model_id == first.outputs.model_outputs[0].model_id
    assert first.data.tags["mlflow.user"] == getpass.getuser()
    assert root.data.tags["run"] == uninterrupted.runs[0].name
    assert root.data.metrics["gain/conclusive"] in (0, 1)
    expected = {"mlflow.source.type": "LOCAL", "mlflow.user": getpass.getuser(), "dataset": "synthetic-motion"}
    assert root.data.tags | expected == root.data.tags


def test_same_seed_twice_gives_the_same_bytes(new_home, uninterrupted):
    home = new_home()
    assert home.run() == 0, home.said()
    assert_same_end(home, uninterrupted)


def test_killed_within_an_epoch_then_between_stages_then_between_seeds(new_home, uninterrupted):
    """3 steps an epoch, 2 epochs each of teacher, student and baseline student: 18 steps a seed."""
    step, home = "torch.optim:AdamW.step", new_home()
    assert home.run(die=(step, 5)) == KILLED, home.said()
    assert home.resume(die=(step, 3)) == KILLED, home.said()
    assert done(home) == []
    assert home.resume(die=(step, 13)) == KILLED, home.said()
    assert done(home) == [[0, "distilled"], [0, "baseline"]]
    assert home.resume() == 0, home.said()
    assert home.calls("resume")[step] == 18
    assert_same_end(home, uninterrupted)


def test_killed_while_writing_again_and_again(new_home, uninterrupted):
    """Every resumed run is killed again, at a call drawn at random from those that write, put in place or remove files."""
    draw, home = random.Random(11), new_home()
    places = ["os:fsync", "pathlib:Path.rename", "os:unlink", "os:fsync"]
    calls = uninterrupted.calls("run")
    ended = home.run(die=("os:fsync", calls["os:fsync"] // 7))
    assert ended == KILLED, home.said()
    kills = 0
    for place in places:
        ended = home.resume(die=(place, draw.randint(1, max(2, calls[place] // 6))))
        assert ended in (0, KILLED), home.said()
        kills += ended == KILLED
    assert kills >= 3
    assert home.resume() == 0, home.said()
    assert_same_end(home, uninterrupted)


def test_killed_at_random_moments(new_home, uninterrupted):
    draw, home = random.Random(5), new_home()
    process = home.start("run", str(home.recipe))
    for _ in range(4):
        while not home.runs and process.is_alive():
            time.sleep(0.01)
        time.sleep(draw.uniform(0.2, 1.2))
        process.kill()
        process.join()
        process = home.start("resume", home.runs[0].name)
    process.join(60)
    assert process.exitcode == 0, home.said()
    assert_same_end(home, uninterrupted)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_says_how_to_resume_and_sets_the_exit_status(new_home, uninterrupted, number, status):
    home = new_home(engine={"accelerator": "cpu", "threads": 1, "checkpoint_seconds": 30, "log_every": 2})
    process = home.start("run", str(home.recipe))
    while not (home.runs and list(home.runs[0].glob("tracking/sent.json"))) and process.is_alive():
        time.sleep(0.005)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == status, home.said()
    said = " ".join(home.said().split())
    assert re.search(rf"error: .*kdcore resume {home.runs[0].name}", said)
    assert "Traceback" not in said
    assert home.resume() == 0, home.said()
    assert results_of(home.runs[0]) == results_of(uninterrupted.runs[0])


def test_resumed_again_after_a_stop_and_a_kill(new_home, uninterrupted):
    """Values sent after the stop are no longer in the journal that the first resumption continues."""
    home = new_home()
    process = home.start("run", str(home.recipe))
    while process.is_alive() and not (home.runs and list(home.runs[0].glob("tracking/sent.json"))):
        time.sleep(0.01)
    process.terminate()
    process.join(60)
    assert home.resume(die=("torch.optim:AdamW.step", 1)) == KILLED, home.said()
    assert home.resume(die=("torch.optim:AdamW.step", 7)) == KILLED, home.said()
    assert home.resume() == 0, home.said()
    assert_same_end(home, uninterrupted)


def test_two_resumptions_at_once(new_home, uninterrupted):
    home = new_home()
    assert home.run(die=("torch.optim:AdamW.step", 5)) == KILLED, home.said()
    both = [home.start("resume", home.runs[0].name) for _ in range(2)]
    for process in both:
        process.join(120)
    assert sorted(process.exitcode for process in both) == [0, 2], home.said()
    assert re.search(r"is being run by process \d+ on", " ".join(home.said().split()))
    assert_same_end(home, uninterrupted)


def test_a_recipe_that_was_edited_is_refused_by_what_differs(new_home):
    home = new_home()
    assert home.run(die=("torch.optim:AdamW.step", 5)) == KILLED, home.said()
    recipe = home.runs[0] / "recipe.yaml"
    began = recipe.read_text()
    assert "temperature: 4" in began
    recipe.write_text(began.replace("temperature: 4", "temperature: 5"))
    assert home.resume() == 2
    assert "losses.soft-target.temperature was 4.0, is 5.0" in " ".join(home.said().split())
    recipe.write_text(began)
    assert home.resume() == 0, home.said()


def test_resuming_a_finished_run_changes_nothing(new_home, uninterrupted):
    before = results_of(uninterrupted.runs[0]), tracked(uninterrupted)
    assert uninterrupted.resume() == 0, uninterrupted.said()
    assert (results_of(uninterrupted.runs[0]), tracked(uninterrupted)) == before


def test_resuming_an_unknown_run_names_those_there_are(uninterrupted):
    assert uninterrupted.finish("resume", "nonsense") == 2
    assert "no run 'nonsense'" in uninterrupted.said()
    assert uninterrupted.runs[0].name in uninterrupted.said()


def test_a_run_is_not_gone_on_with_on_other_recordings(new_home):
    home = new_home()
    assert home.run(die=("torch.optim:AdamW.step", 5)) == KILLED, home.said()
    facts = home.runs[0] / "run.json"
    began = json.loads(facts.read_text())
    facts.write_text(json.dumps({**began, "fingerprint": "0" * 64}))
    assert home.resume() == 2
    assert "began with other recordings: its fingerprint of them is 000000000000" in home.said()
    facts.write_text(json.dumps(began))
    assert home.resume() == 0, home.said()
