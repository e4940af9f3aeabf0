"""Wall and CPU seconds, and memory, of preparing many NTU RGB+D skeleton files in one process and in several.

    OMP_NUM_THREADS=1 python tests/benchmarks/skeleton_reading.py --files 3000

Files of 80 frames with a body each, whose joints wander at random, are written to a temporary folder. The last column says how
long the 57,000 files of NTU RGB+D would take at this rate. Memory is the peak of anonymous memory (``RssAnon``), without mapped
files, which the system takes back when it needs room; torch and other libraries are part of it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from larger_than_memory import watched_memory

from kdcore.data.branch import Branch
from kdcore.data.data_cache import ColumnCache
from kdcore.data.reading_processes import VARIABLE, usable_processes
from kdcore_datasets.ntu_rgbd import NtuRgbd
from kdcore_signals.lengths import Resample

FRAMES, JOINTS, DIFFERENT = 80, 25, 20
ALL = 57_000
"""About the number of files of NTU RGB+D."""


def write(folder: Path, files: int) -> None:
    """Write recordings; further ones are links to the first few."""
    first: list[Path] = []
    for number in range(files):
        subject, action = number // 60, number % 60
        path = folder / f"S{subject // 40 + 1:03}C001P{subject % 40 + 1:03}R001A{action + 1:03}.skeleton"
        if number < DIFFERENT:
            path.write_text(recording(number))
            first.append(path)
        else:
            path.symlink_to(first[number % DIFFERENT])


def recording(seed: int) -> str:
    """The text of a recording: in each frame the number of bodies, and for each body a line about it and one for each joint."""
    places = np.random.default_rng(seed).normal(scale=0.02, size=(FRAMES, JOINTS, 3)).cumsum(axis=0)
    lines = [str(FRAMES)]
    for frame in places:
        lines += ["1", "72057594037931101 0 1 1 1 1 0 0.02 0.1 2", str(JOINTS)]
        lines += [
            " ".join(f"{value:.7f}" for value in joint) + " 231.5 215.2 1004.2 599.7 -0.2 -0.1 0.9 0.1 2" for joint in frame
        ]
    return "\n".join(lines) + "\n"


def prepare(folder: Path, cache: Path) -> None:
    """Prepare all files in this process and as many others as the environment says, and print the cost."""
    dataset = NtuRgbd(root=folder)
    samples = dataset.samples()
    branch = Branch(dataset.modalities["skeleton"], [Resample(length=64)], [], "resample 64")
    told: list[tuple[int, int, str]] = []
    began, before = time.monotonic(), os.times()
    with watched_memory() as peak:
        ColumnCache(cache, 1 << 30).columns(dataset, samples, [branch], "x", None, lambda *said: told.append(said))
    wall, after = time.monotonic() - began, os.times()
    here = after.user + after.system - before.user - before.system
    others = after.children_user + after.children_system
    count, cpu = len(samples), here + others
    assert told, "no progress was shown"
    assert told[-1][:2] == (count, count), f"the last progress that was shown is {told[-1]}"
    print(f"{count} files: {wall:.1f} s ({count / wall:.0f} a second), CPU {here:.1f} s and {peak.most >> 20} MB here", end="")
    print(f"; in {usable_processes()} others CPU {others:.1f} s" if others else "", end="")
    print(f"; {ALL:,}: {wall / count * ALL / 60:.1f} min, CPU {cpu / count * ALL / 60:.1f} min")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    with TemporaryDirectory() as temporary:
        if asked.prepare:
            prepare(asked.prepare, Path(temporary))
            parser.exit()
        write(Path(temporary), asked.files)
        for count in sorted({1, usable_processes()}):
            subprocess.run(
                [sys.executable, __file__, "--prepare", temporary], env={**os.environ, VARIABLE: str(count)}, check=True
            )
