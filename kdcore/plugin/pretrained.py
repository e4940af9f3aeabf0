"""Pretrained weights of backbones, from installed packages or downloaded by a library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from kdcore.downloads import hub_downloads
from kdcore.errors import DataError
from kdcore.plugin.manager import plugin_manager

if TYPE_CHECKING:
    from torch import Tensor

Backbone = TypeVar("Backbone")


@dataclass(frozen=True)
class PretrainedWeights:
    """Pretrained weights of a backbone in a package, returned by the hook `pretrained_weights`.

    Args:
        install: Package to install for the weights, e.g. ``kdcore[pretrained]``.
        source: Package with its version, hash of the file and origin of the weights, for the notes of a run; empty if the
            package is not installed.
        licence: Licence of the weights, as an SPDX identifier.
        tensors: Function that returns the state dict of the backbone; None if the package is not installed.
    """

    install: str
    source: str = ""
    licence: str = ""
    tensors: Callable[[], Mapping[str, Tensor]] | None = None


def pretrained_backbone(
    model: str,
    construct: Callable[[bool], Backbone],
    load: Callable[[Backbone, dict[str, Tensor], str], None],
    downloaded: Callable[[Backbone], str],
) -> tuple[Backbone, tuple[str, ...]]:
    """Construct a backbone with pretrained weights, from an installed package if possible and downloaded otherwise.

    Args:
        model: Name of the backbone, passed to the hook `pretrained_weights`.
        construct: Constructs the backbone; with True, also downloads its weights.
        load: ``load(backbone, tensors, source)`` loads a state dict; `source` is for its error messages.
        downloaded: Returns the origin and licence of downloaded weights, as a phrase that follows "weights that".

    Returns:
        The backbone, and notes on its weights for `Encoder.notes`.

    Raises:
        DataError: If the weights cannot be downloaded or do not match the backbone.
    """
    package = plugin_manager().hook.pretrained_weights(model=model)
    if package and package.tensors:
        backbone = construct(False)
        load(backbone, dict(package.tensors()), package.source)
        return backbone, (f"the backbone starts from the weights of {model} in {package.source}, licence {package.licence}",)
    try:
        with hub_downloads():
            backbone = construct(True)
    except DataError:
        raise
    except Exception as error:  # every library raises other exceptions when a download fails
        install = f"install {package.install}, or " if package else ""
        raise DataError(
            f"weights of {model} cannot be downloaded ({type(error).__name__}); {install}download them elsewhere and set "
            f"`weights` to the file, or set `pretrained: false`"
        ) from error
    return backbone, (f"the backbone starts from weights that {downloaded(backbone)}",)
