"""Saliency of a run's participants: who is asked, about which answer, and what is left if nobody tells."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import kdcore
from kdcore import read_run, reopen, restore_participants
from kdcore.training.assembly import Assembly
from kdcore.training.engine import predict
from kdcore.training.fabric import make_fabric
from kdcore.training.randomness import random_state
from kdcore_report.examples import gather_examples
from kdcore_report.rewrite import rewrite_report
from kdcore_report.saliency import Explainer

pytestmark = pytest.mark.slow  # a whole run stands before it

TINY = (
    "data.dataset.subjects=4", "data.protocol=cross-subject", "data.labels=given", "schedule.teacher_split=train",
    "data.dataset.trials=1", "data.dataset.actions=[wave, punch, sit down]", "data.batch_size=4",
    "schedule.teachers.epochs=1", "schedule.student.epochs=1", "engine.accelerator=cpu", "seeds=[3]",
)  # fmt: skip
EVERYBODY = ["acc", "gyro", "student, baseline", "student, distilled"]


class Hook:
    """Stands for the plugins' hooks."""

    def __init__(self, tell):
        self.tell, self.asked = tell, []
        self.explain.__func__.get_hookimpls = lambda: [tell]

    def explain(self, participant, inputs, score):
        self.asked.append((participant.name, tuple(inputs.shape), score(inputs).item()))
        told = self.tell(inputs)
        return [] if told is None else [{"places": told}]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, database, module_figures):
    """A fused, guided run from sensors' images to video: its folder, and what it was made of."""
    home = tmp_path_factory.mktemp("explained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDCORE_RUNS", str(home / "runs"))
        patch.setenv("KDCORE_CACHE", str(home / "cache"))
        threads = torch.get_num_threads()
        arms = []
        construct = Assembly.distiller
        patch.setattr(Assembly, "distiller", lambda *args: arms.append(args[3]) or construct(*args))
        made = kdcore.run("sakdn", [*TINY, f"tracking.uri=sqlite:///{database}"])
        assert made
        patch.setattr(Assembly, "distiller", construct)
        run = read_run(made.folder)
        context = reopen(run)
        torch.set_num_threads(threads)
    outcomes = {arm: found[3] for arm, found in run.outcomes.items()}
    return SimpleNamespace(made=made, folder=made.folder, run=context, table=context.table, outcomes=outcomes, arms=arms)


def explainer(finished, hook):
    return Explainer(replace(finished.run, hook=hook), 3, finished.outcomes)


def test_the_report_of_a_run_uses_its_networks_and_shows_what_a_later_report_shows(finished, tmp_path, module_figures):
    assert finished.arms == ["distilled", "baseline"]  # constructed once each, for training
    assert not finished.run.trained
    rewrite_report(finished.folder, tmp_path / "report.html")
    drawn = {path.name: path.read_bytes() for path in (finished.folder / "pictures").iterdir()}
    again = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    assert any(name.endswith("-saliency.png") for name in drawn)
    assert again == drawn


@pytest.mark.parametrize("arm", ["distilled", "baseline"])
def test_everybody_is_as_when_training_ended(finished, arm):
    before = random_state()["torch"]
    distiller = restore_participants(finished.run, 3, arm)
    assert torch.equal(random_state()["torch"], before)
    outcome = finished.outcomes[arm]
    fabric = make_fabric(finished.run.recipe.engine)
    names = [*distiller.teachers, *distiller.students]
    again = predict(distiller, names, finished.table.rows["test"], finished.table, 4, fabric)
    for name in names:
        np.testing.assert_allclose(again[name], outcome.probabilities[name], rtol=1e-4, atol=1e-6)


def test_pictures_of_everybody_are_in_the_report_and_with_mlflow(finished):
    from mlflow import MlflowClient

    names = {path.name for path in (finished.folder / "pictures").glob("*-saliency.png")}
    assert "example-1-saliency.png" in names
    assert "saliency: deeper red" in (finished.folder / "report.html").read_text()
    client = MlflowClient(finished.run.recipe.tracking.uri)
    assert names <= {each.path.rpartition("/")[2] for each in client.list_artifacts(finished.made.run_ids["root"], "pictures")}
    for example in gather_examples(finished.run, 3, finished.outcomes):
        assert [look.participant for look in example.saliency] == EVERYBODY
        assert list(example.saliency[0].maps) == ["class activation", "gsdm, block3"]
        assert list(example.saliency[2].maps) == ["class activation"]
        for look in example.saliency:
            assert (look.prediction, look.correct) == next(
                (each.text, each.text == example.label) for each in example.predictions if each.participant == look.participant
            )
            for places in look.maps.values():
                assert places.min() >= 0
                assert places.max() in (0, 1)
                assert len(places) == len(look.inputs) or look.inputs.ndim == 3


def test_the_answer_explained_is_the_one_that_was_evaluated(finished):
    hook = Hook(lambda inputs: inputs.abs().mean(-3))
    explainer(finished, hook).explain(5)
    assert [(name, shape[0]) for name, shape, _ in hook.asked] == [("acc", 2), ("gyro", 2), ("student", 1), ("student", 1)]
    distiller = restore_participants(finished.run, 3, "distilled")
    batch = finished.table.batch(finished.table.rows["test"][4:6], ["acc", "gyro"])
    with torch.no_grad():
        logits = distiller.run_teachers(["acc", "gyro"], batch)["acc"].logits[1]
    assert hook.asked[0][2] == pytest.approx(float(logits.max()), rel=1e-4)


def test_nobody_tells(finished):
    assert all("places" not in look.maps for look in explainer(finished, Hook(lambda inputs: None)).explain(0))


@pytest.mark.parametrize("tell", [lambda inputs: 1 / 0, lambda inputs: torch.ones(len(inputs), 2, 2, 2, 2)])
def test_a_plugin_that_fails_costs_its_pictures_alone(finished, tell):
    with pytest.warns(UserWarning, match="no saliency map of acc"):
        assert explainer(finished, Hook(tell)).explain(0) == []


def test_without_the_baselines_weights_the_rest_is_explained(finished, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished.folder, copy)
    shutil.rmtree(copy / "baseline")
    hook = Hook(lambda inputs: inputs.abs().mean(-3))
    with pytest.warns(UserWarning, match="the baseline arm"):
        found = Explainer(replace(finished.run, folder=copy, hook=hook), 3, finished.outcomes).explain(0)
    assert [look.participant for look in found] == [EVERYBODY[0], EVERYBODY[1], EVERYBODY[3]]
