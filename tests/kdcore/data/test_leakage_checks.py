"""Leakage checks of plugins: what they find, what is cached, and what is said without them."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import toys

from kdcore import LeakageCheck, PluginError
from kdcore.data import leakage
from kdcore.data.pipeline import Pipeline
from kdcore.data.preparation import load_table
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


def messages(files, cache, protocol=None):
    """The warnings of a start, and how many recordings it read."""
    dataset = toys.Files(files)
    pipelines = {"student": Pipeline([toys.branch()])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_table(dataset, protocol or toys.BySubject(), toys.spec(), pipelines, cache, 1 << 30)
    return found.warnings, dataset.reads["wrist"]


class TestsAnother(toys.BySubject):
    """Subject s3 validates, s2 tests."""

    def split(self, samples):
        splits = super().split(samples)
        swapped = {"validation": splits.samples["test"], "test": splits.samples["validation"]}
        return replace(splits, samples={**splits.samples, **swapped})


def test_findings_are_stored(files, tmp_path, install):
    install([PerhapsSameMean()])
    np.save(files / "wrist-s1-a0-t0.npy", np.load(files / "wrist-s0-a0-t0.npy"))
    first, reads = messages(files, tmp_path / "cache")
    assert "occur more than once: 1" in first[0]
    assert ["have the mean" in line for line in first] == [False, True, True]
    assert reads == 16 + 2
    assert messages(files, tmp_path / "cache") == (first, 0)
    assert not list((tmp_path / "cache").glob("*.part"))


@pytest.mark.parametrize("change", ["split", "recording", "damaged", "cut off", "check"])
def test_another_search_after_a_change(files, tmp_path, install, change):
    install([PerhapsSameMean()])
    cache, protocol = tmp_path / "cache", None
    before, _ = messages(files, cache)
    (stored,) = cache.glob("*/findings-*.json")
    if change == "split":
        protocol = TestsAnother()
    elif change == "recording":
        np.save(files / "wrist-s1-a0-t0.npy", np.load(files / "wrist-s3-a0-t0.npy")[::-1])
    elif change == "damaged":
        stored.write_text(stored.read_text().replace("subject s3", "subject s1"))
    elif change == "cut off":
        stored.write_bytes(stored.read_bytes()[:-20])
    else:
        install([type("Other", (PerhapsSameMean,), {"__module__": __name__, "findings": lambda *_: ["another check"]})()])
    after, _ = messages(files, cache, protocol)
    assert after == messages(files, tmp_path / "empty cache", protocol)[0]
    assert (after == before) == (change in ("damaged", "cut off"))


def test_findings_are_not_stored_while_a_recording_is_unreadable(files, tmp_path, install, monkeypatch):
    class Reading(PerhapsSameMean):
        def findings(self, *arguments):
            with suppress(OSError):
                return super().findings(*arguments)
            return []

    def unavailable(self, sample, modality):
        raise OSError("the server is not available")

    install([Reading()])
    cache = tmp_path / "cache"
    complete, _ = messages(files, tmp_path / "other cache")
    messages(files, cache)
    next(cache.glob("*/findings-*.json")).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(toys.Files, "read", unavailable)
        assert len(messages(files, cache)[0]) == len(complete) - 1
    assert messages(files, cache)[0] == complete


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
