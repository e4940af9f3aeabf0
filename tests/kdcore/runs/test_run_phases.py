"""Where a run says that its time went."""

from __future__ import annotations

import json
from itertools import count
from types import SimpleNamespace

import pytest
from runs import results_of

from kdcore.errors import TrainingError
from kdcore.runs.run import RunListener, resume, run
from kdcore.training import phases

SHORT = {
    "schedule": {"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 2}},
    "seeds": [0],
    "baseline": False,
    "engine": {"accelerator": "cpu", "threads": 1, "checkpoint_seconds": 0},
}


TRACES = ["seed-0-distilled-student.json", "seed-0-distilled-teachers.json"]


class Breaks(RunListener):
    """Fails once, between two epochs of the student."""

    def epoch_finished(self, stage, epoch, metrics):
        if stage.name == "student" and epoch == 0:
            raise TrainingError("enough")


@pytest.mark.slow
def test_phases_add_up_over_an_interruption_and_change_no_bit(new_home, monkeypatch):
    ticks = count(1000)
    monkeypatch.setattr(phases, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    plain, profiled = new_home().write(**SHORT), new_home().write(**SHORT)
    for home in (plain, profiled):
        monkeypatch.setenv("KDCORE_RUNS", str(home.folder / "runs"))
        began, wants = float(next(ticks)), home is profiled
        with pytest.raises(TrainingError, match="enough"):
            run(home.recipe, callbacks=[Breaks()], profile=wants, began=began)
        stopped, until = sum(recorded(home).values()), float(next(ticks))
        assert stopped == pytest.approx(until - 1 - began, abs=0.1), "every reading of the clock belongs to a phase"
        result = resume(home.runs[0], profile=wants)
        assert sum(recorded(home).values()) == pytest.approx(next(ticks) - 3 - began, abs=0.1)
        assert result.phases == recorded(home)
        assert list(result.phases)[:3] == [phases.START, phases.DATA, phases.CHECKS]
        assert {phases.EVALUATION, phases.TRACKING, phases.REPORT, phases.OWN} <= result.phases.keys()
        assert [trace.name for trace in result.traces] == (TRACES if wants else [])
        page = result.report.read_text()
        assert "<h2>Time</h2>" in page
        assert "optimizer" in page
        assert resume(home.runs[0]).phases == result.phases, "a complete run is only shown"
    assert results_of(plain.runs[0]) == results_of(profiled.runs[0])


def recorded(home):
    return json.loads((home.runs[0] / "run.json").read_text())["phases"]
