"""Shipped transforms of batches in ONNX, against PyTorch."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from kdcore import Transform
from kdcore.testing.run import trials
from kdcore.testing.transform_inputs import accepted, ready
from kdcore_export.exporters import quiet


def subjects():
    """Transforms that may be part of an exported file: of batches, and not for training only."""
    for plugin in ("signals", "skeleton", "images", "video"):
        for trial in trials(plugin):
            if trial.subject.entry.kind == "transform" and trial.check.name == "constructed":
                transform = trial.subject.made()
                if isinstance(transform, Transform) and not transform.augmentation:
                    yield pytest.param(trial.subject, id=trial.subject.entry.name)


@pytest.mark.parametrize("subject", subjects())
def test_a_transform_is_the_same_in_onnx(subject):
    x = accepted(subject)[0]
    transform = ready(subject, x).eval()
    with quiet():
        file = torch.onnx.export(transform, (x,), dynamo=True).model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, transform(x), atol=1e-5)
