"""Predictions written as CSV and JSON, and for a stream of samples."""

from __future__ import annotations

import csv
import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saved import ACCELEROMETER, CLASSES, saved_student, walk

from kdcore import DataError, Signal, load_student
from kdcore.cli.main import main
from kdcore.deploy.predict import predict_stream
from kdcore.deploy.streaming import Smoothing, StreamingPredictor, smoothed
from kdcore.errors import KdcoreError
from kdcore_export.onnx_student import load_onnx


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved_student(tmp_path_factory.mktemp("one") / "student")


def kdcore(monkeypatch, *words, lines=""):
    monkeypatch.setattr("sys.argv", ["kdcore", *map(str, words)])
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    try:
        main()
    except SystemExit as left:
        return left.code
    return 0


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("window", [None, 1.0])
def test_all_probabilities_are_written(folder, tmp_path, monkeypatch, suffix, window):
    clips = [walk(90), walk(130, seed=1)]
    files = [tmp_path / f"{number}.npy" for number in range(2)]
    for file, values in zip(files, clips, strict=True):
        np.save(file, values)
    output = tmp_path / f"out{suffix}"
    words = [] if window is None else ["--window", window, "--hop", "0.5"]
    assert kdcore(monkeypatch, "predict", folder, *files, "--output", output, *words) == 0
    student = load_student(folder)
    each = [student.predict(values, None if window is None else (1.0, 0.5)) for values in clips]
    expected = np.concatenate(each)
    starts = [None if window is None else 0.5 * number for rows in each for number in range(len(rows))]
    names = [str(file) for file, rows in zip(files, each, strict=True) for _ in rows]
    if suffix == ".json":
        found = json.loads(output.read_text())
        shares = np.array([[row["probabilities"][name] for name in CLASSES] for row in found])
    else:
        found = list(csv.DictReader(output.read_text().splitlines()))
        shares = np.array([[float(row[f"p({name})"]) for name in CLASSES] for row in found])
        found = [{**row, "start": float(row["start"]) if row["start"] else None} for row in found]
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    assert [row["start"] for row in found] == starts
    assert [row["recording"] for row in found] == names
    assert [row["label"] for row in found] == [CLASSES[number] for number in expected.argmax(1)]


def test_other_endings_are_refused(folder, tmp_path, monkeypatch, capfd):
    np.save(tmp_path / "a.npy", walk(90))
    assert kdcore(monkeypatch, "predict", folder, tmp_path / "a.npy", "--output", tmp_path / "out.xlsx") == 2
    assert "written as .csv or .json" in capfd.readouterr().err


def test_recordings_are_drawn_with_their_predictions(folder, tmp_path, monkeypatch, capfd):
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", walk(130, seed=number))
    files = [tmp_path / "0.npy", tmp_path / "1.npy"]
    words = ["--window", "1", "--hop", "0.5", "--plot", tmp_path / "plot.html"]
    assert kdcore(monkeypatch, "predict", folder, *files, *words) == 0
    assert capfd.readouterr().out.count(" s: ") == 8  # two recordings of 2.6 s
    text = (tmp_path / "plot.html").read_text()
    assert text.count("<h2>") == 2
    assert text.count("<img") == 4
    for wrong, said in (("plot.png", "the file name must end in .html"), ("none/plot.html", "does not exist")):
        assert kdcore(monkeypatch, "predict", folder, *files, "--plot", tmp_path / wrong) == 2
        assert said in capfd.readouterr().err
    assert kdcore(monkeypatch, "predict", folder, "-", *words, lines="0 0 0\n") == 2
    assert "--plot requires recordings in files" in capfd.readouterr().err


@given(
    samples=st.integers(1, 260),
    length=st.sampled_from([0.3, 0.5, 1.0, 1.01]),
    hop=st.sampled_from([0.02, 0.1, 0.33, 0.5, 1.0, 1.7]),
    smoothing=st.sampled_from([Smoothing(), Smoothing(3), Smoothing(4, "majority")]),
    chunks=st.lists(st.integers(1, 70), min_size=1, max_size=6),
)
@settings(max_examples=25, deadline=None)
def test_a_stream_gives_the_windows_of_the_whole_recording(folder, samples, length, hop, smoothing, chunks):
    student, values = load_student(folder), walk(samples)
    stream, found, first, number = StreamingPredictor(student, 50.0, (length, hop), smoothing), [], 0, 0
    while first < samples:
        size = chunks[number % len(chunks)]
        found += stream.push(values[first : first + size])
        first, number = first + size, number + 1
        assert sum(map(len, stream._kept)) <= 50 * (length + hop) + size + 2, "no more than the next window needs"
        assert len(stream._recent) <= smoothing.windows
    signals = {"accelerometer": Signal(values, 50.0)}
    try:
        expected = smoothed(student.predict(signals, (length, hop)), smoothing)
    except DataError:
        assert found == []
        return
    np.testing.assert_allclose([span for span, _ in found], student.spans(signals, (length, hop)), atol=1e-9)
    np.testing.assert_allclose([row for _, row in found], expected, atol=1e-5)


