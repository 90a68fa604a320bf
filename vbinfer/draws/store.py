"""A store of draws: a folder of shards."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vbinfer.io import npz
from vbinfer.io.folder import Folder, Kind, foreign
from vbinfer.io.locks import Claims

Rows = dict[str, np.ndarray]
"""Arrays that share their first axis, one row per draw: `theta/<path>`, `x`, and `ys/<monitor>` of a series."""

SERIES = "ys/"
MANIFEST = "manifest.json"
DRAWS = Kind(
    head=MANIFEST,
    holds="draws",
    parts="shard-*.npz",
    label="shard",
    drift="new draws agree with those of a fresh run to rounding only",
    shared=True,
)


class Held(NamedTuple):
    """What a shard on disk says of itself.

    It holds `rows` draws, `failed` of them in vain.
    """

    shard: int
    rows: int
    failed: int
    path: Path


@dataclasses.dataclass(frozen=True)
class Store:
    """Shards of draws in a folder.

    `manifest.json` describes the study. `shard-000000.npz` holds the rows `[0, batch_size)`, and so on. A shard that is
    shorter (the last one, or one that was interrupted) is completed when more draws are asked for.
    `series-000000.npz` beside it holds the recordings of the same draws, where they are kept. `batch-000000.npz` is a
    batch that was finished before an earlier one of its shard when the run was interrupted; it goes when the shard is
    whole.

    Several processes may write to one store: each claims the shard it works on, and finds what the others finished.
    """

    folder: Folder

    @classmethod
    def open(cls, path: str | Path, study: Mapping[str, Any]) -> "Store":
        """Open or begin the store of this study.

        Raises as `Folder.open`.
        """
        return cls(Folder.open(path, study, DRAWS))

    @classmethod
    def of(cls, path: str | Path) -> "Store":
        """The store that is there, to read it.

        Raises as `read_head`.
        """
        return cls(Folder.of(path, DRAWS))

    @property
    def study(self) -> dict[str, Any]:
        """All on which the draws depend."""
        return self.folder.study

    @property
    def claims(self) -> Claims:
        """Locks on the shards."""
        return self.folder.claims

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder.path / _name("shard", shard)

    def write(self, shard: int, rows: Rows) -> None:
        """Write a shard, all or nothing.

        An earlier, shorter one is replaced, a longer one is kept.
        """
        start, n = self._start(shard), len(rows["x"])
        if (npz.mark(self.path(shard), "stop") or 0) >= start + n:  # of a longer run, on a file system without locks
            return
        plain, series = apart(rows)
        failed = int(np.sum(~np.isfinite(plain["x"]).all(axis=1)))
        place = {"shard": shard, "start": start, "stop": start + n}
        if series:  # first, so that a shard is never without the recordings of its draws
            self.folder.put(_name("series", shard), series, "series", **place)
        self.folder.put(_name("shard", shard), plain, "shard", **place, failed=failed)

    def _start(self, shard: int) -> int:
        return shard * self.study["batch_size"]

    def read(self, shard: int, *, series: bool = False, mend: bool = False) -> Rows | None:
        """Rows of a shard; None if missing or damaged.

        Its recordings are among them if asked for.
        With `mend` damaged files are set aside, with a warning; the shard must be claimed.
        """
        files = [_name("shard", shard)]
        if self.folder.missing(*files):
            return None
        try:
            rows = self.rows(shard)
            if self.study.get("series"):
                files.append(_name("series", shard))
                n, beside = len(rows["x"]), self.folder.path / files[1]
                if series:
                    return rows | self.recordings(shard, n)
                if npz.read_header(beside).get("stop", 0) - self._start(shard) < n:
                    raise foreign(beside)
            return rows
        except (ValueError, FileNotFoundError) as error:
            return self.folder.set_aside(error, *files) if mend else None

    def rows(self, shard: int) -> Rows:
        """The rows of a shard, checked; raises as `Folder.read`."""
        return self.folder.read(_name("shard", shard), self._wanted, start=self._start(shard))

    @property
    def _wanted(self) -> list[str]:
        return [*(f"theta/{name}" for name in self.study["theta"]), "x"]

    def recordings(self, shard: int, n: int) -> Rows:
        """Recordings of the first n draws of a shard.

        They are under their names in it. Raises as `Folder.read`.
        There may be more than the shard has draws, since they are written first.
        """
        name = _name("series", shard)
        if self.folder.missing(name):
            again = "make the call that filled this store once more, which repairs it"
            raise ValueError(f"{self.folder.path / name} is missing; {again}")
        found = self.folder.read(name, label="series", start=self._start(shard))
        if any(len(value) < n for value in found.values()):  # of an earlier, shorter run
            raise foreign(self.folder.path / name)
        return {name: value[:n] for name, value in found.items()}

    def early_batches(self) -> set[int]:
        """Numbers of the batches that wait for earlier ones."""
        names = (path.stem.removeprefix("batch-") for path in self.folder.path.glob("batch-*.npz"))
        return {int(name) for name in names if name.isdigit()}

    def keep_early(self, batch: int, rows: Rows) -> None:
        """Write a batch that cannot join its shard yet."""
        self.folder.put(_name("batch", batch), rows, "batch", batch=batch)

    def early_batch(self, batch: int) -> Rows | None:
        """A batch that waits for earlier ones.

        None if it is damaged. Its shard must be claimed.
        """
        name = _name("batch", batch)
        try:
            return self.folder.read(name, self._wanted, "batch", batch=batch)
        except FileNotFoundError:
            return None
        except ValueError as error:
            return self.folder.set_aside(error, name)

    def drop_early(self, batch: int) -> None:
        """Remove a batch that its shard holds now."""
        (self.folder.path / _name("batch", batch)).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[tuple[int, Rows]]:
        """`(first draw, rows)` of every shard, only read."""
        for path in sorted(self.folder.path.glob(DRAWS.parts)):
            number = path.stem.removeprefix("shard-")
            if not number.isdigit():
                raise foreign(path)
            yield self._start(int(number)), self.rows(int(number))


def apart(rows: Rows) -> tuple[Rows, Rows]:
    """Draws, and the recordings beside them."""
    series = {name: value for name, value in rows.items() if name.startswith(SERIES)}
    return {name: value for name, value in rows.items() if name not in series}, series


def _name(label: str, number: int) -> str:
    return f"{label}-{number:06d}.npz"


def held(path: str | Path) -> list[Held]:
    """Describe every shard without reading its draws."""
    found = []
    for part in sorted(Path(path).glob(DRAWS.parts)):
        try:
            header = npz.read_header(part)
        except FileNotFoundError:  # set aside by the one who writes, just now
            continue
        try:
            start, stop = int(header["start"]), int(header["stop"])
            found.append(Held(int(header["shard"]), stop - start, int(header["failed"]), part))
        except (KeyError, TypeError, ValueError) as error:
            raise foreign(part) from error
    return found
