"""One file format: arrays and a JSON header.

Everything is saved as `.npz`. Loading runs no code.
The last 64 bytes of a file are the SHA-256 of all bytes before them: a changed byte is noticed before any is believed.
"""

import errno
import glob
import hashlib
import importlib.metadata
import json
import os
import pkgutil
import platform
import secrets
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from vbinfer.io import archive as _archive

FORMAT = 2
"""Of every file; 1 is that of vbinfer 0.1.0, whose numbers are other ones."""
_HEADER = "header"
_OLD = 3_600.0
_AGAIN = "Restore a copy of it, or delete it and repeat the call that wrote it"
_SEAL, _DIGITS = b"SHA-256 of all bytes before this number: ", 64
_LOADERS = {
    "posterior": "vbinfer.posterior:Posterior.from_saved",
    "map": "vbinfer.approximate.optimise:MapFit.from_saved",
    "calibration": "vbinfer.diagnostics.calibration.result:Calibration.from_saved",
    "draws": "vbinfer.draws.draws:Draws.from_saved",
    "npe": "vbinfer.neural.npe:AmortizedPosterior.from_saved",
    "nle": "vbinfer.neural.nle:AmortizedLikelihood.from_saved",
    "nre": "vbinfer.neural.nre:AmortizedRatio.from_saved",
    "connectome_prior": "vbinfer.priors.connectomes:ConnectomePrior.from_saved",
    "sbi": "vbinfer.neural.sbi.posteriors:from_saved",
}


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, as provenance.

    Those of vbinfer, jax, jaxlib, numpy and `packages`.
    """
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
    """JSON text of plain values.

    NumPy scalars and arrays become numbers and lists.
    """
    return json.dumps(value, default=_plain, indent=indent)


def write(path: str | Path, kind: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and a header, all or nothing.

    The file appears under its name only when it is complete and on the disk, and equal content gives equal bytes.

    Args:
        path: where to; missing folders are made. The name is taken as it is.
        kind: what it is, the key under which `load` finds the class.
        header: JSON-able values; `format`, `kind` and `versions` are added.
        arrays: named arrays of numbers, booleans or strings.

    Raises:
        ValueError: an array of Python objects, which would need pickle.
        OSError: the disk is full or read-only, or similar; an earlier file of that name is left as it was.
    """
    full = {"versions": versions(), **header, "format": FORMAT, "kind": kind, "sealed": "sha256"}
    text = np.frombuffer(to_json(full).encode(), dtype=np.uint8)
    with replacing(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.comment = _SEAL + b"0" * _DIGITS
            for name, value in {_HEADER: text, **arrays}.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)
        end = file.seek(-_DIGITS, os.SEEK_END)
        digest = _digest(file, end)
        file.seek(end)
        file.write(digest.encode())


