"""Readers of image and event files that users have."""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vbinfer import _check

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: str | Path) -> np.ndarray:
    """Array of an IDX file, the format of MNIST.

    `.gz` is unpacked.

    Two zero bytes, one for the type, one for the number of axes, their lengths (big endian, 4 bytes each), the values.

    Raises:
        ValueError: another kind of file; more or fewer values than it announces.

    http://yann.lecun.com/exdb/mnist
    """
    raw = Path(path).read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _TYPES:
        raise ValueError(f"{path} begins with {raw[:4].hex(' ')}; an IDX file with 00 00, a type and a number of axes")
    dtype, begin = np.dtype(_TYPES[raw[2]]), 4 + 4 * raw[3]
    shape = tuple(np.frombuffer(raw[4:begin], ">u4").astype(int).tolist())
    expected = begin + int(np.prod(shape, dtype=int)) * dtype.itemsize
    if len(raw) != expected or len(shape) != raw[3]:
        raise ValueError(f"{path} has {len(raw)} bytes; an IDX file of shape {list(shape)} has {expected}")
    return np.frombuffer(raw[begin:], dtype).reshape(shape).astype(dtype.newbyteorder("="))


class Events(NamedTuple):
    """Events of a sensor, an entry each.

    t in ms, column x, row y, polarity p (0 or 1).
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray

    def frames(self, shape: tuple[int, int], bin: float, n: int | None = None) -> np.ndarray:
        """Counts `[T, polarity, row, column]` in bins, for layers.

        Args:
            shape: rows and columns of the sensor.
            bin: ms.
            n: number of bins T; None holds all events. Later events are left out.
        """
        bin = _check.positive(bin, "bin", 1.0, "ms")
        step = (self.t // bin).astype(int)
        n = int(step.max(initial=-1)) + 1 if n is None else _check.count(n, "n", 100)
        if len(self.t) and (self.y.max() >= shape[0] or self.x.max() >= shape[1]):
            raise ValueError(
                f"events reach row {self.y.max()} and column {self.x.max()}; shape was given as {list(shape)}"
            )
        out, kept = np.zeros((n, 2, *shape), np.float32), step < n
        np.add.at(out, (step[kept], self.p[kept], self.y[kept], self.x[kept]), 1.0)
        return out


def read_events(path: str | Path) -> Events:
    """Events of an N-MNIST file (`.bin`) or an archive (`.npz`).

    `.bin`: 40 bits an event: x (8), y (8), polarity (1), microseconds (23). `.npz`: arrays t (ms), x, y and p.

    Raises:
        ValueError: another kind of file, or one cut short; an archive without these arrays.

    doi:10.3389/fnins.2015.00437 (Orchard et al. 2015)
    """
    path = Path(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as given:
            if missing := [name for name in Events._fields if name not in given]:
                raise ValueError(
                    f"{path} has no {', '.join(missing)}; expected arrays t (ms), x, y, p, an entry an event"
                )
            t, *rest = (given[name] for name in Events._fields)
        if len({len(a) for a in (t, *rest)}) != 1:
            raise ValueError(f"{path} has arrays of lengths {[len(a) for a in (t, *rest)]}; expected an entry an event")
        return Events(np.asarray(t, float), *(np.asarray(a).astype(int) for a in rest))
    if path.suffix != ".bin":
        raise ValueError(f"{path} is no .bin of N-MNIST and no .npz; write np.savez(path, t=ms, x=x, y=y, p=polarity)")
    raw = np.fromfile(path, np.uint8)
    if len(raw) % 5:
        raise ValueError(f"{path} has {len(raw)} bytes; events are 5 bytes each")
    x, y, high, middle, low = raw.reshape(-1, 5).T.astype(int)
    return Events(((high & 127) << 16 | middle << 8 | low) / 1e3, x, y, high >> 7)
