"""Observations and reference posteriors of the sbibm benchmark."""

import bz2
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer import _check
from vbinfer.posterior import Posterior
from vbinfer.tasks.distractors import hidden

PUBLISHED = (
    "two_moons",
    "gaussian_linear",
    "gaussian_linear_uniform",
    "gaussian_mixture",
    "slcp",
    "slcp_distractors",
    "bernoulli_glm",
    "bernoulli_glm_raw",
    "sir",
    "lotka_volterra",
)
"""The tasks of the benchmark."""

_WHEEL = "sbibm-1.1.0-py2.py3-none-any.whl"
_SHA256 = "12ecc6b4d327b92f9225f08faa6405e4274fb8e75943d86a53157d1b1bcfaf74"


class Reference(NamedTuple):
    """One published observation with its answer."""

    x_o: np.ndarray
    """`[F]`."""
    theta_true: dict[str, np.ndarray]
    """The parameters that made it."""
    posterior: Posterior
    """10,000 draws from the posterior."""


def reference(name: str, observation: int, *, wheel: str | Path | None = None, download: bool = False) -> Reference:
    """One observation of sbibm, its parameters and posterior draws.

    10,000 draws (Lueckmann et al. 2021; MIT licence). The data are not part of vbinfer: they are read from sbibm's
    wheel, where it is given or was put by an earlier download, after its SHA-256 has been checked. Nothing of sbibm is
    run.

    Args:
        name: `"two_moons"`, `"gaussian_linear"`, `"gaussian_linear_uniform"`, `"gaussian_mixture"`, `"slcp"`,
            `"slcp_distractors"` (slcp's, hidden by distractors drawn here), `"bernoulli_glm"`, `"bernoulli_glm_raw"`,
            `"sir"` or `"lotka_volterra"`.
        observation: 1 to 10.
        wheel: path of `sbibm-1.1.0-py2.py3-none-any.whl`; otherwise `$VBINFER_SBIBM`, then the cache.
        download: fetch the wheel (18 MB, by pip, without its dependencies) into `~/.cache/vbinfer` where it is missing.

    Raises:
        ValueError: an unknown task or observation, or another file than that wheel.
        FileNotFoundError: no wheel, and `download=False`.

    Lueckmann, Boelts, Greenberg, Goncalves & Macke 2021, AISTATS, doi:10.48550/arXiv.2101.04653.
    """
    _check.one_of(name, "name", PUBLISHED)
    observation = _check.count(observation, "observation", most=10)
    # the two forms of the GLM lie in one folder, and distractors change nothing
    task = name.removesuffix("_raw").removesuffix("_distractors")
    folder = f"sbibm/tasks/{task}/files/num_observation_{observation}"
    seen = "observation_raw" if name.endswith("_raw") else "observation"
    with zipfile.ZipFile(_find(wheel, download)) as archive:
        x_o = _table(archive.read(f"{folder}/{seen}.csv"))[0]
        true = _table(archive.read(f"{folder}/true_parameters.csv"))[0]
        draws = _table(bz2.decompress(archive.read(f"{folder}/reference_posterior_samples.csv.bz2")))
    if name == "slcp_distractors":
        x_o = np.asarray(hidden(jnp.asarray(x_o), jax.random.key(observation)))
    info = {"method": "reference", "task": name, "source": "sbibm 1.1.0 (Lueckmann et al. 2021), MIT licence"}
    return Reference(x_o, {"theta": true}, Posterior({"theta": draws[None]}, x_o=x_o, info=info))


def _table(text: bytes) -> np.ndarray:
    return np.loadtxt(io.BytesIO(text), delimiter=",", skiprows=1, ndmin=2)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vbinfer"


def _find(wheel: str | Path | None, download: bool) -> Path:
    given = wheel if wheel is not None else os.environ.get("VBINFER_SBIBM")
    path = _cache() / _WHEEL if given is None else Path(given).expanduser()
    if not path.is_file() and download and given is None:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "sbibm==1.1.0", "-d", str(path.parent)]
        subprocess.run(command, check=True)
    if not path.is_file():
        raise FileNotFoundError(
            f"sbibm's wheel is not at {str(path)!r}; write download=True to fetch it (18 MB), or run\n"
            f"    pip download --no-deps sbibm==1.1.0 -d {_cache()}\n"
            "or give wheel=, or set the environment variable VBINFER_SBIBM, to where it is"
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != _SHA256:
        raise ValueError(f"{str(path)!r} is not {_WHEEL} (SHA-256 {found[:12]}..., expected {_SHA256[:12]}...)")
    return path
