"""The transforms of a participant, divided into a cached part and a part that runs per batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from kdcore.contracts.modality import Modality
from kdcore.contracts.sample_transform import output_spec
from kdcore.contracts.transform import Join
from kdcore.data.branch import Branch
from kdcore.data.mapped import Storage
from kdcore.errors import DataError
from kdcore.recipe.config_models import accepted_modalities

CHUNK = 256
"""Number of samples that are transformed at a time."""

TRIES = 8
"""Number of times that random transforms are tried with a missing modality."""


def runs_per_batch(transform: nn.Module) -> bool:
    """True if `transform` must run per batch and cannot be cached."""
    return bool(getattr(transform, "augmentation", False) or getattr(transform, "per_batch", False))


def _runs_in_evaluation(transform: nn.Module) -> bool:
    return not getattr(transform, "augmentation", False) or bool(getattr(transform, "per_batch", False))


def bare(parts: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """A participant's entry of a batch: one tensor, or a tuple of tensors to be joined later."""
    first, *others = parts
    return parts if others else first


class BatchTransforms(nn.Module):
    """The transforms that run per batch: the rest of each branch, the join, and the joined transforms."""

    def __init__(self, branches: Sequence[Sequence[nn.Module]], trunk: Sequence[nn.Module]):
        super().__init__()
        self.branches = nn.ModuleList(nn.ModuleList(branch) for branch in branches)
        self.trunk = nn.ModuleList(trunk)

    def _run(self, modules: Iterable[nn.Module], x: Tensor) -> Tensor:
        for module in modules:
            if self.training or _runs_in_evaluation(module):
                x = module(x)
        return x

    def forward(self, signal: Tensor | tuple[Tensor, ...]) -> Tensor:
        """The encoder's input, (B, …)."""
        if self.branches:
            parts = signal if isinstance(signal, tuple) else (signal,)
            parts = tuple(self._run(branch, part) for branch, part in zip(self.branches, parts, strict=True))  # type: ignore[arg-type]
            signal = bare(parts)
        return self._run(self.trunk, signal)  # type: ignore[arg-type]  # a join takes the tuple


class FillMissing(nn.Module):
    """Replaces NaN, which stands for the signals of a modality that a sample lacks, by zero."""

    def forward(self, x: Tensor) -> Tensor:
        """Fill ``x`` of shape (B, …)."""
        return x.nan_to_num(nan=0.0)


