"""Neural posterior estimation in JAX: a conditional flow trained on draws, amortised over observations."""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection
from jax.core import Tracer
from jaxtyping import Array

from vbinfer import _io
from vbinfer._typing import PRNGKey, Theta
from vbinfer.execute.lanes import as_count, as_key
from vbinfer.infer.draws import Draws
from vbinfer.infer.fit_info import FitInfo
from vbinfer.infer.flows import NSF, AbstractDensity, density_from_spec, draw, log_density
from vbinfer.infer.posterior import Posterior
from vbinfer.infer.standardise import Standardise, check_observation
from vbinfer.infer.training import Options, train
from vbinfer.priors.prior import Prior

_FEWEST = 20
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class NPE:
    """Neural posterior estimation: fits q(theta | x) to draws from the prior and the simulator.

    The density lives in z, where the prior is standard normal, so no posterior mass leaves the prior's support, log q
    needs no correction, and an untrained network is the prior. Blind to model misspecification: for an x_o unlike
    every simulation the answer is an extrapolation, and a warning names the features.

    Args:
        density: `vb.NSF()` (the default) or `vb.MAF()`, with their options.

    Papamakarios & Murray 2016, NeurIPS, doi:10.48550/arXiv.1605.06376; Greenberg, Nonnenmacher & Macke 2019, ICML,
    doi:10.48550/arXiv.1905.07488.

    Example:
        amortized, info = vb.NPE().fit(draws, prior, key=jax.random.key(1))
        posterior = amortized.sample(x_o, n=4_000, key=jax.random.key(2))
    """

    density: AbstractDensity = dataclasses.field(default_factory=NSF)

    def __post_init__(self) -> None:
        if not isinstance(self.density, AbstractDensity):
            raise TypeError(f"NPE(density={self.density!r}) was given; expected vb.NSF(...) or vb.MAF(...)")

    def fit(
        self,
        draws: Draws,
        prior: Prior,
        *,
        key: PRNGKey,
        max_epochs: int = 200,
        batch_size: int = 200,
        learning_rate: float = 1e-3,
        patience: int = 30,
        validation_fraction: float = 0.1,
        progress: bool = False,
    ) -> tuple["AmortizedPosterior", FitInfo]:
        """Train on the valid draws.

        Args:
            draws: from `sample_prior_predictive`; rows with `valid=False` are left out and counted.
            prior: the prior that they came from.
            key: decides initial weights, the held-out rows and the minibatches.
            max_epochs: cap on passes over the draws; `info.converged` says whether it was too low.
            batch_size: draws per gradient step.
            learning_rate: of Adam, falling to 0 along a cosine.
            patience: epochs without a better held-out loss before stopping.
            validation_fraction: share of the draws held out.
            progress: show a progress bar.

        Raises:
            ValueError: fewer than 20 valid draws, draws of other parameters than the prior's, or a draw outside it.
        """
        started = time.perf_counter()
        max_epochs, batch_size = as_count(max_epochs, "max_epochs"), as_count(batch_size, "batch_size")
        k_init, k_split, k_train = jax.random.split(as_key(key), 3)
        z, x = training_pairs(draws, prior)
        fitting, held = split_rows(len(z), validation_fraction, k_split)
        standardise = Standardise.fit(x[fitting])
        h = standardise(jnp.asarray(x))
        flow = self.density.build(k_init, prior.z_dim, h.shape[-1])
        options = Options(max_epochs, batch_size, learning_rate, patience)
        with reporter(progress, max_epochs, "NPE") as report:
            data, rest = (z[fitting], h[fitting]), (z[held], h[held])
            result = train(flow, _loss, data, rest, k_train, options, report)
        gain = float(jnp.mean(_log_ratio(result.model, z[held], h[held], prior)))
        info = FitInfo(
            method="NPE",
            backend="flowjax",
            train=result.train,
            val=result.val,
            best_epoch=result.best_epoch,
            info_gain=gain,
            converged=result.converged,
            num_train=len(fitting),
            num_val=len(held),
            seconds=time.perf_counter() - started,
            versions=_io.versions("flowjax", "equinox", "optax"),
            num_failed=len(draws) - len(z),
        )
        notes = {"sentence": info.sentence, "info_gain": gain, "converged": info.converged}
        return AmortizedPosterior(prior, self.density, result.model, standardise, draws.names, notes), info


