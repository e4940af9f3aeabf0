"""The quick reader of MATLAB files gives what SciPy gives, or leaves the file to SciPy."""

from __future__ import annotations

import io

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from kdcore import DataError
from kdcore_datasets.file_formats import read_variable
from kdcore_datasets.matlab_arrays import plain_array

RNG = np.random.default_rng(0)
TYPES = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")


def saved(content, **options) -> bytes:
    file = io.BytesIO()
    savemat(file, content, **options)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(7, 6), (2, 3, 5), (1, 1), (0, 6), (1, 3)])
def test_an_array_of_numbers_is_read_as_scipy_reads_it(dtype, shape, compressed):
    content = saved({"x": (RNG.normal(size=shape) * 50).astype(dtype)}, do_compression=compressed)
    expected, found = loadmat(io.BytesIO(content))["x"], plain_array(content, "x")
    assert found is not None
    assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
    assert found.flags.writeable


OTHERS = {
    "complex": {"x": np.ones((2, 2)) * 1j},
    "logical": {"x": np.ones((2, 2), bool)},
    "text": {"x": "text"},
    "struct": {"x": {"y": 1}},
    "cells": {"x": np.array([1, "a"], object)},
    "second": {"w": np.ones(3), "x": np.ones(2)},
    "absent": {"y": np.ones(3)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_is_left_to_scipy(name):
    assert plain_array(saved(OTHERS[name]), "x") is None


def test_other_versions_and_byte_orders_are_left_to_scipy():
    assert plain_array(saved({"x": np.ones((2, 3))}, format="4"), "x") is None
    content = saved({"x": np.ones((2, 3))})
    assert plain_array(content[:126] + b"MI" + content[128:], "x") is None
    assert plain_array(b"", "x") is None


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_never_read_as_something_else(tmp_path, compressed):
    values = RNG.normal(size=(30, 6))
    content = saved({"x": values}, do_compression=compressed)
    path = tmp_path / "x.mat"
    for length in range(0, len(content) - 1, 7):
        assert plain_array(content[:length], "x") is None
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="not a readable MATLAB file"):
        read_variable(path, "x")
    path.write_bytes(content)
    np.testing.assert_array_equal(read_variable(path, "x"), values)