class Pipeline:
    """All transforms of one participant.

    Args:
        branches: Transforms of each modality, in the participant's order.
        trunk: Transforms after all branches; starts with a `Join` if there are several branches.
        fill_missing: Give zeros to the encoder for modalities that a sample lacks.
    """

    def __init__(self, branches: Sequence[Branch], trunk: Sequence[nn.Module] = (), fill_missing: bool = False):
        self.fill_missing = fill_missing
        self.branches = list(branches)
        self.trunk = list(trunk)
        if len(self.branches) > 1 and not (self.trunk and isinstance(self.trunk[0], Join)):
            self.trunk.insert(0, Join())
        self.batch_transforms: BatchTransforms = self._everything()

    def _everything(self) -> BatchTransforms:
        return BatchTransforms([branch.on_batches for branch in self.branches], self.trunk)

    @property
    def accepted(self) -> list[frozenset[str]]:
        """Sets of modalities of which a training sample must have one."""
        return accepted_modalities([branch.modality.name for branch in self.branches], self.fill_missing)

    @property
    def axes(self) -> set[str]:
        """Names of the axes of the recordings."""
        return {axis for branch in self.branches for axis in branch.modality.axes}

    @property
    def spec(self) -> Modality:
        """The modality of the encoder's input."""
        specs = tuple(branch.spec for branch in self.branches)
        if len(specs) == 1:
            return reduce(output_spec, self.trunk, specs[0])
        join, *rest = self.trunk
        return reduce(output_spec, rest, join.output_spec(specs))  # type: ignore[operator]

    def whole(self) -> BatchTransforms:
        """All transforms of batches as one module, as a saved student applies them."""
        return self._everything().eval()

    def take_statistics(self, saved: Mapping[str, Tensor], origin: str) -> bool:
        """Load the statistics of fitted transforms from a saved participant, so that `prepare` does not fit them.

        Args:
            saved: Statistics by their names in `whole`.
            origin: Description of their origin, for messages.

        Returns:
            True if there are statistics and they match these transforms.
        """
        whole = self._everything()
        fitted = [module for module in whole.modules() if getattr(module, "fitted", False)]
        if not fitted or saved.keys() != whole.state_dict().keys():
            return False
        try:
            whole.load_state_dict(dict(saved))
        except RuntimeError:  # of another shape
            return False
        for module in fitted:
            module.statistics_from = origin  # type: ignore[assignment]  # not a parameter
        return True

    def prepare(self, columns: Sequence[Tensor], train: Tensor, storage: Storage) -> tuple[Tensor, ...]:
        """Apply the deterministic transforms once, and keep the others as `batch_transforms`.

        Args:
            columns: One tensor (N, …) per branch.
            train: Rows of the training split; transforms are fitted to these only.
            storage: Where results are kept. A transform with a result over its limit runs per batch instead.

        Returns:
            The participant's entry of the table: one tensor, or one per branch if the join runs per batch.
        """
        done, rests = [], []
        for branch, column in zip(self.branches, columns, strict=True):
            column, rest = _advance(branch.on_batches, column, train, storage)
            done.append(column)
            rests.append(rest)
        trunk = [*self.trunk, FillMissing()] if self.fill_missing else self.trunk
        if any(rests):
            _fit_rest(self, columns, train, storage)
        else:
            rests = []
            if len(done) > 1 and not runs_per_batch(trunk[0]):
                done, trunk = [_in_chunks(trunk[:1], tuple(done), storage)], trunk[1:]
            if len(done) == 1:
                done[0], trunk = _advance(trunk, done[0], train, storage)
        self.batch_transforms = BatchTransforms(rests, trunk)
        if self.fill_missing:
            self._check_missing([column[train[:1]] for column in columns])
        return tuple(done)

    def _check_missing(self, sample: Sequence[Tensor]) -> None:
        """Check that each value of the encoder's input depends on one modality of its sample, for which zero can stand.

        Args:
            sample: One tensor (1, …) per branch, of a sample that has all modalities.

        Raises:
            DataError: If a transform mixes modalities or samples, or turns missing values into numbers.
        """
        transforms, what = deepcopy(self._everything()), ""
        marked = [index for index, x in enumerate(sample) if x.is_floating_point()]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for training in (False, *[True] * TRIES):
                counts = torch.zeros(())
                for gone in marked:
                    lacking = [torch.full_like(x, torch.nan) if index == gone else x for index, x in enumerate(sample)]
                    pairs = tuple(torch.cat(pair) for pair in zip(sample, lacking, strict=True))
                    whole, partial = transforms.train(training)(pairs).isnan()
                    if bool(whole.any()):
                        what = what or "mixes samples"
                    counts = counts + partial.float()
                if bool((counts > 1).any()):
                    what = what or "mixes modalities"
                elif not training and len(marked) == len(sample) and bool((counts < 1).any()):
                    what = what or "turns missing values into numbers"
        if what:
            names = " and ".join(branch.modality.name for branch in self.branches)
            raise DataError(f"fill_missing cannot be used with these transforms of {names}: one {what}")


def _advance(transforms: Sequence[nn.Module], x: Tensor, train: Tensor, storage: Storage) -> tuple[Tensor, list[nn.Module]]:
    """Apply `transforms` to all of `x` up to the first that must run per batch; return the result and the rest.

    Only the results before a transform that is fitted, and the last ones, are stored.
    """
    ready: list[nn.Module] = []
    for index, transform in enumerate(transforms):
        runs_once = not runs_per_batch(transform)
        if runs_once and _needs_fit(transform):
            x, ready = _in_chunks(ready, x, storage), []
            transform.fit(storage.rows(x, train))  # type: ignore[operator]
        if runs_once:
            first = _once(transform, _apply_all(ready, x[:1]))
            if first.numel() * first.element_size() * len(x) <= storage.limit:
                ready.append(transform)
                continue
        x = _in_chunks(ready, x, storage)
        _fit_following(transforms[index:], x, train, storage)
        return x, list(transforms[index:])
    return _in_chunks(ready, x, storage), []


