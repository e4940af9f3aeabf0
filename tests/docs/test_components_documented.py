from __future__ import annotations

import re

import pytest

from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.option_schema import describe
from kdcore.plugin.registry import Entry

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
ENTRIES = [entry for entry in plugin_manager().registry.entries() if entry.plugin in SHIPPED]
LOSSES = [entry for entry in ENTRIES if entry.kind == "loss"]
WITHOUT_SOURCE = {"cross-entropy", "binary-cross-entropy", "regression"}
"""Older than any paper that one would cite for them."""


def name(entry: Entry) -> str:
    return f"{entry.kind}-{entry.name}"


def test_every_shipped_plugin_is_looked_at():
    assert {entry.plugin for entry in ENTRIES} == set(SHIPPED)


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_component_says_in_a_sentence_what_it_is(entry: Entry):
    assert re.search(r"\w+ \w+", describe(entry).summary)


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_every_option_is_explained(entry: Entry):
    unexplained = [option.name for option in describe(entry).options if not option.description]
    assert not unexplained


@pytest.mark.parametrize("entry", LOSSES, ids=name)
def test_loss_states_its_formula(entry: Entry):
    assert ".. math::" in describe(entry).doc


@pytest.mark.parametrize("entry", [entry for entry in LOSSES if entry.name not in WITHOUT_SOURCE], ids=name)
def test_loss_names_its_source(entry: Entry):
    assert re.search(r"\b(19|20)\d\d\b", describe(entry).doc), "no publication with its year"


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_citation_carries_a_link(entry: Entry):
    doc = describe(entry).doc
    assert not re.search(r"\b(19|20)\d\d\b", doc) or re.search(r"https://\S+\w", doc), "a publication without a link"
