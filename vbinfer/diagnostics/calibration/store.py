"""A folder of finished chunks of a calibration study, so that an interrupted one goes on where it stopped."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vbinfer import _io

_STUDY = "study.npz"


@dataclasses.dataclass(frozen=True)
class StudyStore:
    """`study.npz` says which study, `chunk-000000.npz` holds the posterior draws of the first data sets, and so on.

    The first chunk is always drawn again and compared with the one stored: that tells another source, or one trained
    anew, from the source that began the study.
    """

    folder: Path

    @classmethod
    def open(cls, folder: str | Path, study: Mapping[str, Any]) -> "StudyStore":
        """The store of this study, begun if there is none.

        Raises:
            ValueError: a file, a folder of other things, or the store of another study; the message says what differs.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"store={str(folder)!r} is a file; give the name of a folder, new or of an earlier study")
        now = json.loads(_io.to_json(dict(study)))
        if not (folder / _STUDY).is_file():
            if folder.is_dir() and any(folder.glob("*.npz")):
                raise ValueError(f"store={str(folder)!r} holds other files; give a new folder")
            _io.write(folder / _STUDY, "calibration-study", {"study": now}, {})
        kind, header, _ = _io.read(folder / _STUDY)
        with _io.rebuilding(folder / _STUDY, header):
            was = {"kind": kind, **header["study"]}
            now = {"kind": "calibration-study", **now}
        differs = [f"  {name}: there {was.get(name)}, here {now[name]}" for name in now if was.get(name) != now[name]]
        if differs:
            lines = "\n".join(differs)
            raise ValueError(
                f"store={str(folder)!r} holds another calibration study:\n{lines}\n"
                "Give another folder, or repeat the call that began this one; nothing was changed."
            )
        return cls(folder)

    def get(self, start: int) -> dict[str, np.ndarray] | None:
        """The chunk that begins with data set `start`, or None."""
        path = self._path(start)
        if not path.is_file():
            return None
        kind, _, arrays = _io.read(path)
        if kind != "calibration-study":
            raise ValueError(f"{path} holds a {kind!r}; expected a chunk of a calibration study: delete it, and repeat")
        return arrays

    def put(self, start: int, part: Mapping[str, np.ndarray]) -> None:
        """Write a finished chunk; the first must equal what is there.

        Raises:
            ValueError: another source than the one that began the study.
        """
        there = self.get(start)
        if there is not None and any(not np.array_equal(there.get(name, ()), part[name]) for name in part):
            raise ValueError(
                f"store={str(self.folder)!r} was begun with another source: the same question about the first data "
                "set now has another answer. Give another folder; nothing was changed."
            )
        if there is None:
            _io.write(self._path(start), "calibration-study", {}, part)

    def _path(self, start: int) -> Path:
        return self.folder / f"chunk-{start:06d}.npz"


def digest(*arrays: np.ndarray) -> str:
    """Short hash of arrays, shapes and types included."""
    total = hashlib.sha256()
    for value in arrays:
        array = np.ascontiguousarray(value)
        total.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
    return total.hexdigest()[:16]
