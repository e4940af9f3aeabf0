"""Metrics of labels and values, against scikit-learn and loops."""

import numpy as np
import pytest
from sklearn import metrics as sk

from kdcore import Target, ValueEvaluation, evaluate_target
from kdcore.runs.gain import paired_difference
from kdcore.runs.target_metrics import part_of, trackable
from kdcore.training.scores import average_precisions, r_squared
from kdcore.training.validation import Scores

random = np.random.default_rng(0)
N, L = 60, 4
TRUE = (random.random((N, L)) < (0.5, 0.2, 0.8, 0.05)).astype(int)
GIVEN = np.round(np.clip(0.4 * TRUE + 0.6 * random.random((N, L)), 0, 1), 1)  # rounded, so that probabilities are equal
LABELS, KG = Target("labels"), Target("values", ("kg",), (2.0,), (3.0,))


def test_labels_as_scikit_learn_judges_them():
    found = evaluate_target(LABELS, "abcd", GIVEN, TRUE)
    said = GIVEN >= 0.5
    expected = {
        "map": sk.average_precision_score(TRUE, GIVEN, average="macro"),
        "macro_f1": sk.f1_score(TRUE, said, average="macro"),
        "micro_f1": sk.f1_score(TRUE, said, average="micro"),
        "subset_accuracy": sk.accuracy_score(TRUE, said),
    }
    assert {name: found.metrics()[name] for name in expected} == pytest.approx(expected)
    clipped = np.clip(GIVEN, np.finfo(float).tiny, 1)
    other = np.clip(1 - GIVEN, np.finfo(float).tiny, 1)
    assert found.metrics()["loss"] == pytest.approx(-(TRUE * np.log(clipped) + (1 - TRUE) * np.log(other)).mean())
    np.testing.assert_allclose(found.by_output, sk.average_precision_score(TRUE, GIVEN, average=None))


def test_a_label_that_no_sample_has_does_not_count():
    true = TRUE.copy()
    true[:, 1] = 0
    with np.errstate(invalid="ignore"):
        others = sk.average_precision_score(true[:, [0, 2, 3]], GIVEN[:, [0, 2, 3]])
    assert evaluate_target(LABELS, "abcd", GIVEN, true).metrics()["map"] == pytest.approx(others)


def test_f1_leaves_out_labels_that_are_neither_there_nor_predicted():
    true, given = TRUE.copy(), GIVEN.copy()
    true[:, 1], given[:, 1] = 0, 0.1
    true[:, 3], given[0, 3] = 0, 0.9  # predicted once, and so wrong
    expected = sk.f1_score(true, given >= 0.5, average=None, zero_division=np.nan)
    found = evaluate_target(LABELS, "abcd", given, true)
    assert np.isnan(expected).tolist() == [False, True, False, False]
    np.testing.assert_allclose(found.f1, expected)
    assert found.metrics()["macro_f1"] == pytest.approx(np.nanmean(expected))


def test_resamples_are_scikit_learns_sample_weights():
    counts = random.multinomial(N, np.full(N, 1 / N), size=3).astype(float)
    found = average_precisions(GIVEN, TRUE, counts)
    for row, weights in zip(found, counts, strict=True):
        expected = sk.average_precision_score(TRUE, GIVEN, average=None, sample_weight=weights)
        np.testing.assert_allclose(row[~np.isnan(row)], expected[~np.isnan(row)])
    true, said = random.normal(size=(N, 2)) * 5 + 40, random.normal(size=(N, 2)) * 5 + 40
    for row, weights in zip(r_squared(said, true, counts), counts, strict=True):
        np.testing.assert_allclose(row, sk.r2_score(true, said, sample_weight=weights, multioutput="raw_values"))


def test_values_as_scikit_learn_judges_them():
    true, said = random.normal(size=(N, 1)) * 3 + 2, random.normal(size=(N, 1)) * 3 + 2
    found = evaluate_target(KG, ("mass",), said, true)
    mse = sk.mean_squared_error(true, said)
    expected = {"mae": sk.mean_absolute_error(true, said), "rmse": mse**0.5, "r2": sk.r2_score(true, said)}
    assert found.metrics() == pytest.approx(expected)
    assert found.constant[0] == pytest.approx(np.abs(true - 2.0).mean()), "the mean of the training samples"
    scores = Scores.of(said, true.astype(np.float32), KG)
    assert (scores.name, scores.higher_is_better) == ("mae", False)
    assert scores.value == pytest.approx(expected["mae"], rel=1e-6)
    assert scores.loss == pytest.approx(mse / 9, rel=1e-6)
    assert scores.at("mae") == -scores.value


