"""Matches named weights to a network: prefixes, renamed tensors, heads with other classes, and a report of mismatches."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdcore.errors import CheckpointError
from kdcore.recipe.config_models import WeightsSpec
from kdcore.suggestions import nearest
from kdcore.training.weight_files import WeightFile

SHOWN = 5
"""Number of tensors of each kind that a message lists."""

_COUNTER = "num_batches_tracked"
"""Counter of batch normalisation, which old files lack; only a momentum of None reads it."""


@dataclass(frozen=True)
class Head:
    """The tensors of a network whose size depends on the number of classes.

    Args:
        axes: Name of a tensor → its class axis.
    """

    axes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, build: Callable[[int], nn.Module], classes: int) -> Head:
        """Find the head of the network that `build` constructs for a number of classes.

        Constructs the network for `classes` and for one class more on the meta device, and compares shapes. The head has no
        tensors if the network cannot be constructed on the meta device.
        """
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                first, second = (build(count).state_dict() for count in (classes, classes + 1))
        except Exception:  # third-party constructors may fail on the meta device in any way, for example by reading values
            return cls()
        axes = {}
        for name, each in first.items():
            other = second.get(name)
            if other is not None and other.ndim == each.ndim:
                differing = [axis for axis in range(each.ndim) if each.shape[axis] != other.shape[axis]]
                if len(differing) == 1 and each.shape[differing[0]] == classes:
                    axes[name] = differing[0]
        return cls(axes)


def load_matching(
    encoder: nn.Module, file: WeightFile, spec: WeightsSpec, head: Head, names: Sequence[str], classes: Sequence[str]
) -> list[str]:
    """Load a weights file into an encoder; returns notes for the user.

    Args:
        encoder: The network.
        file: The weights.
        spec: The recipe's ``weights`` section, with `head` set.
        head: The encoder's head.
        names: Class names of the file's head; empty if unknown.
        classes: Class names of the encoder's head.

    Raises:
        CheckpointError: If a tensor does not match; the message lists all that do not.
    """
    wanted = dict(encoder.state_dict())
    tensors, notes = _selected(file, spec, wanted)
    if spec.head == "drop":
        left_out = sorted(set(head.axes) & set(tensors))
        if not head.axes:
            raise CheckpointError(f"{file.path}: the head of the encoder cannot be told from its other weights; use `rename`")
        tensors = {name: each for name, each in tensors.items() if name not in head.axes}
        notes.append(f"left out the head ({', '.join(left_out) or 'the file has none'}), which starts from fresh weights")
        wanted = {name: each for name, each in wanted.items() if name not in head.axes}
    elif spec.head == "map":
        mapped, said = _mapped(file, tensors, wanted, head, names, classes)
        tensors = {**tensors, **mapped}
        notes += said
    if wrong := _mismatches(tensors, wanted, head):
        matched = len(wanted) - sum(line.count for line in wrong if line.wanted)
        raise CheckpointError(_account(file, matched, len(wanted), wrong))
    if converted := Counter(
        str(each.dtype).removeprefix("torch.") for name, each in tensors.items() if _converted(each, wanted, name)
    ):
        notes.append("converted " + ", ".join(f"{count} tensors from {dtype}" for dtype, count in converted.items()))
    encoder.load_state_dict(tensors, strict=False)  # a dropped head is missing; mismatches were refused above
    return [*file.notes, *notes]


def _converted(tensor: Tensor, wanted: Mapping[str, Tensor], name: str) -> bool:
    return name in wanted and tensor.dtype != wanted[name].dtype


def _selected(file: WeightFile, spec: WeightsSpec, wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Apply `prefix`, `ignore` and `rename` to a file's tensors; returns the tensors and notes on what was done."""
    tensors, notes = dict(file.tensors), []
    if spec.prefix is not None:
        tensors = {name.removeprefix(spec.prefix): each for name, each in tensors.items() if name.startswith(spec.prefix)}
        if not tensors:
            starts = sorted({name.split(".")[0] + "." for name in file.tensors if "." in name})
            raise CheckpointError(
                f"{file.path}: no tensor has the prefix {spec.prefix!r} (they start with {', '.join(starts[:SHOWN]) or 'none'})"
            )
    for pattern in spec.ignore:
        ignored = [name for name in tensors if re.search(pattern, name)]
        _refuse_unused(file, tensors, [] if ignored else [pattern], "ignore")
        tensors = {name: each for name, each in tensors.items() if name not in set(ignored)}
        notes.append(f"left out {some(ignored)}, as `ignore` says")
    if spec.rename:
        tensors = _renamed(file, tensors, spec.rename)
    if spec.prefix is None:
        prefix = _prefix(file, tensors, wanted)
        outside = [name for name in tensors if not name.startswith(prefix)]
        tensors = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
        if prefix:
            notes.append(f"removed the prefix {prefix!r}")
        outside = [
            name for name in outside if not name.startswith("batch_transforms.")
        ]  # preprocessing, which is used elsewhere
        if outside:
            notes.append(f"left out {some(outside)}, without that prefix")
    return tensors, notes


