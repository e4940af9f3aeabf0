"""Matches named weights to a network: prefixes, renamed tensors, heads with other classes, and a report of mismatches."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

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


def head_axes(build: Callable[[int], nn.Module], classes: int) -> dict[str, int]:
    """Find the head of a network, the tensors whose size depends on the number of classes: name → class axis.

    Constructs the network for `classes` and for one class more on the meta device, and compares shapes. Nothing is found if the
    network cannot be constructed on the meta device.

    Args:
        build: Constructs the network for a number of classes.
        classes: Number of classes.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            first, second = (build(count).state_dict() for count in (classes, classes + 1))
    except Exception:  # third-party constructors may fail on the meta device in any way, for example by reading values
        return {}
    axes = {}
    for name, each in first.items():
        other = second.get(name)
        if other is not None and other.ndim == each.ndim:
            differing = [axis for axis in range(each.ndim) if each.shape[axis] != other.shape[axis]]
            if len(differing) == 1 and each.shape[differing[0]] == classes:
                axes[name] = differing[0]
    return axes


def load_matching(
    encoder: nn.Module,
    file: WeightFile,
    spec: WeightsSpec,
    head: Mapping[str, int],
    names: Sequence[str],
    classes: Sequence[str],
) -> list[str]:
    """Load a weights file into an encoder; returns notes for the user.

    Args:
        encoder: The network.
        file: The weights.
        spec: The recipe's ``weights`` section, with `head` set.
        head: The encoder's head, as `head_axes` returns it.
        names: Class names of the file's head; empty if unknown.
        classes: Class names of the encoder's head.

    Raises:
        CheckpointError: If a tensor does not match; the message lists all that do not.
    """
    expected = dict(encoder.state_dict())
    tensors, notes = _selected(file, spec, expected)
    if spec.head == "drop":
        left_out = sorted(set(head) & set(tensors))
        if not head:
            raise CheckpointError(f"{file.path}: the head of the encoder cannot be told from its other weights; use `rename`")
        tensors = {name: each for name, each in tensors.items() if name not in head}
        notes.append(f"left out the head ({', '.join(left_out) or 'the file has none'}), which starts from fresh weights")
        expected = {name: each for name, each in expected.items() if name not in head}
    elif spec.head == "map":
        mapped, mapping_notes = _mapped(file, tensors, expected, head, names, classes)
        tensors, notes = {**tensors, **mapped}, [*notes, *mapping_notes]
    _refuse_mismatches(file, tensors, expected, head)
    if converted := Counter(each.dtype for name, each in tensors.items() if each.dtype != expected[name].dtype):
        counts = (f"{count} tensors from {str(dtype).removeprefix('torch.')}" for dtype, count in converted.items())
        notes.append(f"converted {', '.join(counts)}")
    encoder.load_state_dict(tensors, strict=False)  # a dropped head is missing; mismatches were refused above
    return [*file.notes, *notes]


