from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdcore.runs.gain import difference_by_subject, paired_difference
from kdcore.runs.metrics import combine, effective_count, evaluate, wilson_interval
from kdcore.runs.outcome import Outcome


def answers(labels, predictions, classes):
    probabilities = np.full((len(labels), classes), 0.1 / (classes - 1))
    probabilities[np.arange(len(labels)), predictions] = 0.9
    return evaluate(probabilities, np.asarray(labels))


def random_case(seed, n=60, classes=4):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), size=n)
    return p, rng.integers(0, classes, size=n)


def test_a_case_worked_by_hand():
    result = evaluate([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.25, 0.25], [0.2, 0.3, 0.5]], [0, 1, 1, 2])
    assert result.accuracy == 0.75
    assert result.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert result.by_output.tolist() == [1.0, 0.5, 1.0]
    assert result.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert result.loss == pytest.approx(-np.log([0.7, 0.6, 0.25, 0.5]).mean())
    assert result.n == 4
    assert set(result.metrics()) == {"accuracy", "macro_f1", "loss"}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 6))
def test_scores_agree_with_scikit_learn(seed, n, classes):
    sklearn = pytest.importorskip("sklearn.metrics")
    p, y = random_case(seed, n, classes)
    result = evaluate(p, y)
    assert result.accuracy == pytest.approx(sklearn.accuracy_score(y, p.argmax(1)))
    assert result.macro_f1 == pytest.approx(sklearn.f1_score(y, p.argmax(1), average="macro", zero_division=0))
    assert result.loss == pytest.approx(sklearn.log_loss(y, p, labels=range(classes)))
    assert (result.confusion == sklearn.confusion_matrix(y, p.argmax(1), labels=range(classes))).all()


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (7, 10), (430, 432)])
def test_wilson_interval_solves_its_equation(right, n):
    low, high = answers([0] * n, [0] * right + [1] * (n - right), 3).interval
    z = stats.norm.ppf(0.975)
    for end in (low, high):
        assert (right / n - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / n, abs=1e-9)
    assert 0 <= low <= right / n <= high <= 1
    assert (low, high) == pytest.approx(tuple(stats.binomtest(right, n).proportion_ci(0.95, method="wilson")), abs=1e-12)


def test_a_class_without_samples_has_no_recall_and_no_say_in_macro_f1():
    result = answers([0, 0, 1], [0, 0, 1], 3)
    assert np.isnan(result.by_output[2])
    assert result.macro_f1 == 1.0


def test_a_probability_of_zero_gives_a_finite_loss():
    assert np.isfinite(evaluate([[1.0, 0.0]], [1]).loss)


