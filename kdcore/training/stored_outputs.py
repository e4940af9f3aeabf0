"""Stored outputs: a teacher that exists only as a file of logits and features, joined by sample key."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_arrays
from torch import Tensor

from kdcore.archives import refuse_bomb, refuse_parquet_bomb
from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.target import OF_CLASSES, Target
from kdcore.errors import DataError
from kdcore.recipe.config_models import STORED
from kdcore.suggestions import did_you_mean
from kdcore.training.checkpoint import write_file
from kdcore.training.output_checks import looks_like_probabilities
from kdcore.training.teacher_cache import CachedOutputs

_KEY = tuple(each.name for each in fields(SampleKey))


@dataclass(frozen=True)
class StoredOutputs:
    """A participant's outputs for some samples.

    Args:
        keys: Keys of the n samples.
        logits: (n, classes) float32; values in their units where the target is ``values``.
        classes: Class names in the order of the logits.
        features: Tap → (n, …), or (n, S, …) for taps in `folded`.
        folded: Taps with several rows of an activation per sample.
        about: Facts about their origin: run, participant, versions.
        kind: Kind of target that the logits are of; empty where the file does not say.
        units: Unit of each value, in the order of `classes`; empty where there are none.
        trained_on: Samples that the networks behind the outputs were trained on; empty where the file does not say.
    """

    keys: Sequence[SampleKey]
    logits: np.ndarray
    classes: Sequence[str]
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    folded: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""
    units: Sequence[str] = ()
    trained_on: frozenset[SampleKey] = frozenset()

    @classmethod
    def of(
        cls,
        keys: Sequence[SampleKey],
        splits: Sequence[CachedOutputs],
        classes: Sequence[str],
        about: Mapping[str, Any],
        target: Target = OF_CLASSES,
    ) -> StoredOutputs:
        """Concatenate the outputs of several splits, in the order of `keys`; values are converted to their units."""

        def joined(tensors: list[Tensor]) -> np.ndarray:
            return torch.cat(tensors).float().cpu().numpy()

        features = {tap: joined([split.features[tap] for split in splits]) for tap in splits[0].features}
        logits = joined([split.logits for split in splits])
        if target.kind == "values":
            logits = target.in_units(logits.astype(np.float64)).astype(np.float32)
        kind = "" if target.is_classes else target.kind
        return cls(keys, logits, classes, features, sorted(splits[0].folded), about, kind, target.units)

    @property
    def head(self) -> dict[str, str]:
        """The metadata, as strings."""
        return {
            "classes": json.dumps(list(self.classes)),
            "folded": json.dumps(list(self.folded)),
            "about": json.dumps(dict(self.about)),
            **({"kind": json.dumps(self.kind)} if self.kind else {}),
            **({"units": json.dumps(list(self.units))} if self.units else {}),
            **({"trained_on": json.dumps(self._trained_on())} if self.trained_on else {}),
        }

    def _trained_on(self) -> dict[str, Any]:
        """The samples of `trained_on`: a digit per row, and the keys of the others. Parquet limits metadata to 100 MB."""
        rows = "".join("1" if key in self.trained_on else "0" for key in self.keys)
        return {"rows": rows, "others": sorted(astuple(key) for key in self.trained_on.difference(self.keys))}


def concatenated_outputs(parts: Sequence[StoredOutputs]) -> StoredOutputs:
    """Concatenate outputs for different samples, without their features; `about` lists the origins of all parts.

    Raises:
        DataError: If the parts have other classes, targets or units.
    """
    first = parts[0]
    for part in parts[1:]:
        if (list(part.classes), part.kind, list(part.units)) != (list(first.classes), first.kind, list(first.units)):
            raise DataError("outputs of different classes, targets or units cannot be in one file")
    return replace(
        first,
        keys=[key for part in parts for key in part.keys],
        logits=np.concatenate([part.logits for part in parts]),
        features={},
        folded=(),
        about={"parts": [dict(part.about) for part in parts]},
        trained_on=frozenset().union(*(part.trained_on for part in parts)),
    )


def write_outputs(path: Path, outputs: StoredOutputs) -> None:
    """Write outputs as Parquet, NPZ or safetensors, by the file's suffix.

    Raises:
        DataError: If the suffix is another.
        TrainingError: If the file cannot be written.
    """
    check_suffix(path)
    keys = json.dumps([asdict(key) for key in outputs.keys])
    arrays = {"logits": outputs.logits, **{f"features.{tap}": value for tap, value in outputs.features.items()}}
    if path.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, head=np.array(json.dumps(outputs.head | {"keys": keys})), **arrays)  # type: ignore[arg-type]
        write_file(path, buffer.getvalue())
    elif path.suffix == ".safetensors":
        write_file(
            path,
            save_arrays({name: np.ascontiguousarray(each) for name, each in arrays.items()}, outputs.head | {"keys": keys}),
        )
    else:
        write_file(path, _parquet(outputs, arrays))


def check_suffix(path: Path) -> None:
    """Check that a file's suffix is that of a format of stored outputs.

    Raises:
        DataError: If it is not.
    """
    if path.suffix not in STORED:
        raise DataError(
            f"{path}: stored outputs are {', '.join(STORED)} files, not {path.suffix or 'files without a suffix'!r}"
        )


def _parquet(outputs: StoredOutputs, arrays: Mapping[str, np.ndarray]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {name: [getattr(key, name) for key in outputs.keys] for name in _KEY}
    shapes = {name: list(each.shape[1:]) for name, each in arrays.items()}
    columns |= {name: list(each.reshape(len(each), -1)) for name, each in arrays.items()}
    table = pa.table(columns)
    head = outputs.head | {"shapes": json.dumps(shapes)}
    table = table.replace_schema_metadata({f"kdcore.{name}": text for name, text in head.items()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def load_outputs(path: Path) -> StoredOutputs:
    """Read a file of stored outputs.

    A Parquet file has a row per sample: the columns ``subject``, ``action``, ``trial`` and, where samples need them, ``view``,
    ``scene``, ``session`` and ``window``; a list column ``logits``; and a list column ``features.TAP`` per tap.

    Raises:
        DataError: If it is missing, damaged, or not such a file.
    """
    check_suffix(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    reader = {".npz": _from_npz, ".safetensors": _from_safetensors, ".parquet": _from_parquet}[path.suffix]
    try:
        outputs = reader(path)
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, EOFError) as error:
        raise DataError(f"{path}: not a readable file of stored outputs: {error}") from error
    return _checked(path, outputs)


def _from_npz(path: Path) -> StoredOutputs:
    refuse_bomb(path)
    with np.load(path, allow_pickle=False) as file:
        return _assembled(json.loads(str(file["head"])), {name: file[name] for name in file.files if name != "head"})


def _from_safetensors(path: Path) -> StoredOutputs:
    with safe_open(path, framework="np") as file:
        return _assembled(file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping


def _from_parquet(path: Path) -> StoredOutputs:
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_parquet_bomb(path)
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error
    missing = [name for name in ("subject", "action", "trial", "logits") if name not in table.column_names]
    if missing:
        meant = did_you_mean(missing[0], table.column_names, "it has")
        raise DataError(f"{path}: the column {missing[0]!r} is missing ({meant})")
    head = {name.decode().removeprefix("kdcore."): text.decode() for name, text in (table.schema.metadata or {}).items()}
    shapes = json.loads(head.get("shapes", "{}"))
    arrays = {}
    for name in table.column_names:
        if name == "logits" or name.startswith("features."):
            column = np.stack([np.asarray(each, dtype=np.float32) for each in table[name].to_pylist()])
            arrays[name] = column.reshape(len(column), *shapes[name]) if name in shapes else column
    columns = {name: table[name].to_pylist() for name in _KEY if name in table.column_names}
    keys = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return _assembled(head | {"keys": json.dumps(keys, default=str)}, arrays)


def _assembled(head: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> StoredOutputs:
    keys = [_key(each) for each in json.loads(head["keys"])]
    features = {name.removeprefix("features."): each for name, each in arrays.items() if name.startswith("features.")}
    return StoredOutputs(
        keys,
        arrays["logits"],
        json.loads(head.get("classes", "[]")),
        features,
        json.loads(head.get("folded", "[]")),
        json.loads(head.get("about", "{}")),
        json.loads(head.get("kind", '""')),
        json.loads(head.get("units", "[]")),
        _read_trained_on(head["trained_on"], keys) if "trained_on" in head else frozenset(),
    )


def _read_trained_on(text: str, keys: Sequence[SampleKey]) -> frozenset[SampleKey]:
    written = json.loads(text)
    there = {key for key, digit in zip(keys, written["rows"], strict=True) if digit == "1"}
    return frozenset(there | {SampleKey(*each) for each in written["others"]})


def _key(written: Mapping[str, Any]) -> SampleKey:
    texts = {name: str(value) for name, value in written.items() if name != "window"}
    return SampleKey(**texts, window=int(written.get("window", 0)))


def _checked(path: Path, outputs: StoredOutputs) -> StoredOutputs:
    features = {f"features {tap!r}": each for tap, each in outputs.features.items()}
    for name, array in {"logits": outputs.logits, **features}.items():
        if len(array) != len(outputs.keys):
            raise DataError(f"{path}: it has {len(outputs.keys)} samples and {len(array)} rows of {name}")
        if not np.issubdtype(array.dtype, np.floating):
            raise DataError(f"{path}: {name} must be floating-point numbers, not {array.dtype}")
        if not np.isfinite(array).all():
            row = int((~np.isfinite(array.reshape(len(array), -1)).all(1)).argmax())
            raise DataError(f"{path}: {name} of {outputs.keys[row]} are not finite numbers")
    if outputs.logits.ndim != 2:
        raise DataError(f"{path}: logits must be a row of numbers per sample, not of shape {outputs.logits.shape}")
    if outputs.classes and len(outputs.classes) != outputs.logits.shape[1]:
        raise DataError(f"{path}: it names {len(outputs.classes)} classes and has {outputs.logits.shape[1]} logits per sample")
    if repeated := [name for name, count in Counter(outputs.classes).items() if count > 1]:
        raise DataError(f"{path}: it names the class {repeated[0]!r} twice")
    if repeated := [key for key, count in Counter(outputs.keys).items() if count > 1]:
        raise DataError(f"{path}: it has outputs of {repeated[0]} twice")
    return outputs


def join_outputs(
    path: Path,
    outputs: StoredOutputs,
    keys: Sequence[SampleKey],
    classes: Sequence[str],
    target: Target = OF_CLASSES,
) -> CachedOutputs:
    """Join stored outputs to the rows of a table by sample key.

    Args:
        path: The file, for messages.
        outputs: Its content.
        keys: Keys of the table's rows.
        classes: Class names of the run. If the file names its classes, its logits are reordered to match.
        target: Target of the run; values are normalised with its mean and standard deviation.

    Raises:
        DataError: If the file is invalid, or has other samples, classes or units than the run.
    """
    if (outputs.kind or target.kind) != target.kind:
        raise DataError(f"{path}: its outputs are of the target {outputs.kind!r}, and the run's target is {target.kind!r}")
    if not outputs.kind and not target.is_classes and outputs.about:
        raise DataError(f"{path}: its outputs are of the target 'classes', and the run's target is {target.kind!r}")
    logits = outputs.logits[:, _columns(path, outputs.classes, classes)] if outputs.classes else outputs.logits
    if logits.shape[1] != len(classes):
        raise DataError(f"{path}: it has {logits.shape[1]} logits per sample, but the run has {len(classes)} classes")
    if looks_like_probabilities(torch.from_numpy(np.asarray(logits, dtype=np.float32)), target.kind):
        inverse = "logarithms" if target.is_classes else "log odds"
        raise DataError(f"{path}: its logits look like probabilities; store logits, or the {inverse} of the probabilities")
    if target.kind == "values":
        _check_units(path, outputs, classes, target)
        logits = target.normalised(logits.astype(np.float64)).astype(np.float32)
    row_of = {key: row for row, key in enumerate(outputs.keys)}
    position = torch.tensor([row_of.get(key, -1) for key in keys], dtype=torch.long)
    if bool((position < 0).all()):
        example = f"{outputs.keys[0]}, but the run has {keys[0]}" if outputs.keys else "it is empty"
        raise DataError(f"{path}: it has none of the run's samples; it has, for example, {example}")
    features = {tap: torch.from_numpy(np.ascontiguousarray(each)) for tap, each in outputs.features.items()}
    return CachedOutputs(position, torch.from_numpy(np.ascontiguousarray(logits)), features, outputs.folded)


def optimistic_splits(
    networks: str, trained_on: Collection[SampleKey], held_out: Mapping[str, Sequence[SampleKey]]
) -> Iterator[str]:
    """A sentence for each held-out split with samples that networks from elsewhere were trained on.

    Args:
        networks: The networks, in words.
        trained_on: Samples that they were trained on.
        held_out: Split → keys of its samples.
    """
    for split, keys in held_out.items():
        if seen := sum(key in trained_on for key in keys):
            trained = f"{networks} were trained on {seen} of {len(keys)} {split} samples of this run"
            yield f"{trained}, so results on that split are too optimistic"


def _check_units(path: Path, outputs: StoredOutputs, names: Sequence[str], target: Target) -> None:
    units = dict(zip(outputs.classes, outputs.units, strict=False))
    for name, unit in zip(names, target.units, strict=False):
        if units.get(name, unit) != unit:
            raise DataError(f"{path}: its {name!r} is in {units[name] or 'no unit'}, and the run's in {unit or 'no unit'}")


def _columns(path: Path, file_classes: Sequence[str], classes: Sequence[str]) -> list[int]:
    """For each class of the run, its column in the file's logits."""
    if missing := [name for name in classes if name not in file_classes]:
        raise DataError(
            f"{path}: it has no logits for the class {missing[0]!r} ({len(missing)} of {len(classes)} classes are missing)"
        )
    if extra := [name for name in file_classes if name not in classes]:
        raise DataError(f"{path}: it has logits for {extra[0]!r}, which is not a class of the run")
    return [list(file_classes).index(name) for name in classes]
