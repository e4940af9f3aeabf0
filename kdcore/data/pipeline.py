"""A participant's way from recorded signals to the tensor its encoder reads, cut where caching must stop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from kdcore.contracts.modality import Modality
from kdcore.contracts.transform import Join
from kdcore.data.branch import Branch, described

CHUNK = 256


def runs_per_batch(transform: nn.Module) -> bool:
    """True if `transform` must be done per batch."""
    return bool(getattr(transform, "augmentation", False) or getattr(transform, "per_batch", False))


def bare(parts: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """A participant's entry as batches carry it: a tensor, or a tuple where several are joined later."""
    first, *others = parts
    return parts if others else first


class BatchTransforms(nn.Module):
    """The transforms that run per batch: the rest of each branch, the join, and those that follow it."""

    def __init__(self, branches: Sequence[Sequence[nn.Module]], trunk: Sequence[nn.Module]):
        super().__init__()
        self.branches = nn.ModuleList(nn.ModuleList(branch) for branch in branches)
        self.trunk = nn.ModuleList(trunk)

    @property
    def random(self) -> bool:
        """True if training changes its input at random."""
        return any(getattr(module, "augmentation", False) for module in self.modules())

    def _run(self, modules: Iterable[nn.Module], x: Tensor) -> Tensor:
        for module in modules:
            if self.training or not getattr(module, "augmentation", False) or getattr(module, "per_batch", False):
                x = module(x)
        return x

    def forward(self, signal: Tensor | tuple[Tensor, ...]) -> Tensor:
        """The encoder's input, (B, …)."""
        if self.branches:
            parts = signal if isinstance(signal, tuple) else (signal,)
            parts = tuple(self._run(branch, part) for branch, part in zip(self.branches, parts, strict=True))  # type: ignore[arg-type]
            signal = bare(parts)
        return self._run(self.trunk, signal)  # type: ignore[arg-type]  # a join takes the tuple


class Pipeline:
    """All transforms of one participant.

    Args:
        branches: One per modality, in the participant's order.
        trunk: What follows once all are there; starts with a `Join` where there are several branches.
    """

    def __init__(self, branches: Sequence[Branch], trunk: Sequence[nn.Module] = ()):
        self.branches = list(branches)
        self.trunk = list(trunk)
        if len(self.branches) > 1 and not (self.trunk and isinstance(self.trunk[0], Join)):
            self.trunk.insert(0, Join())
        self.batch_transforms: BatchTransforms = self._everything()

    def _everything(self) -> BatchTransforms:
        return BatchTransforms([branch.on_batches for branch in self.branches], self.trunk)

    @property
    def axes(self) -> set[str]:
        """Names of the axes of the recordings."""
        return {axis for branch in self.branches for axis in branch.modality.axes}

    @property
    def spec(self) -> Modality:
        """The modality of the encoder's input."""
        specs = tuple(branch.spec for branch in self.branches)
        if len(specs) == 1:
            return reduce(described, self.trunk, specs[0])
        join, *rest = self.trunk
        return reduce(described, rest, join.output_spec(specs))  # type: ignore[operator]

    def whole(self) -> BatchTransforms:
        """Everything that works on batches, as a saved student does it from a stacked recording on."""
        return self._everything().eval()

    def take_statistics(self, saved: Mapping[str, Tensor], origin: str) -> bool:
        """Take the statistics of fitted transforms from a saved participant, so that `prepare` does not fit them.

        Args:
            saved: Named as in `whole`.
            origin: Where they come from, for people.

        Returns:
            Whether there are any and they fit these transforms.
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

    def prepare(self, columns: Sequence[Tensor], train: Tensor, limit: int) -> tuple[Tensor, ...]:
        """Do once what can be done once, and keep the rest as `batch_transforms`.

        Args:
            columns: One tensor (N, …) per branch.
            train: Rows of the training split, all that a fitted transform may see.
            limit: Bytes that the result of a transform may take; what would take more is done per batch instead.

        Returns:
            The participant's entry of the table: one tensor, or one per branch if the join is yet to come.
        """
        done, rests = [], []
        for branch, column in zip(self.branches, columns, strict=True):
            column, rest = _advance(branch.on_batches, column, train, limit)
            done.append(column)
            rests.append(rest)
        trunk = self.trunk
        if any(rests):
            _fit_rest(self, columns, train)
        else:
            rests = []
            if len(done) > 1 and not runs_per_batch(trunk[0]):
                done, trunk = [_in_chunks(trunk[0], tuple(done))], trunk[1:]
            if len(done) == 1:
                done[0], trunk = _advance(trunk, done[0], train, limit)
        self.batch_transforms = BatchTransforms(rests, trunk)
        return tuple(done)


def _advance(transforms: Sequence[nn.Module], x: Tensor, train: Tensor, limit: int) -> tuple[Tensor, list[nn.Module]]:
    """Apply `transforms` to all of `x` up to the first that must run per batch; return the result and the rest."""
    for index, transform in enumerate(transforms):
        if runs_per_batch(transform):
            _fit_following(transforms[index:], x, train)
            return x, list(transforms[index:])
        _fit(transform, x, train)
        per_sample = _apply(transform, x[:1])
        if per_sample.numel() * per_sample.element_size() * len(x) > limit:
            _fit_following(transforms[index:], x, train)
            return x, list(transforms[index:])
        x = _in_chunks(transform, x)
    return x, []


def _needs_fit(transform: nn.Module) -> bool:
    return getattr(transform, "fitted", False) and not getattr(transform, "statistics_from", "")


def _fit(transform: nn.Module, x: Tensor, train: Tensor) -> None:
    if _needs_fit(transform):
        transform.fit(x[train])  # type: ignore[operator]


def _fit_following(transforms: Sequence[nn.Module], x: Tensor, train: Tensor) -> None:
    """Fit what comes after a transform that runs per batch on training samples as they are without augmentation."""
    if not any(map(_needs_fit, transforms)):
        return
    sample = x[train]
    for transform in transforms:
        if _needs_fit(transform):
            transform.fit(sample)  # type: ignore[operator]
        if not getattr(transform, "augmentation", False) or getattr(transform, "per_batch", False):
            sample = _in_chunks(transform, sample)


def _fit_rest(pipeline: Pipeline, columns: Sequence[Tensor], train: Tensor) -> None:
    """Fit the trunk on training samples taken through the branches, which have transforms on batches, without augmentation."""
    if not any(map(_needs_fit, pipeline.trunk)):
        return
    head = BatchTransforms([branch.on_batches for branch in pipeline.branches], []).eval()
    signal = tuple(column[train] for column in columns)
    parts = head(bare(signal))
    x = _in_chunks(pipeline.trunk[0], parts) if len(signal) > 1 else parts
    _fit_following(pipeline.trunk[1:] if len(signal) > 1 else pipeline.trunk, x, torch.arange(len(train)))


@torch.no_grad()
def _apply(transform: nn.Module, x: Tensor | tuple[Tensor, ...]) -> Tensor:
    was = transform.training
    try:
        return transform.eval()(x)
    finally:
        transform.train(was)


def _in_chunks(transform: nn.Module, x: Tensor | tuple[Tensor, ...]) -> Tensor:
    size = len(x[0]) if isinstance(x, tuple) else len(x)
    pieces = [
        _apply(
            transform, tuple(part[start : start + CHUNK] for part in x) if isinstance(x, tuple) else x[start : start + CHUNK]
        )
        for start in range(0, size, CHUNK)
    ]
    return torch.cat(pieces)
