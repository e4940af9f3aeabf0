from __future__ import annotations

import csv
import io
from dataclasses import asdict
from html.parser import HTMLParser

import numpy as np
import pytest
from made_up import answers, made_up
from scipy import stats

from kdcore import KdcoreError, RecipeError, UsageError, load_recipe, provenance_of
from kdcore_compare.comparability import IncomparableError
from kdcore_compare.comparison import compare_sources
from kdcore_compare.comparison_report import report_records, report_tables
from kdcore_compare.selection import select
from kdcore_compare.tables import Output, Table, print_tables, render, to_latex, to_markdown

ONE = {0: 10, 1: 12, 2: 11}

OTHER = {0: 14, 1: 15, 2: 16}


@pytest.fixture
def pair(tmp_path):
    return [str(made_up(tmp_path / "one", ONE, name="one")), str(made_up(tmp_path / "other", OTHER, name="other"))]


def text_of(found):
    return "\n".join(map(to_markdown, report_tables(found)))


def test_seeds_are_paired_and_the_interval_is_scipys(pair):
    found = compare_sources(pair)
    difference = found.differences["other"]
    theirs = stats.ttest_rel(np.array([14, 15, 16]) / 20, np.array([10, 12, 11]) / 20)
    low, high = theirs.confidence_interval(0.95)
    assert (difference.mean, difference.low, difference.high, difference.p) == pytest.approx((0.2, low, high, theirs.pvalue))
    text = text_of(found)
    assert "| one | 3 | 55.0 ± 5.0 |" in text
    assert "| other | 3 | 75.0 ± 5.0 |" in text
    assert "| +20.0 | +7.6 to +32.4 | 0.020 | better |" in text
    assert "paired Student's t-test, two-sided, 3 seeds, 2 degrees of freedom" in text
    assert "that both have" not in text


def test_only_common_seeds_are_paired(tmp_path):
    one = made_up(tmp_path / "one", {0: 10, 1: 12, 5: 20})
    other = made_up(tmp_path / "other", {1: 13, 0: 12, 7: 0}, name="other")
    found = compare_sources([str(one), str(other)])
    assert found.differences["other"].n == 2
    assert found.differences["other"].mean == pytest.approx(0.075)
    assert "other: the difference is over the 2 runs that both have (seeds 0, 1), and the means over all." in text_of(found)


def test_without_a_common_seed_welch_is_used_and_named(tmp_path):
    one, other = made_up(tmp_path / "one", {0: 10, 1: 12}), made_up(tmp_path / "other", {2: 13, 3: 15, 4: 14}, name="other")
    assert "Welch's t-test, two-sided, unpaired, 3 and 2 runs" in text_of(compare_sources([str(one), str(other)]))


def test_one_seed_says_that_nothing_can_be_concluded(tmp_path):
    one, other = made_up(tmp_path / "one", {0: 2}), made_up(tmp_path / "other", {0: 20}, name="other")
    text = text_of(compare_sources([str(one), str(other)]))
    assert "allows no conclusion" in text
    assert "| – |  | no conclusion |" in text
    assert "better" not in text


def test_a_run_alone_is_compared_with_its_own_student_without(tmp_path):
    run = made_up(tmp_path / "run", OTHER, ONE)
    found = compare_sources([str(run)])
    assert [each.label for each in found.entries] == ["made@baseline", "made"]
    assert found.differences["made"].mean == pytest.approx(0.2)
    named = compare_sources([f"{run}@student"])
    assert [each.label for each in named.entries] == ["made@baseline", "made@student"]


