"""The section of a recipe about its data."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from kdcore.recipe.config_models import Component, Section, wrong

_BYTES = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]?i?)B?")
_UNIT = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def as_bytes(size: int | str) -> int:
    """A size such as ``4GiB`` in bytes.

    Raises:
        ValueError: If it is not a size.
    """
    if isinstance(size, int):
        return size
    match = _BYTES.fullmatch(size)
    if not match or match[2] not in _UNIT:
        raise ValueError(f"{size!r} is not a number of bytes such as '4GiB'")
    return int(float(match[1]) * _UNIT[match[2]])


def _size(written: int | str) -> int | str:
    try:
        negative = as_bytes(written) < 0
    except ValueError:
        raise wrong(f"must be a number of bytes such as '4GiB', not {written!r}") from None
    if negative:
        raise wrong(f"must not be negative, not {written!r}")
    return written


class WindowSpec(Section):
    """Windows of equal length, cut from every recording after splitting."""

    length: Annotated[float, Gt(0)]
    """Length of a window in seconds."""
    hop: Annotated[float, Gt(0)] | None = None
    """Seconds between the starts of consecutive windows; the window length by default."""


KeyField = Literal["subject", "action", "trial", "view", "scene", "session"]
"""Fields of `kdcore.SampleKey` by which recordings are listed."""

Text = Annotated[str | int, AfterValidator(str)]


class SomeLabels(Section):
    """Labels for some recordings of the training split: a fraction of each class, or listed ones."""

    share: Annotated[float, Gt(0), Le(1)] | None = None
    """Fraction of each class's recordings that keep their label, drawn at random; at least one per class. All windows of a
    recording have its label, or none."""
    seed: Annotated[int, Ge(0)] = 0
    """Random seed of the fraction."""
    subjects: Annotated[list[Text], MinLen(1)] | None = None
    """Subjects whose samples keep their label."""
    recordings: Annotated[list[Annotated[dict[KeyField, Text], MinLen(1)]], MinLen(1)] | None = None
    """Recordings that keep their label: those that match all fields of an entry, such as ``{subject: 1, trial: 2}``."""

    @model_validator(mode="after")
    def _one_choice(self) -> SomeLabels:
        given = [key for key in ("share", "subjects", "recordings") if getattr(self, key) is not None]
        if len(given) > 1:
            raise wrong(f"{given[1]!r} does not go with {given[0]!r}", (given[1],))
        if not given:
            raise wrong("must have one of 'share', 'subjects' and 'recordings'")
        if self.seed and self.share is None:
            raise wrong("'seed' requires 'share'", ("seed",))
        return self


class MixSpec(Section):
    """Mixup or cutmix of a batch; written ``{name: x, …}`` or just ``x``."""

    name: Literal["mixup", "cutmix"]
    """``mixup`` averages two samples with random weights; ``cutmix`` replaces a time interval by that of another sample."""
    alpha: Annotated[float, Gt(0)] = 1.0
    """Parameter of the distribution Beta(alpha, alpha) of the mixing weight, drawn once per batch."""
    probability: Annotated[float, Gt(0), Le(1)] = 1.0
    """Probability that a batch is mixed."""
    learners: Literal["students", "all"] = "students"
    """Mix only stages that train students, or ``all`` stages, including the teachers'."""

    @model_validator(mode="before")
    @classmethod
    def _only_a_name(cls, written: Any) -> Any:
        return {"name": written} if isinstance(written, str) else written

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"enum": ["mixup", "cutmix"]}, handler(schema)]}


class DataSpec(Section):
    """The samples, their split and the way they are loaded."""

    dataset: Component
    protocol: Component
    subjects: Annotated[list[Text], MinLen(1)] | None = None
    """Subjects whose recordings are used, before the protocol splits them; None for all."""
    batch_size: Annotated[int, Ge(1)] = 16
    window: WindowSpec | None = None
    """Windows to cut; None for whole recordings."""
    labels: Literal["given", "partial", "withheld"] | SomeLabels = "given"
    """Labels for training: of all samples, of those that the dataset labels, none for students, or of some samples."""
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    """Order of the samples in an epoch. ``balanced`` draws all classes equally often, repeating samples of rare classes; the
    number of steps stays the same."""
    mix: MixSpec | None = None
    """Mixup or cutmix of each batch, the same for all participants."""
    label_noise: Annotated[float, Ge(0), Le(1)] = 0.0
    """Fraction of the training recordings whose label is replaced by another class."""
    label_noise_seed: Annotated[int, Ge(0)] = 0
    """Random seed of the label noise."""
    on_bad_sample: Literal["error", "skip"] = "error"
    missing: Literal["drop", "error", "mask"] = "drop"
    """Treatment of samples that lack a modality. ``mask`` keeps training samples that a student can use, and computes each
    term on the samples that all of its participants have."""
    missing_shares: dict[str, Annotated[float, Gt(0), Lt(1)]] = Field(default_factory=dict)
    """Modality → fraction of the training samples whose signal is removed at random, to study missing modalities."""
    missing_seed: Annotated[int, Ge(0)] = 0
    """Random seed of the removed signals."""
    memory_limit: Annotated[int | str, AfterValidator(_size)] = "4GiB"
    """Size above which a tensor of all samples is memory-mapped."""

    @model_validator(mode="after")
    def _balanced_with_labels(self) -> DataSpec:
        if self.sampler == "balanced" and self.labels == "withheld":
            raise wrong("'balanced' reads labels, which are withheld from students", ("sampler",))
        return self

    @model_validator(mode="after")
    def _mixed_whole(self) -> DataSpec:
        if self.mix and self.missing == "mask":
            raise wrong("does not go with missing: mask, where a sample's partner may lack the signal", ("mix",))
        return self

    @property
    def memory_bytes(self) -> int:
        """`memory_limit` in bytes."""
        return as_bytes(self.memory_limit)
