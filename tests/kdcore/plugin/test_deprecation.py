"""Deprecation of public names."""

from __future__ import annotations

import warnings

import pytest

import kdcore
from kdcore import KdcoreDeprecationWarning
from kdcore.errors import KdcoreError
from kdcore.plugin import hookspecs
from kdcore.plugin.deprecation import Deprecation
from kdcore.plugin.manager import PluginWarning

OLD = Deprecation("the hook 'register_nets'", "0.3", "register_encoders")


@pytest.mark.parametrize(
    ("since", "version", "stage"),
    [
        ("0.3", "0.2.9", "announced"),
        ("0.3", "0.3.0", "warned"),
        ("0.3", "0.4.7", "warned"),
        ("0.3", "0.5.0", "refused"),
        ("0.3", "0.6.0", "gone"),
        ("1.9", "2.0", "warned"),
        ("1.9", "2.1", "refused"),
        ("1.9", "2.2", "gone"),
        ("2.1", "1.9", "announced"),
    ],
)
def test_two_minor_releases_warn_the_next_refuses_then_it_is_gone(since, version, stage):
    assert Deprecation("x", since, "y").stage(version) == stage


def test_a_use_is_warned_of_with_what_to_do():
    with pytest.warns(
        KdcoreDeprecationWarning, match=r"^plugin 'a' uses the hook 'register_nets', which is deprecated since"
    ) as made:
        OLD.used("plugin 'a'", "0.4.0")
    assert "use register_encoders" in str(made[0].message)
    assert made[0].filename == __file__


def test_a_use_is_refused_when_the_time_is_over():
    with pytest.raises(
        KdcoreError, match=r"^plugin 'a' uses the hook .*, which kdcore 0.5.0 no longer has; use register_encoders"
    ):
        OLD.used("plugin 'a'", "0.5.0")


def test_nothing_is_said_before():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OLD.used("plugin 'a'", "0.2.0")


def test_the_warning_is_shown_by_default():
    assert issubclass(KdcoreDeprecationWarning, FutureWarning)


def test_a_renamed_name_still_works_and_warns(monkeypatch):
    monkeypatch.setitem(kdcore._RENAMED, "Distillation", ("DistillationLoss", "0.1"))
    with pytest.warns(KdcoreDeprecationWarning, match=r"kdcore.Distillation, .*; use kdcore.DistillationLoss"):
        found = kdcore.Distillation
    assert found is kdcore.DistillationLoss


HOOK = "@hookimpl\ndef stage_finished(stage): pass"


def test_a_plugin_with_a_deprecated_hook_works_and_is_warned_of(workshop, monkeypatch):
    monkeypatch.setattr(hookspecs, "DEPRECATED", {"stage_finished": Deprecation("the hook 'stage_finished'", "0.1", "another")})
    with pytest.warns(KdcoreDeprecationWarning, match="plugin 'old' uses the hook 'stage_finished'"):
        manager = workshop.manager(old=HOOK)
    assert not manager.broken


def test_a_plugin_with_a_hook_whose_time_is_over_is_set_aside(workshop, monkeypatch):
    monkeypatch.setattr(hookspecs, "DEPRECATED", {"stage_finished": Deprecation("the hook 'stage_finished'", "0.0", "another")})
    monkeypatch.setattr("kdcore.plugin.deprecation.WARNING_RELEASES", 1)
    with pytest.warns(
        PluginWarning, match="plugin 'old' .* is not used: .*'stage_finished', which kdcore .* no longer has; use ano"
    ):
        workshop.manager(old=HOOK)


def test_what_is_gone_is_not_kept_in_the_code():
    announced = [
        *hookspecs.DEPRECATED.values(),
        *(Deprecation(name, since, new) for name, (new, since) in kdcore._RENAMED.items()),
    ]
    assert not [each.what for each in announced if each.stage() == "gone"]
    assert set(hookspecs.DEPRECATED) <= set(vars(hookspecs))
