"""Checks of disk and memory before a run."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


class Need(NamedTuple):
    """A number of bytes, and how it came about."""

    bytes: int
    arithmetic: str


def draws_size(n: int, features: int, parameters: int = 0, *, itemsize: int = 4) -> Need:
    """Bytes of n draws.

    n x (features + parameters) x itemsize

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


def check_disk(folder: str | Path, needed: Need) -> None:
    """Refuse what does not fit on the disk.

    The folder need not exist yet.

    Blind to: quotas of a user below the free space of the disk, and what others will write meanwhile.

    Raises:
        RuntimeError: less is free than is needed; the message has the arithmetic.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed.bytes > free:
        raise RuntimeError(
            f"{needed.arithmetic}; {format_bytes(free)} free in {str(folder)!r}. "
            f"Free some space, give a folder on another disk, or ask for fewer draws or features"
        )


_ON_DISK = (
    "Keep the draws on disk: vb.stores.simulate_store(..., store='runs/store') or `vbinfer simulate study.toml` holds "
    "one batch at a time"
)


def check_memory(needed: Need, remedy: str = _ON_DISK) -> None:
    """Refuse what does not fit into available memory.

    `remedy` ends the message.

    Blind to: what other processes take meanwhile, and the memory of an accelerator.

    Raises:
        RuntimeError: less is available than is needed; the message has the arithmetic and says which limit it is.
    """
    # of the machine, of its control groups (containers, batch systems; versions 1 and 2) and of RLIMIT_AS the least
    room, limit = min(_rooms())
    if needed.bytes > room:
        raise RuntimeError(f"{needed.arithmetic}; {format_bytes(max(room, 0))} of memory available ({limit}). {remedy}")


def _rooms() -> Iterator[tuple[int, str]]:
    """Bytes left under each known limit, with its name."""
    import psutil

    yield psutil.virtual_memory().available, "free in this machine"
    for path, room in _group_rooms():
        yield room, f"limit of the control group {path}, of a container or batch job"
    room = _address_room()
    if room is not None:
        yield room, "limit of address space, `ulimit -v`"


def _address_room() -> int | None:
    """Bytes left under RLIMIT_AS, if there is one."""
    import psutil

    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit - psutil.Process().memory_info().vms


def _group_rooms() -> Iterator[tuple[str, int]]:
    """Path and bytes left of limited control groups.

    From that of this process up to the root. Inside a container the path may be that of the host, where nothing is
    mounted: the root is then its own group.
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
    """Bytes that a group may still use.

    Pages of files that can be dropped count as free.
    """
    try:
        most, used = (place / limit).read_text().strip(), int((place / usage).read_text())
        if most == "max" or int(most) > 2**60:  # version 1 writes a huge number for "none"
            return None
        stat = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return int(most) - used + int(stat.get(cache, 0))
