"""Labels and values along time: votes, streams and pictures."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from saved import CLASSES, saved_student, walk

from kdcore import Target, load_student
from kdcore.cli.main import main
from kdcore.deploy.predict import Prediction, drawings, predict_files, predict_stream
from kdcore.deploy.streaming import Smoothing, smoothed

LABELS, VALUES = Target("labels"), Target("values", ("bpm", "", "m"), (60.0, 0.0, 1.0), (5.0, 1.0, 2.0))
TABLES = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
)


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    folder = tmp_path_factory.mktemp("students")
    return {each.kind: saved_student(folder / each.kind, target=asdict(each)) for each in (LABELS, VALUES)}


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["kdcore", *map(str, words)])
    try:
        main()
    except SystemExit as left:
        return left.code
    return 0


@given(TABLES, st.integers(2, 9), st.sampled_from([0.3, 0.5, 0.8]))
def test_each_label_has_a_majority_of_its_own(table, count, threshold):
    found = smoothed(table, Smoothing(count, "majority"), LABELS, threshold)
    for number, row in enumerate(found):
        recent = table[max(0, number - count + 1) : number + 1].astype(np.float64)
        for label, share in enumerate(row):
            votes = sum(each >= threshold for each in recent[:, label])
            assert share == pytest.approx(votes / len(recent))
            mean = recent[:, label].mean()
            if abs(mean - threshold) > 1e-9:
                tied = 2 * votes == len(recent)
                assert (share >= 0.5) == (mean >= threshold if tied else 2 * votes > len(recent))


def test_a_stream_of_labels_is_voted_on_as_a_file_is(students, tmp_path):
    student, x = load_student(students["labels"]), walk(400)
    np.save(tmp_path / "x.npy", x)
    told = {"window": (1.0, 0.5), "smoothing": Smoothing(3, "majority"), "threshold": 0.45}
    whole = list(predict_files(student, [tmp_path / "x.npy"], rate=50.0, **told))
    stream = list(predict_stream(student, (",".join(map(repr, row)) for row in x.tolist()), rate=50.0, **told))
    raw = student.predict(x, (1.0, 0.5))
    assert len(whole) == len(stream) == len(raw)
    for number, (one, other) in enumerate(zip(whole, stream, strict=True)):
        recent = raw[max(0, number - 2) : number + 1]
        np.testing.assert_allclose(one.probabilities, (recent >= 0.45).mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(one.probabilities, other.probabilities)
        assert one.labels == other.labels
        assert one.labels == [name for name, share in ranked(one) if share >= 0.5]
        assert one.record()["threshold"] == 0.45
        assert one.record()["majority"] == 0.5


def ranked(prediction):
    return sorted(zip(prediction.classes, prediction.probabilities, strict=True), key=lambda each: -each[1])


def test_without_a_label_the_line_says_what_none_of_them_reached():
    none = Prediction("x", np.array([0.2, 0.4]), ["walk", "talk"], target=LABELS, threshold=0.9)
    assert none.line() == "x: no label reaches 0.9 (highest: talk 0.400)"
    assert replace(none, voted=True).line() == "x: no label reaches 0.9 in half of the windows (highest: talk 0.400)"
    assert replace(none, probabilities=np.array([0.2, 0.5]), voted=True).labels == ["talk"]


def test_values_have_no_majority(students, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "x.npy", walk(200))
    words = ["predict", students["values"], tmp_path / "x.npy", "--window", "1", "--smoothing", "3"]
    assert command(monkeypatch, *words, "--majority") != 0
    assert "leave --majority out, and --smoothing averages the values" in capsys.readouterr().err
    assert command(monkeypatch, *words) == 0


def test_a_majority_of_one_window_is_none(students, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "x.npy", walk(200))
    words = ["predict", students["labels"], tmp_path / "x.npy", "--window", "1", "--majority"]
    assert command(monkeypatch, *words) != 0
    assert "--majority requires --smoothing, the number of windows that vote" in capsys.readouterr().err
    assert command(monkeypatch, *words, "--smoothing", "2") == 0


def test_pictures_have_what_the_predictions_say(students, tmp_path):
    np.save(tmp_path / "x.npy", walk(200))
    for kind, folder in students.items():
        student = load_student(folder)
        predictions = list(predict_files(student, [tmp_path / "x.npy"], rate=50.0, window=(1.0, 1.0), threshold=0.4))
        [drawing] = drawings(student, predictions)
        assert drawing.kind == kind
        raw = student.predict(walk(200), (1.0, 1.0))
        if kind == "labels":
            got = {(each.start, each.label): each.probability for each in drawing.predictions}
            wanted = {(float(n), CLASSES[c]): raw[n, c] for n in range(len(raw)) for c in range(3) if raw[n, c] >= 0.4}
            assert got == pytest.approx(wanted)
            assert not drawing.estimates
        else:
            names = ["sit [bpm]", "stand", "walk [m]"]
            assert [list(each.values) for each in drawing.estimates] == [names] * len(raw)
            np.testing.assert_allclose([list(each.values.values()) for each in drawing.estimates], raw, rtol=1e-6)
            assert [(each.start, each.end) for each in drawing.estimates] == [(float(n), n + 1.0) for n in range(len(raw))]


@pytest.mark.parametrize(("kind", "pictures"), [("labels", 2), ("values", 2)])
def test_pages_of_labels_and_values(students, tmp_path, monkeypatch, kind, pictures):
    np.save(tmp_path / "x.npy", walk(200))
    page = tmp_path / "page.html"
    words = ["predict", students[kind], tmp_path / "x.npy", "--window", "1", "--rate", "50", "--plot", page]
    assert command(monkeypatch, *words, *(["--threshold", "0.01"] if kind == "labels" else [])) == 0
    text = page.read_text()
    assert text.count("<img") == pictures
    assert f"{kind} over time" in re.sub(r"\s+", " ", text)
    if kind == "labels":
        assert command(monkeypatch, *words, "--threshold", "0.999") == 0
        assert "no label reaches the threshold at any time" in page.read_text()
        assert page.read_text().count("<img") == 1
