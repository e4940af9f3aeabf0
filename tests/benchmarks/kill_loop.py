"""Kill a run again and again at random moments, resume it, and compare the end with that of an uninterrupted run.

    python tests/benchmarks/kill_loop.py [KILLS] [SEED]

The tests kill a run a few times; this is the long version. It prints a line per run and exits with 1 at the first difference.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runs import Home, results_of, tracked


def interrupted(home: Home, draw: random.Random, kills: int) -> int:
    """Start a run and interrupt it up to `kills` times, by SIGKILL, SIGTERM or SIGINT; returns how often it was alive to be."""
    process, done = home.start("run", str(home.recipe)), 0
    for _ in range(kills):
        while not home.runs and process.is_alive():
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 2.0))
        if process.is_alive():
            done += 1
            draw.choice([process.kill, process.kill, process.terminate])()
        process.join(120)
        if process.exitcode == 0:
            return done
        process = home.start("resume", home.runs[0].name)
    process.join(300)
    if process.exitcode != 0:
        sys.exit(f"a run could not be resumed (exit status {process.exitcode}):\n{home.said()}")
    return done


def different(found: tuple[dict, dict], expected: tuple[dict, dict]) -> list[str]:
    """Names of the files and tracked runs that are not the same, missing or too many."""
    names = [(ours, theirs, sorted({*ours, *theirs}, key=str)) for ours, theirs in zip(found, expected, strict=True)]
    return [name for ours, theirs, each in names for name in each if ours.get(name) != theirs.get(name)]


def main(kills: int, seed: int) -> None:
    """Interrupt runs until there were `kills` interruptions."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="kdcore-kills-") as folder:
        database = Path(folder) / "mlflow.db"
        whole = Home(Path(folder) / "whole", database).write()
        if whole.run() != 0:
            sys.exit(whole.said())
        expected, total, number = (results_of(whole.runs[0]), tracked(whole)), 0, 0
        while total < kills:
            number += 1
            home = Home(Path(folder) / f"run{number}", database).write()
            total += interrupted(home, draw, 10)
            home.finish("sync", home.runs[0].name)  # what a busy machine had not sent in time
            found = results_of(home.runs[0]), tracked(home)
            same = found == expected
            print(
                f"run {number}: {total} interruptions so far; {'the same bits and metrics' if same else 'DIFFERENT'}",
                flush=True,
            )
            if not same:
                sys.exit(f"different: {different(found, expected)}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
