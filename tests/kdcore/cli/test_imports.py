"""Commands import PyTorch without garbage collection."""

from __future__ import annotations

import gc

import pytest

from kdcore.cli.imports import importing


@pytest.fixture(autouse=True)
def unchanged():
    yield
    gc.enable()
    gc.unfreeze()


def test_nothing_is_collected_during_imports_and_their_objects_are_exempt_afterwards():
    with importing():
        assert not gc.isenabled()
        imported = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(imported)
    assert not any(each is imported for each in gc.get_objects())


def test_collections_continue_after_a_failed_import():
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()


def test_collections_that_were_off_stay_off():
    gc.disable()
    with importing():
        pass
    assert not gc.isenabled()
