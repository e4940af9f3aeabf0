from __future__ import annotations

import io
from pathlib import Path

import pytest
from summaries import answers, summary

from kdcore.cli.console import ConsoleListener, show_result
from kdcore.cli.tables import SafeConsole
from kdcore.recipe.graph import StagePlan
from kdcore.runs.gain import paired_difference
from kdcore.runs.run import Result


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Lines are not broken, whatever the width of the terminal."""
    monkeypatch.setenv("COLUMNS", "200")


def printed(capsys, found, report=Path("runs/sakdn/report.html"), tracking="mlflow ui") -> list[str]:
    show_result(Result(found, found.folder, report, tracking, {"root": "0123"}))
    return [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]


def no_gain(seeds):
    """Differences that leave open, or deny, that distillation helps."""
    with_kd, without = [answers(20 + seed) for seed in seeds], [answers(22) for _ in seeds]
    return {"rgb": paired_difference(with_kd, without)}


def test_a_run_ends_with_table_answer_report_tracking_and_next_step(capsys):
    found = summary(notes=["2 recordings dropped: too short"])
    lines = printed(capsys, found)
    assert lines[0] == "note      2 recordings dropped: too short"
    assert lines[1] == "sakdn: test accuracy, %"
    assert lines[-4:-1] == [found.answer, "report    runs/sakdn/report.html", "tracking  mlflow ui"]
    assert lines[-1] == "next      use the student on a recording: kdcore predict runs/sakdn/students/seed-0/rgb FILE"
    assert "distilled" in lines[-5]


def test_a_run_without_report_and_tracker_names_neither(capsys):
    lines = printed(capsys, summary(), None, "")
    assert not [line for line in lines if line.startswith(("report", "tracking"))]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": (0,)}, "repeat with more seeds: kdcore run recipes/sakdn.yaml 'seeds=[0,1,2,3,4]'"),
        ({"seeds": (0,), "command": ""}, "repeat with more seeds: set seeds=[0,1,2,3,4] in the recipe"),
        ({"differences": no_gain((0, 1, 2))}, "try another method or another weight: kdcore recipes list"),
        ({"folder": Path("my runs")}, "use the student on a recording: kdcore predict 'my runs/students/seed-0/rgb' FILE"),
        ({"differences": {}, "rows": []}, "evaluate the saved students again: kdcore evaluate sakdn"),
    ],
)
def test_the_next_step_depends_on_the_result(capsys, changes, said):
    assert printed(capsys, summary(**changes))[-1] == f"next      {said}"


@pytest.mark.parametrize("changes", [{}, {"differences": {}, "rows": []}, {"seeds": (0,), "command": "kdcore resume a"}])
def test_the_next_step_loads_the_same_plugin_files(capsys, monkeypatch, changes):
    monkeypatch.setenv("KDCORE_PLUGINS", "/tmp/my loss.py")
    assert "--plugin '/tmp/my loss.py'" in printed(capsys, summary(**changes))[-1]


def test_progress_in_a_log_file_has_one_line_per_stage():
    log = io.StringIO()
    listener = ConsoleListener(SafeConsole(file=log, width=80))
    stage = StagePlan("teachers", ("skeleton", "gyroscope"), (), {}, 20, "train", 16, "teachers")
    listener.arm_started(0, "distilled", [stage])
    listener.stage_started(stage, 4)
    listener.epoch_finished(stage, 19, {"train/skeleton/total": 0.0825, "train/gyroscope/total": 0.1234})
    listener.stage_finished(stage)
    listener.say("a note " * 20)
    assert len(log.getvalue().splitlines()) == 2
