"""Order in which an epoch goes through its samples."""

from __future__ import annotations

import torch
from torch import Tensor


def shuffled(count: int, seed: int) -> Tensor:
    """A permutation of ``range(count)`` that depends on `seed` alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def balanced(labels: Tensor, seed: int) -> Tensor:
    """Places of N samples to draw in an epoch, so that every run of consecutive draws has about as many of each class.

    Of K classes with any sample, each K consecutive draws of labelled samples have one. A class's samples come in random order,
    all of them before any comes again. Unlabelled samples come once each, at random places.

    Args:
        labels: (N,) int64, on the CPU; -1 for unlabelled samples.
        seed: Decides the order, with nothing else.

    Returns:
        (N,) int64, with repetitions.
    """
    random = torch.Generator().manual_seed(seed)
    known = labels >= 0
    classes, draws = labels[known].unique(), int(known.sum())
    if not draws:
        return torch.randperm(len(labels), generator=random)
    rounds = -(-draws // len(classes))
    sequence = torch.cat([classes[torch.randperm(len(classes), generator=random)] for _ in range(rounds)])[:draws]
    drawn = torch.empty(draws, dtype=torch.int64)
    for each in classes.tolist():
        members, wanted = (labels == each).nonzero().flatten(), sequence == each
        count = int(wanted.sum())
        orders = [members[torch.randperm(len(members), generator=random)] for _ in range(-(-count // len(members)))]
        drawn[wanted] = torch.cat([*orders, members[:0]])[:count]
    found = torch.empty(len(labels), dtype=torch.int64)
    at_known = known[torch.randperm(len(labels), generator=random)]
    found[at_known] = drawn
    unlabelled = (~known).nonzero().flatten()
    found[~at_known] = unlabelled[torch.randperm(len(unlabelled), generator=random)]
    return found
