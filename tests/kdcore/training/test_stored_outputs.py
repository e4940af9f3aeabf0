"""Stored outputs: what is written is read again, joined by key and class name, or refused in one sentence."""

from __future__ import annotations

import re
from dataclasses import replace

import learning
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learning import Imitate, distiller, fit, same_state, state_of

from kdcore import Outputs, SampleKey, Target
from kdcore.errors import DataError
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.stored_outputs import (
    STORED,
    StoredOutputs,
    concatenated_outputs,
    join_outputs,
    load_outputs,
    write_outputs,
)

every_format = pytest.mark.parametrize("suffix", STORED)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6)
KEYS = st.builds(SampleKey, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, st.integers(0, 9999))


def numbers(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@st.composite
def stored(draw):
    """Outputs for some samples, with taps of any shape."""
    keys = draw(st.lists(KEYS, min_size=1, max_size=5, unique=True))
    classes = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True))
    shapes = draw(st.dictionaries(st.sampled_from(["late", "blocks.1", "a b"]), st.lists(st.integers(1, 3), max_size=3)))
    features = {tap: numbers((len(keys), *shape), number) for number, (tap, shape) in enumerate(shapes.items())}
    folded = [tap for tap in features if features[tap].ndim > 1 and draw(st.booleans())]
    about = draw(st.dictionaries(TEXT, TEXT, max_size=2))
    seen = frozenset(draw(st.lists(st.sampled_from(keys), unique=True)) + draw(st.lists(KEYS, max_size=2)))
    return StoredOutputs(keys, numbers((len(keys), len(classes)), 99), classes, features, folded, about, trained_on=seen)


@every_format
@given(stored())
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_again(tmp_path_factory, suffix, outputs):
    path = tmp_path_factory.mktemp("stored") / f"outputs{suffix}"
    write_outputs(path, outputs)
    found = load_outputs(path)
    assert list(found.keys) == list(outputs.keys)
    assert list(found.classes) == list(outputs.classes)
    assert list(found.folded) == list(outputs.folded)
    assert dict(found.about) == dict(outputs.about)
    assert found.trained_on == outputs.trained_on
    assert found.logits.dtype == np.float32
    np.testing.assert_array_equal(found.logits, outputs.logits)
    assert set(found.features) == set(outputs.features)
    for tap, array in outputs.features.items():
        assert found.features[tap].shape == array.shape
        np.testing.assert_array_equal(found.features[tap], array)


def joined(path, *of_the_run):
    return join_outputs(path, load_outputs(path), *of_the_run)


def key(number):
    return SampleKey(str(number), "a", "1")


def three(**changes):
    return StoredOutputs(**{"keys": [key(0), key(1), key(2)], "logits": numbers((3, 2), 0), "classes": ("x", "y")} | changes)


@every_format
@given(st.permutations(range(4)), st.permutations(range(3)), st.data())
@settings(max_examples=20, deadline=None)
def test_rows_are_joined_by_key_and_classes_by_name(tmp_path_factory, suffix, order, classes, data):
    path = tmp_path_factory.mktemp("stored") / f"outputs{suffix}"
    there = data.draw(st.lists(st.sampled_from(order), min_size=1, unique=True))
    logits, frames = numbers((len(there), 3), 1), numbers((len(there), 2, 5), 2)
    names = [f"class {n}" for n in classes]
    write_outputs(path, StoredOutputs([key(n) for n in there], logits, names, {"frames": frames}, ["frames"]))
    found = joined(path, [key(n) for n in order], ["class 0", "class 1", "class 2"])
    rows = torch.arange(4)
    assert found.covers(rows).tolist() == [n in there for n in order]
    for row, number in enumerate(order):
        if number in there:
            each, place = found.at(torch.tensor([row])), there.index(number)
            for n in range(3):
                assert float(each.logits[0, n]) == logits[place, names.index(f"class {n}")]
            np.testing.assert_array_equal(each.features["frames"], frames[place])


