"""Leakage checks of plugins: what they find, what is cached, and what is said without them."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import toys

from kdcore import LeakageCheck, PluginError
from kdcore.data import leakage
from kdcore.data.pipeline import Pipeline
from kdcore.errors import SplitError


class SameMean(LeakageCheck):
    """Recordings whose values have the same mean, to three digits."""

    name = "same-mean"
    certain = True

    def summary(self, signal):
        return f"{signal.values.mean():.3f}"

    def findings(self, splits, summaries, contents, read):
        return [
            f"{modality}: {one.key} and {other.key} have the mean {texts[one.key]}; {len(read(one, modality))} rows"
            for modality, texts in summaries.items()
            for one in splits.samples["test"]
            for other in splits.samples["train"]
            if texts[one.key] == texts[other.key]
        ]


class PerhapsSameMean(SameMean):
    name = "perhaps-same-mean"
    certain = False


@pytest.fixture
def install(monkeypatch):
    """Makes checks those of the installed plugins."""

    def set_checks(*plugins):
        hook = SimpleNamespace(leakage_checks=lambda: list(plugins))
        monkeypatch.setattr(leakage, "plugin_manager", lambda: SimpleNamespace(hook=hook))

    return set_checks


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    toys.write(folder)
    values = np.load(folder / "wrist-s0-a0-t0.npy")
    np.save(folder / "wrist-s3-a1-t1.npy", values[::-1])
    return folder


def table(dataset, tmp_path):
    return toys.table(dataset, {"student": Pipeline([toys.branch()])}, tmp_path / "cache")


def test_a_certain_finding_stops_a_run_also_from_the_cache(files, tmp_path, install):
    install([SameMean()])
    for reads in (16 + 1, 1):
        dataset = toys.Files(files)
        with pytest.raises(SplitError, match=r"splits leak:\n  wrist: subject s3.* and subject s0.*; 10 rows"):
            table(dataset, tmp_path)
        assert dataset.reads["wrist"] == reads


def test_an_uncertain_finding_is_a_warning(files, tmp_path, install):
    install([PerhapsSameMean()])
    with pytest.warns(UserWarning, match=r"wrist: subject s3.* and subject s0"):
        found = table(toys.Files(files), tmp_path)
    assert len([line for line in found.warnings if "have the mean" in line]) == 1


def test_a_run_says_that_there_was_no_search(files, tmp_path, install):
    install()
    with pytest.warns(UserWarning, match="not searched for near copies"):
        found = table(toys.Files(files), tmp_path)
    assert leakage.NOT_SEARCHED in found.warnings
    install([PerhapsSameMean()])
    dataset = toys.Files(files)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*have the mean")
        assert leakage.NOT_SEARCHED not in table(dataset, tmp_path).warnings
    assert dataset.reads["wrist"] == 16 + 1, "data prepared without a check lack its summaries"


def test_two_checks_of_one_name_are_refused(install):
    install([SameMean()], [SameMean()])
    with pytest.raises(PluginError, match="two leakage checks have the name 'same-mean'"):
        leakage.leakage_checks()


def test_the_installed_checks():
    assert {check.name: check.certain for check in leakage.leakage_checks()} == {"near-copies": True, "resampled-copies": False}
