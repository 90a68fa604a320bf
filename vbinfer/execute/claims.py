"""Who works on which shard: locks that end with their process, so that writers of one store share the work."""

import errno
import os
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has none; two writers then repeat each other's work, and write the same bytes
    fcntl = None

_FILE = ".claims"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


class Claims:
    """Locks on the numbers of shards in one folder, one byte of the file `.claims` for each.

    POSIX record locks: the system frees them when a process ends, however it ends, and network file systems pass them
    on to other computers. Where a file system has none, every claim is granted: what two writers then write of the
    same shard is the same.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._file = folder / _FILE, None

    def take(self, shard: int) -> bool:
        """Claim a shard; False if another process has it."""
        return self._lock(shard, exclusive=True)

    def leave(self, shard: int) -> None:
        """Free a shard, finished or not."""
        self._lock(shard, exclusive=False)

    def close(self) -> None:
        """Free everything."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lock(self, shard: int, *, exclusive: bool) -> bool:
        if fcntl is None:
            return True
        locks: Any = fcntl
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            locks.lockf(self._file, locks.LOCK_EX | locks.LOCK_NB if exclusive else locks.LOCK_UN, 1, shard)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN) and self._file is not None:
                return False
            if error.errno in _UNSUPPORTED:
                return True
            raise
        return True