def test_a_table_of_other_origin_is_read(tmp_path):
    """A Parquet file without kdcore's metadata, with keys that are numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"subject": [1, 2], "action": ["a", "b"], "trial": [3, 3], "logits": [[0.5, 1.0], [2.0, 3.0]]}
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
    found = joined(tmp_path / "mine.parquet", [SampleKey("2", "b", "3"), SampleKey("1", "a", "3")], ["x", "y"])
    assert found.at(torch.tensor([0, 1])).logits.tolist() == [[2.0, 3.0], [0.5, 1.0]]


NAN = numbers((3, 2), 0)
NAN[1, 0] = np.nan
FAULTS = {
    "not finite": (three(logits=NAN), r"logits of subject 1, .* are not finite numbers"),
    "features not finite": (
        three(features={"late": np.full((3, 1, 2), np.inf, np.float32)}),
        "features 'late' of .* not finite",
    ),
    "a key twice": (three(keys=[key(0), key(1), key(0)]), r"it has outputs of subject 0, .* twice"),
    "integers": (three(logits=np.zeros((3, 2), np.int64)), "logits must be floating-point numbers, not int64"),
    "too few names": (three(classes=("x",)), "it names 1 classes and has 2 logits per sample"),
    "a class is missing": (three(classes=("x", "z")), r"it has no logits for the class 'y' \(1 of 2 classes are missing\)"),
    "a class too many": (
        three(logits=numbers((3, 3), 0), classes=("x", "y", "z")),
        "for 'z', which is not a class of",
    ),
    "other classes": (three(logits=numbers((3, 3), 0), classes=()), "has 3 logits per sample, but the run has 2 classes"),
    "other samples": (three(keys=[key(n) for n in (7, 8, 9)]), "it has none of the run's samples; it has, for example"),
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path, suffix, fault):
    outputs, said = FAULTS[fault]
    path = tmp_path / f"outputs{suffix}"
    write_outputs(path, outputs)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: .*{said}") as caught:
        joined(path, [key(0), key(1), key(2)], ["x", "y"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "inverse"), [("classes", "logarithms"), ("labels", "log odds")])
def test_probabilities_instead_of_logits_are_refused(tmp_path, kind, inverse):
    keys = [SampleKey("1", "1", str(trial)) for trial in range(8)]
    logits = torch.from_numpy(numbers((8, 2), 0))
    probabilities = (logits.softmax(1) if kind == "classes" else logits.sigmoid()).numpy()
    target = Target(kind)
    path = tmp_path / "outputs.npz"
    join_outputs(path, StoredOutputs(keys, np.log(probabilities), ["a", "b"], kind=kind), keys, ["a", "b"], target)
    with pytest.raises(DataError, match=f"look like probabilities.*{inverse}"):
        join_outputs(path, StoredOutputs(keys, probabilities, ["a", "b"], kind=kind), keys, ["a", "b"], target)


def test_a_class_that_is_named_twice_is_refused(tmp_path):
    path = tmp_path / "outputs.npz"
    write_outputs(path, StoredOutputs([SampleKey("1", "1", "1")], numbers((1, 3), 0), ["a", "b", "a"]))
    with pytest.raises(DataError, match="it names the class 'a' twice"):
        load_outputs(path)


@pytest.mark.parametrize("name", ["outputs.csv", "outputs", "outputs.PARQUET.gz"])
def test_another_suffix_is_refused(tmp_path, name):
    for action in (lambda path: write_outputs(path, three()), load_outputs):
        with pytest.raises(DataError, match=r"stored outputs are \.parquet, \.npz, \.safetensors files, not "):
            action(tmp_path / name)
    assert not list(tmp_path.iterdir())


@every_format
@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_missing_or_damaged_file_is_named(tmp_path, suffix, content):
    path = tmp_path / f"outputs{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: (no such file|not a readable)") as caught:
        load_outputs(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_of_other_arrays_is_refused(tmp_path, suffix):
    path = tmp_path / f"outputs{suffix}"
    if suffix == ".npz":
        np.savez(path, logits=numbers((2, 2), 0))
    else:
        from safetensors.numpy import save_file

        save_file({"logits": numbers((2, 2), 0)}, path)
    with pytest.raises(DataError, match="not a readable file of stored outputs"):
        load_outputs(path)


def test_a_missing_column_is_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"subject": ["1"], "action": ["a"], "trail": ["1"], "logits": [[0.5]]}), tmp_path / "mine.parquet")
    with pytest.raises(DataError, match=r"the column 'trial' is missing \(did you mean 'trail'\?\)"):
        load_outputs(tmp_path / "mine.parquet")


class Soft(Imitate):
    """Squared distance to the teachers' logits and features."""

    def forward(self, ctx):
        return super().forward(ctx) + sum((ctx.student.logits - t.logits).square().mean() for t in ctx.teachers.values())


