from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from summaries import summary

from kdcore import Modality, Signal
from kdcore.runs.metrics import evaluate
from kdcore.runs.summary import Row
from kdcore_report.examples import Example
from kdcore_report.html_report import write_page

CURVES = {"Loss": {"seed 0": [(0, 1.0), (1, 0.5)]}, "Nothing": {}}
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Checks that tags nest, and collects text, tables and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tags, self.addresses, self.rows = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    @property
    def text(self):
        return " ".join(self.texts)


def page_of(tmp_path, found, curves=CURVES):
    write_page(tmp_path / "new" / "report.html", found, curves)
    return Page((tmp_path / "new" / "report.html").read_text(encoding="utf-8"))


def test_the_page_tells_everything(tmp_path):
    found = summary()
    page = page_of(tmp_path, found)
    assert found.difference is not None
    assert found.difference.sentence in page.text
    for told in (found.description, found.rule, found.selection, found.command, found.tracking, "runs/sakdn", "kdcore 0.1.0"):
        assert told in page.text
    assert page.tags.count("img") == 5  # curves, two confusions, their difference, reliability
    assert ["rgb", "distilled", "rgb", "80.0 ± 5.0", "75.0", "80.0", "85.0"] in [[*row[:4], *row[5:8]] for row in page.rows]
    assert ["acc", "teacher", "accelerometer", "90.0 ± 0.0", "90.0 ± 0.0", "90.0", "90.0", "90.0", "1,234,567"] in page.rows


def test_the_page_needs_no_other_file_and_runs_no_script(tmp_path):
    page = page_of(tmp_path, summary())
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "b"} & set(page.tags)
    assert "<b>draw</b> & X" in page.text
    assert "# <script>" in page.text


def test_gains_are_per_class_with_the_greatest_first(tmp_path):
    page = page_of(tmp_path, summary())
    start = page.rows.index(["class", "baseline", "distilled", "gain", ""]) + 1
    gains = [row[3] for row in page.rows[start : start + 4]]
    assert sorted(gains, key=float, reverse=True) == gains
    # 24 + 25 + 26 of 120 answers were right without, 30 + 32 + 34 with; a quarter of the answers in each class.
    assert np.mean([float(gain) for gain in gains]) == pytest.approx(100 * (96 - 75) / 120, abs=0.1)


def test_one_seed_shows_wilsons_interval_and_claims_nothing(tmp_path):
    found = summary(seeds=(3,))
    page = page_of(tmp_path, found)
    low, high = found.rows[3].evaluations[0].interval
    assert f"{100 * low:.1f} to {100 * high:.1f}" in page.text
    assert "nothing about other seeds" in page.text
    assert "±" not in page.text


def test_without_a_baseline_the_page_says_that_the_effect_was_not_measured(tmp_path):
    found = summary()
    page = page_of(tmp_path, summary(rows=[found.rows[0], found.rows[3]], differences={}), {})
    assert "The effect of distillation was not measured: no baseline was trained." in page.text
    assert page.tags.count("img") == 2  # confusion, reliability
    assert "gain" not in page.text


def test_a_class_without_test_samples_is_left_out_of_the_gains(tmp_path):
    three_of_four = evaluate(np.eye(4)[[0, 1, 2]], np.array([0, 1, 2]))
    rows = [Row("rgb", row.role, "rgb", [three_of_four]) for row in summary().rows[2:]]
    page = page_of(tmp_path, summary(seeds=(0,), rows=rows, differences={}))
    assert not re.search("nan", page.text)


def test_the_gain_by_subject_stands_below_the_answer(tmp_path, figures):
    found = summary()
    by_subject = {"rgb": replace(found.difference, sentence="By test subject: +1.0 points of accuracy.")}
    write_page(tmp_path / "report.html", summary(by_subject=by_subject))
    said = "+1.0 points of accuracy. The interval above reflects the variation between seeds, this one between subjects."
    assert said in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_dark_mode_changes_the_colours_of_plots_only(tmp_path):
    """Frames, encoder inputs and saliency maps keep theirs."""
    film = Modality("film", ("time", "height", "width", "channel"), ("time", "channel", "height", "width"), "0..255", 10.0)
    wrist = Modality("wrist", ("time", "channel"), ("channel", "time"), "m/s^2", 10.0)
    frames, samples = Signal(np.zeros((3, 8, 8, 3), np.uint8), 10.0), Signal(np.zeros((20, 3)), 10.0)
    recordings = {"film": (film, frames), "wrist": (wrist, samples)}
    example = Example("subject 1", "wave", "correct", [], recordings, {"fields": np.zeros((3, 8, 8))})
    write_page(tmp_path / "report.html", summary(), {}, examples=[example])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    kind = {title: each for each, title in re.findall(r'<img class="(\w+)[^"]*" alt="([^",]*)', text)}
    assert (kind["film"], kind["wrist"], kind["input of fields"]) == ("photograph", "plot", "photograph")
