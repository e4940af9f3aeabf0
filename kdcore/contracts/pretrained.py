"""Published weights of backbones that installed packages bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
