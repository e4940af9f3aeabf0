"""Beliefs about a number that once could be wrong without a word."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
import pytest

from kdcore.contracts.progress import Ramp
from kdcore.data.fingerprint import Hashes
from kdcore.data.leakage import similar_names
from kdcore.errors import RecipeError
from kdcore.recipe.load import load_recipe
from kdcore.runs.outcome import Outcome
from kdcore.runs.records import Facts, resumed_facts
from kdcore.runs.summary import _window_notes
from kdcore.training.preflight import _largest


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (("é", "e\u0301"), True),
        (("jog", "jog\u200b"), True),
        (("1", "1.0"), True),
        (("s 01", "s1.00"), False),
        (("１", "1"), True),
        (("1.5", "1"), False),
        (("1.0.2", "1.2"), False),
    ],
)
def test_names_that_look_alike_are_one(names, alike):
    assert bool(similar_names(names)) == alike


def test_a_file_whose_times_were_put_back_is_hashed_again(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"aaaa")
    os.utime(file, (1e9, 1e9))
    first = Hashes(tmp_path / "hashes.json")
    before = first.of(file)
    first.save()
    time.sleep(0.05)  # a file system's clock has ticks
    file.write_bytes(b"bbbb")
    os.utime(file, (1e9, 1e9))
    assert Hashes(tmp_path / "hashes.json").of(file) != before


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ("[{name: cross-entropy, id: 'a:b'}]", "must be 1 to 100 letters"),
        ("[{name: cross-entropy, id: 'a/b'}]", "must be 1 to 100 letters"),
        ("[{name: cross-entropy, id: ''}]", "must be 1 to 100 letters"),
        ("[{name: cross-entropy, id: a.b}]", "must be 1 to 100 letters"),  # a submodule's name has no dot
        ("[{name: cross-entropy, id: half}]", "cannot be called 'half', which is an attribute of torch.nn.ModuleDict"),
        (f"[{{name: cross-entropy, id: {'x' * 101}}}]", "must be 1 to 100 letters"),
        ("[{name: cross-entropy, id: total}]", "'total' is the sum of all terms"),
    ],
)
def test_no_two_curves_have_one_name(terms, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe("quickstart", [f"losses={terms}"])


@pytest.mark.parametrize(
    ("weight", "epochs", "largest"),
    [(0.5, 3, 0.5), (Ramp(0, 1, 10), 1, 0.0), (Ramp(0, 1, 10), 11, 1.0), (Ramp(0, 1, 10), 6, 0.5), (Ramp(2, 0, 4), 9, 2.0)],
)
def test_a_ramp_counts_as_far_as_training_takes_it(weight, epochs, largest):
    assert _largest(weight, epochs) == largest


FACTS = Facts(
    "r", "h", "v", "test", "rule", {}, "f", [], {}, {}, [0], ["distilled"], {"kdcore": "1", "plugin a": "1"}, {"a": "x"}
)


def test_a_run_that_goes_on_with_other_software_says_so():
    assert resumed_facts(FACTS, None).resumed == ()
    assert list(resumed_facts(FACTS, FACTS).resumed) == []
    newer = replace(FACTS, versions={"kdcore": "2", "plugin a": "1"}, code={"a": "y"})
    first = resumed_facts(newer, FACTS)
    assert list(first.resumed) == [
        "resumed with different software or files: kdcore 1, then 2, changed code of a; its seeds were trained under different "
        "conditions"
    ]
    (line,) = resumed_facts(replace(FACTS, files={"teachers.t.weights.file": "b"}), FACTS).resumed
    assert "changed file at teachers.t.weights.file" in line
    assert resumed_facts(newer, first).resumed == first.resumed, "what was said stays said, once"


def test_windows_are_not_taken_for_recordings():
    labels = np.array([0, 1, 0, 1])
    whole = Outcome("distilled", {}, labels, [f"subject {n}, action a, trial 1" for n in range(4)], {}, 0.0, [], [])
    cut = replace(whole, keys=["subject 1, action a, trial 1" + (f", window {n}" if n else "") for n in range(4)])
    assert _window_notes({"distilled": [whole]}) == []
    [note] = _window_notes({"distilled": [cut]})
    assert note.startswith("the 4 samples are windows of 1 recordings: intervals of a single seed treat recordings")
