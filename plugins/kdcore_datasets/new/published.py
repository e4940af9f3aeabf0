"""Detection of published datasets by file name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcore_datasets.new.guess import Guess
from kdcore_datasets.new.text_tables import read_table


@dataclass(frozen=True)
class _Published:
    """A dataset with characteristic file names.

    Args:
        name: Name of the dataset in a recipe.
        files: Pattern of its files, relative to its root.
        root: Whether the files may be anywhere below the root.
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


@dataclass(frozen=True)
class _Table:
    """A published dataset of tables without a header.

    Args:
        name: Name of the dataset.
        files: Regular expression for its file paths.
        pattern: The corresponding pattern in a recipe.
        width: Number of columns.
        devices: First of three columns, starting at 0, by device and kind of signal.
        label: Column of labels.
        labels: Description of the labels.
        chosen: Description of the selected columns.
        units: Units by kind of signal, if different from the default.
        options: Further options of each device.
    """

    name: str
    files: str
    pattern: str
    width: int
    devices: Mapping[str, Mapping[str, int]]
    label: int
    labels: str
    chosen: str
    units: Mapping[str, str]
    options: Mapping[str, Any]


_TABLES = (
    _Table(  # https://doi.org/10.24432/C5NW2H: three units of 17 columns from the fourth on
        "PAMAP2",
        r"Protocol/subject\d+\.dat",
        "Protocol/subject{subject}.dat",
        54,
        {name: {"accelerometer": at + 1, "gyroscope": at + 7} for name, at in (("hand", 3), ("chest", 20), ("ankle", 37))},
        1,
        "activity ids",
        "the accelerometer of ±16 g, and the gyroscope",
        {},
        {"time_column": 0, "delimiter": " ", "header": False, "missing_values": {"interpolate": 0.5}},
    ),
    _Table(  # https://doi.org/10.24432/C5M027: five inertial units of 13 columns from the 38th on
        "OPPORTUNITY",
        r"S\d-(ADL\d|Drill)\.dat",
        "S{subject}-{session}.dat",
        250,
        {
            name: {"accelerometer": 37 + 13 * number}
            for number, name in enumerate(("back", "right-upper-arm", "right-lower-arm", "left-upper-arm", "left-lower-arm"))
        },
        243,
        "locomotion; 244 to 249 are other tracks of labels",
        "the accelerometers of the inertial units; the unit of their gyroscopes is not published",
        {"accelerometer": "mg"},
        {
            "time_column": 0,
            "time_unit": "ms",
            "delimiter": " ",
            "header": False,
            "missing_values": {"interpolate": 0.5},
        },
    ),
    _Table(  # https://doi.org/10.24432/C5TW22
        "mHealth",
        r"mHealth_subject\d+\.log",
        "mHealth_subject{subject}.log",
        24,
        {
            "chest": {"accelerometer": 0},
            "ankle": {"accelerometer": 5, "gyroscope": 8},
            "arm": {"accelerometer": 14, "gyroscope": 17},
        },
        23,
        "activities",
        "without ECG and magnetometers",
        {"gyroscope": "deg/s"},
        {"rate": 50.0, "delimiter": "\t", "header": False},
    ),
)


def guess_published(root: Path, files: Sequence[str]) -> Guess | None:
    """Return the published dataset with these files, or None if it is unknown."""
    for each in _PUBLISHED:
        pattern = re.compile(rf"(?:^|/)({each.files})$")
        for file in files:
            path = (root.absolute() / file).as_posix()  # `root` may be a subfolder of the dataset
            if found := pattern.search(path):
                home = root if each.root else Path(path[: found.start(1)])
                why = {("name",): f"files are named like {Path(file).name}"}
                return Guess({"name": each.name, "root": str(home.absolute())}, why, gaps=True)
    return next(filter(None, (_table(root, files, each) for each in _TABLES)), None) or _msr_action_3d(root, files)


def _msr_action_3d(root: Path, files: Sequence[str]) -> Guess | None:
    """MSR-Action3D, https://doi.org/10.1109/CVPRW.2010.5543273: 20 rows per frame with x, y, z and a confidence."""
    pattern = re.compile(r"(^|.*/)a\d+_s\d+_e\d+_skeleton3D\.txt$")
    homes = [match[1] for file in files if (match := pattern.match(file))]
    if not homes:
        return None
    section = {
        "name": "skeleton-text",
        "root": str(root.absolute()),
        "pattern": homes[0] + "a{action}_s{subject}_e{trial}_skeleton3D.txt",
        "joints": 20,
        "rate": 15,
    }
    why = {("pattern",): "MSR-Action3D as published: 20 joints, one row per joint", ("rate",): "as published"}
    return Guess(section, why, gaps=True)


def _table(root: Path, files: Sequence[str], known: _Table) -> Guess | None:
    """Return the dataset of tables in a published layout, or None if there are none."""
    pattern = re.compile(rf"(^|.*/){known.files}$")
    found = [(file, match[1]) for file in files if (match := pattern.match(file))]
    table = read_table(root / found[0][0]) if found else None
    if table is None or table.width != known.width or table.names:
        return None
    home = found[0][1]
    devices: dict[str, Any] = {
        name: {
            "pattern": home + known.pattern,
            "columns": {kind: [first, first + 1, first + 2] for kind, first in kinds.items()},
            **({"units": units} if (units := {k: u for k, u in known.units.items() if k in kinds}) else {}),
            **known.options,
        }
        for name, kinds in known.devices.items()
    }
    first = next(iter(devices))
    why = {
        ("devices",): f"{known.name} as published: {known.width} columns without a header",
        ("devices", first, "columns"): known.chosen,
        ("label",): known.labels,
        ("ignore_labels",): "0 is any other activity",
    }
    section = {"name": "sensor-csv", "root": str(root.absolute()), "devices": devices, "label": {"column": known.label}}
    left = [file for file in files if (root / file).suffix == (root / found[0][0]).suffix and file not in dict(found)]
    shown = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")
    notes = [f"{len(left)} files are skipped: {shown}"] if left else []
    return Guess({**section, "ignore_labels": ["0"]}, why, notes, window=True, gaps=True)
