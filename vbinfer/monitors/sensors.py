"""Positions and gains of sensors: files, and formulas."""

import math
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vbinfer import _check
from vbinfer.io import archive as _archive
from vbinfer.io import matlab

LIMIT = 2**30
"""Bytes of one file, unpacked: more is refused (300 sensors by 16,384 vertices in float64 are 4e7)."""

_GAIN_NAMES = ("ProjectionMatrix", "gain", "Gain", "gain_matrix", "projection_data")


class Sensors(NamedTuple):
    """Sensors of a recording."""

    labels: tuple[str, ...]
    positions: np.ndarray
    """`[sensor, 3]`, in the unit of the file (mm in TVB)."""
    orientations: np.ndarray | None
    """`[sensor, 3]`, for MEG coils."""


def read_sensors(path: str | Path) -> Sensors:
    """Read a table of sensors, as text or bz2.

    A line `label x y z` each, for MEG `label x y z nx ny nz`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line of another form, with its number; no line at all.
    """
    path = Path(path)
    labels, rows = [], []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        cells = line.split("#")[0].replace(",", " ").split()
        if not cells:
            continue
        try:
            row = [float(cell) for cell in cells[1:]]
        except ValueError:
            row = []
        if len(row) not in (3, 6) or len(row) != len(rows[0] if rows else row):
            raise ValueError(
                f"line {number} of {str(path)!r} is {line.strip()!r}; expected label x y z (or label x y z nx ny nz), "
                "the same in every line"
            )
        labels.append(cells[0])
        rows.append(row)
    if not rows:
        raise ValueError(f"{str(path)!r} has no sensors; expected lines label x y z")
    table = np.array(rows, np.float64)
    return Sensors(tuple(labels), table[:, :3], table[:, 3:] if table.shape[1] == 6 else None)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    return path


def _text(path: Path) -> str:
    return _archive.text(partial(open, _existing(path), "rb"), repr(str(path)), LIMIT, path.suffix == ".bz2")


def read_projection(path: str | Path, name: str | None = None) -> np.ndarray:
    """Read a matrix of gains, `[sensor, source]`.

    From NumPy (`.npy`, `.npz`), MATLAB (`.mat` up to version 7.2) or text.

    Channels that are no sensors (triggers, references) have rows of NaN in TVB's files, and in what is returned; no
    monitor accepts them. Leave them out:

        seen = np.isfinite(gain).all(axis=1)
        EEG(region_gain(gain[seen], mapping), ..., labels=np.array(sensors.labels)[seen])

    Args:
        path: the file; `.txt`, `.csv` and either in `.bz2` are tables of numbers.
        name: which array of an `.npz` or `.mat`; by default `ProjectionMatrix` (TVB's), `gain`, `Gain`, `gain_matrix`
            or `projection_data`, else the only matrix in it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no matrix, several, or one with infinities, or NaN in a part of a row.
    """
    path = Path(path)
    suffix = _existing(path).suffix
    if suffix == ".npy":
        found = _plain(path)
        gain = found if isinstance(found, np.ndarray) else _pick(path, found, name)
    elif suffix in (".npz", ".mat"):
        gain = _pick(path, _arrays(path, suffix), name)
    elif suffix in (".txt", ".csv", ".bz2"):
        gain = _table(path)
    else:
        raise ValueError(f"{str(path)!r} is of no known kind; give .npy, .npz, .mat, .txt, .csv or .bz2")
    if gain.dtype.kind not in "fiub":
        raise ValueError(f"{str(path)!r} holds {gain.dtype}; expected real numbers, [sensor, source]")
    gain = np.asarray(gain, np.float64)
    if gain.ndim != 2:
        raise ValueError(f"{str(path)!r} holds numbers of shape {list(gain.shape)}; expected [sensor, source]")
    # a whole row of NaN is a channel that is no sensor, anything less is damage
    holes = ~np.isfinite(gain) & ~np.isnan(gain).all(axis=1, keepdims=True)
    if holes.any():
        raise ValueError(f"row {int(holes.any(axis=1).argmax())} of {str(path)!r} holds NaN or infinite numbers")
    return gain


def _plain(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        return _archive.load(path, LIMIT)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no NumPy file of plain numbers ({error}); write it with np.save") from error


def _table(path: Path) -> np.ndarray:
    try:
        return np.loadtxt(_text(path).replace(",", " ").replace(";", " ").splitlines(), ndmin=2)
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} is not a table of numbers: {str(error)[:200]}; expected a line for each sensor"
        ) from error


def _arrays(path: Path, suffix: str) -> dict[str, np.ndarray]:
    if suffix == ".npz":
        found = _plain(path)
        return found if isinstance(found, dict) else {"": found}
    if path.stat().st_size > LIMIT:
        raise ValueError(f"{str(path)!r} is larger than {LIMIT:,} bytes")
    try:
        return matlab.matrices(path.read_bytes(), LIMIT)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}. Save it again, or as .npy") from error


