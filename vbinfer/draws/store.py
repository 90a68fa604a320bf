"""A folder of finished draws: a manifest that says of which study, and one file per shard. Arrays and JSON only."""

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vbinfer.draws.manifest import DamagedError, differences, identity, makers, read_manifest, write_manifest
from vbinfer.io import npz
from vbinfer.io.locks import Claims

Rows = dict[str, np.ndarray]
"""Arrays that share their first axis, one row per draw: `theta/<path>`, `x`, and `ys/<monitor>` of a series."""

SERIES = "ys/"


class Held(NamedTuple):
    """What a shard on disk says of itself: `rows` draws, `failed` of them, from draw `start` on."""

    shard: int
    start: int
    rows: int
    failed: int
    path: Path


@dataclasses.dataclass(frozen=True)
class Store:
    """Shards of draws in a folder; a shard is there whole, or not at all.

    `manifest.json` holds the study (prior, simulator, key, batch width, shard size, dtype, names), the versions that
    began it and the SHA-256 of both. `shard-000000.npz` holds the rows `[0, batch_size)`, and so on; its header names
    the study.
    A shard that is shorter (the last one, or one that was interrupted) is completed when
    more draws are asked for. `series-000000.npz` beside it holds the recordings of the same draws, where they are kept.

    Several processes may write to one store: each claims the shard it works on, and finds what the others finished.
    """

    folder: Path
    study: dict[str, Any]
    claims: Claims

    @classmethod
    def open(cls, folder: str | Path, study: Mapping[str, Any]) -> "Store":
        """The store of this study in `folder`, begun if there is none.

        Raises:
            ValueError: the folder holds another study (the message lists what differs), or something else.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"store={str(folder)!r} is a file; give the name of a folder, new or of an earlier run")
        folder.mkdir(parents=True, exist_ok=True)
        store = cls(folder, json.loads(npz.to_json(dict(study))), Claims(folder))
        if any(folder.glob("shard-*.npz")) or not store._begun():
            store._compare(store._manifest())
        store.claims.share()
        return store

    def _begun(self) -> bool:
        """Begin this study, in place of another one that has no shards yet, unless somebody is at work on that."""
        if not self.claims.alone():
            return False
        try:
            same = read_manifest(self.folder)["study"] == self.study
        except ValueError:
            same = False
        if not same:
            write_manifest(self.folder, self.study)
        return True

    def _manifest(self) -> dict[str, Any]:
        """The manifest; written again where it is damaged and the shards are those of this very study."""
        try:
            return read_manifest(self.folder)
        except DamagedError as error:
            marks = {npz.read_header(path).get("study") for path in sorted(self.folder.glob("shard-*.npz"))}
            if marks != {identity(self.study)}:
                raise
            warnings.warn(f"{error} Its shards are of this study: it was written again", stacklevel=5)
            write_manifest(self.folder, self.study)
            return read_manifest(self.folder)

    def _compare(self, manifest: Mapping[str, Any]) -> None:
        lines = differences(manifest["study"], self.study)
        if lines:
            raise ValueError(
                f"the store {str(self.folder)!r} holds draws of another study:\n" + "\n".join(lines) + "\n"
                "Give another folder (store=...), or repeat the call that began this one; nothing was changed."
            )
        now = makers()
        moved = [
            f"{name} {was} -> {now.get(name)}" for name, was in manifest["versions"].items() if now.get(name) != was
        ]
        if moved:
            warnings.warn(
                f"the store {str(self.folder)!r} was begun with other versions ({', '.join(moved)}); "
                f"new draws agree with those of a fresh run to rounding only",
                stacklevel=4,
            )

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"shard-{shard:06d}.npz"

    def write(self, shard: int, rows: Rows) -> None:
        """Write a shard, all or nothing; an earlier, shorter one is replaced, a longer one is kept."""
        start, n = shard * self.study["batch_size"], len(rows["x"])
        if self._rows_on_disk(shard) >= n:
            return
        self._check_study()
        plain = {name: value for name, value in rows.items() if not name.startswith(SERIES)}
        series = {name: value for name, value in rows.items() if name.startswith(SERIES)}
        failed = int(np.sum(~np.isfinite(plain["x"]).all(axis=1)))
        place = {"shard": shard, "start": start, "stop": start + n, "study": identity(self.study)}
        if series:  # first, so that a shard is never without the recordings of its draws
            npz.write(_beside(self.path(shard)), "series", place, series)
        npz.write(self.path(shard), "shard", {**place, "failed": failed}, plain)

    def _check_study(self) -> None:
        """On a file system without locks another study may have been begun here since."""
        try:
            lines = differences(read_manifest(self.folder)["study"], self.study)
        except DamagedError:
            return  # `open` repairs it
        if lines:
            raise ValueError(
                f"another study was begun in {str(self.folder)!r} while this one ran:\n" + "\n".join(lines) + "\n"
                "Give each a folder of its own (store=...); no more is written here."
            )

    def _rows_on_disk(self, shard: int) -> int:
        try:
            header = npz.read_header(self.path(shard))
            return int(header["stop"]) - int(header["start"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0

    def read(self, shard: int, *, series: bool = False, mend: bool = False) -> Rows | None:
        """The rows of a shard, those of its series too if asked for; None if it is not there, or damaged.

        With `mend` damaged files are set aside, with a warning; the shard must be claimed.
        """
        path, start = self.path(shard), shard * self.study["batch_size"]
        beside = _beside(path)
        if not path.exists():
            return None
        try:
            rows = _read_part(path, "shard", start, self.study)
        except (ValueError, FileNotFoundError) as error:
            return _set_aside(error, path) if mend else None
        if not self.study.get("series"):
            return rows
        try:
            n = len(rows["x"])
            if series:
                return rows | _recordings(beside, start, n, self.study)
            if npz.read_header(beside).get("stop", 0) - start < n:  # it may be ahead of its shard: it is written first
                raise _foreign(beside)
            return rows
        except (ValueError, FileNotFoundError) as error:
            return _set_aside(error, path, beside) if mend else None


def _beside(path: Path) -> Path:
    """The file of the recordings of a shard."""
    return path.with_name(path.name.replace("shard-", "series-", 1))


def _set_aside(error: Exception, *paths: Path) -> None:
    """Rename damaged files, and what goes with them."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, path.with_name(path.name + ".corrupt"))
    names = " and ".join(f"{path.name}.corrupt" for path in paths)
    warnings.warn(f"{error}. It was set aside as {names}; its draws are simulated again", stacklevel=4)


