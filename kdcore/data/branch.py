"""One modality's way through its transforms. This module loads no torch, so that processes that read recordings start fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

from kdcore.contracts.modality import Modality
from kdcore.contracts.sample_transform import SampleTransform, output_spec

if TYPE_CHECKING:
    from kdcore.contracts.transform import Transform


@dataclass
class Branch:
    """One modality's transforms: first those on recordings, then those on batches.

    Args:
        modality: What the dataset says of the recorded signal.
        on_samples: Transforms of recordings.
        on_batches: Transforms of batches.
        identity: Name and options of the former, as text.
    """

    modality: Modality
    on_samples: list[SampleTransform] = field(default_factory=list)
    on_batches: list[Transform] = field(default_factory=list)
    identity: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Name of the modality, and `identity`. Branches with the same key share their prepared recordings."""
        return self.modality.name, self.identity

    @property
    def prepared(self) -> Modality:
        """The modality of recordings after the transforms on recordings."""
        return reduce(output_spec, self.on_samples, self.modality)

    @property
    def spec(self) -> Modality:
        """The modality of batches after all transforms."""
        return reduce(output_spec, self.on_batches, self.prepared)