def _renamed(file: WeightFile, tensors: Mapping[str, Tensor], rules: Mapping[str, str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    unused = dict.fromkeys(rules)
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in rules.items():
            if re.search(pattern, new):
                unused.pop(pattern, None)
                new = re.sub(pattern, replacement, new)
        if new in found:
            raise CheckpointError(f"{file.path}: `rename` gives {origin[new]!r} and {name!r} the same name {new!r}")
        found[new], origin[new] = tensor, name
    _refuse_unused(file, tensors, list(unused), "rename")
    return found


def _refuse_unused(file: WeightFile, tensors: Mapping[str, Tensor], patterns: Sequence[str], key: str) -> None:
    if patterns:
        first = next(iter(tensors), "none")
        raise CheckpointError(f"{file.path}: no tensor matches {patterns[0]!r} of `{key}` (the first tensor is {first!r})")


def _prefix(file: WeightFile, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The prefix, possibly empty, with the most wanted names; among equals, the one with the most matching shapes."""
    scores: dict[str, list[int]] = {}
    ends: dict[str, list[str]] = {}
    for name in wanted:
        ends.setdefault(name.rpartition(".")[2], []).append(name)
    for name, tensor in tensors.items():
        for each in ends.get(name.rpartition(".")[2], ()):
            if name == each or name.endswith(f".{each}"):
                score = scores.setdefault(name.removesuffix(each), [0, 0])
                score[0] += 1
                score[1] += tensor.shape == wanted[each].shape
    if not scores:
        return ""
    best = max(scores.values())
    found = sorted(prefix for prefix, score in scores.items() if score == best)
    if len(found) > 1 and not _same(found, tensors, wanted):
        names = ", ".join(repr(each) for each in found)
        raise CheckpointError(
            f"{file.path}: weights for the encoder lie under several prefixes ({names}); choose one with `prefix`"
        )
    return found[0]


def _same(prefixes: Sequence[str], tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """True if the tensors under all `prefixes` are equal."""
    first, *others = prefixes
    names = [name for name in wanted if first + name in tensors]
    return all(
        other + name in tensors and torch.equal(tensors[first + name], tensors[other + name])
        for other in others
        for name in names
    )


def _mapped(
    file: WeightFile,
    tensors: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    head: Head,
    names: Sequence[str],
    classes: Sequence[str],
) -> tuple[dict[str, Tensor], list[str]]:
    """Build head tensors for `classes`: from the file for classes that it knows, else from the new head; and notes."""
    if not names:
        raise CheckpointError(f"{file.path}: `head: map` needs the names of its classes, which the file lacks; add `classes`")
    if not head.axes:
        raise CheckpointError(
            f"{file.path}: the head of the encoder cannot be told from its other weights, so it cannot be mapped"
        )
    place = {name: index for index, name in enumerate(names)}
    known = [index for index, name in enumerate(classes) if name in place]
    if not known:
        raise CheckpointError(f"{file.path}: it knows none of the run's classes (it has {some(list(names))})")
    taken = torch.tensor([place[classes[index]] for index in known])
    found = {}
    for name, axis in head.axes.items():
        if name not in tensors:
            continue  # reported as missing later
        theirs = tensors[name]
        if theirs.ndim != wanted[name].ndim or theirs.shape[axis] != len(names):
            raise CheckpointError(
                f"{file.path}: {name} has shape {tuple(theirs.shape)}, which does not fit the {len(names)} names in `classes`"
            )
        mine = wanted[name].detach().clone()
        if theirs.movedim(axis, 0).shape[1:] == mine.movedim(axis, 0).shape[1:]:
            mine.movedim(axis, 0)[known] = theirs.movedim(axis, 0)[taken].to(mine)
            found[name] = mine
    unknown = [name for name in classes if name not in place]
    unused = [name for name in names if name not in set(classes)]
    said = (
        []
        if tuple(names) == tuple(classes)
        else [f"the head's {len(names)} classes were mapped to the run's {len(classes)} by name"]
    )
    if unknown:
        said.append(f"classes that the file does not know start from fresh weights: {some(unknown)}")
    if unused:
        said.append(f"classes that the run does not have were left out: {some(unused)}")
    return found, said


@dataclass(frozen=True)
class _Line:
    """A line of the report: `count` tensors, `wanted` by the encoder or only in the file."""

    text: str
    count: int = 1
    wanted: bool = True


def _mismatches(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], head: Head) -> list[_Line]:
    found = []
    missing = [name for name in wanted if name not in tensors and name.rpartition(".")[2] != _COUNTER]
    extra = [name for name in tensors if name not in wanted]
    for name in wanted:
        if name in tensors and (why := _unlike(name, tensors[name], wanted[name], head)):
            found.append(_Line(why))
    for name in missing:
        near = nearest(name, extra)
        hint = f" (did it mean {near}?)" if near else ""
        found.append(_Line(f"{name} {tuple(wanted[name].shape)}: not in the file{hint}"))
    found += [_Line(f"{name} {tuple(tensors[name].shape)}: only in the file", wanted=False) for name in extra]
    return found


def _unlike(name: str, theirs: Tensor, mine: Tensor, head: Head) -> str:
    """The reason why a tensor of the file does not match the encoder's; empty if it does."""
    if theirs.shape != mine.shape:
        why = f"{name} {tuple(mine.shape)}: {tuple(theirs.shape)} in the file"
        if name in head.axes and theirs.ndim == mine.ndim:
            why += ", a head of other classes: see `head` and `classes`"
        return why
    if mine.is_floating_point() != theirs.is_floating_point():
        return f"{name} {mine.dtype}: {theirs.dtype} in the file"
    return ""


def _account(file: WeightFile, matched: int, count: int, lines: Sequence[_Line]) -> str:
    """Format the mismatches, the first `SHOWN` of each kind."""
    shown = []
    for wanted in (True, False):
        kind = [line.text for line in lines if line.wanted is wanted]
        shown += kind[:SHOWN] + ([f"and {len(kind) - SHOWN} more"] if len(kind) > SHOWN else [])
    return f"{file.path} does not fit the encoder: {matched} of {count} tensors match\n    " + "\n    ".join(shown)


def some(names: Sequence[str]) -> str:
    """Format the first `SHOWN` names, and the number of the others."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
