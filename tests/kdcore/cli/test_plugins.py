"""The answer of `kdcore describe` to names that are not a component's."""

import pytest

from kdcore.cli.plugins import describe
from kdcore.errors import UnknownComponentError


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("loss", "losses"),
        ("losses", "losses"),
        ("class_embedding", "class-embeddings"),
        ("class-embeddings", "class-embeddings"),
        ("modality", "modalities"),
    ],
)
def test_a_kind_is_no_component(name, listed):
    with pytest.raises(UnknownComponentError) as caught:
        describe(name)
    assert str(caught.value) == f"{name!r} is a kind of component; list its components with: kdcore list {listed}"


def test_a_misspelt_component():
    with pytest.raises(UnknownComponentError, match="no component 'soft-tarjet'; did you mean 'soft-target'"):
        describe("soft-tarjet")