def _recordings(path: Path, start: int, n: int, study: Mapping[str, Any]) -> Rows:
    """The recordings of the first n draws from `start` on, under their names in a shard."""
    found = _read_part(path, "series", start, study)
    if any(len(value) < n for value in found.values()):
        raise _foreign(path)
    return {name: value[:n] for name, value in found.items()}


def held(folder: str | Path) -> list[Held]:
    """What every shard of a store says of itself, in order, without reading its draws."""
    found = []
    for path in sorted(Path(folder).glob("shard-*.npz")):
        try:
            header = npz.read_header(path)
        except FileNotFoundError:  # set aside by the one who writes, just now
            continue
        try:
            start, stop = int(header["start"]), int(header["stop"])
            found.append(Held(int(header["shard"]), start, stop - start, int(header["failed"]), path))
        except (KeyError, TypeError, ValueError) as error:
            raise _foreign(path) from error
    return found


def iter_shards(folder: str | Path) -> Iterator[tuple[int, Rows]]:
    """`(first draw, rows)` of every shard that is there now, checked, without changing the store."""
    study = read_manifest(Path(folder))["study"]
    for path in sorted(Path(folder).glob("shard-*.npz")):
        start = study["batch_size"] * _number(path)
        yield start, _read_part(path, "shard", start, study)


def read_shard(part: Held, study: Mapping[str, Any]) -> Rows:
    """The rows of a shard with its recordings, checked, without changing anything."""
    rows = _read_part(part.path, "shard", part.start, study)
    if not study.get("series"):
        return rows
    return rows | _recordings(_beside(part.path), part.start, len(rows["x"]), study)


def iter_series(folder: str | Path) -> Iterator[Rows]:
    """The recordings of every shard, `{monitor: y}`, as many as the shard has draws."""
    study = read_manifest(Path(folder))["study"]
    for part in held(folder):
        path = _beside(part.path)
        if not path.exists():
            raise ValueError(f"{path} is missing; make the call that filled this store once more, which repairs it")
        ys = _recordings(path, part.start, part.rows, study)
        yield {name.removeprefix(SERIES): y for name, y in ys.items()}


def read_store(folder: str | Path) -> tuple[dict[str, Any], Rows]:
    """`(study, rows)` of every whole shard of a store, in order, without changing it."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    shards = [rows for _, rows in iter_shards(folder)]
    if not shards:
        raise ValueError(f"the store {str(folder)!r} holds no finished draws yet")
    return manifest["study"], {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}


def _read_part(path: Path, what: str, start: int, study: Mapping[str, Any]) -> Rows:
    kind, header, rows = npz.read(path)
    n = len(next(iter(rows.values()), ()))
    expected = {"start": start, "stop": start + n, "study": identity(study)}
    if kind != what or any(header.get(name) != value for name, value in expected.items()):
        raise _foreign(path)
    return rows


def _number(path: Path) -> int:
    try:
        return int(path.stem.split("-")[1])
    except ValueError as error:
        raise _foreign(path) from error


def _foreign(path: Path) -> ValueError:
    return ValueError(f"{path} does not hold what its header says, or is of another study")