def test_values_of_several_units_are_judged_by_r2_and_have_no_mean_error():
    true, said = random.normal(size=(N, 2)), random.normal(size=(N, 2))
    found = evaluate_target(Target("values", ("kg", "m")), ("mass", "height"), said, true)
    assert found.primary.name == "r2"
    assert "mae" not in found.metrics()
    assert found.metrics()["mae/height"] == pytest.approx(sk.mean_absolute_error(true[:, 1], said[:, 1]))
    assert found.metrics()["r2"] == pytest.approx(sk.r2_score(true, said))


def of_errors(scale, seed):
    noise = np.random.default_rng(seed).normal(size=(N, 1))
    true = np.linspace(0, 10, N)[:, None]
    return evaluate_target(KG, ("mass",), true + scale * noise, true)


def test_a_smaller_error_is_a_gain_and_said_so():
    several = paired_difference([of_errors(1.0, n) for n in range(4)], [of_errors(2.0, n) for n in range(4)])
    assert several.helped
    assert several.high < 0
    assert several.sentence.startswith("Distillation helped: -0.")
    assert "kg of MAE" in several.sentence
    assert "lower is better" in several.sentence
    assert paired_difference([of_errors(2.0, n) for n in range(4)], [of_errors(1.0, n) for n in range(4)]).sentence.startswith(
        "Distillation hurt: +0."
    )