def test_each_window_is_predicted_as_soon_as_it_is_complete(folder):
    student, values = load_student(folder), walk(120)
    read = []

    def lines():
        yield "z,y,x\n"
        for row in values:
            read.append(row)
            yield ",".join(map(str, row[::-1])) + "\n"

    stops = [(len(read), each.start) for each in predict_stream(student, lines(), (1.0, 0.5))]
    assert stops == [(50, 0.0), (75, 0.5), (100, 1.0)]


def test_a_stream_is_warned_of_before_it_ends(folder, monkeypatch, recwarn):
    said = []

    def lines():
        yield "x,y,z,light\n"
        for number, row in enumerate(walk(60)):
            if number == 55:  # the first window has been predicted
                said.extend(str(each.message) for each in recwarn)
            yield ",".join(map(str, row)) + ",1\n"

    monkeypatch.setattr("sys.argv", ["kdcore", "predict", str(folder), "-", "--window", "1"])
    monkeypatch.setattr(sys, "stdin", lines())
    with pytest.raises(SystemExit):
        main()
    assert "columns not used: light" in said


def test_standard_input(folder, monkeypatch, capfd):
    values = walk(75)
    text = "x,y,z\n" + "\n".join(",".join(map(str, row)) for row in values)
    assert kdcore(monkeypatch, "predict", folder, "-", "--window", "1", "--hop", "0.5", "--top", "1", lines=text) == 0
    rows = load_student(folder).predict(values, (1.0, 0.5))
    wanted = [f"-  {0.5 * n:.2f}-{0.5 * n + 1:.2f} s: {CLASSES[row.argmax()]} {row.max():.3f}" for n, row in enumerate(rows)]
    assert capfd.readouterr().out.splitlines() == [line.replace("-  ", "- ", 1) for line in wanted]
    for lines, words, said in [
        (text, [], "standard input requires --window"),
        ("x,y,z\n1,2,3\n", ["--window", "1"], "1 samples are shorter than a window of 1 s"),
        ("x,y,z\n1,2,three\n", ["--window", "1"], "line 2: column 'z' is 'three', not a number"),
        ("gx,gy,gz\n1,2,3\n", ["--window", "1"], "no column for channel 'x'"),
    ]:
        assert kdcore(monkeypatch, "predict", folder, "-", *words, lines=lines) == 2
        assert said in capfd.readouterr().err
    with pytest.raises(KdcoreError, match="no such file"):
        load_onnx("nowhere.onnx")
    assert ACCELEROMETER.rate == 50.0


def test_decimal_commas(folder, tmp_path, monkeypatch, capfd):
    rows = [[f"{cell:.3f}" for cell in row] for row in walk(100)]
    tables = {
        "points": "\n".join(["x,y,z", *(",".join(row) for row in rows)]),
        "commas": "\n".join(["x;y;z", *(";".join(row).replace(".", ",") for row in rows)]),
        "mixed": "\n".join(["x,y,z", *(",".join(row).replace(".", ",") for row in rows)]),
    }
    for name, text in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)
    for windows in ((), ("--window", "1")):
        shown = []
        for name, decimal in (("points", ()), ("commas", ("--decimal", ","))):
            words = ("--rate", "50", *windows, *decimal)
            assert kdcore(monkeypatch, "predict", folder, tmp_path / f"{name}.csv", *words) == 0
            shown.append(capfd.readouterr().out.replace(f"{name}.csv", ".csv"))
            if windows:
                assert kdcore(monkeypatch, "predict", folder, "-", *words, lines=tables[name]) == 0
                lines = capfd.readouterr().out.splitlines(keepends=True)
                shown.append("".join(line.replace("-", str(tmp_path / ".csv"), 1) for line in lines))
        assert len(set(shown)) == 1
    for name, said in (("commas", "pass --decimal ,"), ("mixed", "line 2 has 6 columns")):
        for file, lines in ((tmp_path / f"{name}.csv", ""), ("-", tables[name])):
            assert kdcore(monkeypatch, "predict", folder, file, "--rate", "50", "--window", "1", lines=lines) == 2
            assert said in capfd.readouterr().err
    assert kdcore(monkeypatch, "predict", folder, tmp_path / "points.csv", "--rate", "50", "--decimal", ";") == 2
    assert "--decimal is '.' or ',', not ';'" in capfd.readouterr().err


def test_a_folder_is_no_recording(folder, tmp_path, monkeypatch, capfd):
    (tmp_path / "recordings").mkdir()
    assert kdcore(monkeypatch, "predict", folder, tmp_path / "recordings") == 2
    said = capfd.readouterr().err
    assert f"{tmp_path / 'recordings'}: a folder, not a recording of dataset 'synthetic-motion'" in said
    assert "give the files in it" in said
