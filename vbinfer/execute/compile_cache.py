"""A cache of compiled programs on disk."""

import contextlib
import hashlib
import importlib
import importlib.metadata
import os
import platform
import tempfile
import warnings
import zlib
from pathlib import Path

import jax

_SLOW = 0.05
"""Seconds of compilation from which a program is kept; smaller ones take as long to read."""

_ZLIB = b"x"
"""The first byte of what zlib compresses."""

_CHOSEN: list[str] = []

_MOST = 1_000_000_000
"""Bytes; what was used least recently goes first."""


def use_cache(folder: str | Path = "~/.cache/vbinfer") -> Path | None:
    """Keep compiled programs in a folder, from now on.

    Those that are there are not compiled again; call it before the first program, as `vb.use_cores`. The numbers are
    the same with and without (same processor, number of cores and versions: each has a folder of its own inside).
    Programs are machine code, which runs when it is loaded: the folder must be yours alone, and is no part of a run
    that is given to others. Above 1 GB the programs that were not used for longest are deleted.

    Args:
        folder: where to; made if it is not there.

    Returns:
        The folder of this machine; None, and nothing is changed, if it cannot be written.

    Warns:
        UserWarning: the folder is another user's, or others may write to it; it is not used.
    """
    try:
        place = Path(folder).expanduser() / machine()
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=place):
            pass
    except (OSError, RuntimeError):  # the latter: nobody has a home here
        return None
    if not (_private(place) and _private(place.parent)):
        warnings.warn(
            f"compiled programs are not kept: others may write to {str(place)!r}, and what is there would be run. "
            f"Give a folder of your own: chmod 700 {place}",
            stacklevel=2,
        )
        return None
    _drop_damaged(place)
    _prune(place, _MOST)
    _CHOSEN.append(str(folder))
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SLOW)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # whether there is a cache is decided once, at the first program of a process
    importlib.import_module("jax.experimental.compilation_cache.compilation_cache").reset_cache()
    return place


def chosen() -> str | None:
    """The folder that was given last, for worker processes."""
    return _CHOSEN[-1] if _CHOSEN else None


def machine() -> str:
    """A name for what compiled programs depend on.

    The processor, the cores that this process may use, and the version of jaxlib.
    """
    flags = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        wanted = ("flags", "Features", "model name", "CPU part", "CPU implementer")
        flags = "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("NPROC", "")
    parts = (flags, platform.machine(), platform.processor(), platform.system(), cores, threads)
    version = importlib.metadata.version("jaxlib")
    return f"jaxlib-{version}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"


def _private(place: Path) -> bool:
    if not hasattr(os, "getuid"):
        return True
    status = place.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _drop_damaged(place: Path) -> None:
    """Delete half-written programs.

    JAX would neither read nor replace what a killed process left. Looks at what was written since the last time. JAX
    compresses with zlib, whose checksum tells, before Python 3.14.
    """
    mark = place / "checked"
    since = mark.stat().st_mtime if mark.exists() else 0.0
    with contextlib.suppress(OSError):  # another process does the same
        mark.touch()
        for path in place.glob("*-cache"):
            content = path.read_bytes() if path.stat().st_mtime >= since else b""
            try:
                if content[:1] == _ZLIB:
                    zlib.decompress(content)
            except zlib.error:
                path.unlink()


def _prune(place: Path, most: int) -> None:
    """Delete the least recently used beyond `most` bytes."""
    files = []
    for path in place.iterdir():
        with contextlib.suppress(OSError):  # another process does the same
            status = path.stat()
            files.append((max(status.st_mtime, status.st_atime), status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
