"""The report of a run, from what the run left."""

from __future__ import annotations

import re

import pytest

from kdcore import read_run
from kdcore_report.commands import report
from kdcore_report.curves import curves
from kdcore_report.examples import chosen
from kdcore_report.rewrite import rewrite_report


@pytest.fixture
def run_of(uninterrupted, monkeypatch):
    for name, value in uninterrupted.environment.items():
        monkeypatch.setenv(name, value)
    return uninterrupted.runs[0]


def test_the_report_shows_recordings_and_is_written_again(run_of, tmp_path):
    summary, path = rewrite_report(run_of, tmp_path / "again.html")
    page = path.read_text()
    assert summary.difference
    assert summary.difference.sentence in page
    [tracking] = re.findall(r"<dt>Tracking</dt><dd>(.*?)</dd>", page)
    assert "mlflow ui --backend-store-uri" in tracking
    assert tracking in (run_of / "report.html").read_text()
    assert "student (accelerometer, cnn1d) learned from skeleton (skeleton, cnn1d) with cross-entropy and soft-target" in page
    assert "<animate " in page
    assert "<script" not in page
    drawn = {each.name for each in (tmp_path / "pictures").iterdir()}
    assert {"curves.png", "reliability.png", "example-1-skeleton.png", "example-1-accelerometer.png"} <= drawn
    assert not any("saliency" in name for name in drawn)  # neither skeletons nor signals are looked at by place
    drawn_curves = curves(run_of, summary.seeds)
    of_both = {
        f"{who}: {what}" for who in ("student", "skeleton") for what in ("cross-entropy", "total loss", "validation accuracy")
    }
    assert set(drawn_curves) - of_both == {"student: soft-target"}
    assert of_both <= set(drawn_curves)
    assert set(drawn_curves["student: cross-entropy"]) == {
        f"seed {n}{arm}" for n in (0, 1) for arm in (", distilled", ", baseline")
    }
    assert re.search(r"The teacher classifies \d+ samples correctly that the baseline misclassifies", page)


def test_the_command_prints_only_the_path_to_standard_output(run_of, tmp_path, capsys):
    report(str(run_of), tmp_path / "again.html")
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'again.html'}\n"
    assert "points of accuracy" in printed.err


def test_examples_begin_with_what_was_passed_on(run_of):
    outcomes = {arm: found[0] for arm, found in read_run(run_of).outcomes.items()}
    picked = chosen(outcomes)
    assert 1 <= len(picked) <= 4
    for row, why in picked.items():
        right = outcomes["distilled"].probabilities["student"][row].argmax() == outcomes["distilled"].labels[row]
        assert right == (why not in ("The student is wrong", "Only the baseline is correct"))
