"""Locks on shards, so that writers share work.

They end with their process.
"""

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has none; two writers then repeat each other's work, and write the same bytes
    fcntl = None

_FILE = ".claims"
_STUDY = 2**40
"""The byte that stands for the study of a store: those who work on it share it."""
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


class Claims:
    """Locks on the shards of a folder.

    One byte of the file `.claims` stands for each.
    POSIX record locks: the system frees them when a process ends, however it ends, and network file systems pass them
    on to other computers. Where a file system has none, or the file may not be opened, every claim is granted: what two
    writers then write of the same shard is the same. Blind to: threads of one process; a computer that lost its power
    while it held locks of a network file system, whose server may keep them (delete `.claims` then).
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._file = folder / _FILE, None

    def acquire(self, shard: int) -> bool:
        """Claim a shard; False if another process has it."""
        return self._lock(shard, "LOCK_EX")

    def release(self, shard: int) -> None:
        """Free a shard, finished or not."""
        self._lock(shard, "LOCK_UN")

    def alone(self) -> bool:
        """Whether nobody else works on this store.

        Nobody else can begin to until `share`.
        """
        return self._lock(_STUDY, "LOCK_EX")

    def share(self) -> None:
        """Be known to work on this store, until `close`."""
        self._lock(_STUDY, "LOCK_SH")

    def close(self) -> None:
        """Free everything."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lock(self, byte: int, how: str) -> bool:
        if fcntl is None:
            return True
        locks: Any = fcntl
        try:
            if self._file is None:
                self._file = self._opened()
            # never wait: who does not get a claim takes another shard
            wait = 0 if how == "LOCK_UN" else locks.LOCK_NB
            locks.lockf(self._file, getattr(locks, how) | wait, 1, byte)
        except OSError as error:
            if self._file is not None and error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if self._file is None or error.errno in _UNSUPPORTED:
                return True
            raise
        return True

    def _opened(self) -> int:
        """Open the file for all writers.

        All who may write to the folder may lock, whatever the umask is.
        """
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        with contextlib.suppress(OSError):
            os.fchmod(file, stat.S_IMODE(self._path.parent.stat().st_mode) & 0o666)
        return file
