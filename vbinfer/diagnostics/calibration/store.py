"""A folder of finished chunks of a calibration study, so that an interrupted one goes on where it stopped."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vbinfer.draws.manifest import identity
from vbinfer.io import npz
from vbinfer.io.fingerprint import NUMBERS

_STUDY = "study.npz"


class OtherStudyError(ValueError):
    """A folder with chunks of another study than the one that asks for it."""


@dataclasses.dataclass(frozen=True)
class StudyStore:
    """`study.npz` says which study, `chunk-000000.npz` holds the posterior draws of the first data sets, and so on.

    The first chunk is always drawn again and compared with the one stored: that tells another source, or one trained
    anew, from the source that began the study.
    """

    folder: Path
    mark: str

    @classmethod
    def open(cls, folder: str | Path, study: Mapping[str, Any]) -> "StudyStore":
        """The store of this study, begun if there is none.

        Raises:
            ValueError: a file, a folder of other things, or the store of another study; the message says what differs.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"store={str(folder)!r} is a file; give the name of a folder, new or of an earlier study")
        now = json.loads(npz.to_json({**study, "numbers": NUMBERS}))
        if not (folder / _STUDY).is_file():
            if any(npz.mark(path, "study") != identity(now) for path in folder.glob("*.npz")):
                raise ValueError(f"store={str(folder)!r} holds other files; give a new folder")
            npz.write(folder / _STUDY, "calibration-study", {"study": now}, {})
        kind, header, _ = npz.read(folder / _STUDY)
        with npz.rebuilding(folder / _STUDY, header):
            was = {"kind": kind, **header["study"]}
            now = {"kind": "calibration-study", **now}
        differs = [f"  {name}: there {was.get(name)}, here {now[name]}" for name in now if was.get(name) != now[name]]
        if differs:
            lines = "\n".join(differs)
            raise OtherStudyError(
                f"store={str(folder)!r} holds another calibration study:\n{lines}\n"
                "Give another folder, or repeat the call that began this one; nothing was changed."
            )
        return cls(folder, identity(header["study"]))

    def get(self, start: int) -> dict[str, np.ndarray] | None:
        """The chunk that begins with data set `start`, or None."""
        path = self._path(start)
        if not path.is_file():
            return None
        kind, header, arrays = npz.read(path)
        if (kind, header.get("study"), header.get("start")) != ("calibration-study", self.mark, start):
            raise ValueError(f"{path} is no chunk {start} of this calibration study: delete it, and repeat the call")
        return arrays

    def put(self, start: int, part: Mapping[str, np.ndarray]) -> None:
        """Write a finished chunk; the first must equal what is there.

        Raises:
            ValueError: another source than the one that began the study.
        """
        there = self.get(start)
        if there is not None and any(not np.array_equal(there.get(name, ()), part[name]) for name in part):
            raise OtherStudyError(
                f"store={str(self.folder)!r} was begun with another source: the same question about the first data "
                "set now has another answer. Give another folder; nothing was changed."
            )
        if there is None:
            npz.write(self._path(start), "calibration-study", {"study": self.mark, "start": start}, part)

    def _path(self, start: int) -> Path:
        return self.folder / f"chunk-{start:06d}.npz"
