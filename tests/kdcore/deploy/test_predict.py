"""Saved students on raw files: of every format, alone and together, whole and window by window."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from saved import ACCELEROMETER, ALONE, CLASSES, lines, saved_student, walk
from toys import WRIST

from kdcore import PlainRecording, Signal, hookimpl
from kdcore.cli.main import main
from kdcore.deploy.recordings import read_recording
from kdcore.deploy.saved_student import load_predictor, load_student
from kdcore.deploy.streaming import Smoothing
from kdcore.errors import CheckpointError, DataError
from kdcore.plugin.manager import PluginManager
from kdcore.runs.find_student import find_student


def likeliest(line):
    *_, name, share = line.split(": ")[-1].split("  ")[0].rsplit(" ", 1)
    return name, float(share)


# Formats


def test_plain_arrays_and_tables_give_one_answer(tmp_path):
    folder, values = saved_student(tmp_path / "student"), walk(70)
    np.save(tmp_path / "clip.npy", values)
    np.savetxt(tmp_path / "clip.csv", values, delimiter=",", header="x,y,z", comments="")
    np.savetxt(tmp_path / "clip.txt", values)
    expected = load_student(folder).predict({"accelerometer": Signal(values, 50.0)})[0]
    for name in ("clip.npy", "clip.csv", "clip.txt"):
        [line] = lines(folder, [tmp_path / name], rate=50.0, top=1)
        assert likeliest(line) == (CLASSES[expected.argmax()], pytest.approx(expected.max(), abs=1e-3))
    [line] = lines(folder, [tmp_path / "clip.npy"])
    assert sum(float(part.rsplit(" ", 1)[1]) for part in line.split(": ")[-1].split("  ")) == pytest.approx(1, abs=2e-3)


def test_a_file_of_utd_mhad(tmp_path, recordings):
    folder = saved_student(tmp_path / "student", dataset="utd-mhad")
    path = recordings / "utd-mhad" / "Inertial" / "a5_s2_t1_inertial.mat"
    from scipy.io import loadmat

    values = (loadmat(path)["d_iner"][:, :3] * 9.80665).astype(np.float32)
    expected = load_student(folder).predict({"accelerometer": Signal(values, 50.0)})[0]
    [line] = lines(folder, [path])
    assert likeliest(line) == (CLASSES[expected.argmax()], pytest.approx(expected.max(), abs=1e-3))
    with pytest.raises(DataError, match="d_iner"):
        lines(folder, [recordings / "utd-mhad" / "Skeleton" / "a5_s2_t1_skeleton.mat"])


def test_a_file_of_berkeley_mhad(tmp_path, recordings):
    wrist = ACCELEROMETER.renamed("accelerometer-left-wrist", rate=30.0)
    folder = saved_student(tmp_path / "student", wrist, "berkeley-mhad")
    path = recordings / "berkeley-mhad" / "Accelerometer" / "Shimmer01" / "acc_h01_s01_a01_r01.txt"
    table = np.loadtxt(path)
    times = table[:, 3] - table[0, 3]
    signal = Signal((table[:, :3] * 9.80665).astype(np.float32), (len(times) - 1) / times[-1], 0.0, times)
    expected = load_student(folder).predict({wrist.name: signal})[0]
    assert likeliest(lines(folder, [path])[0]) == (CLASSES[expected.argmax()], pytest.approx(expected.max(), abs=1e-3))


def test_a_file_of_ones_own_tables(tmp_path):
    watch = {"pattern": "{subject}_{action}_{trial}.csv", "rate": 50.0, "columns": {"accelerometer": ["ax", "ay", "az"]}}
    modality = ACCELEROMETER.renamed("accelerometer-watch")
    folder = saved_student(tmp_path / "student", modality, "sensor-csv", options={"devices": {"watch": watch}})
    values = walk(70)
    table = np.column_stack([np.arange(70), values[:, ::-1]])
    np.savetxt(tmp_path / "anything.csv", table, delimiter=",", header="n,az,ay,ax", comments="", fmt="%.9g")
    expected = load_student(folder).predict({modality.name: Signal(values, 50.0)})[0]
    [line] = lines(folder, [tmp_path / "anything.csv"])
    assert likeliest(line) == (CLASSES[expected.argmax()], pytest.approx(expected.max(), abs=1e-3))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((3, 50)), r"channel 3.*shape \(3, 50\)"),
        (np.zeros((50, 6)), r"channel 3.*shape \(50, 6\)"),
        (np.zeros((50, 1)), r"channel 3.*shape \(50, 1\)"),
        (np.zeros(50), r"shape \(50,\)"),
        (np.zeros((0, 3)), "empty"),
        (np.full((50, 3), np.nan), "not finite, the first at sample 0"),
        (np.where(np.arange(150).reshape(50, 3) > 22, np.inf, 1.0), "not finite, the first at sample 7"),
        (np.array([["a", "b", "c"]]), "must contain numbers, not <U1"),
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_recording_that_does_not_fit_is_named_with_the_reason(tmp_path, values, said):
    folder = saved_student(tmp_path / "student")
    np.save(tmp_path / "odd.npy", values)
    with pytest.raises(DataError, match=rf"odd\.npy: .*{said}"):
        lines(folder, [tmp_path / "odd.npy"])


def test_smoothing_without_windows_is_refused(tmp_path, capfd, monkeypatch):
    folder = saved_student(tmp_path / "student")
    np.save(tmp_path / "walk.npy", walk(50))
    monkeypatch.setattr("sys.argv", ["kdcore", "predict", str(folder), str(tmp_path / "walk.npy"), "--smoothing", "3"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "--smoothing requires --window" in capfd.readouterr().err


def test_files_that_cannot_be_read_are_named(tmp_path):
    folder = saved_student(tmp_path / "student", dataset="utd-mhad")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY rubbish")
    (tmp_path / "words.csv").write_text("a,b,c\nd,e,f\n")
    (tmp_path / "clip.mat").write_text("nothing")
    for name, options in [("broken.npy", {}), ("words.csv", {"rate": 50.0}), ("clip.mat", {}), ("missing.npy", {})]:
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            lines(folder, [tmp_path / name], **options)
    with pytest.raises(DataError, match=r"words\.csv.*--rate"):
        lines(folder, [tmp_path / "words.csv"])
    with pytest.raises(DataError, match="its options devices are not known"):
        lines(folder, [tmp_path / "words.csv"], dataset="sensor-csv")
    saved_student(tmp_path / "wrist", WRIST.renamed("wrist", rate=None))
    np.save(tmp_path / "clip.npy", walk(50, 2))
    with pytest.raises(DataError, match="--rate"):
        lines(tmp_path / "wrist", [tmp_path / "clip.npy"])


def test_whole_numbers_are_taken_as_the_floats_that_the_student_knows(tmp_path):
    folder = load_student(saved_student(tmp_path / "student"))
    whole = np.random.default_rng(1).integers(-20, 20, (50, 3))
    for values in (whole, whole.astype(np.int16)):
        expected = folder.predict({"accelerometer": Signal(whole.astype(np.float32), 50.0)})
        np.testing.assert_array_equal(folder.predict({"accelerometer": Signal(values, 50.0)}), expected)


# Windows


def test_windows_of_a_long_recording_are_each_answered_as_if_alone(tmp_path):
    folder, values = saved_student(tmp_path / "student"), walk(233)
    np.save(tmp_path / "long.npy", values)
    alone = load_student(folder)
    found = lines(folder, [tmp_path / "long.npy"], window=(1.0, 0.3), top=1)
    starts = [0.3 * n for n in range(100) if 0.3 * n + 1.0 <= 233 / 50 + 1e-9]
    assert len(found) == len(starts) == 13
    for start, line in zip(starts, found, strict=True):
        first = round(start * 50)
        expected = alone.predict({"accelerometer": Signal(values[first : first + 50], 50.0)})[0]
        assert f" {start:.2f}-{start + 1:.2f} s: " in line
        assert likeliest(line) == (CLASSES[expected.argmax()], pytest.approx(expected.max(), abs=1e-3))
    steady = lines(folder, [tmp_path / "long.npy"], window=(1.0, 0.3), smoothing=Smoothing(3))
    assert len(steady) == 13
    assert steady[0] == lines(folder, [tmp_path / "long.npy"], window=(1.0, 0.3))[0]
    with pytest.raises(DataError, match=r"long\.npy: the recording is shorter than a window of 5 s"):
        lines(folder, [tmp_path / "long.npy"], window=(5.0, 1.0))


def test_a_recording_exactly_as_long_as_a_window_has_one(tmp_path):
    folder = saved_student(tmp_path / "student", window={"length": 1.0, "hop": None})
    np.save(tmp_path / "clip.npy", walk(50))
    assert len(lines(folder, [tmp_path / "clip.npy"])) == 1
    np.save(tmp_path / "short.npy", walk(49))
    with pytest.raises(DataError, match="shorter than a window"):
        lines(folder, [tmp_path / "short.npy"])


def test_more_windows_than_are_answered_at_once(tmp_path, monkeypatch):
    one = load_student(saved_student(tmp_path / "student"))
    signals = {"accelerometer": Signal(walk(500), 50.0)}
    whole = one.predict(signals, (1.0, 0.1))
    monkeypatch.setattr("kdcore.deploy.student.AT_ONCE", 7)
    np.testing.assert_allclose(one.predict(signals, (1.0, 0.1)), whole, rtol=1e-5)
    assert len(whole) == 91


# Several students


def test_students_taken_together(tmp_path):
    names = ("a", "b", "c")
    for number, name in enumerate(names):
        saved_student(tmp_path / "all" / name, seed=number)
    signals = {"accelerometer": Signal(walk(200), 50.0)}
    alone = np.stack([load_student(tmp_path / "all" / name).predict(signals, (1.0, 0.5)) for name in names]).astype(np.float64)
    together = load_predictor(tmp_path / "all")
    np.testing.assert_allclose(together.predict(signals, (1.0, 0.5)), alone.mean(0), rtol=1e-5)
    largest = load_predictor(tmp_path / "all", "max").predict(signals, (1.0, 0.5))
    np.testing.assert_allclose(largest, alone.max(0) / alone.max(0).sum(1, keepdims=True), rtol=1e-5)
    assert together.classes == CLASSES
    assert together.modalities == ["accelerometer"]
    with pytest.raises(DataError, match="average or max, not 'median'"):
        load_predictor(tmp_path / "all", "median")  # type: ignore[arg-type]
    saved_student(tmp_path / "all" / "d", classes=["sit", "stand", "run"])
    with pytest.raises(DataError, match="'d' has other classes"):
        load_predictor(tmp_path / "all")


def test_where_students_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    run = tmp_path / "runs" / "20260101-000000-tiny-abc"
    for seed in (3, 10):
        saved_student(run / "students" / f"seed-{seed}" / "student")
    (run / "recipe.yaml").write_text("")
    assert find_student("abc") == run / "students" / "seed-3" / "student"
    assert find_student(run, 10) == run / "students" / "seed-10" / "student"
    assert find_student(run / "students" / "seed-10" / "student") == run / "students" / "seed-10" / "student"
    saved_student(run / "students" / "seed-10" / "other")
    assert find_student("abc", 10) == run / "students" / "seed-10"
    with pytest.raises(CheckpointError, match=r"no student of seed 4 \(there are: 3, 10\)"):
        find_student("abc", 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no saved student"):
        find_student(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="no run"):
        find_student("nowhere")
    (tmp_path / "student.pte").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"student\.pte: a file that no plugin opens as a student"):
        find_student(tmp_path / "student.pte")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrist").mkdir()  # recordings, in a folder called as the recipe is
    with pytest.raises(CheckpointError, match="holds no saved student"):
        find_student("wrist")
    run = run.rename(tmp_path / "runs" / "20260101-000000-wrist-abc123")
    assert find_student("wrist", 3) == run / "students" / "seed-3" / "student"


# Elsewhere

ABSENT = ("timm", "torch_geometric", "torchvision", "cv2", "av", "mlflow", "lightning_fabric", "matplotlib", "optuna", "onnx")
PLUGINS = ("skeleton", "images", "video", "losses", "schedules", "semantics", "spamfm", "gsdm", "acs", "mutual")


def predict_without(plugins, *words, text=""):
    code = ALONE.format(absent=ABSENT, plugins=plugins)
    command = [sys.executable, "-c", code, "predict", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, input=text)


def test_an_accelerometer_student_needs_nothing_of_teachers_and_other_plugins(tmp_path):
    folder = saved_student(tmp_path / "student")
    np.save(tmp_path / "clip.npy", walk(70))
    done = predict_without(PLUGINS, folder, tmp_path / "clip.npy", "--top", "1")
    assert done.returncode == 0, done.stderr
    [expected] = lines(folder, [tmp_path / "clip.npy"], top=1)
    assert done.stdout.strip() == expected


@pytest.mark.parametrize("source", ["clip.npy", "clip.csv", "-"])
def test_without_the_plugin_that_reads_plain_recordings_it_is_named(tmp_path, source):
    folder = saved_student(tmp_path / "student", dataset="")
    np.save(tmp_path / "clip.npy", walk(70))
    np.savetxt(tmp_path / "clip.csv", walk(70), delimiter=",")
    words = ["-", "--window", "1"] if source == "-" else [tmp_path / source, "--rate", "50"]
    done = predict_without((*PLUGINS, "datasets"), folder, *words, text="x,y,z\n")
    assert done.returncode == 2
    assert re.search(r"error: .*the plugin 'datasets', which comes with kdcore .*, is not in use$", done.stderr.strip())


class WaveReader:
    """A plugin that reads files of its own kind."""

    @hookimpl
    def open_recording(self, source, decimal):
        if not str(source).endswith(".wave"):
            return None

        class Wave(PlainRecording):
            def signal(self, form):
                values = np.frombuffer(source.read_bytes(), dtype=np.float32)
                if len(values) % 3:
                    raise DataError("not a whole number of samples")
                return Signal(values.reshape(-1, 3), form.rate)

        return Wave()


def test_a_plugin_reads_files_of_its_own_kind(tmp_path, monkeypatch):
    plugins = PluginManager()
    plugins.register("wave", WaveReader())
    monkeypatch.setattr("kdcore.deploy.recordings.plugin_manager", lambda: plugins)
    folder, values = saved_student(tmp_path / "student"), walk(70)
    np.save(tmp_path / "clip.npy", values)
    (tmp_path / "clip.wave").write_bytes(values.tobytes())
    [expected], [found] = (lines(folder, [tmp_path / f"clip.{each}"], rate=50.0) for each in ("npy", "wave"))
    assert found.partition(": ")[2] == expected.partition(": ")[2]
    (tmp_path / "clip.wave").write_bytes(values.tobytes()[:-4])
    with pytest.raises(DataError, match=r"clip\.wave: not a whole number of samples$"):
        lines(folder, [tmp_path / "clip.wave"], rate=50.0)


def test_the_folder_says_all_that_is_needed(tmp_path):
    folder = saved_student(tmp_path / "student")
    assert sorted(path.name for path in folder.iterdir()) == ["student.json", "weights.safetensors"]
    told = json.loads((folder / "student.json").read_text())
    assert told["classes"] == CLASSES
    np.save(tmp_path / "clip.npy", walk(70))
    signal = read_recording(load_student(folder), tmp_path / "clip.npy")
    assert (signal.rate, signal.values.shape) == (50.0, (70, 3))


def test_an_interrupted_recording_is_named_once(tmp_path):
    student, values = load_predictor(saved_student(tmp_path / "student")), walk(60)
    times = np.arange(60) / 50 + np.where(np.arange(60) < 30, 0.0, 3600.0)
    with pytest.warns(UserWarning, match=r"interrupted for 3\.6e\+03 s, .*\(2 recordings\)") as found:
        student.predict([Signal(values, 50.0, times=times)] * 2 + [Signal(values, 50.0)])
    assert len(found) == 1


def test_a_coarse_clock_is_named(tmp_path):
    """Time stamps in whole seconds, for 50 samples per second."""
    student = load_predictor(saved_student(tmp_path / "student"))
    with pytest.warns(UserWarning, match="accelerometer: the recording has a clock that is too coarse"):
        student.predict(Signal(walk(200), 50.0, times=np.floor(np.arange(200) / 50)))


def test_time_stamps_of_a_short_recording_agree_with_the_given_rate(tmp_path):
    """Twelve samples span eleven intervals."""
    columns = {"accelerometer": ["x", "y", "z"]}
    watch = {"pattern": "{subject}_{action}_{trial}.csv", "columns": columns, "time_column": "time", "time_unit": "s"}
    modality = ACCELEROMETER.renamed("accelerometer-watch")
    student = load_student(saved_student(tmp_path / "student", modality, "sensor-csv", options={"devices": {"watch": watch}}))
    rows = np.column_stack([np.arange(12) / 50, walk(12)])
    np.savetxt(tmp_path / "1_a_1.csv", rows, delimiter=",", header="time,x,y,z", comments="")
    assert len(read_recording(student, tmp_path / "1_a_1.csv", rate=50.0)) == 12
    with pytest.raises(DataError, match=r"its time stamps give 50 samples per second, but --rate is 54\.5"):
        read_recording(student, tmp_path / "1_a_1.csv", rate=54.5)


@pytest.mark.parametrize("scale", [1.0, 9.81])
def test_a_file_of_the_dataset_in_another_unit_is_pointed_out(tmp_path, recwarn, scale):
    watch = {"pattern": "{subject}_{action}_{trial}.csv", "columns": {"accelerometer": ["x", "y", "z"]}, "rate": 50}
    modality = ACCELEROMETER.renamed("accelerometer-watch")
    student = load_student(saved_student(tmp_path / "student", modality, "sensor-csv", options={"devices": {"watch": watch}}))
    values = np.random.default_rng(0).normal(size=(60, 3))
    values *= scale / np.linalg.norm(values, axis=1, keepdims=True)
    np.savetxt(tmp_path / "1_a_1.csv", values, delimiter=",", header="x,y,z", comments="")
    read_recording(student, tmp_path / "1_a_1.csv")
    said = [str(each.message) for each in recwarn]
    assert ["as if in g, but are read as m/s^2; if they are in g, convert them to m/s^2" in each for each in said] == [True] * (
        scale == 1
    )


def test_a_dataset_that_is_named_reads_the_file_also_an_array(tmp_path):
    student = load_student(saved_student(tmp_path / "student"))
    np.save(tmp_path / "clip.npy", walk(70))
    with pytest.raises(DataError, match=r"clip\.npy"):
        read_recording(student, tmp_path / "clip.npy", dataset="utd-mhad")


@pytest.mark.parametrize("rate", [0.0, -0.0, -5.0, float("nan"), float("inf")])
def test_no_recording_has_a_rate_that_is_not_positive(tmp_path, rate):
    columns = {"accelerometer": ["x", "y", "z"]}
    watch = {"pattern": "{subject}_{action}_{trial}.csv", "columns": columns, "time_column": "time", "time_unit": "s"}
    modality = ACCELEROMETER.renamed("accelerometer-watch")
    folder = saved_student(tmp_path / "student", modality, "sensor-csv", options={"devices": {"watch": watch}})
    values = walk(60)
    rows = np.column_stack([np.arange(60) / 50, values])
    np.savetxt(tmp_path / "1_a_1.csv", rows, delimiter=",", header="time,x,y,z", comments="")
    student = load_student(folder)
    with pytest.raises(DataError, match=r"the rate must be greater than 0|50 samples per second, but"):
        read_recording(student, tmp_path / "1_a_1.csv", rate=rate)
    for given in (Signal(values, rate), (values, rate)):
        with pytest.raises(DataError, match="the rate must be greater than 0"):
            student.predict(given)
    for given in (Signal(values, 50.0), (values, 50.0), values):
        with pytest.raises(DataError, match=r"the rate must be greater than 0|50 samples per second, but"):
            student.predict(given, rate=rate)
