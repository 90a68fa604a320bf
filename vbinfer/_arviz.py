"""The only place that knows ArviZ.

0.2x (`InferenceData`) and 1.x (`DataTree`) behind the same few functions.
"""

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_STATS = {"accept_prob": "acceptance_rate", "num_steps": "n_steps", "log_prob": "lp"}
"""Our names of sampler statistics to those of the InferenceData schema; the others are the same."""

PARETO_K = 0.7
"""Pareto k above which averages over importance weights do not settle (Vehtari et al. 2024)."""


def arviz() -> Any:
    """The arviz module, imported on first use.

    Without its announcement of the next version.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return importlib.import_module("arviz")


def dataset(leaves: Mapping[str, np.ndarray], lead: tuple[str, ...] = ("chain", "draw"), attrs: Any = None) -> Any:
    """An `xarray.Dataset` of named arrays.

    Axes after `lead` are called `<name>_dim_0`, ...
    """
    xr = importlib.import_module("xarray")
    variables, sizes = {}, {}
    for name, value in leaves.items():
        axes = (*lead, *(f"{name}_dim_{i}" for i in range(value.ndim - len(lead))))
        variables[name] = (axes, value)
        sizes |= dict(zip(axes, value.shape, strict=True))
    return xr.Dataset(variables, {axis: np.arange(size) for axis, size in sizes.items()}, attrs)


def inference_data(groups: Mapping[str, Any]) -> Any:
    """Datasets by group, as the installed ArviZ takes them.

    `InferenceData`, or a `DataTree` from 1.0 on.
    """
    az = arviz()
    if int(az.__version__.split(".")[0]) >= 1:  # its InferenceData is DataTree under the old name, with a warning
        return importlib.import_module("xarray").DataTree.from_dict(dict(groups))
    return az.InferenceData(**groups)


def sample_stats(stats: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sampler statistics under the names that ArviZ plots look for."""
    return {_STATS.get(name, name): value for name, value in stats.items()}


def rhat(theta: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rank-normalised split R-hat by leaf, of leaves `[chain, draw, ...]`."""
    with (
        _quiet(),
        np.errstate(invalid="ignore", divide="ignore"),
    ):  # of a parameter that is constant it is NaN, in silence
        return _arrays(arviz().rhat(dataset(theta), method="rank"), theta)


def ess(theta: Mapping[str, np.ndarray], method: str) -> dict[str, np.ndarray]:
    """Effective sample size by leaf, of leaves `[chain, draw, ...]`.

    The tails are those beyond the 5 % and 95 % quantiles; from ArviZ 1.0 on its default is others.
    """
    options = {"prob": (0.05, 0.95)} if method == "tail" else {}
    with _quiet():
        return _arrays(arviz().ess(dataset(theta), method=method, **options), theta)


def mcse(theta: Mapping[str, np.ndarray], method: str) -> dict[str, np.ndarray]:
    """Monte-Carlo standard error by leaf, of leaves `[chain, draw, ...]`."""
    with _quiet():
        return _arrays(arviz().mcse(dataset(theta), method=method), theta)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence ArviZ where chains are too short."""
    log = logging.getLogger("arviz")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _arrays(result: Any, like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.asarray(result[name].values, float) for name in like}
