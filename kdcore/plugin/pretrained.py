"""Published weights of backbones: those that installed packages bring, else those that a library downloads."""

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
    """Weights of a backbone in a package, for an encoder's option ``pretrained``; the hook `pretrained_weights` returns them.

    Args:
        install: What to install to have them, e.g. ``kdcore[pretrained]``.
        source: Package with its version, the file's hash and where they come from, for the run's notes; empty if the package is
            not installed.
        licence: Licence of the weights, as an SPDX identifier.
        tensors: Reads them, under the names of the backbone; None if the package is not installed.
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
    """Construct a backbone that starts from published weights: those of an installed package if there are any, else downloads.

    Args:
        model: Name of the backbone, as the hook `pretrained_weights` takes it.
        construct: Constructs it; asked with True to download its weights, too. Imports the library that does.
        load: Loads tensors, by the backbone's names, into it; given the source of the tensors for its errors.
        downloaded: Where downloaded weights come from, with their licence, in words that follow "weights that".

    Returns:
        The backbone, and notes on its weights for `Encoder.notes`.

    Raises:
        DataError: If the weights cannot be downloaded, or do not fit.
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
    except Exception as error:  # a download fails in as many ways as there are libraries between here and the server
        install = f"install {package.install}, or " if package else ""
        raise DataError(
            f"weights of {model} cannot be downloaded ({type(error).__name__}); {install}fetch them elsewhere and name the "
            f"file with `weights`, or set `pretrained: false`"
        ) from error
    return backbone, (f"the backbone starts from weights that {downloaded(backbone)}",)