def _pick(path: Path, arrays: dict[str, np.ndarray], name: str | None) -> np.ndarray:
    matrices = {key: a for key, a in arrays.items() if a.ndim == 2 and a.dtype.kind in "fiu" and a.size > 1}
    # known names first; a file with one matrix needs none
    found = [key for key in ((name,) if name is not None else _GAIN_NAMES) if key in matrices]
    if name is None and not found and len(matrices) == 1:
        found = list(matrices)
    if not found:
        asked = "none of them is known as a gain" if name is None else f"none is {name!r}"
        listing = ", ".join(matrices) or "(none)"
        raise ValueError(f"{str(path)!r} holds the matrices {listing}; {asked}; write name=... with the right one")
    return matrices[found[0]]


def region_gain(gain: np.ndarray, mapping: np.ndarray, n_regions: int | None = None) -> np.ndarray:
    """Gains of regions from gains of the vertices.

    G_sr = sum of gain_sv over the vertices v of r.

    Every vertex of a region is taken to have the region's activity, as in TVB.

    Args:
        gain: `[sensor, vertex]`.
        mapping: `[vertex]`, the region of each vertex, counted from 0.
        n_regions: number of regions; by default the largest one named. Regions without vertices (subcortical ones)
            get zeros.

    Returns:
        `[sensor, region]`.

    >>> region_gain(np.array([[1.0, 2.0, 4.0]]), np.array([0, 2, 0]))
    array([[5., 0., 2.]])
    """
    gain, mapping = np.asarray(gain, np.float64), np.asarray(mapping)
    if gain.ndim != 2 or mapping.ndim != 1 or gain.shape[1] != len(mapping):
        raise ValueError(
            f"gain is {list(gain.shape)} and mapping {list(mapping.shape)}; expected [sensor, vertex] and [vertex]"
        )
    if np.any(mapping != np.round(mapping)) or mapping.min() < 0:
        raise ValueError("mapping must hold whole numbers from 0, the region of each vertex")
    n = int(mapping.max()) + 1 if n_regions is None else _check.count(n_regions, "n_regions", 84)
    if mapping.max() >= n:
        raise ValueError(f"mapping names region {int(mapping.max())} but n_regions={n}; regions count from 0")
    member = np.zeros((len(mapping), n))  # the sum over vertices as a matrix product
    member[np.arange(len(mapping)), mapping.astype(int)] = 1.0
    return gain @ member


def seeg_gain(
    positions: np.ndarray,
    centres: np.ndarray,
    orientations: np.ndarray | None = None,
    *,
    power: int = 2,
    sigma: float = 1.0,
) -> np.ndarray:
    """Gains of contacts inside a homogeneous conductor.

    With d = position - centre:

    with orientations Q:  G_sr = Q_r . d_sr / (4 pi sigma |d_sr|^3)      a current dipole (Sarvas 1987, eq. 12)
    without:              G_sr = 1 / (4 pi sigma |d_sr|^power)

    power = 2 is the size of a dipole's potential when its direction is unknown (the usual choice for stereotactic EEG
    of region models), power = 1 the potential of a current monopole. Walls of the head and folding of the cortex are
    left out: within a few mm of a contact the centre of a region stands for it badly.

    Args:
        positions: `[contact, 3]`, mm.
        centres: `[region, 3]`, mm (`connectome.centres`).
        orientations: `[region, 3]`, unit vectors.
        power: 1 or 2.
        sigma: conductivity; a scale, unless all units are kept.

    Returns:
        `[contact, region]`.

    doi:10.1088/0031-9155/32/1/004
    """
    positions, centres = np.asarray(positions, np.float64), np.asarray(centres, np.float64)
    if positions.ndim != 2 or centres.ndim != 2 or positions.shape[1] != 3 or centres.shape[1] != 3:
        raise ValueError(
            f"positions is {list(positions.shape)} and centres {list(centres.shape)}; "
            "expected [contact, 3] and [region, 3]"
        )
    sigma = _check.positive(sigma, "sigma", 1.0)
    if not _check.is_count(power) or power not in (1, 2):
        raise ValueError(f"power={power!r} was given; write 2 (dipole of unknown direction) or 1 (monopole)")
    away = positions[:, None, :] - centres[None, :, :]
    distance = np.sqrt((away**2).sum(-1))
    if not distance.all():
        contact, region = np.argwhere(distance == 0)[0]
        raise ValueError(f"contact {contact} lies exactly on the centre of region {region}: its gain would be infinite")
    if orientations is None:
        return 1.0 / (4.0 * math.pi * sigma * distance**power)
    orientations = np.asarray(orientations, np.float64)
    if orientations.shape != centres.shape:
        raise ValueError(f"orientations is {list(orientations.shape)}; expected {list(centres.shape)}, one per region")
    return (away * orientations).sum(-1) / (4.0 * math.pi * sigma * distance**3)