def test_a_recipe_that_was_run_with_other_values_is_found_by_them(tmp_path, monkeypatch):
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path))
    monkeypatch.setenv("KDCORE_CACHE", str(tmp_path / "cache"))
    changed = "data.batch_size=8"
    recipe = load_recipe("quickstart", [changed])
    made_up(tmp_path / "run", OTHER, ONE, variant=recipe.variant, **asdict(provenance_of(recipe)))
    assert compare_sources(["quickstart", changed]).differences["made"].mean == pytest.approx(0.2)
    with pytest.raises(KdcoreError, match="no finished run: kdcore run quickstart; if you ran it with overrides"):
        compare_sources(["quickstart"])
    with pytest.raises(KdcoreError, match=r"no finished run: kdcore run quickstart data.batch_size=9"):
        compare_sources(["quickstart", "data.batch_size=9"])


def test_teachers_and_others_can_be_named(tmp_path):
    run = made_up(tmp_path / "run", OTHER, ONE)
    found = compare_sources([f"{run}@teachers", str(run), f"{run}@teacher"])
    assert found.reference.values("accuracy") == [0.9] * 3
    assert found.differences["made@teacher"].mean == 0
    with pytest.raises(KdcoreError, match="has no participant 'nobody'"):
        compare_sources([str(run), f"{run}@nobody"])


PLANTED = {
    "different split rule": {"split_rule": "subjects 2 train, 1 test"},
    "fingerprint": {"fingerprint": "xyz"},
    "different classes": {"classes": ["walk", "run"]},
    "different selection of the epoch: last against best": {"selection": {"teacher": "last", "student": "best"}},
    "different split": {"split": "validation"},
    "subject 2, trial 00": {"keys": [f"subject 3, trial {n:02d}" for n in range(20)]},
}


@pytest.mark.parametrize(("said", "changed"), PLANTED.items(), ids=[each.split(":")[0] for each in PLANTED])
def test_what_is_not_comparable_is_refused_by_name_unless_told(tmp_path, said, changed):
    one, other = made_up(tmp_path / "one", ONE), made_up(tmp_path / "other", OTHER, name="other", **changed)
    with pytest.raises(IncomparableError, match=said) as refused:
        compare_sources([str(one), str(other)])
    assert refused.value.exit_code == 2
    assert "made and other" in str(refused.value)
    text = text_of(compare_sources([str(one), str(other)], anyway=True))
    assert "Conflict ignored because of --anyway" in text
    assert said in text


@pytest.mark.parametrize(
    ("said", "changed"),
    {**PLANTED, "different configuration": {"variant": "other"}}.items(),
    ids=[each.split(":")[0] for each in (*PLANTED, "different configuration")],
)
def test_runs_taken_as_one_must_agree_too(tmp_path, said, changed):
    """Except in the split rule, as folds do."""
    whole, half = made_up(tmp_path / "whole", {0: 10, 1: 12}, {0: 9, 1: 9}), {"name": "made", **changed}
    other = made_up(tmp_path / "other", {2: 14}, {2: 9}, **half)
    pooled = f"{whole}+{other}"
    if said == "different split rule":
        assert compare_sources([pooled]).others[0].split_rules == sorted([half["split_rule"], "subjects 1 train, 2 test"])
        return
    with pytest.raises(IncomparableError, match=f"whole \\+ other pooled: .*{said}"):
        compare_sources([pooled])
    text = text_of(compare_sources([pooled], anyway=True))
    assert "Conflict ignored because of --anyway: whole + other pooled" in text
    assert said in text
    assert text.count("Conflict ignored because of --anyway") == 1


def test_one_seed_of_two_configurations_is_not_swallowed(tmp_path):
    one, other = made_up(tmp_path / "one", ONE, name="one"), made_up(tmp_path / "other", OTHER, ONE, name="other")
    (other / "recipe.yaml").write_text("losses: [cross-entropy]\n")
    said = r"one \+ other pooled: different configuration \(losses\); of the common seeds 0, 1, 2, only the later run would"
    with pytest.raises(IncomparableError, match=said):
        compare_sources([f"{one}+{other}", f"{other}@baseline"])


