"""One file format for everything that is saved: an `.npz` of plain arrays and a JSON header. Loading runs no code."""

import importlib
import importlib.metadata
import json
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
_HEADER = "header"
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, SyntaxError, tokenize.TokenError)
_LOADERS = {
    "posterior": "vbinfer.infer.posterior:Posterior.from_saved",
    "map": "vbinfer.infer.optimise:MapFit.from_saved",
    "calibration": "vbinfer.diagnostics.calibration.result:Calibration.from_saved",
    "draws": "vbinfer.infer.draws:Draws.from_saved",
    "npe": "vbinfer.infer.npe:AmortizedPosterior.from_saved",
    "nle": "vbinfer.infer.nle:AmortizedLikelihood.from_saved",
    "nre": "vbinfer.infer.nre:AmortizedRatio.from_saved",
    "sbi": "vbinfer.infer.torch_sbi.fitted:from_saved",
}


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of vbinfer, jax, jaxlib, numpy and `packages`, as provenance."""
    found = {}
    for name in ("vbinfer", "jax", "jaxlib", "numpy", *packages):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a header holds {value!r} of type {type(value).__name__}; JSON takes numbers, strings and lists")


def to_json(value: object, indent: int | None = None) -> str:
    """JSON text of plain values; NumPy scalars and arrays become numbers and lists."""
    return json.dumps(value, default=_plain, indent=indent)


def write(path: str | Path, kind: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and a JSON header to one `.npz`, all or nothing.

    The file appears under its name only when it is complete, and equal content gives equal bytes.

    Args:
        path: where to; missing folders are made. The name is taken as it is.
        kind: what it is, the key under which `load` finds the class.
        header: JSON-able values; `format`, `kind` and `versions` are added.
        arrays: named arrays of numbers, booleans or strings.

    Raises:
        ValueError: an array of Python objects, which would need pickle.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    full = {"versions": versions(), **header, "format": FORMAT, "kind": kind}
    text = np.frombuffer(to_json(full).encode(), dtype=np.uint8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, value in {_HEADER: text, **arrays}.items():
                    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | Path) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """What `write` wrote: `(kind, header, arrays)`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of vbinfer, it is damaged, or it has another format version.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected one file that `.save(path)` wrote")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}; give the path that was passed to `.save(path)`")
    foreign = f"{path} is no file of vbinfer, or a damaged one; expected what `.save(path)` writes"
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile) or _HEADER not in file.files:
                raise ValueError("no header")
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop(_HEADER).tobytes().decode())
    except (ValueError, OSError, EOFError, AttributeError, RuntimeError, KeyError, *_DAMAGE) as error:
        raise ValueError(foreign) from error
    if not isinstance(header, dict) or "kind" not in header:
        raise ValueError(foreign)
    if header.get("format") != FORMAT:
        made = header.get("versions", {}).get("vbinfer", "another version")
        raise ValueError(
            f"{path} has format {header.get('format')}, written by vbinfer {made}; this vbinfer reads format {FORMAT}. "
            f"Load it with that version, or make it again"
        )
    return header["kind"], header, arrays


def load(path: str | Path) -> Any:
    """Load what was saved, a `Posterior`, `Draws` or a fitted estimator, whichever the file holds.

    Args:
        path: the file that `.save(path)` wrote; or the folder of a store, for the draws that it holds so far.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a file of vbinfer, or one of a version that this one cannot read.
    """
    if (Path(path) / "manifest.json").is_file():
        return _find("vbinfer.infer.prior_predictive:load_store")(path)
    if (Path(path) / "chains.npz").is_file():
        return _find("vbinfer.infer.mcmc.store:load_chains")(path)
    kind, header, arrays = read(path)
    if kind not in _LOADERS:
        raise ValueError(
            f"{path} holds a {kind!r}; this vbinfer loads {', '.join(sorted(_LOADERS))}. "
            f"It was written by vbinfer {header.get('versions', {}).get('vbinfer', 'unknown')}: use that version"
        )
    return _find(_LOADERS[kind])(header, arrays)


def _find(where: str) -> Any:
    module, _, attribute = where.partition(":")
    target: Any = importlib.import_module(module)
    for name in attribute.split("."):
        target = getattr(target, name)
    return target
