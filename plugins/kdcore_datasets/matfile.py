"""Reading one variable of a MATLAB file, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdcore import DataError
from kdcore_datasets.folders import existing_file


def read_variable(path: Path, name: str) -> np.ndarray:
    """The array called `name` in a MATLAB file (up to version 7).

    Raises:
        DataError: If the file is unreadable, damaged, of another format, or lacks the variable.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(existing_file(path), appendmat=False)
    except DataError:
        raise
    except NotImplementedError as error:
        raise DataError(f"{path}: saved in MATLAB's version 7.3 format; save it with -v7 instead") from error
    except Exception as error:  # scipy reports damage by many kinds of exception
        raise DataError(f"{path}: not a readable MATLAB file ({_reason(error)})") from error
    if name not in content:
        there = ", ".join(sorted(key for key in content if not key.startswith("__"))) or "nothing"
        raise DataError(f"{path}: has no variable {name!r} (it holds {there})")
    values = np.asarray(content[name])
    if values.dtype.kind not in "fiu":
        raise DataError(f"{path}: variable {name!r} is not an array of numbers")
    return values


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