def test_the_bootstrap_of_one_seed_by_a_loop():
    one, other = of_errors(1.0, 0), of_errors(1.3, 1)
    found = paired_difference([one], [other])
    gaps = np.abs(one.outputs - one.labels)[:, 0] - np.abs(other.outputs - other.labels)[:, 0]
    drawn = [gaps[np.random.default_rng(n).integers(0, N, N)].mean() for n in range(2000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)
    assert found.mean == pytest.approx(gaps.mean())
    assert isinstance(one, ValueEvaluation)
    assert one.interval[0] < one.metrics()["mae"] < one.interval[1]


def test_answers_of_another_form_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        evaluate_target(LABELS, "abcd", GIVEN, TRUE[:, :2])
    with pytest.raises(ValueError, match="between 0 and 1"):
        evaluate_target(LABELS, "abcd", GIVEN + 1, TRUE)
    with pytest.raises(ValueError, match="finite"):
        evaluate_target(KG, ("mass",), np.full((3, 1), np.nan), np.zeros((3, 1)))


class TestValuesThatAreNotKnown:
    hidden = np.random.default_rng(6).random((N, 2)) < 0.3
    true = np.random.default_rng(7).normal([60, 1], [10, 0.2], (N, 2))
    given = true + np.random.default_rng(8).normal(0, [3, 0.1], (N, 2))
    partly = np.where(hidden, np.nan, true)

    @pytest.mark.parametrize("units", [(), ("bpm", "m/s")])
    def test_every_metric_is_of_the_known_ones(self, units):
        found = evaluate_target(Target("values", units), ("pulse", "speed"), self.given, self.partly)
        rows = [~self.hidden[:, v] for v in range(2)]
        mae = [sk.mean_absolute_error(self.true[r, v], self.given[r, v]) for v, r in enumerate(rows)]
        r2 = [sk.r2_score(self.true[r, v], self.given[r, v]) for v, r in enumerate(rows)]
        metrics = found.metrics()
        assert [metrics["mae/pulse"], metrics["mae/speed"]] == pytest.approx(mae)
        assert metrics["r2"] == pytest.approx(np.mean(r2))
        assert metrics.get("mae") == (None if units else pytest.approx(np.mean(mae)))
        assert metrics["rmse/speed"] == pytest.approx(
            np.sqrt(sk.mean_squared_error(self.true[rows[1], 1], self.given[rows[1], 1]))
        )
        assert found.support.tolist() == [r.sum() for r in rows]
        counts = np.random.default_rng(9).multinomial(N, np.full(N, 1 / N), size=3).astype(float)
        score = sk.r2_score if units else sk.mean_absolute_error
        for value, weights in zip(found.resampled(counts), counts, strict=True):
            each = [score(self.true[r, v], self.given[r, v], sample_weight=weights[r]) for v, r in enumerate(rows)]
            assert value == pytest.approx(np.mean(each))

    def test_a_value_that_no_sample_has_does_not_count(self):
        partly = np.stack([self.true[:, 0], np.full(N, np.nan)], axis=1)
        found = evaluate_target(Target("values"), ("pulse", "speed"), self.given, partly)
        assert found.metrics()["mae"] == pytest.approx(sk.mean_absolute_error(self.true[:, 0], self.given[:, 0]))
        assert np.isnan(found.metrics()["r2/speed"])

    def test_gains_are_paired(self):
        one, other = (evaluate_target(Target("values"), ("a", "b"), self.given + by, self.partly) for by in (0.0, 1.0))
        found = paired_difference([one], [other])
        assert found.mean == pytest.approx(one.metrics()["mae"] - other.metrics()["mae"])
        assert found.low < found.mean < found.high

    def test_scores_on_validation(self):
        target = Target("values", (), (60.0, 1.0), (10.0, 0.2))
        found = Scores.of(self.given, self.partly, target)
        squares = [((self.given[:, v] - self.true[:, v]) / target.std[v])[~self.hidden[:, v]] ** 2 for v in range(2)]
        assert found.loss == pytest.approx(np.concatenate(squares).mean())
        assert found.value == pytest.approx(evaluate_target(target, ("a", "b"), self.given, self.partly).metrics()["mae"])


class TestLabelsThatAreNotKnown:
    hidden = np.random.default_rng(5).random((N, L)) < 0.3
    partly = np.where(hidden, np.nan, TRUE)

    def test_every_metric_is_of_the_known_ones(self):
        found = evaluate_target(LABELS, "abcd", GIVEN, self.partly)
        rows = [~self.hidden[:, label] for label in range(L)]
        precision = [sk.average_precision_score(TRUE[r, c], GIVEN[r, c]) for c, r in enumerate(rows)]
        f1 = [sk.f1_score(TRUE[r, c], GIVEN[r, c] >= 0.5) for c, r in enumerate(rows)]
        told = ~self.hidden
        right = [all((GIVEN[n] >= 0.5)[told[n]] == TRUE[n][told[n]]) for n in range(N)]
        own = np.where(TRUE == 1, GIVEN, 1 - GIVEN)[told]
        expected = {
            "map": np.mean([each for each, r, c in zip(precision, rows, range(L), strict=True) if TRUE[r, c].any()]),
            "macro_f1": np.mean(f1),
            "micro_f1": sk.f1_score(TRUE[told], GIVEN[told] >= 0.5),
            "subset_accuracy": np.mean(right),
            "loss": -np.log(np.maximum(own, np.finfo(float).tiny)).mean(),
        }
        assert found.metrics() == pytest.approx(expected)
        np.testing.assert_allclose(np.nan_to_num(found.by_output), precision)
        shares = [TRUE[r, c].mean() for c, r in enumerate(rows)]
        assert found.constant[0] == pytest.approx(np.mean([each for each in shares if each > 0]))
        assert found.support.tolist() == [TRUE[r, c].sum() for c, r in enumerate(rows)]

    def test_resamples_and_parts(self):
        counts = random.multinomial(N, np.full(N, 1 / N), size=3).astype(float)
        found = evaluate_target(LABELS, "abcd", GIVEN, self.partly)
        for value, weights in zip(found.resampled(counts), counts, strict=True):
            each = []
            for c in range(L):
                r = ~self.hidden[:, c] & (weights > 0)
                if (TRUE[r, c] == 1).any():
                    each.append(sk.average_precision_score(TRUE[r, c], GIVEN[r, c], sample_weight=weights[r]))
            assert value == pytest.approx(np.mean(each))
        some = part_of(found, np.arange(N) < 30)
        assert some.metrics() == pytest.approx(evaluate_target(LABELS, "abcd", GIVEN[:30], self.partly[:30]).metrics())
        low, high = found.interval
        assert low < found.metrics()["map"] < high

    def test_scores_of_an_epoch_are_the_same(self):
        metrics = evaluate_target(LABELS, "abcd", GIVEN, self.partly).metrics()
        found = Scores.of(GIVEN, self.partly, LABELS)
        assert (found.value, found.loss) == pytest.approx((metrics["map"], metrics["loss"]), rel=1e-5)


def test_names_of_values_stay_apart_in_trackers():
    names = ["höhe", "hähe", "h_he", "a/b", "a_b", "a:b", "mass", "mass_std", "é", "e\u0301", "_-9"]
    found = trackable(names)
    assert found[:3] == ["höhe", "hähe", "h_he"]
    assert len({*found, *(f"{name}_std" for name in found)}) == 2 * len(names)
    assert not [name for name in found if "/" in name or ":" in name]
    evaluated = evaluate_target(Target("values"), names, np.zeros((2, 11)), np.ones((2, 11)) * range(11))
    assert [evaluated.metrics()[f"mae/{name}"] for name in found] == [*range(11)]


@pytest.mark.filterwarnings("error")
def test_labels_that_no_sample_has_have_no_numbers_and_no_warning():
    one, other = (evaluate_target(LABELS, "abcd", given, np.zeros((N, L))) for given in (GIVEN, GIVEN[::-1]))
    assert np.isnan([one.metrics()["map"], one.constant[0], *one.interval, *one.by_output]).all()
    for found in (paired_difference([one], [other]), paired_difference([one, other], [other, one])):
        assert np.isnan([found.mean, found.low, found.high]).all()
        assert found.sentence == "mAP is undefined on these test samples, so there is nothing to compare."
        assert found.amount == "– (– to –)"
        assert not found.helped
    assert one.primary.spread([float("nan"), 0.5]) == "–"
