"""Room on the disk and in memory: what there is, what is needed, and a refusal with the arithmetic."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


class Need(NamedTuple):
    """A number of bytes, and how it came about."""

    bytes: int
    arithmetic: str


class Peak(NamedTuple):
    """Most memory that was resident at one time, in bytes: of this process, and of the largest that it waited for.

    Blind to: processes that still run. On Linux a child's figure is never below its parent's when it was started.
    """

    own: int
    child: int


def draws_size(n: int, features: int, parameters: int = 0, *, itemsize: int = 4) -> Need:
    """Bytes of n draws: n x (features + parameters) x itemsize.

    >>> draws_size(100_000, 4_371).arithmetic
    '100,000 draws x 4,371 features x 4 bytes = 1.7 GB'
    """
    size = n * (features + parameters) * itemsize
    row = f"{features:,} features" if not parameters else f"({features:,} features + {parameters:,} parameters)"
    return Need(size, f"{n:,} draws x {row} x {itemsize} bytes = {format_bytes(size)}")


def format_bytes(size: float) -> str:
    """A number of bytes as people write it.

    >>> format_bytes(1_748_400_000), format_bytes(12_300)
    ('1.7 GB', '12 kB')
    """
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:.1f} {unit}" if size < 10 * one else f"{size / one:,.0f} {unit}"
    return f"{int(size)} bytes"


def check_disk(folder: str | Path, needed: Need | int) -> None:
    """Refuse what does not fit on the disk of a folder, which need not exist yet.

    Blind to: quotas of a user below the free space of the disk, and what others will write meanwhile.

    Raises:
        RuntimeError: less is free than is needed; the message has the arithmetic.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    size, arithmetic = _need(needed)
    if size > free:
        raise RuntimeError(
            f"{arithmetic}; {format_bytes(free)} free in {str(folder)!r}. "
            f"Free some space, give a folder on another disk, or ask for fewer draws or features"
        )


def check_memory(needed: Need | int) -> None:
    """Refuse what does not fit into the memory that this process may still use.

    Blind to: what other processes take meanwhile, and the memory of an accelerator.

    Raises:
        RuntimeError: less is available than is needed; the message has the arithmetic and says which limit it is.
    """
    rooms = list(_rooms())
    size, arithmetic = _need(needed)
    if not rooms or size <= min(rooms)[0]:
        return
    room, limit = min(rooms)
    raise RuntimeError(
        f"{arithmetic}; {format_bytes(max(room, 0))} of memory available ({limit}). Keep the draws on disk: "
        f"vb.simulate_store(..., store='runs/store') or `vbinfer simulate study.toml` holds one batch at a time"
    )


def available_memory() -> int | None:
    """Bytes that this process may still use: the least of what the machine has left, the limits of its control groups
    (containers, batch systems; versions 1 and 2) and RLIMIT_AS. None where the system does not say.
    """
    return max(0, min(_rooms())[0]) if any(True for _ in _rooms()) else None


def peak_memory() -> Peak:
    """Peak resident memory so far; zeros where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return Peak(0, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    own, child = (resource.getrusage(who).ru_maxrss * unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Peak(_status("VmHWM") or own, child)  # ru_maxrss begins with that of the program that was replaced


def _need(needed: Need | int) -> Need:
    return needed if isinstance(needed, Need) else Need(int(needed), f"{format_bytes(int(needed))} are needed")


def _rooms() -> Iterator[tuple[int, str]]:
    """Bytes left under each limit that is known, with its name."""
    free = _meminfo()
    if free is not None:
        yield free, "free in this machine"
    for path, room in _group_rooms():
        yield room, f"limit of the control group {path}, of a container or batch job"
    room = _address_room()
    if room is not None:
        yield room, "limit of address space, `ulimit -v`"


def _meminfo() -> int | None:
    try:
        lines = (_PROC / "meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:  # macOS: all of it, as what is free is not said
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _status(field: str) -> int:
    """A size in /proc/self/status, in bytes; 0 if it is not there."""
    try:
        lines = (_PROC / "self" / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return 0


def _address_room() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit - _status("VmSize")


def _group_rooms() -> Iterator[tuple[str, int]]:
    """`(path, bytes left)` of every control group of this process that has a limit, up to the root.

    Inside a container the path may be that of the host, where nothing is mounted: the root is then its own group.
    """
    try:
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = _CGROUP, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = _CGROUP / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = root / path.strip("/")
        for place in (group, *group.parents):
            room = _room(place, *names)
            if room is not None:
                yield "/" + str(place.relative_to(root)).strip("."), room
            if place == root:
                break


def _room(place: Path, limit: str, usage: str, cache: str) -> int | None:
    """What a group may still use; pages of files that can be dropped count as free."""
    try:
        most, used = (place / limit).read_text().strip(), int((place / usage).read_text())
        if most == "max" or int(most) > 2**60:  # version 1 writes a huge number for "none"
            return None
        stat = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return int(most) - used + int(stat.get(cache, 0))
