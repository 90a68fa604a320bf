"""Surfaces made and read, vertices and triangles."""

import base64
import gzip
import io
import math
import zipfile
import zlib
from pathlib import Path
from xml.etree import ElementTree

import jax
import numpy as np
from scipy import special

from vbinfer._check import count, positive
from vbinfer._check import key as _key
from vbinfer._names import PRNGKey

Surface = tuple[np.ndarray, np.ndarray]


def icosphere(order: int, radius: float) -> Surface:
    """An icosahedron, its edges halved `order` times."""
    order, radius = count(order, "order", 3, least=0, most=8), positive(radius, "radius", 100.0, "mm")
    g = (1.0 + 5.0**0.5) / 2.0
    # the corners of three golden rectangles
    flat = np.array([[-1.0, g, 0.0], [1.0, g, 0.0], [-1.0, -g, 0.0], [1.0, -g, 0.0]])
    v = np.concatenate([np.roll(flat, k, axis=1) for k in range(3)])
    around = [[0, 11, 5], [0, 5, 1], [0, 1, 7], [0, 7, 10], [0, 10, 11], [1, 5, 9], [5, 11, 4], [11, 10, 2]]
    around += [[10, 7, 6], [7, 1, 8], [3, 9, 4], [3, 4, 2], [3, 2, 6], [3, 6, 8], [3, 8, 9], [4, 9, 5]]
    t = np.array([*around, [2, 4, 11], [6, 2, 10], [8, 6, 7], [9, 8, 1]])
    for _ in range(order):
        ends = np.sort(np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]]), axis=1)
        edges, at = np.unique(ends, axis=0, return_inverse=True)
        ab, bc, ca = (len(v) + at.ravel()).reshape(3, -1)
        v = np.concatenate([v, v[edges].mean(axis=1)])
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        a, b, c = t.T
        t = np.concatenate([np.stack(part, 1) for part in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return radius * v / np.linalg.norm(v, axis=1, keepdims=True), t


def folded(order: int, folds: int, depth: float, radius: float, key: PRNGKey) -> Surface:
    """An icosphere whose radius is a random harmonic.

    r = radius exp(depth f),  f of degree `folds` with variance 1: star-shaped whatever the depth.
    """
    folds, depth = count(folds, "folds", 8), positive(depth, "depth", 0.1)
    vertices, triangles = icosphere(order, radius)
    if folds > 2**order:
        raise ValueError(f"{folds} folds are too fine for order {order}; give at most {2**order}, or a higher order")
    x, y, z = vertices.T / radius
    around = np.arctan2(y, x)
    weights = np.asarray(jax.random.normal(_key(key), (2 * folds + 1,)), float)
    shape = np.zeros(len(x))
    for m in range(-folds, folds + 1):
        wave = special.sph_harm_y(folds, abs(m), np.arccos(np.clip(z, -1.0, 1.0)), around)
        shape += weights[m] * (wave.real if m >= 0 else wave.imag) * (1.0 if m == 0 else math.sqrt(2.0))
    shape *= math.sqrt(4.0 * math.pi / (weights**2).sum())
    return vertices * np.exp(depth * shape)[:, None], triangles


def read(path: Path) -> Surface:
    """Read GIFTI, FreeSurfer or TVB, told by content.

    Raises:
        FileNotFoundError, ValueError: no such file; none of the three.
    """
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if data[:3] == b"\xff\xff\xfe":
        return _freesurfer(data)
    if data[:2] == b"PK":
        return _tvb(data, path)
    if b"<GIFTI" in data[:2000]:
        return _gifti(data, path)
    raise ValueError(f"{str(path)!r} is no GIFTI, FreeSurfer or TVB surface; give lh.pial, *.surf.gii or surface.zip")


def _freesurfer(data: bytes) -> Surface:
    """Read FreeSurfer's binary triangles.

    A comment, two counts, float32 and int32, big-endian.
    """
    at = data.index(b"\n\n") + 2
    n, f = np.frombuffer(data, ">i4", 2, at)
    vertices = np.frombuffer(data, ">f4", 3 * n, at + 8).reshape(n, 3)
    triangles = np.frombuffer(data, ">i4", 3 * f, at + 8 + 12 * int(n)).reshape(f, 3)
    return vertices.astype(float), triangles.astype(np.int32)


def _tvb(data: bytes, path: Path) -> Surface:
    """A zip with vertices.txt and triangles.txt."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = {}
        for part in ("vertices", "triangles"):
            names = [name for name in archive.namelist() if Path(name).name.startswith(part)]
            if not names:
                raise ValueError(f"{str(path)!r} has no {part}.txt; it holds {', '.join(archive.namelist())}")
            found[part] = np.loadtxt(io.BytesIO(archive.read(names[0])), ndmin=2)
    return found["vertices"], found["triangles"].astype(np.int32)


_TYPES = {"NIFTI_TYPE_FLOAT32": "f4", "NIFTI_TYPE_INT32": "i4", "NIFTI_TYPE_FLOAT64": "f8", "NIFTI_TYPE_UINT8": "u1"}


def _gifti(data: bytes, path: Path) -> Surface:
    """Read the first points and triangles of GIFTI."""
    found = {}
    for array in ElementTree.fromstring(data).iter("DataArray"):
        found.setdefault(array.get("Intent"), array)
    try:
        points, triangles = found["NIFTI_INTENT_POINTSET"], found["NIFTI_INTENT_TRIANGLE"]
    except KeyError:
        raise ValueError(f"{str(path)!r} holds {list(found)}; a surface has a POINTSET and a TRIANGLE array") from None
    return _gifti_array(points).astype(float), _gifti_array(triangles).astype(np.int32)


def _gifti_array(array: ElementTree.Element) -> np.ndarray:
    kind, encoding = _TYPES[array.get("DataType", "")], array.get("Encoding")
    shape = tuple(int(array.get(f"Dim{k}", 1)) for k in range(int(array.get("Dimensionality", 1))))
    text = array.findtext("Data") or ""
    if encoding == "ASCII":
        values = np.array(text.split(), kind)
    elif encoding in ("Base64Binary", "GZipBase64Binary"):
        raw = base64.b64decode(text)
        raw = zlib.decompress(raw) if encoding == "GZipBase64Binary" else raw
        values = np.frombuffer(raw, (">" if array.get("Endian") == "BigEndian" else "<") + kind)
    else:
        raise ValueError(f"a GIFTI array is encoded as {encoding}; expected ASCII, Base64Binary or GZipBase64Binary")
    return values.reshape(shape, order="F" if array.get("ArrayIndexingOrder") == "ColumnMajorOrder" else "C")
