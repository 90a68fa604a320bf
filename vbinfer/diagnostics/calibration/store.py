"""Stored posteriors of a calibration study."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vbinfer.io.folder import Folder, Kind, OtherStudyError

POSTERIORS = Kind(head="study.npz", holds="posteriors", parts="*.npz", label="calibration-study")


@dataclasses.dataclass(frozen=True)
class StudyStore:
    """Finished chunks of a calibration study.

    `study.npz` describes the study, `chunk-000000.npz` holds the posterior draws of the first data sets, and so on. The
    first chunk is always drawn again and compared with the one stored: that tells another source, or one trained anew,
    from the source that began the study.
    """

    folder: Folder

    @classmethod
    def open(cls, folder: str | Path, study: Mapping[str, Any]) -> "StudyStore":
        """Open or begin the store of this study.

        Raises as `Folder.open`.
        """
        return cls(Folder.open(folder, study, POSTERIORS))

    def get(self, start: int) -> dict[str, np.ndarray] | None:
        """The chunk that begins with data set `start`, or None."""
        if self.folder.missing(_chunk(start)):
            return None
        wanted = ("rows", "ess", "log_q") if self.folder.study["density"] else ("rows", "ess")
        return self.folder.read(_chunk(start), wanted, start=start)

    def put(self, start: int, part: Mapping[str, np.ndarray]) -> None:
        """Write a finished chunk.

        The first must equal what is there.

        Raises:
            OtherStudyError: another source than the one that began the study.
        """
        there = self.get(start)
        if there is None:
            self.folder.put(_chunk(start), part, start=start)
        elif any(not np.array_equal(there.get(name, ()), part[name]) for name in part):
            raise OtherStudyError(
                f"store={str(self.folder.path)!r} was begun with another source: the same question about the first "
                "data set now has another answer. Give another folder; nothing was changed."
            )


def _chunk(start: int) -> str:
    return f"chunk-{start:06d}.npz"
