"""Every check finds the fault that is made for it, and no other check takes offence at it."""

from __future__ import annotations

import faulty_data
import faulty_encoders
import faulty_loss_cases
import faulty_loss_state
import faulty_losses
import faulty_plans
import faulty_transforms
import pytest
import torch
from faults import SPECIMENS, Specimen

from kdcore.plugin.registry import KINDS
from kdcore.testing import check_component, checks_of

MODULES = (
    faulty_data,
    faulty_encoders,
    faulty_loss_cases,
    faulty_loss_state,
    faulty_losses,
    faulty_plans,
    faulty_transforms,
)
ON_GPU = set() if torch.cuda.is_available() else {"devices_agree"}
"""Checks that find nothing on this machine."""


@pytest.mark.parametrize("specimen", SPECIMENS, ids=str)
def test_a_fault_is_found_by_the_checks_that_should_find_it(specimen: Specimen):
    found = {
        each.check.name: each.message for each in check_component(specimen.entry, specimen.case) if each.status == "failed"
    }
    assert set(found) == specimen.caught_by - ON_GPU, found


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_has_a_fault_made_for_it(kind: str):
    seeded = {name for each in SPECIMENS if each.entry.kind == kind for name in each.caught_by}
    general = {name for each in SPECIMENS for name in each.caught_by}
    missing = [check.name for check in checks_of(kind) if check.name not in (general if check.kind == "any" else seeded)]
    assert not missing


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_sound_component(kind: str):
    assert any(each.entry.kind == kind and not each.caught_by for each in SPECIMENS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_says_what_it_checks(kind: str):
    assert all(check.summary.endswith(".") for check in checks_of(kind))


def test_what_a_loss_puts_among_its_inputs_is_named():
    [greedy] = [each for each in SPECIMENS if each.entry.name == "Greedy"]
    [said] = [each.message for each in check_component(greedy.entry, greedy.case) if each.status == "failed"]
    assert said.startswith("it removes student.features.kept from its context, or adds it")
