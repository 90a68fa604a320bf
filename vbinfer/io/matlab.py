"""Numeric matrices of MATLAB files, version 5.

That is what `save` writes without options, or with '-v6' and '-v7'. The format is that of "MAT-File Format" (The
MathWorks, R2012b, chapter 1): after 128 bytes, elements of a type, a size and bytes; a matrix is an element of
elements: flags, dimensions, name, numbers. Every size is compared with what is there before it is believed: one changed
byte of a file ends `scipy.io.loadmat` (1.17.1) in a segmentation fault. Cells, structures, text and complex or sparse
matrices are passed over.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x0800


def matrices(data: bytes, limit: int) -> dict[str, np.ndarray]:
    """The real numeric arrays of a file, by name.

    Args:
        data: the whole file.
        limit: bytes that compressed matrices may unpack to, all together.

    Raises:
        ValueError: another version, a damaged file, or one that unpacks to more; with the reason.
    """
    if len(data) < _HEADER or 0 in data[:4]:
        raise ValueError("it is of version 4, or no MATLAB file; save it in MATLAB with '-v7'")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("it is no MATLAB file")
    if struct.unpack(f"{order}H", data[124:126])[0] != 0x0100:
        raise ValueError("it is of version 7.3 (HDF5); save it in MATLAB with '-v7'")
    found: dict[str, np.ndarray] = {}
    for kind, content in _elements(data[_HEADER:], order):
        if kind == _COMPRESSED:
            content = _inflated(content, limit)
            limit -= len(content)
            pieces = list(_elements(content, order))
        else:
            pieces = [(kind, content)]
        for inner, matrix in pieces:
            if inner == _MATRIX:
                found |= _array(matrix, order)
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of the elements in `data`."""
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise ValueError("it ends in the middle of an element")
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start, end = place + 8, place + 8 + size
        # a tag is (type: 4 bytes, size: 4 bytes), padded to multiples of 8 with what follows it;
        # a small one is (size: 2, type: 2, content: up to 4 bytes)
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            start, end = place + 4, place + 4 + size
            if size > 4:
                raise ValueError(f"an element of its claims {size} bytes in the place of 4")
        if end > len(data):
            raise ValueError(f"an element of its claims {size:,} bytes where {len(data) - start:,} are left")
        yield kind, data[start:end]
        place = end if kind == _COMPRESSED else max(-(-end // 8) * 8, place + 8)


def _inflated(content: bytes, limit: int) -> bytes:
    unpack = zlib.decompressobj()
    try:
        data = unpack.decompress(content, limit + 1)
    except zlib.error as error:
        raise ValueError(f"a matrix of its cannot be unpacked: {error}") from error
    if len(data) > limit:
        raise ValueError(f"it unpacks to more than the {limit:,} bytes that are read")
    if not unpack.eof:
        raise ValueError("a compressed matrix of its ends too early")
    return data


def _array(content: bytes, order: str) -> dict[str, np.ndarray]:
    """The array of one matrix element, by its name.

    Nothing where it is of another class.
    """
    parts = list(_elements(content, order))
    if len(parts) < 4 or len(parts[0][1]) != 8 or parts[1][0] != 5 or len(parts[1][1]) % 4:
        return {}
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
    shape = tuple(np.frombuffer(parts[1][1], f"{order}i4").tolist())
    name, (kind, numbers) = parts[2][1].decode("latin-1"), parts[3]
    if flags & 0xFF not in _CLASSES or flags & _COMPLEX:
        return {}
    if parts[2][0] != 1 or kind not in _NUMBERS or min(shape, default=0) < 0:
        raise ValueError(f"the matrix {name!r} of its is not laid out as a matrix")
    dtype = np.dtype(order + _NUMBERS[kind])
    if len(numbers) % dtype.itemsize or len(numbers) // dtype.itemsize != int(np.prod(shape, dtype=object)):
        raise ValueError(f"the matrix {name!r} of its claims {list(shape)} and holds {len(numbers):,} bytes")
    values = np.frombuffer(numbers, dtype).reshape(shape, order="F")
    return {name: values.astype(_CLASSES[flags & 0xFF])}
