"""Resumable folders.

One file, the head, describes the study; every other file names the study by its `identity`. Whoever repeats the call
that began a folder finds what is finished and makes what is missing; another study is told what differs.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vbinfer.io import npz
from vbinfer.io.fingerprint import NUMBERS
from vbinfer.io.locks import Claims

Arrays = Mapping[str, np.ndarray]
_REPEAT = "delete it, and repeat the call"


class OtherStudyError(ValueError):
    """A folder or file of another study."""


class DamagedError(ValueError):
    """A head that is missing, or not what was written."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of folder.

    Attributes:
        head: the file that describes the study, `.json` or `.npz`.
        holds: what the folder holds, for messages.
        parts: pattern of the files that make a study a begun one.
        label: kind of the head and the parts where they are `.npz`.
        packages: installed packages that are recorded beside the study.
        drift: what other versions of them mean for what is added.
        shared: several processes may fill one folder at a time.
    """

    head: str
    holds: str
    parts: str
    label: str
    packages: tuple[str, ...] = ()
    drift: str = "what is added agrees with a fresh run to rounding only"
    shared: bool = False


class Head(NamedTuple):
    """A study, its versions and its arrays."""

    study: dict[str, Any]
    versions: dict[str, str]
    arrays: dict[str, np.ndarray]


def described(study: Mapping[str, Any]) -> dict[str, Any]:
    """A study as plain JSON, with `NUMBERS`."""
    return json.loads(npz.to_json({"numbers": NUMBERS, **study}))


def identity(study: Mapping[str, Any]) -> str:
    """A short name of a study.

    It is equal for equal ones, on any machine.
    """
    return _digest(study)[:16]


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for everything in which two studies differ."""
    changed = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    return [line for name in changed for line in _difference(name, was.get(name), now.get(name))]