@pytest.mark.parametrize(
    ("p", "y", "said"),
    [
        ([0.5, 0.5], [0], "shape"),
        (np.zeros((0, 2)), np.zeros(0, int), "shape"),
        ([[0.5, np.nan]], [0], "finite"),
        ([[2.0, -1.0]], [0], "negative"),
        ([[0.2, 0.2]], [0], "sum to 1"),
        ([[0.5, 0.5]], [2], "0 … 1"),
        ([[0.5, 0.5]], [-1], "0 … 1"),
        ([[0.5, 0.5]], [0, 1], "1 integers"),
        ([[0.5, 0.5]], [0.0], "integers"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(p, y, said):
    with pytest.raises(ValueError, match=said):
        evaluate(p, y)


def test_several_seeds_give_scipys_paired_interval():
    pairs = [(random_case(seed), random_case(seed + 100)[0]) for seed in range(5)]
    with_kd = [evaluate(p, y) for (p, y), _ in pairs]
    without = [evaluate(q, y) for (_, y), q in pairs]
    found = paired_difference(with_kd, without)
    test = stats.ttest_rel([e.accuracy for e in with_kd], [e.accuracy for e in without])
    interval = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.conclusive == (test.pvalue < 0.05)
    assert found.n_seeds == 5


@pytest.mark.parametrize(
    ("gains", "conclusive", "said"),
    [((6, 7, 8), True, "helped"), ((-6, -7, -8), True, "hurt"), ((-5, 5, 9), False, "No clear")],
)
def test_the_verdict_follows_the_interval(gains, conclusive, said):
    labels = np.zeros(40, int)
    without = [answers(labels, [1] * 20 + [0] * 20, 2) for _ in gains]
    with_kd = [answers(labels, [1] * (20 - gain) + [0] * (20 + gain), 2) for gain in gains]
    found = paired_difference(with_kd, without)
    assert found.conclusive is conclusive
    assert said in found.sentence
    assert f"{100 * np.mean(gains) / 40:+.1f} points" in found.sentence


def test_seeds_that_all_differ_alike_prove_nothing():
    labels = np.zeros(10, int)
    found = paired_difference([answers(labels, [0] * 8 + [1] * 2, 2)] * 3, [answers(labels, [0] * 7 + [1] * 3, 2)] * 3)
    assert found.mean == pytest.approx(0.1)
    assert not found.conclusive
    assert found.sentence == (
        "No conclusion: +10.0 points of accuracy (no interval, all differences are equal, paired t over 3 seeds)."
    )


@pytest.mark.parametrize("seeds", [1, 3])
def test_no_difference_at_all_is_not_known_to_be_zero(seeds):
    """An interval from 0 to 0 would say that the true difference is exactly 0."""
    evaluations = [answers(np.zeros(10, int), [0] * 8 + [1] * 2, 2)] * seeds
    found = paired_difference(evaluations, evaluations)
    assert "+0.0 points of accuracy (no interval, all differences are equal, paired" in found.sentence
    assert not found.conclusive


def test_one_seed_bootstraps_the_test_samples_and_says_so():
    p, y = random_case(1, n=200)
    q, _ = random_case(2, n=200)
    one, other = evaluate(p, y), evaluate(q, y)
    found = paired_difference([one], [other])
    rng = np.random.default_rng(7)
    draws = rng.integers(0, 200, size=(20_000, 200))
    brute = (one.correct[draws].mean(axis=1) - other.correct[draws].mean(axis=1)).astype(float)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(brute, [0.025, 0.975])), abs=0.006)
    assert found.mean == pytest.approx(one.accuracy - other.accuracy)
    assert not found.conclusive
    assert "nothing about other seeds" in found.sentence
    assert found == paired_difference([one], [other])


def windows(recordings: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of two classes, all labels 0, equal in nearly all windows of a recording; and the recordings."""
    rng = np.random.default_rng(seed)
    share = rng.beta(0.3, 0.1, recordings)
    return (rng.random((recordings, size)) > share[:, None]).ravel().astype(int), np.repeat(np.arange(recordings), size)


def with_windows(predictions: np.ndarray, recordings: np.ndarray):
    return evaluate(np.eye(2)[predictions], np.zeros(len(predictions), int), recordings)


def test_intervals_over_windows_hold_the_true_accuracy_as_often_as_they_say():
    """0.75 is the true mean of the recordings' accuracies. Samples taken for independent hold it in half of the cases."""
    cases = [windows(30, 20, seed) for seed in range(400)]
    held = [low <= 0.75 <= high for low, high in (with_windows(*case).interval for case in cases)]
    naive = [low <= 0.75 <= high for low, high in (wilson_interval(int((p == 0).sum()), len(p)) for p, _ in cases)]
    assert 0.92 < np.mean(held) < 0.98
    assert np.mean(naive) < 0.6


def test_windows_count_at_most_as_samples_and_at_least_as_recordings_if_all_agree():
    rng = np.random.default_rng(0)
    independent = rng.random(4000) < 0.7
    groups = np.repeat(np.arange(1000), 4)
    assert effective_count(independent, groups) == pytest.approx(4000, rel=0.15)
    assert effective_count(np.repeat(rng.random(1000) < 0.7, 4), groups) == pytest.approx(1000, rel=0.01)
    assert effective_count(np.ones(4000), groups) == 1000
    assert effective_count([True, False, True], [0, 0, 0]) == 1


def test_an_outcome_knows_which_windows_are_of_one_recording():
    keys = ["subject 1, action a, trial 1", "subject 1, action a, trial 1, window 1", "subject 1, action a, trial 11"]
    answers_ = {"student": np.eye(2)[[0, 0, 1]], "teacher": np.array([[np.nan, np.nan], [1, 0], [0, 1]])}
    labels = np.array([0, 0, 1])
    found = Outcome("distilled", answers_, labels, keys, {}, 0.0, ["teacher"], ["student"]).evaluations()
    assert [found[name].recordings.tolist() for name in ("student", "teacher")] == [[0, 0, 1], [0, 1]]
    assert Outcome("distilled", answers_, labels, list("abc"), {}, 0.0, [], []).evaluations()["student"].recordings is None


def test_one_seed_draws_whole_recordings():
    """Against drawing them by hand; recordings have different sizes."""
    first, groups = windows(40, 9, 1)
    second = windows(40, 9, 2)[0]
    kept = np.random.default_rng(0).random(len(groups)) < 0.6
    one, other = with_windows(first[kept], groups[kept]), with_windows(second[kept], groups[kept])
    found = paired_difference([one], [other])
    gained = np.bincount(groups[kept], one.correct.astype(float) - other.correct)
    sizes = np.bincount(groups[kept])
    draws = np.random.default_rng(3).integers(0, 40, (20_000, 40))
    brute = gained[draws].sum(1) / sizes[draws].sum(1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(brute, [0.025, 0.975])), abs=0.01)
    assert found.mean == pytest.approx(one.accuracy - other.accuracy)
    assert f"40 test recordings ({kept.sum()} windows)" in found.sentence


def test_evaluations_that_do_not_pair_up_are_refused():
    p, y = random_case(0)
    one, reordered = evaluate(p, y), evaluate(p[::-1], y[::-1])
    with pytest.raises(ValueError, match="per seed"):
        paired_difference([one, one], [one])
    with pytest.raises(ValueError, match="per seed"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="same test samples"):
        paired_difference([one], [reordered])


def test_ensembles_by_hand():
    first, second = [[0.6, 0.3, 0.1]], [[0.1, 0.2, 0.7]]
    assert combine([first, second]) == pytest.approx(np.array([[0.35, 0.25, 0.4]]))
    assert combine([first, second], "max") == pytest.approx(np.array([[0.6, 0.3, 0.7]]) / 1.6)
    with pytest.raises(ValueError, match="same samples"):
        combine([first, [[0.5, 0.5]]])
    with pytest.raises(ValueError, match="same samples"):
        combine([])


def test_evaluating_loads_neither_torch_nor_mlflow_nor_matplotlib():
    code = "import sys, kdcore.runs.metrics; sys.exit(bool({'torch', 'mlflow', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_gain_by_subject_is_a_t_interval_over_the_means_of_subjects(seeds):
    draw = np.random.default_rng(4)
    labels, who = draw.integers(0, 3, 90), [f"s{number}" for number in draw.integers(0, 7, 90)]
    with_kd, without = ([evaluate(draw.dirichlet(np.ones(3), 90), labels) for _ in range(seeds)] for _ in range(2))
    found = difference_by_subject(with_kd, without, who)
    means = []
    for subject in sorted(set(who)):
        rows = [row for row, each in enumerate(who) if each == subject]
        pairs = zip(with_kd, without, strict=True)
        means.append(np.mean([[float(one.correct[row]) - float(other.correct[row]) for row in rows] for one, other in pairs]))
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(np.mean(means))
    said = "paired t over 7 test subjects" + (", each averaged over 3 seeds" if seeds > 1 else "")
    assert (found.method, found.n_seeds) == (said, seeds)
    assert found.sentence.startswith("By test subject: ")
    assert difference_by_subject(with_kd, without, ["s1", "s2", "s3", "s4"] * 22 + ["s1"] * 2) is None


def test_the_effective_count_is_that_of_a_loop_over_few_recordings():
    """Of three recordings, the factor G / (G - 1) and the quantile of t weigh much."""
    right, groups = np.array([1, 1, 1, 0, 1, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    share = right.mean()
    squares = sum((right[groups == g] - share).sum() ** 2 for g in range(3))
    variance = 3 / 2 * squares / len(right) ** 2
    expected = share * (1 - share) / variance * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 2)) ** 2
    assert effective_count(right, groups) == pytest.approx(expected)
    assert expected < 3
