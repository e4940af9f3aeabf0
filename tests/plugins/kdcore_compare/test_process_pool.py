"""Jobs are kdcore commands in processes of their own; elsewhere in the tests, forks take their place."""

from __future__ import annotations

from kdcore import __version__
from kdcore_compare.process_pool import Job, run_jobs


def test_jobs_are_commands_whose_output_and_exit_status_are_kept(tmp_path):
    said: list[str] = []
    ended = run_jobs([Job("what, which", ["--version"]), Job("wrong", ["nonsense"])], 2, tmp_path / "logs", said.append)
    assert ended == {"what, which": 0, "wrong": 2}
    assert __version__ in (tmp_path / "logs" / "what-which.log").read_text()
    assert {"what, which: started", "wrong: started", "what, which: done"} <= set(said)
    [failed] = [line for line in said if line.startswith("wrong: failed: ")]
    assert failed.endswith(f"({tmp_path / 'logs' / 'wrong.log'})")
