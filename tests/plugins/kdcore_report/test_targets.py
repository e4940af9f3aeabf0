"""Examples, saliency and calibration of runs on labels and on values."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from window_targets import LABELS, VALUES, write_recipe

import kdcore
from kdcore import Outcome, Target, read_run, reopen, restore_participants
from kdcore_report.examples import InWords, chosen, gather_examples, sample_errors
from kdcore_report.saliency import Explainer

NETWORK = {
    "modality": "accelerometer",
    "transforms": [{"name": "gaf", "size": 32, "resize": "series"}],
    "encoder": {"name": "vgg16-bn", "width": 0.03, "pool": 1, "hidden": 8},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, module_figures):
    """A run on labels and one on values, whose student reads pictures of signals."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for kind, answers in (("labels", LABELS), ("values", VALUES)):
            folder = tmp_path_factory.mktemp(kind)
            patch.setenv("KDCORE_RUNS", str(folder / "runs"))
            patch.setenv("KDCORE_CACHE", str(folder / "cache"))
            patch.chdir(folder)
            tree = write_recipe(folder, kind, answers, seeds=[0], student=NETWORK, training={"epochs": 3})
            run = read_run(kdcore.run(tree).folder)
            outcomes = {arm: each[0] for arm, each in run.outcomes.items()}
            found[kind] = SimpleNamespace(run=reopen(run), outcomes=outcomes, page=(run.folder / "report.html").read_text())
    return found


@pytest.mark.parametrize("kind", ["labels", "values"])
def test_what_is_explained_is_the_logit_of_a_label_or_the_estimate_of_a_value(finished, kind):
    run, outcomes = finished[kind].run, finished[kind].outcomes
    asked = []

    def explain(participant, inputs, score):
        x = inputs.clone().requires_grad_()
        asked.append((score(x).item(), torch.autograd.grad(score(x), x)[0]))
        return [{"places": asked[-1][1].abs().mean(-3)}]

    explain.get_hookimpls = lambda: [explain]
    distiller = restore_participants(run, 0, "distilled")
    for index in range(4):
        asked.clear()
        looks = Explainer(replace(run, hook=SimpleNamespace(explain=explain)), 0, outcomes).explain(index)
        row = run.table.rows["test"][index : index + 1]
        x = distiller.participant("student").input(run.table.batch(row, ["student"]).signals["student"]).detach()
        x.requires_grad_()
        with distiller.ready(["student"]):
            logits = distiller.participant("student").encoder(x)[0]
        given = outcomes["distilled"].probabilities["student"][index]
        if kind == "labels":
            order = np.argsort(-given).tolist()
            wanted = [each for each in order if given[each] >= 0.5] or order[:1]
            said = [("ab"[each], bool(outcomes["distilled"].labels[index][each])) for each in wanted]
            if given[wanted[0]] < 0.5:
                said = [(f"{'ab'[wanted[0]]} {100 * given[wanted[0]]:.0f} %, not predicted", None)]
        else:
            wanted, said = [0, 1], [(f"{'ab'[each]} {given[each]:.4g}", None) for each in (0, 1)]
        assert [(each.prediction, each.correct) for each in looks] == said
        for output, (value, slope) in zip(wanted, asked, strict=True):
            assert value == pytest.approx(logits[output].item(), rel=1e-4)
            [expected] = torch.autograd.grad(logits[output], x, retain_graph=True)
            torch.testing.assert_close(slope, expected, rtol=1e-3, atol=1e-6)


def test_reports_have_examples_saliency_and_calibration(finished):
    labels, values = finished["labels"].page, finished["values"].page
    assert "deeper red contributes more to the label above it" in labels
    assert "deeper red contributes more to the estimate above it" in values
    assert "<h2>Calibration</h2>" in labels
    assert "all labels" in labels
    assert "<h2>Calibration</h2>" not in values
    assert "Estimates and true values" in values
    for each in finished.values():
        assert "<h2>Examples</h2>" in each.page


def test_samples_are_chosen_by_their_errors(finished):
    for kind, each in finished.items():
        outcome = each.outcomes["distilled"]
        given, true = outcome.probabilities["student"], outcome.labels
        errors = sample_errors(outcome, "student")
        if kind == "labels":
            expected = [log_loss(y, p, labels=[0, 1]) for y, p in zip(true, given.astype(np.float64), strict=True)]
        else:
            expected = np.abs(given - true) @ (1 / np.asarray(outcome.target.std)) / 2
        np.testing.assert_allclose(errors, expected, rtol=1e-5)
        picked = chosen(each.outcomes)
        assert list(picked) == [errors.argmax(), errors.argmin()]
        assert [example.why for example in gather_examples(each.run, 0, each.outcomes)] == list(picked.values())


def test_what_distillation_changed_comes_first():
    def outcome(estimates):
        told = {"student": np.array(estimates)[:, None]}, np.zeros((4, 1)), [str(n) for n in range(4)]
        return Outcome("distilled", *told, {}, 0.0, (), ("student",), target=Target("values"))

    arms = {"distilled": outcome([1.0, 5.0, 0.0, 2.0]), "baseline": outcome([4.0, 1.0, 0.5, 2.0])}
    found = chosen(arms)
    assert list(found) == [0, 2, 1, 3]
    assert found[0] == found[2] == "Distillation reduces the error most"
    assert found[1] == "Distillation increases the error most"


def test_answers_in_words():
    several = InWords(["walk", "talk", "wave"], Target("labels"), np.array([1.0, 0.0, 1.0]))
    assert several.truth == "walk, wave"
    answer = several.prediction("student", np.array([0.9, 0.6, 0.2]))
    assert (answer.text, answer.correct, answer.number) == ("walk, talk", False, "walk 90.0, talk 60.0, wave 20.0")
    assert several.prediction("student", np.array([0.9, 0.1, 0.7])).correct
    assert InWords(["walk"], Target("labels"), np.array([0.0])).truth == "none"
    partly = InWords(["walk", "talk", "wave"], Target("labels"), np.array([1.0, np.nan, 0.0]))
    assert partly.truth == "walk; talk unknown"
    assert InWords(["walk"], Target("labels"), np.array([np.nan])).truth == "none; walk unknown"
    pulse = InWords(["pulse", "speed"], Target("values", ("bpm", "")), np.array([60.0, 1.0]))
    assert pulse.truth == "pulse 60 bpm, speed 1"
    answer = pulse.prediction("student", np.array([62.5, 0.75]))
    assert (answer.text, answer.correct, answer.number) == ("pulse 62.5 bpm, speed 0.75", None, "+2.5, -0.25")
