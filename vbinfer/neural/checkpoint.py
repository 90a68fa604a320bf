"""Checkpoints of training, from which an interrupted fit goes on."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from vbinfer.io import npz
from vbinfer.io.fingerprint import checksum
from vbinfer.io.folder import Kind, check_head, described, read_head, write_head

_EVERY = 10.0


class Checkpoint:
    """Keeps the state of a fit in one `.npz`.

    It is written every ten seconds and at the end.

    Args:
        path: the file.
        study: JSON-able description of the fit: estimator, options, key.
        data: the arrays it is trained on; their hash is part of the study.
    """

    def __init__(self, path: str | Path, study: dict[str, Any], data: Sequence[Any]) -> None:
        self._path = Path(path)
        self._kind = Kind(head=self._path.name, holds="a fit", parts="", label="fit", packages=("flowjax",))
        self._study = described({**study, "data": checksum({str(i): value for i, value in enumerate(data)})})
        self._written = time.monotonic()

    def restore(self, state: Any, curves: np.ndarray) -> tuple[Any, np.ndarray]:
        """The state and curves in the file, or those given.

        Raises:
            OtherStudyError: the file is of another fit.
        """
        if not self._path.exists():
            return state, curves
        head = read_head(self._path, self._kind)
        check_head(head, self._study, f"the checkpoint {str(self._path)!r}", self._kind)
        with npz.rebuilding(self._path, {"versions": head.versions}):
            other = "its arrays have the shapes of another network"
            return from_arrays(state, "state", head.arrays, other), head.arrays["curves"]

    def offer(self, state: Any, curves: np.ndarray) -> None:
        """Write if the last time is long ago."""
        if time.monotonic() - self._written > _EVERY:
            self.write(state, curves)

    def write(self, state: Any, curves: np.ndarray) -> None:
        """Write now."""
        write_head(self._path, self._kind, self._study, {"curves": curves, **to_arrays(state, "state")})
        self._written = time.monotonic()


def to_arrays(tree: Any, name: str) -> dict[str, np.ndarray]:
    """Arrays of a tree by position: `name/0000`, ...."""
    leaves = jax.tree_util.tree_leaves(eqx.filter(tree, eqx.is_array))
    return {f"{name}/{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def from_arrays(tree: Any, name: str, arrays: Mapping[str, np.ndarray], other: str) -> Any:
    """A tree with the numbers that `to_arrays` gave.

    Raises:
        ValueError: arrays of other shapes, in the words of `other`.
    """
    # by position: a fresh tree tells structure and shapes
    own, static = eqx.partition(tree, eqx.is_array)
    known, structure = jax.tree_util.tree_flatten(own)
    stored = [arrays[key] for key in sorted(arrays) if key.startswith(f"{name}/")]
    if [leaf.shape for leaf in known] != [leaf.shape for leaf in stored]:
        raise ValueError(other)
    return eqx.combine(jax.tree_util.tree_unflatten(structure, jax.device_put(stored)), static)
