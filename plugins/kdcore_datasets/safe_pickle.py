"""Reading pickles that may hold plain containers and NumPy arrays, and nothing that can run code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from kdcore import DataError

_PERMITTED = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    ),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PERMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}; only plain containers and NumPy arrays are read")
        return super().find_class(module, name)


def read_pickle(path: Path) -> Any:
    """The content of a pickle.

    Raises:
        DataError: If it is damaged, or asks for anything but containers and arrays, naming that.
    """
    try:
        with open(path, "rb") as file:
            return _Unpickler(file).load()
    except Exception as error:  # damaged pickles raise nearly anything
        raise DataError(f"{path}: cannot be read as a pickle of arrays ({error or type(error).__name__})") from error
