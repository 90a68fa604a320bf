"""A folder of finished draws: a manifest that says of which study, and one file per shard. Arrays and JSON only."""

import dataclasses
import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vbinfer import _io

Rows = dict[str, np.ndarray]
"""Arrays that share their first axis, one row per draw: `theta/<path>`, `x`."""

_MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Store:
    """Shards of draws in a folder; a shard is there whole, or not at all.

    `manifest.json` holds the study (prior, simulator, key, batch size, dtype, names) and the versions that began it.
    `shard-000000.npz` holds the rows `[0, batch_size)`, and so on, with the SHA-256 of its arrays. A shard that is
    shorter (the last one, or one that was interrupted) is completed when more draws are asked for.
    """

    folder: Path
    study: dict[str, Any]

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
        store = cls(folder, json.loads(_io.to_json(dict(study))))
        if any(folder.glob("shard-*.npz")):
            store._compare(read_manifest(folder))
        else:
            store._begin()
        return store

    def _begin(self) -> None:
        manifest = {"format": _io.FORMAT, "versions": _io.versions(), "study": self.study}
        temporary = self.folder / f".{_MANIFEST}.{os.getpid()}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(_io.to_json(manifest, indent=1))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / _MANIFEST)

    def _compare(self, manifest: Mapping[str, Any]) -> None:
        found = manifest["study"]
        names = sorted({*found, *self.study})
        changed = [name for name in names if found.get(name) != self.study.get(name)]
        if changed:
            lines = [line for name in changed for line in _difference(name, found.get(name), self.study.get(name))]
            raise ValueError(
                f"the store {str(self.folder)!r} holds draws of another study:\n" + "\n".join(lines) + "\n"
                "Give another folder (store=...), or repeat the call that began this one; nothing was changed."
            )
        now = _io.versions()
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
        """Write a shard, all or nothing; an earlier, shorter one is replaced."""
        start = shard * self.study["batch_size"]
        n = len(next(iter(rows.values())))
        header = {"shard": shard, "start": start, "stop": start + n, "sha256": checksum(rows)}
        _io.write(self.path(shard), "shard", header, rows)

    def read(self, shard: int) -> Rows | None:
        """The rows of a shard; None if it is not there. A damaged file is set aside, with a warning."""
        path = self.path(shard)
        if not path.exists():
            return None
        try:
            return _read_shard(path, shard * self.study["batch_size"])
        except ValueError as error:
            aside = path.with_name(path.name + ".corrupt")
            os.replace(path, aside)
            warnings.warn(f"{error}. It was set aside as {aside.name}; its draws are simulated again", stacklevel=3)
            return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store.

    Raises:
        ValueError: there is none, it cannot be read, or it has another format version.
    """
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, maker, _ = manifest["format"], manifest["versions"].get("vbinfer"), manifest["study"]["batch_size"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(folder)!r} has no readable {_MANIFEST}; give another folder (store=...)") from error
    if version != _io.FORMAT:
        raise ValueError(
            f"the store {str(folder)!r} has format {version}, written by vbinfer {maker}; "
            f"this vbinfer reads format {_io.FORMAT}. Use that version, or give another folder"
        )
    return manifest


def read_store(folder: str | Path) -> tuple[dict[str, Any], Rows]:
    """`(study, rows)` of every whole shard of a store, in order, without changing it."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    size = manifest["study"]["batch_size"]
    shards = [_read_shard(path, size * int(path.stem.split("-")[1])) for path in sorted(folder.glob("shard-*.npz"))]
    if not shards:
        raise ValueError(f"the store {str(folder)!r} holds no finished draws yet")
    return manifest["study"], {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}


def checksum(rows: Rows) -> str:
    """SHA-256 over names, types, shapes and bytes of arrays."""
    digest = hashlib.sha256()
    for name in sorted(rows):
        value = np.ascontiguousarray(rows[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _read_shard(path: Path, start: int) -> Rows:
    kind, header, rows = _io.read(path)
    if kind != "shard" or header.get("start") != start or header.get("sha256") != checksum(rows):
        raise ValueError(f"{path} does not hold what its header says")
    return rows


def _difference(name: str, was: Any, now: Any) -> list[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        keys = [key for key in {**was, **now} if was.get(key) != now.get(key)]
        return [line for key in keys for line in _difference(f"{name} {key!r}", was.get(key), now.get(key))]
    return [f"  {name}: the store has {_short(was)}, this call has {_short(now)}"]


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 90 else text[:86] + " ..."
