"""Suggestions for mistyped names."""

from kdcore.suggestions import FEW, MANY, did_you_mean, nearest, or_meant

KNOWN = ("soft-target", "cross-entropy", "dkd")


def test_the_nearest_name_is_told():
    assert nearest("soft-tagret", KNOWN) == "soft-target"
    assert did_you_mean("soft-tagret", KNOWN) == "did you mean 'soft-target'?"
    assert or_meant("soft-tagret", KNOWN) == "; did you mean 'soft-target'?"


def test_upper_and_lower_case_are_the_same():
    assert nearest("SOFT-TARGET", KNOWN) == "soft-target"
    assert nearest("dkd", ("DKD", "dk")) == "DKD"


def test_all_are_told_where_none_is_near():
    assert nearest("zzz", KNOWN) == ""
    assert did_you_mean("zzz", iter(KNOWN), "losses") == "losses: soft-target, cross-entropy, dkd"
    assert did_you_mean("zzz", ()) == "known: none"
    assert or_meant("zzz", KNOWN) == ""


def test_of_very_many_only_the_most_like_are_told():
    many = [f"recipe-{number}" for number in range(MANY)]
    assert did_you_mean("zzz", many).count(",") == MANY - 1
    assert did_you_mean("axcd", [*many, "abyd"], "shipped are").startswith("shipped are: abyd, recipe-")
    assert did_you_mean("axcd", [*many, "abyd"]).count(",") == FEW - 1
    assert did_you_mean("zzz", [*many, "x"]).endswith(f" and {MANY + 1 - FEW} more")
