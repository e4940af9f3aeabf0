"""Transforms: what is done once, what per batch, and what fitted ones may see."""

from __future__ import annotations

import pytest
import torch
import toys
from torch import nn

from kdcore import Join, Transform
from kdcore.data.mapped import Storage
from kdcore.data.pipeline import CHUNK, Pipeline, _advance, _in_chunks
from kdcore.errors import DataError

TRAIN = torch.tensor([0, 2, 3])


@pytest.fixture
def column():
    return torch.randn(6, 2, 10, generator=torch.Generator().manual_seed(0)) + torch.arange(6.0).view(6, 1, 1)


def read(pipeline, inputs, rows, training=False):
    signals = tuple(part[rows] for part in inputs)
    return pipeline.batch_transforms.train(training)(signals if len(signals) > 1 else signals[0])


def test_a_fitted_transform_sees_the_training_rows_and_nothing_else(column):
    centre = toys.Centre()
    pipeline = Pipeline([toys.branch(on_batches=[centre])])
    poisoned = column.clone()
    poisoned[[1, 4, 5]] = float("nan")
    (done,) = pipeline.prepare([poisoned], TRAIN, Storage(1 << 30))
    assert all(torch.equal(seen, column[TRAIN]) for seen in centre.seen)
    torch.testing.assert_close(done[TRAIN], column[TRAIN] - column[TRAIN].mean())


def test_what_is_deterministic_is_done_once(column):
    pipeline = Pipeline([toys.branch(on_batches=[toys.Centre()])])
    (done,) = pipeline.prepare([column], TRAIN, Storage(1 << 30))
    assert list(pipeline.batch_transforms.modules()) == [
        pipeline.batch_transforms,
        pipeline.batch_transforms.branches,
        pipeline.batch_transforms.trunk,
    ]
    torch.testing.assert_close(done, column - column[TRAIN].mean())


def test_augmentations_work_in_training_only(column):
    pipeline = Pipeline([toys.branch(on_batches=[toys.Centre(), toys.Noise()])])
    inputs = pipeline.prepare([column], TRAIN, Storage(1 << 30))
    plain = column - column[TRAIN].mean()
    torch.testing.assert_close(read(pipeline, inputs, TRAIN), plain[TRAIN])
    drawn = [read(pipeline, inputs, TRAIN, training=True) for _ in range(2)]
    assert (drawn[0] > 90).all()
    assert not torch.equal(*drawn)


@pytest.mark.parametrize("transform", [toys.Noise, toys.Doubled])
def test_a_fitted_transform_after_one_that_runs_per_batch_is_fitted_without_augmentation(column, transform):
    centre = toys.Centre()
    pipeline = Pipeline([toys.branch(on_batches=[transform(), centre])])
    inputs = pipeline.prepare([column], TRAIN, Storage(1 << 30))
    seen = column[TRAIN] * (2 if transform is toys.Doubled else 1)
    assert all(torch.equal(each, seen) for each in centre.seen)
    assert centre.seen
    assert torch.equal(inputs[0], column)
    torch.testing.assert_close(read(pipeline, inputs, TRAIN), seen - seen.mean())


@pytest.mark.parametrize("limit", [0, 300, 1 << 30])
def test_a_memory_limit_changes_where_transforms_run_and_no_result(column, limit):
    wide = nn.Upsample(scale_factor=4)
    pipeline = Pipeline([toys.branch(on_batches=[toys.Centre(), wide, toys.Centre()])])
    inputs = pipeline.prepare([column], TRAIN, Storage(limit))
    assert inputs[0].shape[-1] == (40 if limit == 1 << 30 else 10)
    first = wide(column - column[TRAIN].mean())
    expected = first - first[TRAIN].mean()
    torch.testing.assert_close(read(pipeline, inputs, torch.arange(6)), expected)
    torch.testing.assert_close(pipeline.whole()(column), expected)


class Apart(Join):
    """Keeps the first channel of every part."""

    def forward(self, parts):
        return torch.cat([part[:, :1] for part in parts], dim=1)


@pytest.mark.parametrize("per_batch", ["nothing", "one branch", "augmentation after the join"])
@pytest.mark.parametrize("join", [None, Apart])
def test_modalities_are_joined_in_their_order(column, per_batch, join):
    other = torch.randn(6, 3, 10)
    centres = [toys.Centre(), toys.Centre(), toys.Centre()]
    first = [centres[0], *([toys.Doubled()] if per_batch == "one branch" else [])]
    trunk = [*([join()] if join else []), centres[2], *([toys.Noise()] if per_batch.startswith("augmentation") else [])]
    pipeline = Pipeline([toys.branch(on_batches=first), toys.branch(toys.ANKLE, on_batches=[centres[1]])], trunk)
    inputs = pipeline.prepare([column, other], TRAIN, Storage(1 << 30))
    assert len(inputs) == (2 if per_batch == "one branch" else 1)

    parts = [(column - column[TRAIN].mean()) * (2 if per_batch == "one branch" else 1), other - other[TRAIN].mean()]
    joined = torch.cat([part[:, :1] if join else part for part in parts], dim=1)
    expected = joined - joined[TRAIN].mean()
    torch.testing.assert_close(read(pipeline, inputs, torch.arange(6)), expected)
    torch.testing.assert_close(pipeline.whole()((column, other)), expected)
    assert all(len(seen) == len(TRAIN) for centre in centres for seen in centre.seen)


