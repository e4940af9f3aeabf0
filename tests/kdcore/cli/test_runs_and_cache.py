"""Lists of runs and of the cache's content, and removing them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from kdcore.cli import cache, runs
from kdcore.runs.paths import find_run, new_run_id


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("KDCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


def add_run(home, name, progress=None):
    folder = home / "runs" / name
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: x\n")
    (folder / "weights.bin").write_bytes(bytes(2_000_000))
    if progress is not None:
        (folder / "progress.json").write_text(progress)
    return folder


def said(app, *words, status=0, answer=None):
    done = CliRunner().invoke(app, words, input=answer)
    assert done.exit_code == status, done.output
    return done.output


def test_runs_are_listed_with_their_state(home):
    assert "no runs in" in said(runs.app, "list")
    add_run(home, "20260102-030405-mine-abcdef", json.dumps({"complete": False}))
    add_run(home, "20260102-030406-mine-abcdef", "{")
    busy = add_run(home, "20260102-030407-mine-abcdef")
    with FileLock(busy / "run.lock"):
        lines = said(runs.app, "list").splitlines()
        assert "is running; stop it first" in str(CliRunner().invoke(runs.app, ["rm", "-y", busy.name]).exception)
    assert [line.split()[0] for line in lines[2:5]] == [f"20260102-03040{n}-mine-abcdef" for n in (5, 6, 7)]
    assert [word in line for line, word in zip(lines[2:5], ["interrupted", "damaged", "running"], strict=True)] == [True] * 3
    assert f"{datetime(2026, 1, 2, 3, 4, tzinfo=UTC).astimezone():%Y-%m-%d %H:%M}" in lines[2]
    assert "2 MB" in lines[2]


def test_runs_are_listed_by_age_whatever_the_time_zone(home, monkeypatch):
    """Ids are of UTC: also around 25 October 2026, 01:00 UTC, when clocks in Berlin are put back from 3:00 to 2:00."""
    moments = [datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1)]
    ids = []
    for zone, moment in (("Europe/Berlin", moments[0]), ("Europe/Berlin", moments[1]), ("America/New_York", moments[1])):
        ids.append(new_run_id("mine", "abcdef0", moment.astimezone(ZoneInfo(zone))))
        add_run(home, ids[-1])
    for number in range(3, 12):
        ids.append(new_run_id("mine", "abcdef0", moments[1]))
        add_run(home, ids[-1])
        assert ids[-1].endswith(f"-{number}")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        lines = said(runs.app, "list").splitlines()[2 : 2 + len(ids)]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [line.split()[0] for line in lines] == ids
    assert ["02:30" in line for line in lines] == [True] * 12
    monkeypatch.setenv("KDCORE_RUNS", str(home / "runs"))
    assert find_run("mine").name == ids[-1]


def test_the_gain_of_a_finished_run(home, monkeypatch):
    folder = add_run(home, "20260102-030405-mine-abcdef", json.dumps({"complete": True}))
    (folder / "results").mkdir()
    np.savez(folder / "results" / "seed-0-distilled.npz", x=0)
    computed = []
    monkeypatch.setattr(runs, "_computed_gain", lambda folder: computed.append(folder) or "+4.2 (+1.0 to +7.4)")
    assert "finished +4.2 (+1.0 to +7.4) 2 MB" in " ".join(said(runs.app, "list").split())
    assert "+4.2" in said(runs.app, "list")
    assert computed == [folder], "computed once"
    np.savez(folder / "results" / "seed-0-distilled.npz", x=1)
    said(runs.app, "list")
    assert len(computed) == 2, "again, for the results changed"


def test_runs_are_removed_after_confirmation(home):
    folder = add_run(home, "20260102-030405-mine-abcdef")
    other = add_run(home, "20260102-030406-other-abcdef")
    said(runs.app, "rm", folder.name, status=1, answer="n\n")
    assert folder.exists()
    said(runs.app, "rm", folder.name, answer="y\n")
    assert (folder.exists(), other.exists()) == (False, True)
    said(runs.app, "rm", "--yes", other.name)
    assert not other.exists()


def test_the_cache_is_shown_and_cleared(home):
    for name, size in (("skeleton-123/values.bin", 5000), ("teachers/abc/model.bin", 3000), ("schemas/a.json", 10)):
        (home / "cache" / name).parent.mkdir(parents=True)
        (home / "cache" / name).write_bytes(bytes(size))
    lines = said(cache.app, "list").splitlines()
    assert lines[0] == str(home / "cache")
    assert [line.split()[-2:] for line in lines[3:6]] == [["5", "kB"], ["3", "kB"], ["10", "B"]]
    assert lines[6].startswith("8.01 kB in total")
    assert "unknown kind of cached data 'dta'" in str(CliRunner().invoke(cache.app, ["clear", "dta"]).exception)
    assert said(cache.app, "clear", "data") == "removed data: 1 entries, 5 kB\n"
    assert sorted(each.name for each in (home / "cache").iterdir()) == ["schemas", "teachers"]
    said(cache.app, "clear")
    assert not [each for each in (home / "cache").rglob("*") if each.is_file()]


def test_a_cache_that_does_not_exist_is_empty(home):
    assert "0 B in total" in said(cache.app, "list")
    said(cache.app, "clear")
