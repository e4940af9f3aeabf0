"""Recognise published datasets by the names of their files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdcore_datasets.new.guess import Guess
from kdcore_datasets.new.text_tables import read_table


@dataclass(frozen=True)
class _Published:
    """A dataset that its file names tell.

    Args:
        name: Name of the dataset in a recipe.
        files: Pattern of its files, from the folder that is its root on.
        root: True if the files may lie anywhere below the root.
    """

    name: str
    files: str
    root: bool = False


_PUBLISHED = (
    _Published("utd-mhad", r"(Inertial|Skeleton|Depth|RGB)/a\d+_s\d+_t\d+_\w+\.(mat|avi)"),
    _Published("berkeley-mhad", r"Accelerometer/Shimmer\d+/acc_h\d+_s\d+_a\d+_r\d+\.txt"),
    _Published("ntu-rgbd", r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}\.skeleton", root=True),
    _Published("mmact", r"acc_watch_clip/subject\d+/scene\d+/session\d+/.+"),
    _Published("uci-har", r"train/Inertial Signals/total_acc_x_train\.txt"),
)


def guess_published(root: Path, files: Sequence[str]) -> Guess | None:
    """The published dataset whose files these are; None if they are of none."""
    for each in _PUBLISHED:
        pattern = re.compile(rf"(?:^|/)({each.files})$")
        for file in files:
            whole = (root.absolute() / file).as_posix()  # `root` may be a folder inside the dataset's own
            if found := pattern.search(whole):
                home = root if each.root else Path(whole[: found.start(1)])
                why = {("name",): f"files are named like {Path(file).name}"}
                return Guess({"name": each.name, "root": str(home.absolute())}, why, gaps=True)
    return _pamap2(root, files)


def _pamap2(root: Path, files: Sequence[str]) -> Guess | None:
    """PAMAP2, https://doi.org/10.24432/C5NW2H: 54 columns without a header, three units of 17 columns from the fourth on."""
    found = [file for file in files if re.search(r"(^|/)Protocol/subject\d+\.dat$", file)]
    table = read_table(root / found[0]) if found else None
    if table is None or table.width != 54 or table.names:
        return None
    pattern = f"{found[0].rpartition('/')[0]}/subject{{subject}}.dat"
    devices = {
        name: {
            "pattern": pattern,
            "columns": {
                "accelerometer": [start + 1, start + 2, start + 3],
                "gyroscope": [start + 7, start + 8, start + 9],
            },
            "time_column": 0,
            "delimiter": " ",
            "header": False,
            "missing_values": {"interpolate": 0.5},
        }
        for name, start in (("hand", 3), ("chest", 20), ("ankle", 37))
    }
    why = {
        ("devices",): "PAMAP2 as published: 54 columns without a header",
        ("devices", "hand", "columns"): "the accelerometer of ±16 g, and the gyroscope",
        ("label",): "activity ids",
        ("ignore_labels",): "0 is any other activity",
    }
    section = {"name": "sensor-csv", "root": str(root.absolute()), "devices": devices, "label": {"column": 1}}
    return Guess({**section, "ignore_labels": ["0"]}, why, window=True, gaps=True)
