"""Zeros instead of the signals of modalities that training samples lack."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import toys

from kdcore import DataError, Transform
from kdcore.data.pipeline import Pipeline
from kdcore.data.preparation import load_table

NO_ANKLE = {("s0", "a0", "t0"), ("s1", "a1", "t1"), ("s3", "a0", "t1")}
NO_WRIST = {("s0", "a1", "t2"), ("s2", "a0", "t0")}
"""Recordings that do not exist: those of s2 and s3 are held out."""


class Thinned(Transform):
    """Every second sample, for the rate of the other sensor."""

    def forward(self, x):
        return x[..., ::2]


class Bytes(toys.Files):
    """Recordings of integers, as videos are."""

    def read(self, sample, modality):
        signal = super().read(sample, modality)
        return signal.with_values(np.clip(signal.values * 10, 0, 255).astype(np.uint8))


def load(folder, trunk=(), fill=True, files=toys.Files):
    (folder / "recordings").mkdir()
    recordings = toys.write(folder / "recordings", trials=3)
    for name, keys in (("ankle", NO_ANKLE), ("wrist", NO_WRIST)):
        for key in keys:
            (recordings / f"{name}-{'-'.join(key)}.npy").unlink()
    branches = [toys.branch(toys.ANKLE, on_batches=[Thinned()]), toys.branch(factor=1)]
    pipelines = {"both": Pipeline(branches, trunk, fill)}
    made = load_table(
        files(recordings), toys.BySubject(), toys.spec(missing="mask"), pipelines, folder / "cache", 1 << 30,
        required=pipelines["both"].accepted,
    )  # fmt: skip
    return made, pipelines["both"], recordings


def recorded(recordings, key, missing):
    """(5, 10) of a sample: three channels of the ankle, two of the wrist, and NaN for what does not exist."""
    name = "-".join((key.subject, key.action, key.trial))
    parts = []
    for modality, step, channels in (("ankle", 2, 3), ("wrist", 1, 2)):
        gone = (key.subject, key.action, key.trial) in missing[modality]
        parts.append(np.full((channels, 10), np.nan) if gone else np.load(recordings / f"{modality}-{name}.npy").T[:, ::step])
    return np.concatenate(parts)


@pytest.mark.parametrize("last", [None, toys.Doubled, toys.Noise])
def test_the_encoder_reads_zeros_and_statistics_are_those_of_whole_samples(tmp_path, last):
    with pytest.warns(UserWarning, match="zeros are used") as warned:
        made, pipeline, recordings = load(tmp_path, [toys.Centre(), *([last()] if last else [])])
    texts = [str(each.message) for each in warned]
    assert "both: no ankle for 2 of 12 in train; zeros are used instead" in texts
    assert "both: no wrist for 1 of 12 in train; zeros are used instead" in texts
    raw = {key: recorded(recordings, key, {"ankle": NO_ANKLE, "wrist": NO_WRIST}) for key in made.keys}
    train = [made.keys[row] for row in made.rows["train"]]
    whole = np.stack([raw[key] for key in train if np.isfinite(raw[key]).all()])
    assert len(whole) == 9
    expected = np.stack([raw[key] for key in made.keys]) - whole.mean()
    expected = np.nan_to_num(expected * (2 if last is toys.Doubled else 1), nan=0.0)
    got = pipeline.batch_transforms.eval()(made.batch(torch.arange(len(made.keys)), ["both"]).signals["both"])
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5)
    if last is toys.Noise:
        torch.manual_seed(0)
        noisy = pipeline.batch_transforms.train()(made.batch(made.rows["train"], ["both"]).signals["both"])
        gone = torch.from_numpy(np.isnan(np.stack([raw[key] for key in train])))
        assert not noisy[gone].any()
        assert (noisy[~gone] > 50).all()


def test_held_out_samples_have_all_modalities(tmp_path):
    with pytest.warns(UserWarning, match="zeros are used instead"):
        made, _, _ = load(tmp_path)
    assert {split: len(rows) for split, rows in made.rows.items()} == {"train": 12, "validation": 5, "test": 5}
    assert made.present == {}


def test_without_it_only_whole_samples_are_kept(tmp_path):
    with pytest.warns(UserWarning, match="dropped"):
        made, _, _ = load(tmp_path, fill=False)
    assert {split: len(rows) for split, rows in made.rows.items()} == {"train": 9, "validation": 5, "test": 5}


def test_signals_that_cannot_be_marked_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"both: fill_missing cannot fill signals of torch\.uint8, such as those of wrist"):
        load(tmp_path, files=Bytes)


def test_a_saved_student_reads_whole_recordings_as_before(tmp_path):
    with pytest.warns(UserWarning, match="zeros are used instead"):
        _, pipeline, _ = load(tmp_path, [toys.Centre()])
    assert pipeline.whole().state_dict().keys() == {"trunk.1.mean"}


class Length(Transform):
    """The length of the vector of all channels, which needs all modalities."""

    def forward(self, x):
        return torch.cat([x, x.norm(dim=1, keepdim=True)], dim=1)


class MixedInTraining(Transform):
    """Adds the mean of all channels, in training only."""

    augmentation = True

    def forward(self, x):
        return x + x.mean(dim=1, keepdim=True)


class OfTheBatch(Transform):
    """Subtracts the mean of all samples of the batch."""

    per_batch = True

    def forward(self, x):
        return x - x.mean(dim=0, keepdim=True)


class Cleaned(Transform):
    """Replaces what is missing by a number of its own."""

    def forward(self, x):
        return x.nan_to_num(nan=5.0)


@pytest.mark.parametrize(
    ("last", "what"),
    [
        (Length, "mixes modalities"),
        (MixedInTraining, "mixes modalities"),
        (OfTheBatch, "mixes samples"),
        (Cleaned, "turns missing values into numbers"),
    ],
)
def test_transforms_that_hide_what_is_missing_are_refused(tmp_path, last, what):
    with pytest.raises(DataError, match=f"both: fill_missing cannot be used .* of ankle and wrist: one .*{what}"):
        load(tmp_path, [last()])


def test_the_check_draws_no_random_numbers_of_the_run(tmp_path):
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="zeros are used instead"):
        load(tmp_path, [toys.Noise()])
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