def _needs_fit(transform: nn.Module) -> bool:
    return getattr(transform, "fitted", False) and not getattr(transform, "statistics_from", "")


def _fit_following(transforms: Sequence[nn.Module], x: Tensor, train: Tensor, storage: Storage) -> None:
    """Fit the transforms from the first that runs per batch on, to training samples without augmentation."""
    last = max((index for index, each in enumerate(transforms) if _needs_fit(each)), default=-1)
    if last < 0:
        return
    sample = storage.rows(x, train)
    for transform in transforms[: last + 1]:
        if _needs_fit(transform):
            transform.fit(sample)  # type: ignore[operator]
        if transform is not transforms[last] and _runs_in_evaluation(transform):
            sample = _in_chunks([transform], sample, storage)


def _fit_rest(pipeline: Pipeline, columns: Sequence[Tensor], train: Tensor, storage: Storage) -> None:
    """Fit the trunk to training samples after the branches' transforms of batches, without augmentation."""
    if not any(map(_needs_fit, pipeline.trunk)):
        return
    parts = []
    for branch, column in zip(pipeline.branches, columns, strict=True):
        part = storage.rows(column, train)
        head = BatchTransforms([branch.on_batches], []).eval()
        parts.append(_in_chunks([head], part, storage) if branch.on_batches else part)
    x = _in_chunks(pipeline.trunk[:1], tuple(parts), storage) if len(parts) > 1 else parts[0]
    _fit_following(pipeline.trunk[1:] if len(parts) > 1 else pipeline.trunk, x, torch.arange(len(train)), storage)


@torch.no_grad()
def _apply(transform: nn.Module, x: Tensor | tuple[Tensor, ...]) -> Tensor:
    was = transform.training
    try:
        return transform.eval()(x)
    finally:
        transform.train(was)


def _once(transform: nn.Module, x: Tensor) -> Tensor:
    """Apply a transform that runs once per sample.

    Raises:
        DataError: If it is random, or differs while training: it would have one result for all epochs.
    """
    result = _apply(transform, x)
    was = transform.training
    with torch.no_grad(), torch.random.fork_rng():
        try:
            other = transform.train()(x)
        finally:
            transform.train(was)
    if other.shape != result.shape or not torch.allclose(other.double(), result.double(), rtol=1e-4, equal_nan=True):
        raise DataError(
            f"{type(transform).__name__} is random or differs in training, but is applied once per sample: set "
            "`augmentation = True` to apply it during training only, and also `per_batch = True` to apply it during evaluation"
        )
    return result


def _apply_all(transforms: Sequence[nn.Module], x: Tensor) -> Tensor:
    for transform in transforms:
        x = _apply(transform, x)
    return x


def _in_chunks(transforms: Sequence[nn.Module], x: Tensor | tuple[Tensor, ...], storage: Storage) -> Tensor:
    """Apply all of `transforms` to one chunk of rows after another; return `x` if there are none."""
    size, result, forms = len(x[0]) if isinstance(x, tuple) else len(x), None, list[str]()
    for start in range(0, size if transforms else 0, CHUNK):
        rows = slice(start, min(start + CHUNK, size))
        piece: Any = tuple(part[rows] for part in x) if isinstance(x, tuple) else x[rows]
        for index, transform in enumerate(transforms):
            piece = _apply(transform, piece)
            form = f"{tuple(piece.shape[1:])} of {piece.dtype}"
            if not start:
                forms.append(form)
            if form != forms[index] or len(piece) != rows.stop - start:
                raise DataError(
                    f"{type(transform).__name__} must give a row for each window, all of one shape and type, but gives "
                    f"{forms[index]} first and {form} later, and {len(piece)} rows for {rows.stop - start} windows"
                )
        if result is None:
            result = storage.empty((size, *piece.shape[1:]), piece.dtype)
        result[rows] = piece
    return x if result is None else result  # type: ignore[return-value]
