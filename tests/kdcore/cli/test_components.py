"""What `kdcore describe` says of a name that is no component's."""

import pytest

from kdcore.cli.components import show_component
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
        show_component(name)
    assert str(caught.value) == f"{name!r} is a kind of component; kdcore list {listed} names those of it"


def test_a_misspelt_component():
    with pytest.raises(UnknownComponentError, match="no component 'soft-tarjet'; did you mean soft-target"):
        show_component("soft-tarjet")