def write_text(path: Path, text: str) -> None:
    """Write a text file, all or nothing; raises as `write`."""
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """Write a file that replaces `path` when complete.

    It takes the name when it is on the disk, and is gone otherwise.

    Raises:
        OSError: with the name of the file and what to do about it.
    """
    path = Path(path)
    stem = f".{path.name}.{platform.node()}."
    temporary = path.with_name(f"{stem}{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent, stem)
        try:
            with open(temporary, "wb+") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OSError(error.errno, f"{path} was not written: {reason}; {remedy(error)}") from error


def _sweep(folder: Path, stem: str) -> None:
    """Remove what a killed process left unfinished.

    Only of this computer.
    """
    if os.name != "posix":
        return
    for left in folder.glob(f"{glob.escape(stem)}*.tmp"):
        try:  # old enough that no container with this name and other numbers of processes is writing it
            if time.time() - left.stat().st_mtime > _OLD:
                os.kill(int(left.name.removeprefix(stem).split(".")[0]), 0)
        except ProcessLookupError:
            left.unlink(missing_ok=True)
        except (ValueError, OSError, OverflowError):  # not ours to judge, or of another user
            pass


_REMEDIES = {
    errno.ENOSPC: "free some space, or give another place",
    errno.EDQUOT: "free some space, or give another place",
    errno.EFBIG: "raise the limit of this session (ulimit -f), or give another place",
    errno.EROFS: "give a place that can be written to",
    errno.EACCES: "give a place that you may write to",
    errno.EPERM: "give a place that you may write to",
    errno.EMFILE: "close some files, or raise the limit (ulimit -n 4096)",
    errno.ENFILE: "close some files, or wait until other programs have",
}


def remedy(error: OSError) -> str:
    """What to do about an OSError.

    Everything that is saved is whole, or not there.
    """
    what = _REMEDIES.get(error.errno or 0, "mend that, or give another place")
    return f"{what}, and repeat the call: what was finished before is kept"


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk.

    Only where the system can.
    """
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def _digest(file: IO[bytes], end: int) -> str:
    """SHA-256 of the first `end` bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while end > 0 and (block := file.read(min(end, 2**20))):
        digest.update(block)
        end -= len(block)
    return digest.hexdigest()


def read(path: str | Path) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """What `write` wrote: `(kind, header, arrays)`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of vbinfer, one of its bytes was changed, or it has another format version.
    """
    path = _existing(path)
    with open(path, "rb") as file:
        sealed = _is_sealed(file)
        header, arrays = ({}, {}) if sealed is False else _unpacked(path, file)
    if sealed is False or (sealed is None and "sealed" in header):
        raise ValueError(f"{path} is damaged: some of its bytes are not those that were written. {_AGAIN}")
    return header["kind"], header, arrays


def read_header(path: str | Path) -> dict[str, Any]:
    """Read the header alone.

    The arrays are neither read nor compared with the SHA-256.

    Raises:
        FileNotFoundError, ValueError: as `read`.
    """
    path = _existing(path)
    with open(path, "rb") as file:
        return _unpacked(path, file, only=_HEADER)[0]


def _unpacked(path: Path, file: IO[bytes], only: str | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of an open file, perhaps `only` one."""
    file.seek(0)
    try:
        arrays = _archive.arrays(file, only=only)
        header = json.loads(arrays.pop(_HEADER).tobytes().decode())
        if not isinstance(header["kind"], str):
            raise TypeError("the header does not say what the file is of")
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # the last: nested too deeply
        foreign = f"{path} is no file of vbinfer, or a damaged one; expected what `.save(path)` writes. {_AGAIN}"
        raise ValueError(foreign) from error
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {header.get('format')}, written by vbinfer {_maker(header)}; this vbinfer reads "
            f"format {FORMAT}. Load it with that version, or make it again"
        )
    return header, arrays


def mark(path: Path, name: str) -> Any:
    """An entry of a file's header, or None."""
    try:
        return read_header(path).get(name)
    except (OSError, ValueError):
        return None


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected one file that `.save(path)` wrote")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}; give the path that was passed to `.save(path)`")
    return path


def _is_sealed(file: IO[bytes]) -> bool | None:
    """Whether the bytes are those that were written.

    None for a file without the number that would tell.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - len(_SEAL) - _DIGITS))
    tail = file.read()
    if not tail.startswith(_SEAL):
        return None
    return _digest(file, size - _DIGITS).encode() == tail[len(_SEAL) :]


@contextmanager
def rebuilding(path: str | Path, header: Mapping[str, Any]) -> Iterator[None]:
    """Turn errors over a header into one sentence.

    It names the file and a remedy where an entry is missing or of another type.

    Raises:
        ValueError: for whatever goes wrong inside.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        reason = f"it has no {error.args[0]!r}" if isinstance(error, KeyError) and error.args else str(error)
        short = (reason.splitlines() or [""])[0][:400]
        now = versions()["vbinfer"]
        raise ValueError(
            f"{path} is whole, but this vbinfer ({now}) cannot rebuild what is in it: {short or type(error).__name__}. "
            f"It was written by vbinfer {_maker(header)}: load it with that version, or make it again"
        ) from error


def _maker(header: Mapping[str, Any]) -> str:
    made = header.get("versions")
    return str(made.get("vbinfer", "of unknown version")) if isinstance(made, Mapping) else "of unknown version"


def load(path: str | Path) -> Any:
    """Load what was saved.

    A `Posterior`, `Draws` or a fitted estimator, whichever the file holds.

    Args:
        path: the file that `.save(path)` wrote; or the folder of a store, for the draws that it holds so far.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a file of vbinfer, or one of a version that this one cannot read.
    """
    if (Path(path) / "manifest.json").is_file():
        return pkgutil.resolve_name("vbinfer.draws.sample:load_store")(path)
    if (Path(path) / "chains.npz").is_file():
        return pkgutil.resolve_name("vbinfer.sampling.store:load_chains")(path)
    kind, header, arrays = read(path)
    if kind not in _LOADERS:
        raise ValueError(
            f"{path} holds a {kind!r}; this vbinfer loads {', '.join(sorted(_LOADERS))}. "
            f"It was written by vbinfer {_maker(header)}: use that version"
        )
    loader = pkgutil.resolve_name(_LOADERS[kind])
    with rebuilding(path, header):
        return loader(header, arrays)