def test_a_configuration_run_again_counts_once(tmp_path):
    one, again = made_up(tmp_path / "one", ONE, ONE), made_up(tmp_path / "again", OTHER, ONE)
    assert compare_sources([f"{one}+{again}"]).differences["made"].mean == pytest.approx(0.2)


def test_another_split_rule_is_not_paired_even_if_told(tmp_path):
    one, other = made_up(tmp_path / "one", ONE), made_up(tmp_path / "other", OTHER, name="other", split_rule="another")
    assert "Welch" in compare_sources([str(one), str(other)], anyway=True).differences["other"].test


def test_the_teachers_selection_does_not_matter_to_the_student(tmp_path):
    selection = {"teacher": "best", "student": "last"}
    one, other = made_up(tmp_path / "one", ONE), made_up(tmp_path / "other", OTHER, name="other", selection=selection)
    assert compare_sources([str(one), str(other)]).differences["other"].conclusive


def test_rows_in_another_order_are_joined_by_key(tmp_path):
    keys = [f"subject 2, trial {n:02d}" for n in reversed(range(20))]
    one = made_up(tmp_path / "one", {0: 10, 1: 11})
    other = made_up(tmp_path / "other", {0: 10, 1: 11}, name="other", keys=keys)
    with pytest.raises(IncomparableError, match="different labels"):  # the same keys now stand for other classes
        compare_sources([str(one), str(other)])


@pytest.fixture
def copies(tmp_path):
    """Two students, of which distillation helps the second alone."""
    baseline, distilled = {0: (10, 11), 1: (11, 12), 2: (12, 10)}, {0: (10, 15), 1: (11, 17), 2: (12, 14)}
    return str(made_up(tmp_path / "run", distilled, baseline))


def test_every_student_is_compared_with_its_own_baseline(copies):
    found = compare_sources([copies])
    assert [each.label for each in found.entries] == [
        "made@baseline/student-1", "made@student-1", "made@baseline/student-2", "made@student-2",
        "made@baseline/students", "made@students",
    ]  # fmt: skip
    differences = {label: each.mean for label, each in found.differences.items()}
    assert differences["made@student-1"] == 0
    assert differences["made@student-2"] == pytest.approx(np.mean([4, 5, 4]) / 20)
    table = report_tables(found)[0]
    assert "each participant compared with its own baseline" in table.title
    rows = {row[0]: row for row in table.rows}
    assert rows["made@students"][table.headings.index("compared with")] == "made@baseline/students"
    assert [each.headings[2:4] for each in report_tables(found)[1:4]] == [
        [f"made@baseline/{name}", f"made@{name}"] for name in ("student-1", "student-2", "students")
    ]


def test_an_ensemble_is_the_average_of_the_same_arm(copies):
    (entry,) = select([f"{copies}@baseline/students"])
    for seed, (right, others) in {0: (10, 11), 1: (11, 12), 2: (12, 10)}.items():
        labels = np.arange(20) % 2
        mean = (answers(right, labels) + answers(others, labels)) / 2
        accuracy = float((mean.argmax(1) == labels).mean())
        assert entry.observations[seed, "subjects 1 train, 2 test"].evaluation.accuracy == accuracy


def test_the_first_of_several_students_is_named(copies):
    found = compare_sources([copies, f"{copies}@baseline", f"{copies}@baseline/student-2"])
    assert [each.label for each in found.entries] == ["made@student-1", "made@baseline/student-1", "made@baseline/student-2"]
    assert [each.label for each in compare_sources([f"{copies}@student-2"]).entries] == [
        "made@baseline/student-2",
        "made@student-2",
    ]
    with pytest.raises(UsageError, match="has no participant 'student-3'"):
        compare_sources([f"{copies}@baseline/student-3"])


def test_different_versions_are_noted(tmp_path):
    one = made_up(tmp_path / "one", ONE, name="one", versions={"kdcore": "0.1.0", "torch": "2.6"})
    other = made_up(tmp_path / "other", OTHER, name="other", versions={"kdcore": "0.2.0", "torch": "2.6"})
    text = text_of(compare_sources([str(one), str(other)]))
    assert "Runs were made with different versions of kdcore: 0.1.0, 0.2.0." in text
    assert "versions of torch" not in text


