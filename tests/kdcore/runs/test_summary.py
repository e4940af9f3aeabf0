from __future__ import annotations

import io

from summaries import summary

from kdcore.runs.summary import flattened, table


def test_the_terminals_table_has_the_numbers_and_the_answer():
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    found = summary(name="[red]odd")
    console.print(table(found))
    shown = console.export_text()
    assert "80.0 ± 5.0" in shown
    assert "teachers together" in shown
    assert found.answer[:40] in shown
    assert "[red]odd" in shown


def test_the_terminals_table_fits_a_terminal_with_few_seeds_or_many():
    from rich.console import Console

    for seeds in ((0,), (0, 1, 2), tuple(range(20))):
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(table(summary(seeds=seeds)))
        shown = console.export_text()
        assert "…" not in shown
        assert ("seed 0" in shown) == (len(seeds) < 20)


def test_terms_keep_their_names_whatever_stands_before_them():
    terms = [{"id": "cross-entropy", "weight": 1.0}, {"id": "acs", "weight": 2.0}]
    assert flattened({"losses": terms})["losses.acs.weight"] == 2.0
    assert flattened({"losses": terms[1:]})["losses.acs.weight"] == 2.0
    steps = [{"name": "resample", "length": 32}, {"name": "jitter", "std": 0.1}, {"name": "jitter", "std": 0.2}]
    assert flattened({"transforms": steps})["transforms.2.std"] == 0.2
    assert flattened({"seeds": [0, 1], "teachers": {}}) == {"seeds": [0, 1], "teachers": {}}