class AmortizedPosterior:
    """q(theta | x) for any x of the simulator that it was trained on. Made by `NPE.fit`.

    Attributes:
        prior: the prior of the draws.
        names: names of the F features of x.
        info: JSON-able notes of the fit: `sentence`, `info_gain`, `converged`.
    """

    def __init__(
        self,
        prior: Prior,
        density: AbstractDensity,
        flow: AbstractBijection,
        standardise: Standardise,
        names: tuple[str, ...],
        info: Mapping[str, Any],
    ) -> None:
        self.prior, self.density, self.names, self.info = prior, density, tuple(names), dict(info)
        self._flow, self._standardise = flow, standardise

    def sample(self, x_o: Any, *, n: int, key: PRNGKey) -> Posterior:
        """Draws from the posterior of one observation.

        Args:
            x_o: observed summary `[F]`.
            n: number of draws.
            key: randomness.

        Returns:
            A posterior with one chain, leaves `[1, n, ...]`, and `log_prob` the normalised log q(theta | x_o).

        Raises:
            ValueError: another number of features than in training, or NaN (the message names the features).
        """
        x, n, key = check_observation(x_o, self.names, ndim=1), as_count(n, "n"), as_key(key)
        outside = self.outside(x)
        if outside:
            warnings.warn(
                f"x_o lies outside the training draws in {', '.join(outside)}: this posterior is an extrapolation. "
                "Compare these features with the prior predictive, and widen the prior or change the model",
                stacklevel=2,
            )
        theta, log_q = _sample(self.prior, self._flow, self._standardise, jnp.asarray(x), key, n)
        info = {"method": "NPE", "outside_training": list(outside), **self.info}
        leaves = {name: np.asarray(value)[None] for name, value in theta.items()}
        return Posterior(leaves, log_prob=np.asarray(log_q)[None], x_o=x, prior=self.prior, info=info)

    def sample_batch(self, x: Any, *, n: int, key: PRNGKey) -> Theta:
        """Draws for many observations at once: leaves `[B, n, ...]` for x `[B, F]`."""
        rows, n, key = jnp.asarray(check_observation(x, self.names, ndim=2)), as_count(n, "n"), as_key(key)
        return _sample_batch(self.prior, self._flow, self._standardise, rows, jax.random.split(key, len(rows)), n)

    def log_prob(self, theta: Mapping[str, Any], x: Any) -> Array:
        """Normalised log q(theta | x), exact; -inf outside the prior's support.

        Args:
            theta: leaves `[..., *shape]`.
            x: one observation `[F]`, or one per theta `[..., F]`.
        """
        if not isinstance(x, Tracer):
            x = check_observation(x, self.names, ndim=max(1, np.ndim(x)))
        values = {name: jnp.asarray(theta[name]) for name in theta}
        return _log_prob(self.prior, self._flow, self._standardise, values, jnp.asarray(x))

    def outside(self, x_o: Any) -> tuple[str, ...]:
        """Names of the features in which an observation lies beyond the range of the training draws."""
        far = self._standardise.outside(check_observation(x_o, self.names, ndim=1))
        return tuple(name for name, flag in zip(self.names, far, strict=True) if flag)

    def save(self, path: str | Path) -> None:
        """Write to one `.npz` of arrays and JSON; `vb.load(path)` rebuilds the same density, bit for bit."""
        arrays = {f"flow/{i:03d}": np.asarray(leaf) for i, leaf in enumerate(_arrays(self._flow))}
        arrays |= self._standardise.to_arrays()
        header = {
            "prior": self.prior.to_spec(),
            "density": self.density.to_spec(),
            "names": list(self.names),
            "info": self.info,
            "versions": _io.versions("flowjax", "equinox"),
        }
        _io.write(path, "npe", header, arrays)

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "AmortizedPosterior":
        """Rebuild from what `save` wrote; called by `vb.load`."""
        prior, density = Prior.from_spec(header["prior"]), density_from_spec(header["density"])
        empty = density.build(jax.random.key(0), prior.z_dim, len(header["names"]))
        stored = [arrays[name] for name in sorted(arrays) if name.startswith("flow/")]
        known = _arrays(empty)
        if [leaf.shape for leaf in known] != [leaf.shape for leaf in stored]:
            raise ValueError(
                f"the file's network does not fit flowjax {_io.versions('flowjax')['flowjax']}; it was written with "
                f"flowjax {header['versions'].get('flowjax', 'unknown')}. Load it with that version, or train again"
            )
        kept, static = eqx.partition(empty, eqx.is_array)
        structure = jax.tree_util.tree_structure(kept)
        flow = eqx.combine(jax.tree_util.tree_unflatten(structure, [jnp.asarray(leaf) for leaf in stored]), static)
        standardise = Standardise.from_arrays(arrays)
        return cls(prior, density, flow, standardise, tuple(header["names"]), header["info"])


