"""The state of a training run on disk, so that an interrupted fit goes on from where it was."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer.io import npz
from vbinfer.io.fingerprint import NUMBERS

_EVERY = 10.0


class OtherFitError(ValueError):
    """A checkpoint of another fit than the one that asks for it."""


class Checkpoint:
    """Writes the state of a fit to one `.npz` every ten seconds and at the end, and reads it back.

    Args:
        path: the file.
        study: JSON-able description of the fit: estimator, options, key.
        data: the arrays it is trained on; their hash is part of the study.
    """

    def __init__(self, path: str | Path, study: dict[str, Any], data: Sequence[Any]) -> None:
        digest = hashlib.sha256()
        for value in data:
            digest.update(np.ascontiguousarray(value).tobytes())
        self._path = Path(path)
        self._study = npz.to_json(
            {**study, "data": digest.hexdigest()[:16], "numbers": NUMBERS, "versions": npz.versions("flowjax")}
        )
        self._written = time.monotonic()

    def restore(self, state: Any, curves: np.ndarray) -> tuple[Any, np.ndarray]:
        """The state and curves in the file; those given when there is no file yet.

        Raises:
            ValueError: the file is of another fit.
        """
        if not self._path.exists():
            return state, curves
        kind, header, arrays = npz.read(self._path)
        if kind != "fit" or header.get("study") != self._study:
            raise OtherFitError(
                f"the checkpoint {self._path} is of another fit: draws, key, options or versions differ. "
                "Give another path, or delete it to begin anew"
            )
        leaves, structure = jax.tree_util.tree_flatten(state)
        with npz.rebuilding(self._path, header):
            stored = [jnp.asarray(arrays[f"state/{i:04d}"], leaf.dtype) for i, leaf in enumerate(leaves)]
            if [one.shape for one in stored] != [jnp.shape(leaf) for leaf in leaves]:
                raise ValueError("its arrays have the shapes of another network")
            return jax.tree_util.tree_unflatten(structure, stored), arrays["curves"]

    def offer(self, state: Any, curves: np.ndarray) -> None:
        """Write if the last time is long ago."""
        if time.monotonic() - self._written > _EVERY:
            self.write(state, curves)

    def write(self, state: Any, curves: np.ndarray) -> None:
        """Write now."""
        leaves = jax.tree_util.tree_leaves(state)
        arrays = {f"state/{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        npz.write(self._path, "fit", {"study": self._study}, {"curves": curves, **arrays})
        self._written = time.monotonic()
