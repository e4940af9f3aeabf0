"""Class embeddings."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import DataError
from kdcore_semantics.embeddings import BuiltIn, Glove, Matrix, SentenceEncoder, words_of


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("right arm swipe to the left", ["right", "arm", "swipe", "to", "the", "left"]),
        ("draw triangle ", ["draw", "triangle"]),
        ("stand_up", ["stand", "up"]),
        ("jump-in/out (twice)", ["jump", "in", "out", "twice"]),
        ("touch other person's pocket", ["touch", "other", "person", "'s", "pocket"]),
        ("Ärmel 2", ["Ärmel", "2"]),
        ("--", []),
    ],
)
def test_words_of_a_class_name(name, words):
    assert words_of(name) == words


@pytest.fixture
def glove(tmp_path):
    def write(text, **options):
        path = tmp_path / "glove.txt"
        path.write_text(text, encoding="utf-8")
        return Glove(path=path, **{"dimension": 2, **options})

    return write


VECTORS = "the 1 2\nto name@domain.com 50 50\n. . . 70 70\nto 3 4\nUp 5 6\nup 7 8\nstand -1 0.5\nlater 9 9\n"


def test_glove_sums_the_words_of_a_name(glove):
    table = glove(VECTORS).table(["stand to the", "up", "Up"])
    np.testing.assert_array_equal(table, [[3, 6.5], [7, 8], [5, 6]])
    assert table.dtype == np.float32


def test_glove_falls_back_to_lower_case(glove):
    np.testing.assert_array_equal(glove(VECTORS).table(["STAND The"]), [[0, 2.5]])


def test_glove_names_class_and_word_that_are_missing(glove):
    with pytest.raises(DataError, match=r"'swipe' of class 'swipe up'"):
        glove(VECTORS).table(["stand", "swipe up"])


def test_glove_skips_unknown_words_on_request(glove):
    np.testing.assert_array_equal(glove(VECTORS, unknown="skip").table(["swipe up"]), [[7, 8]])
    with pytest.raises(DataError, match="any word of class 'swipe'"):
        glove(VECTORS, unknown="skip").table(["swipe"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("up 1 2 3\n", "line 1 has 3 numbers, not 2"),
        ("the 1 2\nup 1\n", "line 2 is damaged"),
        ("the 1 2\nup 1 x\n", "line 2 is damaged.*'x'"),
        ("the 1 2\nup 1 nan\n", "line 2 is damaged.*finite"),
        ("", "contains no vectors"),
        ("9 2\n", "contains no vectors"),
        ("\nup 1 2\n", "line 1 is empty"),
        ("up\t1\t2\n", "has tabs between a word and its numbers"),
        ("9 2\nup 1 2 3\n", "line 2 has 3 numbers, not 2: is `dimension` right"),
        ("400000 300\nup 1 2\n", "line 1 has 300 numbers, not 2"),
    ],
)
def test_glove_names_what_is_wrong_with_the_file(glove, text, message):
    with pytest.raises(DataError, match=message):
        glove(text).table(["up"])


@pytest.mark.parametrize("before", ["\ufeff", "3 2\n", "3 2 \n", "\ufeff3 2\n"])
def test_glove_passes_over_what_other_programs_write_first(glove, before):
    np.testing.assert_array_equal(glove(before + "up 1 2\nthe 3 4\n").table(["up", "the"]), [[1, 2], [3, 4]])


def test_glove_of_one_number_has_no_header(glove):
    np.testing.assert_array_equal(glove("3 7\nup 5\n", dimension=1).table(["3", "up"]), [[7], [5]])


def test_glove_stops_reading_when_all_words_are_found(glove):
    np.testing.assert_array_equal(glove("up 1 2\nthe 1 broken\n").table(["up"]), [[1, 2]])


def test_glove_without_a_file(tmp_path):
    with pytest.raises(DataError, match=r"missing\.txt: cannot read GloVe"):
        Glove(path=tmp_path / "missing.txt").table(["up"])


def test_glove_agrees_with_published_matrices(recordings, tmp_path):
    """Sums of words that occur in two data sets' names must agree with both published matrices."""
    folder = recordings / "class-embeddings"
    berkeley = Matrix(path=folder / "berkeley-mhad.glove-840b-300d.npy", names=folder / "berkeley-mhad.classes.txt")
    sit_down, sit_stand = berkeley.table(["sit down", "sit down then stand up"])
    stand_up = berkeley.table(["stand up"])[0]
    then = sit_stand - sit_down - stand_up
    rows = {"sit": sit_down, "down": np.zeros(300), "then": then, "stand": stand_up, "up": np.zeros(300)}
    path = tmp_path / "glove.txt"
    path.write_text("".join(f"{word} {' '.join(map(repr, map(float, row)))}\n" for word, row in rows.items()))
    table = Glove(path=path).table(["sit_down", "sit down then stand up"])
    np.testing.assert_allclose(table, [sit_down, sit_stand], atol=1e-5)