def _selected(file: WeightFile, spec: WeightsSpec, expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
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
        prefix = _prefix(file, tensors, expected)
        outside = [name for name in tensors if not name.startswith(prefix)]
        tensors = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
        if prefix:
            notes.append(f"removed the prefix {prefix!r}")
        outside = [name for name in outside if not name.startswith("batch_transforms.")]  # preprocessing, used elsewhere
        if outside:
            notes.append(f"left out {some(outside)}, without that prefix")
    return tensors, notes


def _renamed(file: WeightFile, tensors: Mapping[str, Tensor], rules: Mapping[str, str]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    unused = dict.fromkeys(rules)
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in rules.items():
            if re.search(pattern, new):
                unused.pop(pattern, None)
                new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise CheckpointError(f"{file.path}: `rename` gives {origin[new]!r} and {name!r} the same name {new!r}")
        renamed[new], origin[new] = tensor, name
    _refuse_unused(file, tensors, list(unused), "rename")
    return renamed


def _refuse_unused(file: WeightFile, tensors: Mapping[str, Tensor], patterns: Sequence[str], key: str) -> None:
    if patterns:
        first = next(iter(tensors), "none")
        raise CheckpointError(f"{file.path}: no tensor matches {patterns[0]!r} of `{key}` (the first tensor is {first!r})")


def _prefix(file: WeightFile, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The prefix, possibly empty, with the most expected names; among equals, the one with the most matching shapes."""
    scores: dict[str, list[int]] = {}
    ends: dict[str, list[str]] = {}
    for name in expected:
        ends.setdefault(name.rpartition(".")[2], []).append(name)
    for name, tensor in tensors.items():
        for each in ends.get(name.rpartition(".")[2], ()):
            if name == each or name.endswith(f".{each}"):
                score = scores.setdefault(name.removesuffix(each), [0, 0])
                score[0] += 1
                score[1] += tensor.shape == expected[each].shape
    if not scores:
        return ""
    best = max(scores.values())
    prefixes = sorted(prefix for prefix, score in scores.items() if score == best)
    if len(prefixes) > 1 and not _same(prefixes, tensors, expected):
        names = ", ".join(map(repr, prefixes))
        raise CheckpointError(
            f"{file.path}: weights for the encoder lie under several prefixes ({names}); choose one with `prefix`"
        )
    return prefixes[0]


def _same(prefixes: Sequence[str], tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    first, *others = prefixes
    names = [name for name in expected if first + name in tensors]
    return all(
        other + name in tensors and torch.equal(tensors[first + name], tensors[other + name])
        for other in others
        for name in names
    )


def _mapped(
    file: WeightFile,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    head: Mapping[str, int],
    names: Sequence[str],
    classes: Sequence[str],
) -> tuple[dict[str, Tensor], list[str]]:
    """Build head tensors for `classes`: from the file for classes that it knows, else from the new head; and notes."""
    if not names:
        raise CheckpointError(f"{file.path}: `head: map` needs the names of its classes, which the file lacks; add `classes`")
    if not head:
        raise CheckpointError(
            f"{file.path}: the head of the encoder cannot be told from its other weights, so it cannot be mapped"
        )
    index_of = {name: index for index, name in enumerate(names)}
    known = [index for index, name in enumerate(classes) if name in index_of]
    if not known:
        raise CheckpointError(f"{file.path}: it knows none of the run's classes (it has {some(list(names))})")
    sources = torch.tensor([index_of[classes[index]] for index in known])
    mapped = {}
    for name, axis in head.items():
        if name not in tensors:
            continue  # reported as missing later
        tensor, fresh = tensors[name], expected[name].detach().clone()
        if tensor.ndim != fresh.ndim or tensor.shape[axis] != len(names):
            raise CheckpointError(
                f"{file.path}: {name} has shape {tuple(tensor.shape)}, which does not fit the {len(names)} names in `classes`"
            )
        by_class, fresh_by_class = tensor.movedim(axis, 0), fresh.movedim(axis, 0)
        if by_class.shape[1:] == fresh_by_class.shape[1:]:
            fresh_by_class[known] = by_class[sources].to(fresh)
            mapped[name] = fresh
    notes = []
    if tuple(names) != tuple(classes):
        notes.append(f"the head's {len(names)} classes were mapped to the run's {len(classes)} by name")
    if unknown := [name for name in classes if name not in index_of]:
        notes.append(f"classes that the file does not know start from fresh weights: {some(unknown)}")
    if unused := [name for name in names if name not in set(classes)]:
        notes.append(f"classes that the run does not have were left out: {some(unused)}")
    return mapped, notes


def _refuse_mismatches(
    file: WeightFile, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], head: Collection[str]
) -> None:
    """Refuse tensors that do not match the encoder's; the message lists the first `SHOWN` of each kind."""
    extra = [name for name in tensors if name not in expected]
    wrong = [_mismatch(name, tensors[name], expected[name], head) for name in expected if name in tensors]
    wrong = [line for line in wrong if line]
    for name, tensor in expected.items():
        if name not in tensors and name.rpartition(".")[2] != _COUNTER:
            near = nearest(name, extra)
            hint = f" (did it mean {near}?)" if near else ""
            wrong.append(f"{name} {tuple(tensor.shape)}: not in the file{hint}")
    surplus = [f"{name} {tuple(tensors[name].shape)}: only in the file" for name in extra]
    if wrong or surplus:
        shown = [f"{file.path} does not fit the encoder: {len(expected) - len(wrong)} of {len(expected)} tensors match"]
        for lines in (wrong, surplus):
            shown += [*lines[:SHOWN], *([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])]
        raise CheckpointError("\n    ".join(shown))


def _mismatch(name: str, tensor: Tensor, expected: Tensor, head: Collection[str]) -> str:
    """The reason why a tensor of the file does not match the encoder's; empty if it does."""
    if tensor.shape != expected.shape:
        other_head = name in head and tensor.ndim == expected.ndim
        hint = ", a head of other classes: see `head` and `classes`" if other_head else ""
        return f"{name} {tuple(expected.shape)}: {tuple(tensor.shape)} in the file{hint}"
    if expected.is_floating_point() != tensor.is_floating_point():
        return f"{name} {expected.dtype}: {tensor.dtype} in the file"
    return ""


def some(names: Sequence[str]) -> str:
    """Format the first `SHOWN` names, and the number of the others."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
