"""The sections of a recipe: components, participants, data, engine, tracking."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt, MinLen
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    Strict,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from kdcore.contracts.progress import Ramp
from kdcore.contracts.training import Training
from kdcore.recipe.components import JOINED
from kdcore.recipe.merge import term_labels
from kdcore.recipe.reserved_names import is_module_attribute
from kdcore.recipe.yaml import Steps

STORED = (".parquet", ".npz", ".safetensors")
"""Suffixes of files of stored outputs."""


def wrong(message: str, at: Steps = (), instead: Steps = ()) -> PydanticCustomError:
    """Create an error at the place `at` below the validated field; or at `instead`, from the top, if that was written later."""
    return PydanticCustomError("recipe", "{message}", {"message": message, "at": at, "instead": instead})


LARGEST_WEIGHT = 1e9
"""Largest weight of a term; far beyond it, the weighted sum leaves the range of float32."""

MOST_THREADS, MOST_DEVICES = 1024, 1024
"""More threads or devices than any machine has; the operating system fails in its own way if asked for them."""


def _possible_weight(weight: float | Ramp) -> float | Ramp:
    for value in (weight.start, weight.stop) if isinstance(weight, Ramp) else (weight,):
        if not 0 <= value <= LARGEST_WEIGHT:
            raise wrong(f"must be between 0 and {LARGEST_WEIGHT:g}, not {value!r}")
    if isinstance(weight, Ramp) and weight.start == weight.stop == 0:
        raise wrong("is 0 in every epoch; leave the term out, or set 'weight: 0'")
    return weight


def _home(path: Path) -> Path:
    return Path(os.path.expanduser(path))  # unlike Path.expanduser, never raises


def _without_credentials(uri: str) -> str:
    if re.search(r"//[^/?#\s]*:[^/?#\s]*@", uri):
        raise wrong(
            "must not contain a password, since recipes are stored and shared: leave it out, and set MLFLOW_TRACKING_URI, or "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return uri


def _stored(path: Path) -> Path:
    if path.suffix not in STORED:
        raise wrong(f"the suffix must be one of {', '.join(STORED)}, not {path.suffix!r}")
    return _home(path)


def _named(taps: Any) -> Any:
    return {path: path for path in taps} if isinstance(taps, list) and all(isinstance(path, str) for path in taps) else taps


class Section(BaseModel):
    """Base class of a recipe's sections; refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, ser_json_inf_nan="constants")