@pytest.mark.parametrize("change", [{"classes": ["b", "a"]}, {"kind": "values"}, {"units": ["m", "s"]}])
def test_outputs_of_different_classes_targets_or_units_are_not_concatenated(change):
    one = StoredOutputs([SampleKey("1", "a", "1")], numbers((1, 2), 1), ["a", "b"])
    with pytest.raises(DataError, match="different classes, targets or units"):
        concatenated_outputs([one, replace(one, **change)])


@every_format
def test_a_student_of_stored_outputs_is_that_of_the_live_frozen_teacher(tmp_path, suffix):
    table = learning.table(tmp_path)
    terms = [*learning.default_terms()[:1], TermSpec("soft", 0.5, Soft, ("teacher",))]
    live = distiller(table, terms)
    with torch.no_grad():
        rows = table.rows["train"]  # in batches as large as the cache's, since the last bit may depend on their size
        whole = [live.eval().run_teachers(["teacher"], table.batch(each, ["teacher"]))["teacher"] for each in rows.split(3)]
    logits, features = (torch.cat([get(each) for each in whole]).flip(0) for get in (_logits, _features))
    rows = rows.flip(0)
    keys = [table.keys[row] for row in rows.tolist()]
    classes = list(table.classes)[::-1]
    path = tmp_path / f"outputs{suffix}"
    write_outputs(path, StoredOutputs(keys, logits.numpy()[:, ::-1], classes, {"features": features.numpy()}))

    other = distiller(table, terms)
    stored = {"teacher": joined(path, table.keys, table.classes)}
    without = Distiller({}, dict(other.students), stored=stored)
    without.terms, without.specs = other.terms, other.specs
    _, values = fit(live, table, [learning.students()])
    _, again = fit(without, table, [learning.students()])
    assert same_state(state_of(live.students), state_of(without.students))
    assert values == again


def _logits(outputs: Outputs):
    return outputs.logits


def _features(outputs: Outputs):
    return outputs.features["features"]


def test_values_in_other_units_are_refused(tmp_path):
    keys, target = [key(n) for n in range(3)], Target("values", ("bpm", "m/s"), (60.0, 1.0), (10.0, 0.5))
    path = tmp_path / "outputs.npz"
    write_outputs(path, StoredOutputs(keys, numbers((3, 2), 0), ["hr", "speed"], kind="values", units=["bpm", "m/s"]))
    joined(path, keys, ["speed", "hr"], replace(target, units=("m/s", "bpm")))
    joined(path, keys, ["hr", "speed"], replace(target, units=()))
    with pytest.raises(DataError, match="its 'hr' is in bpm, and the run's in Hz"):
        joined(path, keys, ["hr", "speed"], replace(target, units=("Hz", "m/s")))


def test_stored_values_are_normalised_as_the_runs_values_are_each_by_its_own_statistics(tmp_path):
    keys, target = [key(n) for n in range(3)], Target("values", (), (60.0, 1.0), (10.0, 0.5))
    said, path = numbers((3, 2), 0), tmp_path / "outputs.npz"
    write_outputs(path, StoredOutputs(keys, said, ["speed", "hr"], kind="values"))
    found = joined(path, keys[::-1], ["hr", "speed"], target)
    expected = [[(said[n, 1] - 60) / 10, (said[n, 0] - 1) / 0.5] for n in (2, 1, 0)]
    np.testing.assert_allclose(found.at(torch.arange(3)).logits, expected, rtol=1e-5)