def training_pairs(draws: Draws, prior: Prior) -> tuple[Array, np.ndarray]:
    """`(z [n, D], x [n, F])` of the valid draws, checked against the prior."""
    theta, x = draws.usable()
    if set(theta) != set(prior.shapes):
        raise ValueError(
            f"the draws have {sorted(theta)}, the prior has {sorted(prior.shapes)}; fit with the prior they came from"
        )
    if len(x) < _FEWEST:
        raise ValueError(
            f"{len(x)} of {len(draws)} draws are valid; at least {_FEWEST} are needed to fit, and 1,000 to learn much"
        )
    for name, shape in prior.shapes.items():
        if theta[name].shape[1:] != shape:
            raise ValueError(
                f"the draws of {name!r} are {list(theta[name].shape)}, the prior's {['n', *shape]}; "
                "give theta one row per draw in the shape of the prior"
            )
    values = {name: jnp.asarray(value) for name, value in theta.items()}
    outside = int(np.sum(~np.isfinite(np.asarray(prior.log_prob(values)))))
    if outside:
        raise ValueError(
            f"{outside} of {len(x)} draws lie outside the prior's support; fit with the prior they came from"
        )
    return prior.ravel_z(prior.unconstrain(values)), x


def split_rows(n: int, fraction: float, key: PRNGKey) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on and to hold out."""
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"validation_fraction={fraction:g} was given; expected a share between 0 and 1, such as 0.1")
    order = np.asarray(jax.random.permutation(key, n))
    held = min(max(2, round(fraction * n)), n - 2)
    return order[held:], order[:held]


@contextlib.contextmanager
def reporter(shown: bool, epochs: int, label: str) -> Iterator[Callable[[int, float, float], None] | None]:
    """A function that shows each epoch on stderr, or None when nothing is to be shown."""
    if not shown:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=epochs, desc=f"training {label}", unit="epoch") as bar:

        def report(epoch: int, train: float, val: float) -> None:
            bar.set_postfix_str(f"held-out loss {val:.3f}", refresh=False)
            bar.update(epoch - bar.n)

        yield report


def _loss(flow: AbstractBijection, z: Array, h: Array) -> Array:
    return -log_density(flow, z, h)


@eqx.filter_jit
def _log_ratio(flow: AbstractBijection, z: Array, h: Array, prior: Prior) -> Array:
    """log q(theta | x) - log p(theta), per pair."""
    theta, log_det = prior.constrain(prior.unravel_z(z))
    return jax.vmap(log_density, in_axes=(None, 0, 0))(flow, z, h) - log_det - prior.log_prob(theta)


@eqx.filter_jit
def _log_prob(prior: Prior, flow: AbstractBijection, standardise: Standardise, theta: Theta, x: Array) -> Array:
    z = prior.unconstrain(theta)
    flat, h = prior.ravel_z(z), standardise(x)
    lead = jnp.broadcast_shapes(flat.shape[:-1], h.shape[:-1])
    flat, h = (jnp.broadcast_to(value, (*lead, value.shape[-1])) for value in (flat, h))
    log_q = jnp.vectorize(lambda z, h: log_density(flow, z, h), signature="(d),(f)->()")(flat, h)
    value = log_q - prior.constrain(z)[1]
    inside = jnp.isfinite(prior.log_prob(theta)) & ~jnp.isnan(value)
    return jnp.where(inside, value, -jnp.inf)


@eqx.filter_jit
def _sample(
    prior: Prior, flow: AbstractBijection, standardise: Standardise, x: Array, key: PRNGKey, n: int
) -> tuple[Theta, Array]:
    theta = prior.constrain(prior.unravel_z(draw(flow, standardise(x), key, n, prior.z_dim)))[0]
    return theta, _log_prob(prior, flow, standardise, theta, x)


@eqx.filter_jit
def _sample_batch(
    prior: Prior, flow: AbstractBijection, standardise: Standardise, x: Array, keys: Array, n: int
) -> Theta:
    def one(pair: tuple[Array, PRNGKey]) -> Theta:
        z = draw(flow, standardise(pair[0]), pair[1], n, prior.z_dim)
        return prior.constrain(prior.unravel_z(z))[0]

    return jax.lax.map(one, (x, keys), batch_size=_BATCH)


def _arrays(flow: AbstractBijection) -> list[Any]:
    return jax.tree_util.tree_leaves(eqx.filter(flow, eqx.is_array))
