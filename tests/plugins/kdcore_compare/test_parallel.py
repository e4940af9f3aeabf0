"""Jobs are kdcore commands in processes of their own; elsewhere in the tests, forks take their place."""

from __future__ import annotations

import csv
import signal

import numpy as np
import pytest
from quick import QUICK, runs_of
from runs import Home, results_of

from kdcore import Executor, Job, KdcoreError, StartedJob, __version__, make_executor, read_run
from kdcore_compare.parallel import ATTEMPTS, Parallel, run_jobs


def test_jobs_are_commands_whose_output_and_exit_status_are_kept(tmp_path):
    said: list[str] = []
    commands = {"what, which": ["--version"], "wrong": ["nonsense"]}
    ended = Parallel(2).run(commands, tmp_path / "logs", said.append)
    assert ended == {"what, which": 0, "wrong": 2}
    assert __version__ in (tmp_path / "logs" / "what-which.log").read_text()
    assert {"what, which: started", "wrong: started", "what, which: done"} <= set(said)
    [failed] = [line for line in said if line.startswith("wrong: failed: ")]
    assert failed.endswith(f"({tmp_path / 'logs' / 'wrong.log'})")


class Scripted(Executor):
    """Ends each job with the statuses that a script has for it, one a start."""

    def __init__(self, script):
        self.script = {label: list(statuses) for label, statuses in script.items()}
        self.running = self.most = 0
        self.stopped = []

    def start(self, job, at_once):
        self.running += 1
        self.most = max(self.most, self.running)
        return ScriptedJob(self, job.label, self.script[job.label].pop(0))


class ScriptedJob(StartedJob):
    def __init__(self, executor, label, ends_with):
        self.executor, self.label, self.ends_with, self.asked = executor, label, ends_with, 0

    def status(self):
        self.asked += 1
        if self.asked < 2 or self.ends_with is None:
            return None
        self.executor.running -= 1
        return self.ends_with

    def stop(self):
        self.executor.stopped.append(self.label)
        self.ends_with = 128 + signal.SIGTERM


def run_script(tmp_path, script, at_once=2):
    executor, said = Scripted(script), []
    jobs = [Job(label, [], tmp_path / f"{label}.log") for label in script]
    return executor, said, lambda: run_jobs(executor, jobs, at_once, said.append)


def test_a_lost_job_is_started_again_a_few_times_and_a_failed_one_is_not(tmp_path):
    script = {"killed": [-9, 0], "stopped": [143, 0], "always": [-9] * ATTEMPTS, "wrong": [2], "good": [0]}
    executor, said, run = run_script(tmp_path, script)
    assert run() == {"killed": 0, "stopped": 0, "always": -9, "wrong": 2, "good": 0}
    assert not any(executor.script.values())
    assert executor.most == 2
    assert "killed: lost (killed by SIGKILL, or its machine did not answer); starting it again, to resume its run" in said


def test_an_interrupt_stops_all_jobs_and_waits_for_them(tmp_path):
    executor, _, run = run_script(tmp_path, {"one": [None], "two": [None], "three": [None]})
    real = executor.start

    def interrupted(job, at_once):
        if executor.running == 1:
            raise KeyboardInterrupt
        return real(job, at_once)

    executor.start = interrupted
    with pytest.raises(KeyboardInterrupt):
        run()
    assert executor.stopped == ["one"]
    assert executor.running == 0


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("locla", "no executor 'locla'; did you mean 'local'?"),
        ("{name: local, cores: 3}", "has no option 'cores'"),
        ("{name: slurm, minutes: 0}", "minutes: must be greater than or equal to 1"),
        ("[local", "write NAME or {name: NAME, option: value}"),
    ],
)
def test_a_wrong_executor_is_named(written, said):
    with pytest.raises(KdcoreError) as caught:
        make_executor(written)
    assert said in str(caught.value)


@pytest.mark.slow
def test_seeds_trained_side_by_side_equal_those_of_one_run(tmp_path, database, two_seeds):
    home = Home(tmp_path / "seeds", database).write(**QUICK)
    command = ("seeds", str(home.recipe), "--jobs", "2", "--output", "table.csv")
    assert home.finish(*command) == 0, home.said()
    assert "tiny, seed 1: done" in home.said()
    assert sorted(read_run(run).facts.seeds for run in runs_of(home)) == [[0], [1]]
    spread = {name: each for run in runs_of(home) for name, each in results_of(run).items()}
    expected = results_of(runs_of(two_seeds)[0])
    assert spread.keys() - expected.keys() == {"baseline/seed-1/student.safetensors"}  # a run keeps its first seed's baseline
    assert {name: spread[name] for name in expected} == expected
    [serial] = [read_run(run) for run in runs_of(two_seeds)]
    accuracies = [outcome.evaluations()["student"].accuracy for outcome in serial.outcomes["distilled"].values()]
    rows = list(csv.DictReader((home.folder / "table.csv").open()))
    [row] = [each for each in rows if each["measure"] == "accuracy" and each["entry"] == "tiny"]
    assert float(row["mean"]) == pytest.approx(np.mean(accuracies))
