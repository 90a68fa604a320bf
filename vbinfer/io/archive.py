"""Arrays from untrusted npz and npy files.

Sizes are compared before anything is unpacked.
No code runs (arrays of Python objects are refused) and nothing is unpacked to disk, so that a member called `../x` is
a name like any other.
"""

import bz2
import errno
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

LIMIT = 2**32
"""Bytes that a file may unpack to, or its own size where that is more: a small file that claims more is a trap."""
MEMBERS = 10_000
"""Members that an archive may list."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_END = 22  # bytes of the record that ends a zip, without its comment
_LONGEST_HEADER = 10_000  # characters of an npy header, as NumPy bounds it


def load(path: str | Path, limit: int = LIMIT) -> np.ndarray | dict[str, np.ndarray]:
    """Load the arrays of an npy or npz.

    Raises:
        ValueError: anything else, with the reason (callers add the name of the file and what to do).
        OSError: the machine's own troubles: no such file, no permission, too many open files.
    """
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(b"PK"):
            return arrays(file, limit)
        with understood():
            return _array(file, os.fstat(file.fileno()).st_size)


def arrays(file: IO[bytes], limit: int = LIMIT, only: str | None = None) -> dict[str, np.ndarray]:
    """Arrays of an open npz, perhaps `only` one.

    Raises as `load` does.
    """
    with understood(), zipfile.ZipFile(file) as archive:
        members = checked_members(archive, max(limit, os.fstat(file.fileno()).st_size))
        found = {}
        for member in members:
            if not member.filename.endswith(".npy"):
                raise ValueError(f"its member {member.filename!r} is no array")
            name = member.filename.removesuffix(".npy")
            if only not in (None, name):
                continue
            with archive.open(member) as stream:
                found[name] = _array(stream, member.file_size)
                if stream.read(1):  # reads to the end, where the checksum of the member is compared
                    raise ValueError(f"its member {member.filename!r} is longer than its array")
        return found


def checked_members(archive: zipfile.ZipFile, limit: int) -> list[zipfile.ZipInfo]:
    """Members of an archive, checked before unpacking.

    Raises:
        ValueError: too many members, or not as many as it says; two of one name, an encrypted one, or more bytes than
            `limit` when unpacked.
    """
    members = archive.infolist()
    if len(members) > MEMBERS:
        raise ValueError(f"it lists {len(members):,} members, and {MEMBERS:,} are the most that are read")
    names = set[str]()
    for member in members:
        if member.filename in names:
            raise ValueError(f"it has two members called {member.filename!r}")
        names.add(member.filename)
        if member.flag_bits & 0x1:
            raise ValueError(f"its member {member.filename!r} is encrypted")
    total = sum(member.file_size for member in members)
    if total > limit:
        raise ValueError(f"it claims to unpack to {total:,} bytes, and {limit:,} are the most that are read")
    counted = _count(archive)
    if counted not in (len(members), 0xFFFF):  # where a name or comment is damaged, it may swallow what comes next
        raise ValueError(f"it says that it has {counted:,} members, and lists {len(members):,}")
    return members


def _count(archive: zipfile.ZipFile) -> int:
    """Number of members by an archive's end record.

    zipfile does not compare it.
    """
    file = archive.fp
    assert file is not None
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2**16 - _END))
    tail = file.read()
    # the end record stands last, unless a comment follows: then the last of its marks is it
    bare = tail[-_END:].startswith(b"PK\x05\x06") and tail.endswith(b"\0\0")
    place = len(tail) - _END if bare else tail.rfind(b"PK\x05\x06")
    return int.from_bytes(tail[place + 10 : place + 12], "little")


def _array(stream: IO[bytes], size: int) -> np.ndarray:
    """One array from a stream of `size` bytes.

    Its header must claim no more and no less than these.
    """
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"it is in npy format {version[0]}.{version[1]}")
    shape, _, dtype = _HEADERS[version](stream, max_header_size=_LONGEST_HEADER)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are code as much as data")
    # compared before anything is allocated: a header of a few bytes can claim terabytes
    claimed, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or claimed != held:
        raise ValueError(f"it claims {list(shape)} of {dtype}, {claimed:,} bytes, and holds {held:,}")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False, max_header_size=_LONGEST_HEADER)


def bounded(stream: IO[bytes], limit: int) -> bytes:
    """Read a stream up to `limit` + 1 bytes.

    Memory grows with what is there, not with the limit.
    """
    blocks, total = [], 0
    while total <= limit and (block := stream.read(2**20)):
        blocks.append(block)
        total += len(block)
    return b"".join(blocks)[: limit + 1]


def text(opened: Callable[[], IO[bytes]], name: str, limit: int, packed: bool = False) -> str:
    """Text of a file or member, perhaps packed.

    By bz2. It is UTF-8, with or without a byte-order mark; old files of labels are Latin-1.

    Raises:
        ValueError: damaged, or more than `limit` bytes; `name` says of what.
    """
    try:
        with understood(), opened() as stream:
            data = bounded(bz2.BZ2File(stream) if packed else stream, limit)
    except ValueError as error:
        raise ValueError(f"{name}: {error}; copy the file again from where it came") from error
    if len(data) > limit:
        raise ValueError(f"{name} is larger than {limit:,} bytes; give a smaller one")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


@contextmanager
def understood() -> Iterator[None]:
    """Turn errors over damaged bytes into ValueError.

    zipfile and NumPy raise many kinds over bytes that they do not understand.
    A trouble of the machine stays what it is: a file that cannot be read now is not a damaged one.
    """
    try:
        yield
    except (ValueError, MemoryError):
        raise
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a seek to before the start, where offsets are damaged
            raise
        raise ValueError(f"it cannot be unpacked: {str(error)[:200]}") from error
    except Exception as error:  # BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, SyntaxError, ...
        raise ValueError(f"it cannot be unpacked: {str(error)[:200]}") from error