def test_classes_and_cost(pair):
    found = compare_sources(pair)
    text = text_of(found)
    # Of 20 samples, classes by turns: of the first 10, 12, 11 answers right, 5, 6, 6 are of class walk; 7, 8, 8 of 14, 15, 16.
    walk = found.class_difference(found.others[0], 0)
    assert walk is not None
    assert walk.mean == pytest.approx(0.2)
    assert walk.low is None  # every seed gains the same: no spread to judge by
    sit = found.class_difference(found.others[0], 1)
    assert sit is not None
    assert sit.mean == pytest.approx(np.mean([0.7, 0.7, 0.8]) - np.mean([0.5, 0.6, 0.5]))
    assert "| other | 11.0 | 42 | 1 |" in text


def test_what_was_trained_together_costs_once(tmp_path):
    run = str(made_up(tmp_path / "run", OTHER, ONE))
    found = compare_sources([f"{run}@baseline", f"{run}@teacher", run])
    text = text_of(found)
    assert "| made@baseline | 11.0 | 42 | 1 |" in text
    assert "| made@teacher |  | 42 |  |" in text
    assert "| made | 11.0 | 42 | 1 |" in text
    assert "Time and memory of made include made@teacher, trained in the same run." in text
    told = [(each["entry"], each["measure"], each["mean"]) for each in report_records(found)]
    assert [each for each in told if each[1] == "seconds"] == [("made@baseline", "seconds", 11), ("made", "seconds", 11)]
    assert [each[::2] for each in told if each[1] == "memory_bytes"] == [("made@baseline", 1 << 20), ("made", 1 << 20)]


def test_several_comparisons_are_corrected_by_holm(tmp_path, pair):
    """Two comparisons: the smaller p value counts twice, the larger one once but no less than the smaller."""
    assert "Holm" not in text_of(compare_sources(pair))
    third = made_up(tmp_path / "third", {0: 13, 1: 14, 2: 12}, name="third")
    found = compare_sources([*pair, str(third)])
    one = np.array([10, 12, 11])
    p = [float(stats.ttest_rel(np.array(each), one).pvalue) for each in ([14, 15, 16], [13, 14, 12])]
    assert p[0] < 0.05 < p[1]
    corrected = [2 * p[0], max(2 * p[0], p[1])]
    rows = {row[0]: row for row in report_tables(found)[0].rows}
    headings = report_tables(found)[0].headings
    at = headings.index("p (Holm)")
    assert [rows["other"][at], rows["third"][at]] == [f"{each:.3f}" for each in corrected]
    assert rows["other"][headings.index("p")] == f"{p[0]:.3f}"
    assert rows["other"][headings.index("verdict")] == "better"
    assert "corrected for 2 comparisons" in text_of(found)


def test_a_verdict_does_not_outlive_the_correction(tmp_path):
    """Alone, the difference is significant; among four comparisons, it is not."""
    one = made_up(tmp_path / "one", {0: 10, 1: 12, 2: 11}, name="one")
    other = made_up(tmp_path / "other", {0: 14, 1: 15, 2: 16}, name="other")
    assert compare_sources([str(one), str(other)]).differences["other"].verdict() == "better"
    more = [str(made_up(tmp_path / f"m{n}", {0: 10 + n, 1: 12, 2: 13 - n}, name=f"m{n}")) for n in range(3)]
    table = report_tables(compare_sources([str(one), str(other), *more]))[0]
    assert {row[0]: row[-1] for row in table.rows}["other"] == "unclear"


def test_titles_keep_capitals(pair):
    assert report_tables(compare_sources(pair, metric="macro_f1"))[0].title.startswith("Macro F1 on the test split")


