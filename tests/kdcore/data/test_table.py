"""The table of a run: what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import toys

from kdcore.data.pipeline import Pipeline
from kdcore.errors import DataError


class Unlabelled(toys.Files):
    """The files, one of them without a label."""

    def samples(self):
        first, *rest = super().samples()
        return [replace(first, label=None), *rest]


@pytest.mark.parametrize(("labels", "refused"), [("given", True), ("withheld", False)])
def test_a_sample_without_label_is_named_before_anything_is_trained(tmp_path, labels, refused):
    (tmp_path / "data").mkdir()
    dataset, pipelines = Unlabelled(toys.write(tmp_path / "data")), {"student": Pipeline([toys.branch()])}
    if refused:
        with pytest.raises(DataError, match=r"train split has samples without a label: 1, e\.g\. .*s0.*withheld"):
            toys.table(dataset, pipelines, tmp_path / "cache", labels=labels)
    else:
        assert int((toys.table(dataset, pipelines, tmp_path / "cache", labels=labels).labels < 0).sum()) == 1


class Weighted(toys.Files):
    """The files, each with a weight of its own."""

    weighted = True

    def samples(self):
        return [replace(each, weight=1.0 + number) for number, each in enumerate(super().samples())]


def test_a_batch_has_the_weights_of_its_own_samples(tmp_path):
    (tmp_path / "data").mkdir()
    data = Weighted(toys.write(tmp_path / "data"))
    table = toys.table(data, {"student": Pipeline([toys.branch()])}, tmp_path / "cache")
    weight = {each.key: each.weight for each in data.samples()}
    rows = torch.randperm(len(table.keys), generator=torch.Generator().manual_seed(1))[:3]
    batch = table.batch(rows, ["student"], True)
    assert batch.weights.tolist() == [weight[table.keys[row]] for row in rows.tolist()]