@pytest.mark.parametrize("on_batches", [[], [toys.Doubled()]], ids=["once", "per batch"])
def test_modalities_of_different_lengths_are_named(column, on_batches):
    pipeline = Pipeline([toys.branch(on_batches=on_batches), toys.branch(toys.ANKLE)])
    with pytest.raises(DataError, match=r"the signals to join have the shapes \(2, 10\) and \(3, 12\); resample or pad them"):
        read(pipeline, pipeline.prepare([column, torch.randn(6, 3, 12)], TRAIN, 1 << 30), TRAIN)


class Uneven(nn.Module):
    """Gives the second chunk another shape or type."""

    def __init__(self, other):
        super().__init__()
        self.other, self.calls = other, 0

    def forward(self, x):
        self.calls += 1
        return x if self.calls == 1 else self.other(x)


@pytest.mark.parametrize("other", [lambda x: x[..., :1], lambda x: x.double(), lambda x: x[:1]], ids=["shape", "type", "rows"])
def test_a_transform_that_gives_chunks_of_different_forms_is_refused(other):
    storage = Storage(1 << 30)
    x = torch.randn(2 * CHUNK, 3, 4)
    assert torch.equal(_in_chunks([Uneven(lambda x: x)], x, storage), x)
    for transforms in ([Uneven(other)], [Uneven(other), nn.Flatten()], [nn.Flatten(), nn.Unflatten(1, (3, 4)), Uneven(other)]):
        with pytest.raises(DataError, match="Uneven must give a row for each window"):
            _in_chunks(transforms, x, storage)


class Noted(nn.Module):
    """Adds 1, and notes the number of rows."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, x):
        self.seen.append(len(x))
        return x + 1


class FittedMean(Noted):
    fitted = True

    def fit(self, x):
        self.mean = x.mean(0)

    def forward(self, x):
        return super().forward(x) - self.mean


def test_chunks_pass_all_transforms_at_once_up_to_one_that_is_fitted(monkeypatch):
    stored, seen, x = [], [], torch.randn(CHUNK + 5, 3, dtype=torch.float64)
    monkeypatch.setattr(Storage, "empty", lambda _, shape, dtype: stored.append(shape) or torch.empty(shape, dtype=dtype))
    transforms = [Noted(seen), Noted(seen), FittedMean(seen), Noted(seen)]
    done, rest = _advance(transforms, x, torch.arange(7), Storage(1 << 30))
    torch.testing.assert_close(done, x + 4 - (x[:7] + 2).mean(0))
    assert (rest, stored) == ([], [(CHUNK + 5, 3)] * 2)
    assert [rows for rows in seen if rows > 1] == [CHUNK, CHUNK, 5, 5] * 2


class Shortened(Transform):
    """Differs in training, but is no augmentation."""

    def forward(self, x):
        return x[..., :3] if self.training else x


class Shaken(Transform):
    """Random, but no augmentation."""

    def forward(self, x):
        return x + torch.randn_like(x)


@pytest.mark.parametrize("transform", [Shortened, Shaken])
def test_a_transform_without_augmentation_that_is_random_or_differs_in_training_is_refused(column, transform):
    state = torch.get_rng_state()
    with pytest.raises(DataError, match=f"{transform.__name__} is random or differs in training.*augmentation = True"):
        Pipeline([toys.branch(on_batches=[transform()])]).prepare([column], TRAIN, 1 << 30)
    if transform is Shortened:
        assert torch.equal(state, torch.get_rng_state())
    per_batch = type("PerBatch", (transform,), {"augmentation": True, "per_batch": True})
    Pipeline([toys.branch(on_batches=[per_batch()])]).prepare([column], TRAIN, 1 << 30)


def test_a_transform_that_defines_fit_is_fitted(column):
    class Mean(Transform):
        def fit(self, x):
            self.register_buffer("mean", x.mean())

        def forward(self, x):
            return x - self.mean

    class Fixed(Mean):
        fitted = False

    assert (Mean.fitted, Fixed.fitted, Transform.fitted) == (True, False, False)
    (done,) = Pipeline([toys.branch(on_batches=[Mean()])]).prepare([column], TRAIN, Storage(1 << 30))
    torch.testing.assert_close(done, column - column[TRAIN].mean())
