"""Reader for plain arrays in MATLAB files of version 5 to 7, several times faster than SciPy, which reads all other files.

Format: MATLAB, MAT-File Format, 2024, https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf.
"""

from __future__ import annotations

import struct
import zlib
from math import prod

import numpy as np

COMPRESSED, MATRIX = 15, 14
"""Types of data elements."""

_NUMBERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
"""Number types by type of data element."""

_CLASSES = range(6, 16)
"""Classes of numeric arrays."""

_MODIFIED = 0x0E00
"""Flags of complex, global and logical arrays."""

_HEAD = b"\x00\x01IM"
"""End of the header of a little-endian file of version 5 to 7."""


def plain_array(content: bytes, name: str) -> np.ndarray | None:
    """Return the array `name` as `scipy.io.loadmat` does, or None unless it is real, dense and the first variable.

    Args:
        content: Content of the file.
        name: Name of the variable.
    """
    if content[124:128] != _HEAD:
        return None
    try:
        kind, size = struct.unpack_from("<II", content, 128)
        element = memoryview(content)[136 : 136 + size]
        if kind == COMPRESSED:
            element = memoryview(zlib.decompress(element))
            kind, size = struct.unpack_from("<II", element)
            element = element[8 : 8 + size]
        if kind != MATRIX or len(element) != size:
            return None
        (_, flags), place = _part(element, 0)
        (_, shape), place = _part(element, place)
        (_, called), place = _part(element, place)
        (stored, values), _ = _part(element, place)
        (mark,) = struct.unpack_from("<I", flags)
        dims = struct.unpack(f"<{len(shape) // 4}i", shape)
        dtype = np.dtype(_NUMBERS[stored])
    except (struct.error, zlib.error, KeyError, ValueError):
        return None
    if mark & 0xFF not in _CLASSES or mark & _MODIFIED or bytes(called) != name.encode("latin1", "replace"):
        return None
    if prod(dims) * dtype.itemsize != len(values):
        return None
    return np.frombuffer(bytearray(values), dtype).reshape(dims, order="F")


def _part(element: memoryview, place: int) -> tuple[tuple[int, memoryview], int]:
    """Return type and content of the element at `place`, and the offset of the next one."""
    kind, size = struct.unpack_from("<II", element, place)
    if kind >> 16:  # at most four bytes, stored in the size field
        kind, size, start, after = kind & 0xFFFF, kind >> 16, place + 4, place + 8
    else:
        start = place + 8
        after = start + size + -size % 8
    content = element[start : start + size]
    if len(content) != size:
        raise ValueError("cut short")
    return (kind, content), after
