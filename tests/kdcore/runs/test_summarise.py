"""How what was run is summed up."""

from __future__ import annotations

from kdcore.runs.summarise import flattened


def test_terms_keep_their_names_whatever_stands_before_them():
    terms = [{"id": "cross-entropy", "weight": 1.0}, {"id": "acs", "weight": 2.0}]
    assert flattened({"losses": terms})["losses.acs.weight"] == 2.0
    assert flattened({"losses": terms[1:]})["losses.acs.weight"] == 2.0
    steps = [{"name": "resample", "length": 32}, {"name": "jitter", "std": 0.1}, {"name": "jitter", "std": 0.2}]
    assert flattened({"transforms": steps})["transforms.2.std"] == 0.2
    assert flattened({"seeds": [0, 1], "teachers": {}}) == {"seeds": [0, 1], "teachers": {}}
