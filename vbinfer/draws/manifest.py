"""The manifest of a store: which study it is of, and that nobody changed it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from vbinfer.io import npz

MANIFEST = "manifest.json"


class DamagedError(ValueError):
    """A manifest that is missing, or not what was written."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store.

    Raises:
        ValueError: there is none, it cannot be read or was changed, or it has another format version.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, maker, _ = manifest["format"], manifest["versions"].get("vbinfer"), manifest["study"]["batch_size"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{str(folder)!r} has no readable {MANIFEST}; give another folder (store=...), or make the call that "
            f"began this store once more, which repairs it."
        ) from error
    if version != npz.FORMAT:
        raise ValueError(
            f"the store {str(folder)!r} has format {version}, written by vbinfer {maker}; "
            f"this vbinfer reads format {npz.FORMAT}. Use that version, or give another folder"
        )
    if manifest.get("sha256") != _seal(manifest):
        raise DamagedError(
            f"{path} was changed after it was written: its SHA-256 does not fit. Bring back the file that was "
            f"there, or make the call that began this store once more, which repairs it."
        )
    return manifest


def makers() -> dict[str, str]:
    """What the last bits of a draw depend on beyond the study."""
    return {**npz.versions(), "platform": jax.default_backend()}


def write_manifest(folder: Path, study: Mapping[str, Any]) -> None:
    """Begin a store of this study, by the versions that are installed here."""
    manifest = {"format": npz.FORMAT, "versions": makers(), "study": study}
    npz.write_text(folder / MANIFEST, npz.to_json({**manifest, "sha256": _seal(manifest)}, indent=1) + "\n")


def identity(study: Mapping[str, Any]) -> str:
    """A short name of a study: equal for equal ones, on any machine."""
    return hashlib.sha256(json.dumps(study, sort_keys=True).encode()).hexdigest()[:16]


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for everything in which two studies differ."""
    changed = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    return [line for name in changed for line in _difference(name, was.get(name), now.get(name))]


def _seal(manifest: Mapping[str, Any]) -> str:
    parts = {name: manifest[name] for name in ("format", "versions", "study")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _difference(name: str, was: Any, now: Any) -> list[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        keys = [key for key in {**was, **now} if was.get(key) != now.get(key)]
        return [line for key in keys for line in _difference(f"{name} {key!r}", was.get(key), now.get(key))]
    return [f"  {name}: the store has {_short(was)}, this call has {_short(now)}"]


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 90 else text[:86] + " ..."