WIDE = Table(
    "Parts",
    ["", "from whole", "95 % interval", "from baseline", "95 % interval"],
    [["without cross-entropy", "-16.2", "-24.0 to -8.4", "-22.5", "-28.0 to -16.9"]],
    droppable=(4, 3, 2),
)


@pytest.mark.parametrize(
    ("width", "said", "heads"),
    [
        (80, "", 2),
        (66, "95 % interval (from baseline)", 1),
        (44, "95 % interval (from whole), from baseline, 95 % interval (from baseline)", 0),
    ],
)
def test_what_a_narrow_terminal_goes_without_is_named(monkeypatch, capsys, width, said, heads):
    monkeypatch.setenv("COLUMNS", str(width))
    print_tables([WIDE])
    out = capsys.readouterr().out
    shown, _, note = out.partition("Columns left out (narrow terminal): ")
    assert " ".join(note.split()) == (f"{said}." if said else "")
    assert shown.count("95 % interval") == heads


def test_what_a_files_ending_does_not_say_is_asked_for(tmp_path, capsys):
    assert Output("rich", tmp_path / "x.CSV").form == "csv"
    assert Output("latex", tmp_path / "x.pdf").form == "latex"
    assert Output("rich", None).form == "rich"
    for name in ("x.pdf", "x"):
        with pytest.raises(UsageError, match=r"suffix \(\.md, \.csv, \.tex, \.html\); use --format"):
            Output("rich", tmp_path / name).write([WIDE], [])
        assert not (tmp_path / name).exists()


def test_csv_has_one_number_a_line(pair):
    found = compare_sources(pair)
    rows = list(csv.DictReader(io.StringIO(render(report_tables(found), list(report_records(found)), "csv"))))
    accuracy = next(row for row in rows if row["entry"] == "other" and row["measure"] == "accuracy")
    assert float(accuracy["mean"]) == pytest.approx(0.75)
    assert float(accuracy["sd"]) == pytest.approx(0.05)
    assert float(accuracy["low"]) == pytest.approx(found.differences["other"].low)
    assert {row["class"] for row in rows if row["measure"] == "recall"} == {"walk", "sit"}


def test_latex_and_markdown_escape():
    odd = Table("50 % & more_of", ["a|b", "#"], [["x_1 ± 2", "{~^\\}"]], ["A note"], strong=[0])
    latex = to_latex(odd)
    assert r"\caption{50 \% \& more\_of. A note.}" in latex
    assert r"\textbf{x\_1 $\pm$ 2} & \textbf{\{\textasciitilde{}\textasciicircum{}\textbackslash{}\}} \\" in latex
    assert r"| a\|b | # |" in to_markdown(odd)


def test_html_nests(pair):
    class Page(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    found = compare_sources(pair)
    page = Page()
    page.feed(render(report_tables(found), [], "html"))
    assert page.open == []


def test_two_of_one_name_are_told_apart(tmp_path):
    one, other = made_up(tmp_path / "one", ONE), made_up(tmp_path / "other", OTHER)
    assert [each.label for each in compare_sources([str(one), str(other)]).entries] == ["made [one]", "made [other]"]


def test_nothing_to_compare(tmp_path, monkeypatch):
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path))
    with pytest.raises(KdcoreError, match="two or more"):
        compare_sources([])
    for source, said in (
        ("quickstart@", "after '@'"),
        ("quickstart+", "on both sides of"),
        ("+quickstart@student", "on both sides of"),
    ):
        with pytest.raises(UsageError, match=said):
            compare_sources([source])
    with pytest.raises(KdcoreError, match=r"no run 'no-such-run' in .*; as a recipe: there is no file or shipped recipe"):
        compare_sources(["no-such-run", "another"])
    with pytest.raises(RecipeError, match=r"^command line: losses\.no-such"):
        select(["quickstart", "sakdn"], ["losses.no-such.weight=1"])