class Component(Section):
    """A component by name with its options; written ``{name: x, option: 1}`` or just ``x``."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, written: Any, info: ValidationInfo) -> Any:
        if isinstance(written, str):
            return {"name": written}
        from_code = info.mode == "python" and isinstance(written, Mapping) and "options" in written
        if not isinstance(written, Mapping) or from_code:
            return written
        own = {key: value for key, value in written.items() if key in cls.model_fields and key != "options"}
        return own | {"options": {key: value for key, value in written.items() if key not in own}}

    @model_serializer(mode="wrap")
    def _flat(self, serialise: Any) -> dict[str, Any]:
        dumped = serialise(self)
        return dumped | dumped.pop("options", {})

    def flat(self) -> dict[str, Any]:
        """As a recipe writes it, with plain values."""
        return self.model_dump(mode="json")


class Term(Component):
    """A loss in the objective."""

    weight: Annotated[float | Ramp, AfterValidator(_possible_weight)] = 1.0
    """Weight of the loss; 0 removes the term from the objective."""
    id: str | None = None
    """Name in logs; by default the name of the loss, with a number (``name-2``) if it occurs again."""
    teachers: Annotated[list[str], MinLen(1)] | None = None
    """Sources whose outputs the loss reads; by default all teachers and peers of its learner."""

    @property
    def active(self) -> bool:
        """True if it is part of the objective at all."""
        return self.weight != 0


_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_ -]{0,99}")
"""Names of terms that every tracker keeps as they are, so that no two become one, and that a submodule can have."""


def _labelled(terms: list[Term]) -> list[Term]:
    for index, term in enumerate(terms):
        if term.id is not None and not _ID.fullmatch(term.id):
            rule = "must be 1 to 100 letters, digits, '-', '_' and blanks, and start with a letter or digit"
            raise wrong(f"the id {term.id!r} {rule}", (index, "id"))
        label = term.id or term.name.rpartition("/")[2]
        if is_module_attribute(label):
            what = f"a term cannot be called {label!r}, which is an attribute of torch.nn.ModuleDict; give it another id"
            raise wrong(what, (index, "id") if term.id else (index,))
        if label == "total":
            raise wrong("'total' is the sum of all terms in a learner's curves; give the term another id", (index,))
    ids = [term.id for term in terms]
    for index, term in enumerate(terms):
        if term.id and term.id in ids[:index]:
            raise wrong(f"another term has the id {term.id!r} already", (index, "id"))
    labels = term_labels((term.name, term.id) for term in terms)
    return [term.model_copy(update={"id": label}) for term, label in zip(terms, labels, strict=True)]


Terms = Annotated[list[Term], AfterValidator(_labelled)]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise wrong(f"{text!r} is not a regular expression: {error}") from error
    return text


_Pattern = Annotated[str, AfterValidator(_pattern)]


class WeightsSpec(Section):
    """Pretrained weights, and how they are matched to the encoder; written ``{file: x, …}`` or just ``x``."""

    file: Annotated[Path, Strict(False), AfterValidator(_home)]
    """A safetensors file, a PyTorch file that holds data only, or a folder with either as Hugging Face stores models."""
    prefix: str | None = None
    """Prefix of the tensors to load, which is removed from their names; detected by default."""
    ignore: list[_Pattern] = Field(default_factory=list)
    """Regular expressions of tensor names to ignore."""
    rename: dict[_Pattern, str] = Field(default_factory=dict)
    """Regular expression → replacement, applied to tensor names after removing `prefix`."""
    head: Literal["keep", "drop", "map"] | None = None
    """``keep`` loads the head unchanged, ``drop`` initialises it at random, ``map`` selects its classes by name. The default is
    ``keep``, or ``map`` if the file's class names are known and differ from the run's."""

    @model_validator(mode="before")
    @classmethod
    def _only_a_file(cls, written: Any) -> Any:
        return {"file": written} if isinstance(written, str | Path) else written

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(schema)]}


def _different(classes: list[str]) -> list[str]:
    for index, name in enumerate(classes):
        if name in classes[:index]:
            raise wrong(f"names the class {name!r} twice", (index,))
    return classes


def accepted_modalities(modalities: Sequence[str], fill_missing: bool) -> list[frozenset[str]]:
    """Sets of modalities of which a training sample must have one: all, or each of them where the others are filled."""
    return [frozenset([each]) for each in modalities] if fill_missing else [frozenset(modalities)]


class ParticipantSpec(Section):
    """A teacher or a student: a network, a moving average of one, or a file of stored outputs."""

    modality: str | Annotated[list[str], MinLen(1)] | None = None
    transforms: list[Component] | dict[str, list[Component]] = Field(default_factory=list)
    """Transforms in order; for several modalities one list each, plus ``joined`` for the joined signal."""
    encoder: Component | None = None
    taps: Annotated[dict[str, str], BeforeValidator(_named)] = Field(default_factory=dict)
    """Tap → path of a module in the encoder; or a list of paths, which are then the taps' names."""
    fill_missing: bool = False
    """Train also on samples that lack some of the modalities, with zeros instead; requires ``data.missing: mask``."""
    freeze: list[str] = Field(default_factory=list)
    """Paths of modules in the encoder to freeze, including submodules; ``*`` for all."""
    freeze_statistics: bool = True
    """Also freeze the running statistics of frozen modules, such as those of batch normalisation."""
    weights: WeightsSpec | None = None
    """File with pretrained weights."""
    classes: Annotated[list[str], MinLen(1), AfterValidator(_different)] | None = None
    """Class names of the pretrained weights, or of a teacher's own encoder, in the order of the logits; by default those in the
    weights file, or the run's."""
    classifier_from: str | None = None
    """Teacher whose classifier (last linear layer) this participant uses: copied after the teacher's training, and frozen. Its
    own classifier must have the same shape; the baseline trains its own."""
    starts_from: str | None = None
    """Participant with the same encoder whose trained weights this one starts from, such as one that was pretrained without
    labels. If the baseline lacks it, the baseline starts from its own weights and is trained for as many epochs more."""
    augment_frozen: bool = False
    """Augment the input even while the participant is frozen; its outputs are then not cached."""
    learns_from: list[str] | None = None
    """Names of the participants to learn from. By default, students learn from all teachers, and teachers from none."""
    losses: Terms | None = None
    """Objective of this participant; the recipe's `losses` or `teacher_losses` by default."""
    training: Training | None = None
    """Training options of this participant; the schedule's by default."""
    split: str | None = None
    """Training split under the default schedule; ``train`` by default."""
    follows: str | None = None
    """Participant whose weights this teacher averages (EMA); such a teacher is never optimized."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.999
    """Decay of the moving average; only with `follows`."""
    warmup: bool = True
    """Limit the decay of update n to n / (n + 1), so that the average starts as a plain mean; only with `follows`."""
    outputs: Annotated[Path, Strict(False), AfterValidator(_stored)] | None = None
    """File of stored outputs, joined by sample key: Parquet, NPZ or safetensors."""

    @model_validator(mode="after")
    def _one_kind(self) -> ParticipantSpec:
        fields = type(self).model_fields  # a filled recipe writes defaults out
        changed = {key for key in self.model_fields_set if getattr(self, key) not in (None, [], {}, fields[key].default)}
        if self.follows is not None and self.outputs is not None:
            raise wrong("'follows' and 'outputs' exclude each other", ("outputs",))
        for key in ("momentum", "warmup"):
            if key in changed and self.follows is None:
                raise wrong(f"{key!r} requires 'follows'", (key,))
        if self.is_network:
            for key in ("modality", "encoder"):
                if getattr(self, key) is None:
                    raise wrong(f"the key {key!r} is missing", (key,))
            if self.fill_missing and len(self.modalities) < 2:
                raise wrong("'fill_missing' requires several modalities", ("fill_missing",))
            if self.weights is not None and self.starts_from is not None:
                raise wrong("'weights' and 'starts_from' exclude each other", ("starts_from",))
            return self
        kind, allowed = ("outputs", set()) if self.follows is None else ("follows", {"momentum", "warmup", "augment_frozen"})
        for key in sorted(changed - {kind} - allowed):
            raise wrong(f"{key!r} does not go with {kind!r}", (key,))
        return self

    @property
    def accepted(self) -> list[frozenset[str]]:
        """Sets of modalities of which a training sample must have one."""
        return accepted_modalities(self.modalities, self.fill_missing)

    @property
    def is_network(self) -> bool:
        """True if it has a network of its own, rather than an average of another or stored outputs."""
        return self.follows is None and self.outputs is None

    @property
    def is_copy(self) -> bool:
        """True for the trained network of another participant, which is not trained further and may read other inputs."""
        return self.starts_from is not None and "*" in self.freeze

    @property
    def described(self) -> str:
        """Kind of participant, for messages."""
        return "a network" if self.is_network else "a moving average" if self.follows else "a file of stored outputs"

    @field_validator("modality")
    @classmethod
    def _distinct(cls, modality: str | list[str] | None) -> str | list[str] | None:
        if isinstance(modality, list) and len(set(modality)) < len(modality):
            raise wrong("names a modality twice")
        return modality

    @field_validator("transforms")
    @classmethod
    def _per_modality(cls, transforms: Any, info: ValidationInfo) -> Any:
        modality = info.data.get("modality")
        if isinstance(modality, str) and isinstance(transforms, dict):
            raise wrong("must be a list, since there is one modality")
        if isinstance(modality, list):
            if isinstance(transforms, list) and transforms and len(modality) > 1:
                raise wrong(f"must map each modality to a list, since there are several ({', '.join(modality)})")
            for key in transforms if isinstance(transforms, dict) else ():
                if key not in (*modality, JOINED):
                    raise wrong(
                        f"{key!r} is none of this participant's modalities ({', '.join(modality)}) nor {JOINED!r}", (key,)
                    )
        return transforms

    @property
    def modalities(self) -> tuple[str, ...]:
        """All it reads, in order."""
        return (self.modality,) if isinstance(self.modality, str) else tuple(self.modality or ())

    def transforms_of(self, key: str) -> list[Component]:
        """The transforms of one of its modalities, or those after joining (``joined``)."""
        if isinstance(self.transforms, dict):
            return self.transforms.get(key, [])
        return self.transforms if key == self.modalities[0] else []


class EngineSpec(Section):
    """Devices, precision and workers."""

    accelerator: Literal["auto", "cpu", "cuda", "gpu", "mps", "tpu"] = "auto"
    devices: Annotated[int, Ge(1), Le(MOST_DEVICES)] | Annotated[str, Field(pattern=r"^(auto|\d+(,\d+)*,?)$")] = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """Strategy for several processes; ``fsdp`` shards weights, gradients and optimizer states."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    deterministic: bool = True
    compile: bool = False
    threads: Annotated[int, Ge(1), Le(MOST_THREADS)] | None = None
    """Number of CPU threads; PyTorch's default if not set."""
    checkpoint_seconds: Annotated[float, Ge(0)] = 30.0
    """Seconds between checkpoints within a stage. Does not affect the result of a resumed run."""
    keep_final_state: bool = True
    """Keep the final state of each arm, including optimizers, so that a finished run can be extended by more epochs."""
    on_nan: Literal["stop", "skip-step"] = "stop"
    """What to do when a step's loss or gradients are NaN or infinite."""
    skipped_steps: Annotated[int, Ge(1)] = 10
    """Largest number of steps that ``skip-step`` skips per arm; one more is an error."""
    log_every: Annotated[int, Ge(1)] = 10
    """Number of steps averaged into one tracked value."""
    teacher_cache: bool = True
    """Compute the outputs of a frozen teacher once per sample, if they never change."""
    reuse_teachers: bool = False
    """Store independently trained teachers in the cache folder, and reuse them in runs, ablations and sweeps whose training of
    the teacher would be bit-identical."""


class TrackingSpec(Section):
    """The tracker that the run is recorded with."""

    experiment: str | None = None
    """Name of the experiment; the recipe's name by default."""
    uri: Annotated[str, AfterValidator(_without_credentials)] | None = None
    """Address of the tracking server; a local database by default. Put credentials into environment variables."""
    tags: dict[str, str] = Field(default_factory=dict)
