"""Tables of numbers from csv, npy and npz."""

from pathlib import Path

import numpy as np

from vbinfer.io import archive as _archive

Table = tuple[np.ndarray, tuple[str, ...] | None, float | None]
LONGEST_TEXT = 2**29
_MISSING = ("", "na", "n/a", "nan", "null", "none")


def read(path: Path) -> Table:
    """Values `[T, N]`, column names and sampling period.

    Names and period are None where the file has none.
    """
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".npy":
        return _as_table(path, _load(path)), None, None
    return *_read_text(path), None


def _load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        return _archive.load(path)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no NumPy file of plain numbers ({error}); write it with np.save") from error


def _read_npz(path: Path) -> Table:
    arrays = _load(path)
    if isinstance(arrays, np.ndarray):
        return _as_table(path, arrays), None, None
    tables = [name for name in arrays if name not in ("period", "labels")]
    name = "values" if "values" in arrays else tables[0] if len(tables) == 1 else None
    if name is None:
        raise ValueError(f"{str(path)!r} holds {sorted(arrays)}; call the array of the recording 'values'")
    labels = tuple(arrays["labels"].astype(str).ravel().tolist()) if "labels" in arrays else None
    try:
        period = float(arrays["period"].item()) if "period" in arrays else None
    except (TypeError, ValueError) as error:
        raise ValueError(f"the period in {str(path)!r} is {arrays['period']!r}; expected one number of ms") from error
    return _as_table(path, arrays[name]), labels, period


def _as_table(path: Path, values: object) -> np.ndarray:
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise ValueError(f"{str(path)!r} does not hold real numbers; expected an array [T, N]")
    return values[:, None] if values.ndim == 1 else values


def _read_text(path: Path) -> tuple[np.ndarray, tuple[str, ...] | None]:
    size = path.stat().st_size
    if size > LONGEST_TEXT:
        raise ValueError(f"{str(path)!r} has {size:,} bytes of text; save what is longer than {LONGEST_TEXT:,} as .npy")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not a text file ({error}); expected csv, npy or npz") from error
    numbered = [(i, line) for i, line in enumerate(text.splitlines(), start=1) if line.strip(" \r\n")]
    delimiter = _delimiter([line for _, line in numbered])
    comments = [line.lstrip("# ") for _, line in numbered if line.startswith("#")]
    rows = [(i, _cells(line, delimiter)) for i, line in numbered if not line.startswith("#")]
    if not rows:
        raise ValueError(f"{str(path)!r} has no lines of numbers; expected [T, N], one line per sample")
    header = None
    if _is_header(rows[0][1]) and len(rows) > 1:
        header, rows = rows[0][1], rows[1:]
    elif comments and len(_cells(comments[-1], delimiter)) == len(rows[0][1]):
        header = _cells(comments[-1], delimiter)
    values = _parse(path, rows, delimiter)
    if header is None:
        return values, None
    if len(header) != values.shape[1]:
        raise ValueError(
            f"{path.name} has {len(header)} names in its first line and {values.shape[1]} numbers in the others; "
            "give one name for each column"
        )
    if header[0] == "" and _counts(values[:, 0]):
        header, values = header[1:], values[:, 1:]  # as pandas writes its index
    return values, None if all(_number(name) is not None for name in header) else tuple(header)


def _delimiter(lines: list[str]) -> str | None:
    """The delimiter of a table; None is blanks.

    Judged by the second line, since the first may be a title.
    """
    sample = lines[min(1, len(lines) - 1)] if lines else ""
    return next((mark for mark in ("\t", ";", ",") if mark in sample), None)


def _cells(line: str, delimiter: str | None) -> list[str]:
    return [cell.strip().strip('"').strip() for cell in line.strip("\r\n").split(delimiter)]


def _number(cell: str) -> float | None:
    if cell.lower() in _MISSING:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None


def _is_header(cells: list[str]) -> bool:
    """Whether cells are names of columns.

    So are 0, 1, 2, ... and 1, 2, 3, ...; one misprint among numbers is not.
    """
    numbers = [_number(cell) for cell in cells]
    named = sum(number is None for number in numbers)
    if named:
        return named > len(cells) / 2
    tail = [cell for cell in cells[1:]] if cells[0] == "" else cells
    return len(tail) > 1 and any(tail == [str(i + start) for i in range(len(tail))] for start in (0, 1))


def _counts(column: np.ndarray) -> bool:
    return bool(np.array_equal(column - column[0], np.arange(len(column)))) and column[0] in (0, 1)


def _parse(path: Path, rows: list[tuple[int, list[str]]], delimiter: str | None) -> np.ndarray:
    width = len(rows[-1][1])
    values = np.empty((len(rows), width))
    for k, (line, cells) in enumerate(rows):
        if len(cells) != width:
            raise ValueError(f"line {line} of {path.name} has {len(cells)} cells and the last line has {width}")
        for column, cell in enumerate(cells):
            number = _number(cell.replace(",", ".") if delimiter == ";" else cell)
            if number is None:
                raise ValueError(f"line {line}, column {column + 1} of {path.name} is {cell[:40]!r}; expected a number")
            values[k, column] = number
    return values