@pytest.mark.parametrize(("data", "classes"), [("utd-mhad", 27), ("berkeley-mhad", 11), ("mmact", 36)])
def test_matrix_reads_the_published_embeddings(recordings, data, classes):
    folder = recordings / "class-embeddings"
    path, names = folder / f"{data}.glove-840b-300d.npy", folder / f"{data}.classes.txt"
    listed = [line.strip() for line in names.read_text().splitlines()]
    whole, reversed_ = Matrix(path=path).table(listed), Matrix(path=path, names=names).table(listed[::-1])
    assert whole.shape == (classes, 300)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole[::-1], reversed_)
    np.testing.assert_array_equal(whole, np.load(path).astype(np.float32))


@pytest.fixture
def matrix(tmp_path):
    def write(array, names=None):
        np.save(tmp_path / "m.npy", array, allow_pickle=True)
        if names is not None:
            (tmp_path / "names.txt").write_text("\n".join(names))
        return Matrix(path=tmp_path / "m.npy", names=tmp_path / "names.txt" if names is not None else None)

    return write


def test_matrix_picks_rows_by_name(matrix):
    table = matrix(np.eye(3), ["sit down", "stand up", "wave"]).table(["Wave", "sit_down"])
    np.testing.assert_array_equal(table, [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    ("array", "names", "message"),
    [
        (np.eye(3), None, "3 rows for 2 classes.*names"),
        (np.eye(3), ["wave", "sit"], "names 2 classes, .* has 3 rows"),
        (np.eye(2), ["wave", "sit"], "no class 'stan'"),
        (np.eye(2), ["wave", "stand"], "no class 'stan'; the nearest is 'stand'"),
        (np.eye(2), ["wave", "Wave"], "twice"),
        (np.zeros(2), None, "one matrix"),
        (np.full((2, 2), np.nan), None, "must be finite"),
        (np.array([["a", "b"]] * 2), None, "matrix of numbers"),
        (np.array([[{}]] * 2, dtype=object), None, "cannot read"),
    ],
)
def test_matrix_names_what_is_wrong(matrix, array, names, message):
    with pytest.raises(DataError, match=message):
        matrix(array, names).table(["wave", "stan"])


def test_matrix_without_files(tmp_path):
    with pytest.raises(DataError, match=r"m\.npy: cannot read"):
        Matrix(path=tmp_path / "m.npy").table(["wave"])
    (tmp_path / "m.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"m\.npy: cannot read"):
        Matrix(path=tmp_path / "m.npy").table(["wave"])


def test_built_in_knows_spelling_and_not_meaning():
    table = BuiltIn().table(["wave", "waving", "run", "jog"])
    similarity = np.corrcoef(table)
    assert similarity[0, 1] > 0.2
    assert abs(similarity[2, 3]) < 0.2


def test_built_in_never_changes():
    row = BuiltIn(dimension=6).table(["wave hand"])[0]
    np.testing.assert_array_equal(np.sign(row), np.sign(BuiltIn(dimension=6).table(["Wave_hand"])[0]))
    # `printf '<wave>' | openssl dgst -shake256 -xoflen 1` says 3c.
    np.testing.assert_array_equal(BuiltIn(dimension=8)._signs("<wave>"), [-1, -1, 1, 1, 1, 1, -1, -1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.integers(2, 64))
def test_built_in_has_a_finite_vector_for_any_name(names, dimension):
    table = BuiltIn(dimension=dimension).table(names)
    assert table.shape == (len(names), dimension)
    assert np.isfinite(table).all()
    np.testing.assert_allclose(table.mean(axis=1), 0, atol=1e-4)  # of float32 rows with unit variance


def test_built_in_rows_have_unit_variance_and_differ(recordings):
    classes = (recordings / "class-embeddings" / "utd-mhad.classes.txt").read_text().splitlines()
    table = BuiltIn().table(classes)
    np.testing.assert_allclose(table.std(axis=1), 1, rtol=1e-5)
    assert len(np.unique(table, axis=0)) == len(classes)


def test_sentence_encoder_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(DataError, match=r"sentence-transformers.*glove, matrix or built-in"):
        SentenceEncoder().table(["wave"])


@pytest.fixture
def library(monkeypatch):
    """A stand-in for sentence-transformers that encodes lengths and remembers which model was asked for."""
    asked = []

    def transformer(model, device):
        asked.append(model)
        if model == "nowhere":
            raise OSError("no such model")
        return SimpleNamespace(encode=lambda texts: np.array([[len(text), 1.0] for text in texts]))

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=transformer))
    return asked


def test_sentence_encoder_encodes_words_in_the_template(library):
    table = SentenceEncoder(model="some/model", template="a person doing: {}").table(["stand_up", "sit"])
    np.testing.assert_array_equal(table, [[len("a person doing: stand up"), 1], [len("a person doing: sit"), 1]])
    assert table.dtype == np.float32
    assert library == ["some/model"]


def test_sentence_encoder_finds_a_model_inside_a_package(library, tmp_path, monkeypatch):
    folder = tmp_path / "my_model" / "weights"
    folder.mkdir(parents=True)
    (tmp_path / "my_model" / "__init__.py").touch()
    (folder / "modules.json").write_text("[]")
    monkeypatch.syspath_prepend(str(tmp_path))
    SentenceEncoder(model="my-model").table(["sit"])
    assert library == [str(folder)]


def test_sentence_encoder_with_an_unknown_model(library):
    with pytest.raises(DataError, match="cannot load the model 'nowhere': no such model"):
        SentenceEncoder(model="nowhere").table(["sit"])
