"""Every shipped plugin passes the conformance kit that their authors' plugins have to pass."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcore.plugin.manager import plugin_manager
from kdcore.testing import Case, NotApplicable
from kdcore.testing.run import Trial, trials
from kdcore.testing.suite import report

SHIPPED = (
    "acs",
    "datasets",
    "gsdm",
    "images",
    "losses",
    "mutual",
    "schedules",
    "semantics",
    "signals",
    "skeleton",
    "spamfm",
    "video",
)
WITHOUT_COMPONENTS = {"compare", "devtools", "executors", "export", "inspect", "mlflow", "report"}
"""They add commands and the like."""


def recordings(name: str):
    """Options of a dataset of published recordings, where these are."""

    def options(_: Path) -> dict[str, Any]:
        folder = Path(os.environ.get("KDCORE_DATA", Path(__file__).resolve().parents[3] / "shared/data")) / name
        if not folder.is_dir():
            raise NotApplicable(f"real recordings are not here: set KDCORE_DATA (looked for {folder})")
        return {"root": folder}

    return options


def mmact(folder: Path) -> dict[str, Any]:
    for subject in (1, 2):
        for kind in ("acc_watch_clip", "gyro_clip"):
            path = folder / kind / f"subject{subject}/scene1/session1/fall.csv"
            path.parent.mkdir(parents=True)
            path.write_text("".join(f"20180731_13:05:0{n}.000,{n},0.5,{-n}\n" for n in range(6)))
    return {"root": folder}


def sensor_csv(folder: Path) -> dict[str, Any]:
    for subject in (1, 2):
        rows = [f"{20 * n},{n},{-n},0.5,{'walk' if n < 5 else 'run'}" for n in range(10)]
        (folder / f"{subject}_a.csv").write_text("t,x,y,z,label\n" + "\n".join(rows) + "\n")
    columns = {"accelerometer": ["x", "y", "z"]}
    watch = {"pattern": "{subject}_{trial}.csv", "columns": columns, "time_column": "t", "time_unit": "ms"}
    return {"root": folder, "devices": {"watch": watch}, "label": {"column": "label"}}


def skeletons(suffix: str):
    """Options of a dataset of two small files."""

    def options(folder: Path) -> dict[str, Any]:
        values = np.random.default_rng(0).normal(size=(5, 3, 3)).astype(np.float32)
        for action in ("walk", "run"):
            path = folder / f"1_{action}_1.{suffix}"
            if suffix == "npz":
                np.savez(path, joints=values)
            elif suffix == "txt":
                np.savetxt(path, values.reshape(5, 9))
            else:
                path.write_text(str({"joints": values.tolist()}).replace("'", '"'))
        return {"root": folder, "pattern": f"{{subject}}_{{action}}_{{trial}}.{suffix}"}

    return options


def collection(folder: Path) -> dict[str, Any]:
    place = np.random.default_rng(0).normal(size=(1, 4, 5, 3)).astype(np.float16)
    clips = [{"frame_dir": f"S001C001P00{n}R001A00{n}", "label": n - 1, "keypoint": place, "total_frames": 4} for n in (1, 2)]
    path = folder / "clips.pkl"
    path.write_bytes(pickle.dumps({"split": {}, "annotations": clips}))
    return {"file": path, "classes": ("drink", "eat"), "names": "S{scene}C{view}P{subject}R{trial}A{action}"}


CASES = {
    "datasets": {
        "utd-mhad": Case(recordings("utd-mhad")),
        "berkeley-mhad": Case(recordings("berkeley-mhad")),
        "ntu-rgbd": Case(recordings("ntu-rgbd/nturgb+d_skeletons")),
        "mmact": Case(mmact),
        "sensor-csv": Case(sensor_csv),
        "skeleton-npz": Case(skeletons("npz")),
        "skeleton-json": Case(skeletons("json")),
        "skeleton-text": Case(skeletons("txt")),
        "skeleton-collection": Case(collection),
    }
}
TRIALS = [trial for plugin in SHIPPED for trial in trials(plugin, CASES.get(plugin))]


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: f"{trial.subject.entry.plugin}-{trial.name}")
def test_shipped_component(trial: Trial):
    report(trial)


def test_every_shipped_plugin_is_tested():
    shipped = {name for name, plugin in plugin_manager().plugins.items() if plugin.distribution == "kdcore"}
    assert shipped == {*SHIPPED} | WITHOUT_COMPONENTS