def _difference(name: str, was: Any, now: Any) -> list[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        keys = [key for key in {**was, **now} if was.get(key) != now.get(key)]
        return [line for key in keys for line in _difference(f"{name} {key!r}", was.get(key), now.get(key))]
    return [f"  {name}: the store has {_short(was)}, this call has {_short(now)}"]


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 90 else text[:86] + " ..."


# ---- heads


def write_head(path: Path, kind: Kind, study: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    """Write the file that describes a study."""
    if path.suffix == ".npz":
        npz.write(path, kind.label, {"study": study, "versions": _versions(kind)}, arrays or {})
        return
    head = {"format": npz.FORMAT, "versions": _versions(kind), "study": study}
    npz.write_text(path, npz.to_json({**head, "sha256": _seal(head)}, indent=1) + "\n")


def read_head(path: Path, kind: Kind) -> Head:
    """What `write_head` wrote.

    Raises:
        DamagedError: there is none, or it cannot be read or was changed.
        ValueError: it has another format, or is the head of something else.
    """
    again = "give another folder (store=...), or make the call that began this store once more, which repairs it."
    if not path.is_file():
        raise DamagedError(f"{str(path.parent)!r} has no readable {path.name}; {again}")
    if path.suffix == ".npz":
        label, head, arrays = npz.read(path)
        if label != kind.label:
            raise ValueError(f"{path} holds a {label!r}; expected the file that describes {kind.holds}")
        with npz.rebuilding(path, head):
            return Head(dict(head["study"]), dict(head["versions"]), arrays)
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        found = Head(dict(head["study"]), dict(head["versions"]), {})
        version = head["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{str(path.parent)!r} has no readable {path.name}; {again}") from error
    if version != npz.FORMAT:
        raise ValueError(
            f"the store {str(path.parent)!r} has format {version}, written by vbinfer {found.versions.get('vbinfer')}; "
            f"this vbinfer reads format {npz.FORMAT}. Use that version, or give another folder"
        )
    if head.get("sha256") != _seal(head):
        raise DamagedError(f"{path} was changed after it was written: its SHA-256 does not fit; {again}")
    return found


def check_head(head: Head, study: Mapping[str, Any], place: str, kind: Kind) -> None:
    """Refuse another study; warn of other versions.

    Raises:
        OtherStudyError: with one line for everything that differs.
    """
    lines = differences(head.study, study)
    if lines:
        raise OtherStudyError(
            f"{place} holds {kind.holds} of another study:\n" + "\n".join(lines) + "\n"
            "Give another folder (store=...), or repeat the call that began this one; nothing was changed."
        )
    now = _versions(kind)
    moved = [f"{name} {was} -> {now.get(name)}" for name, was in head.versions.items() if now.get(name) != was]
    if moved:
        warnings.warn(f"{place} was begun with other versions ({', '.join(moved)}); {kind.drift}", stacklevel=6)


def _versions(kind: Kind) -> dict[str, str]:
    """Versions on which last bits depend."""
    return {**npz.versions(*kind.packages), "platform": jax.default_backend()}


def _seal(head: Mapping[str, Any]) -> str:
    return _digest({name: head[name] for name in ("format", "versions", "study")})


# ---- folders


@dataclasses.dataclass(frozen=True)
class Folder:
    """The folder of one study.

    Attributes:
        study: plain JSON values that say everything on which the numbers depend.
        claims: locks on its parts, for those who share the work.
    """

    path: Path
    kind: Kind
    study: dict[str, Any]
    claims: Claims

    @classmethod
    def of(cls, path: str | Path, kind: Kind) -> "Folder":
        """The folder that is there, of any study.

        Raises as `read_head`.
        """
        path = Path(path)
        return cls(path, kind, read_head(path / kind.head, kind).study, Claims(path))

    @classmethod
    def open(cls, path: str | Path, study: Mapping[str, Any], kind: Kind, arrays: Arrays | None = None) -> "Folder":
        """The folder of this study, begun if there is none.

        A head that is missing or damaged is written again where all parts are of this very study. As long as a shared
        folder has no part and nobody works in it, another study may begin in its place.

        Raises:
            OtherStudyError: the folder is of another study; the message lists what differs.
            ValueError: a file, a folder of other things, or one that a version with other files wrote.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise ValueError(f"store={str(path)!r} is a file; give the name of a folder, new or of an earlier run")
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path, kind, described(study), Claims(path))
        if not folder._begun(arrays):
            place = f"the store {str(path)!r}"
            check_head(read_head(path / kind.head, kind), folder.study, place, kind)
        if kind.shared:
            folder.claims.share()
        return folder

    def _begun(self, arrays: Arrays | None) -> bool:
        """Write the head where that takes nothing from anybody."""
        parts = [part for part in self.path.glob(self.kind.parts) if not part.name.startswith(".")]
        alone = self.kind.shared and not parts and self.claims.alone()
        try:
            was = read_head(self.path / self.kind.head, self.kind)
            if was.study == self.study or not alone:
                return alone
        except DamagedError as error:
            if any(npz.mark(part, "study") != self.mark for part in parts):
                raise DamagedError(f"{error} It holds other files; give a new folder") from error
            if self.kind.shared and not (parts or alone):  # of one who begins just now
                raise
            if (self.path / self.kind.head).exists():
                warnings.warn(f"{error} Its {self.kind.holds} are of this study: it was written again", stacklevel=6)
        except ValueError:
            if not alone:
                raise
        write_head(self.path / self.kind.head, self.kind, self.study, arrays)
        return True

    @property
    def mark(self) -> str:
        """The short name of the study, which every part carries."""
        return identity(self.study)

    def missing(self, *names: str) -> list[str]:
        """Those of the parts that are not there."""
        return [name for name in names if not (self.path / name).is_file()]

    def put(self, name: str, arrays: Arrays, label: str = "", **place: Any) -> None:
        """Write a part, all or nothing.

        `place` says which one it is, and is compared when it is read.

        Raises:
            OtherStudyError: another study was begun here since, on a file system without locks.
        """
        with contextlib.suppress(DamagedError):  # `open` repairs it
            lines = differences(read_head(self.path / self.kind.head, self.kind).study, self.study)
            if lines:
                raise OtherStudyError(
                    f"another study was begun in {str(self.path)!r} while this one ran:\n" + "\n".join(lines) + "\n"
                    "Give each a folder of its own (store=...); no more is written here."
                )
        npz.write(self.path / name, label or self.kind.label, {**place, "study": self.mark}, arrays)

    def read(self, name: str, wanted: Iterable[str] = (), label: str = "", **place: Any) -> dict[str, np.ndarray]:
        """The arrays of a part, checked.

        `wanted` names those that it must hold; more may be there.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is damaged, of another study or another part, or lacks arrays.
        """
        path = self.path / name
        kind, header, arrays = npz.read(path)
        if kind != (label or self.kind.label):
            expected = f"expected a file of the folder that {self.kind.head} describes"
            raise ValueError(f"{path} holds a {kind!r}; {expected}: {_REPEAT}")
        if any(header.get(key) != value for key, value in {"study": self.mark, **place}.items()):
            raise foreign(path, self.kind.head)
        if lacking := [one for one in wanted if one not in arrays]:
            raise ValueError(f"{path} lacks {', '.join(map(repr, lacking))}: {_REPEAT}")
        return arrays

    def set_aside(self, error: Exception, *names: str) -> None:
        """Rename damaged parts to `.corrupt`, with a warning.

        They are then made again. They must be claimed.
        """
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.path / name, self.path / f"{name}.corrupt")
        aside = " and ".join(f"{name}.corrupt" for name in names)
        warnings.warn(f"{error}. It was set aside as {aside}; its {self.kind.holds} are made again", stacklevel=4)


def foreign(path: Path, head: str = "its folder") -> ValueError:
    """Error for a misplaced part."""
    return ValueError(f"{path} does not hold what its header says, or is of another study than {head} says: {_REPEAT}")
