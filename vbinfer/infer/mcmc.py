"""Markov chain Monte Carlo over z with the gradient of a likelihood: NUTS, on the sampler of numpyro."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _io
from vbinfer._param import did_you_mean
from vbinfer._typing import PRNGKey, Theta
from vbinfer.execute.lanes import as_key, key_words
from vbinfer.infer.posterior import Posterior
from vbinfer.infer.potential import LogLikelihood, check_likelihood, potential_fn
from vbinfer.priors.prior import Prior

TRIES = 100
"""Prior draws per chain among which a start is looked for."""
_FIELDS = {
    "diverging": "diverging",
    "accept_prob": "accept_prob",
    "num_steps": "num_steps",
    "energy": "energy",
    "adapt_state.step_size": "step_size",
}


@dataclasses.dataclass(frozen=True)
class NUTS:
    """The No-U-Turn sampler: Hamiltonian trajectories that stop when they turn back (Hoffman & Gelman 2014, JMLR 15).

    Args:
        engine: whose implementation runs; `"numpyro"`.
        target_accept: mean acceptance that the step size is adapted to; raise it towards 0.99 against divergences.
        max_tree_depth: a trajectory has at most 2^max_tree_depth - 1 steps.
        dense_mass: adapt a full mass matrix instead of a diagonal one, for correlated posteriors.
    """

    engine: str = "numpyro"
    target_accept: float = 0.8
    max_tree_depth: int = 10
    dense_mass: bool = False

    def __post_init__(self) -> None:
        if self.engine != "numpyro":
            raise ValueError(f"NUTS(engine={self.engine!r}) was asked for; the engine there is: write engine='numpyro'")
        if not 0.0 < self.target_accept < 1.0:
            raise ValueError(f"target_accept={self.target_accept} was given; expected a number in (0, 1), such as 0.8")
        if isinstance(self.max_tree_depth, bool) or not isinstance(self.max_tree_depth, int) or self.max_tree_depth < 1:
            raise ValueError(f"max_tree_depth={self.max_tree_depth!r} was given; expected a whole number, such as 10")


def sample_mcmc(
    prior: Prior,
    log_likelihood: LogLikelihood,
    x_o: Any,
    *,
    kernel: NUTS | None = None,
    num_warmup: int = 500,
    num_samples: int = 500,
    num_chains: int = 4,
    key: Array,
    init: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Posterior:
    """Sample p(theta | x_o) proportional to p(theta) p(x_o | theta), with all chains side by side.

    Chains move in z, where the prior is standard normal, so no draw leaves the prior's support. Each starts from its
    own prior draw at which the likelihood and its gradient are finite: chains that disagree (`vb.rhat`) show a
    posterior with several modes. A likelihood that simulates noise from a fixed key conditions on that one noise path.

    Args:
        prior: `vb.Prior`.
        log_likelihood: `(theta, x_o) -> log p(x_o | theta)`, one number, differentiable by JAX.
        x_o: the observation; passed on as it is.
        kernel: `vb.NUTS()` by default.
        num_warmup: steps per chain that adapt step size and mass matrix, discarded.
        num_samples: draws per chain.
        num_chains: independent chains; four are the least with which R-hat says much.
        key: a JAX key.
        init: starts instead of prior draws: theta, leaves `[chain, ...]`.
        progress: show the sampler's bar.

    Returns:
        `Posterior` with `log_prob` = log p(theta) + log p(x_o | theta), unnormalised, over theta; `sample_stats`
        `diverging, accept_prob, num_steps, energy, step_size`, each `[chain, draw]`.

    Raises:
        ValueError: a likelihood whose value is not one number; starts that are not finite; sizes that make no sense.

    Example:
        >>> import jax, vbinfer as vb
        >>> import numpyro.distributions as dist
        >>> prior = vb.Prior({"mu": dist.Normal(0.0, 1.0)})
        >>> def log_likelihood(theta, y):
        ...     return dist.Normal(theta["mu"], 1.0).log_prob(y).sum()
        >>> posterior = vb.sample_mcmc(prior, log_likelihood, 2.0, num_warmup=200, num_chains=2, key=jax.random.key(0))
        >>> bool(abs(posterior.theta["mu"].mean() - 1.0) < 0.2)       # N(1, 1/2)
        True
    """
    kernel, key = NUTS() if kernel is None else kernel, as_key(key)
    _check_arguments(kernel, num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains)
    check_likelihood(prior, log_likelihood, x_o)
    potential = potential_fn(prior, log_likelihood, x_o)
    began = time.perf_counter()
    k_start, k_run = jax.random.split(key)
    if init is None:
        starts = _prior_starts(prior, potential, num_chains, k_start)
    else:
        starts = _given_starts(prior, potential, num_chains, init)
    z, stats = _run(kernel, potential, starts, k_run, (num_warmup, num_samples), progress)
    theta, log_prob = jax.jit(lambda z, energy: _theta_and_log_prob(prior, z, energy))(z, stats.pop("potential_energy"))
    info = {
        "method": "NUTS",
        "kernel": dataclasses.asdict(kernel),
        "num_warmup": num_warmup,
        "divergences": int(stats["diverging"].sum()),
        "seconds": time.perf_counter() - began,
        "key": key_words(key),
        "versions": _io.versions("numpyro"),
    }
    observed = _numbers(x_o)
    leaves = {name: np.asarray(value) for name, value in theta.items()}
    return Posterior(leaves, np.asarray(log_prob), stats, observed, prior, None, info)


def _numbers(x_o: Any) -> np.ndarray | None:
    """An observation as an array, or None if it is not one of numbers (a dictionary, say)."""
    try:
        array = np.asarray(x_o)
    except (ValueError, TypeError):  # lists of unequal length; what NumPy cannot hold, such as a typed key
        return None
    return array if array.dtype.kind in "fiubc" else None


def _check_arguments(kernel: object, **sizes: object) -> None:
    if not isinstance(kernel, NUTS):
        given = kernel.__name__ if isinstance(kernel, type) else repr(kernel)
        raise TypeError(f"kernel={given} was given; expected a kernel object: write kernel=vb.NUTS()")
    for name, value in sizes.items():
        least = 0 if name == "num_warmup" else 1
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name}={value!r} was given; expected a whole number of at least {least}, such as 500")


def _run(
    kernel: NUTS,
    potential: Callable[[Array], Array],
    starts: Array,
    key: PRNGKey,
    steps: tuple[int, int],
    progress: bool,
) -> tuple[Array, dict[str, np.ndarray]]:
    """z `[chain, draw, Dz]` and statistics `[chain, draw]`."""
    from numpyro import infer

    sampler = infer.NUTS(
        potential_fn=potential,
        target_accept_prob=kernel.target_accept,
        max_tree_depth=kernel.max_tree_depth,
        dense_mass=kernel.dense_mass,
    )
    # A fresh MCMC per run: a second run with other extra fields fails in numpyro when chains are vectorised.
    chains = infer.MCMC(
        sampler,
        num_warmup=steps[0],
        num_samples=steps[1],
        num_chains=len(starts),
        chain_method="vectorized",
        progress_bar=progress,
    )
    chains.run(key, init_params=starts if len(starts) > 1 else starts[0], extra_fields=(*_FIELDS, "potential_energy"))
    found = {name: np.asarray(value) for name, value in chains.get_extra_fields(group_by_chain=True).items()}
    stats = {ours: found[theirs] for theirs, ours in _FIELDS.items()}
    return chains.get_samples(group_by_chain=True), stats | {"potential_energy": found["potential_energy"]}


def _theta_and_log_prob(prior: Prior, z: Array, energy: Array) -> tuple[Theta, Array]:
    """theta and its log density: -U(z) without the log-determinant of the change of variables."""
    theta, logdet = prior.constrain(prior.unravel_z(z))
    return theta, -energy - logdet


def _prior_starts(prior: Prior, potential: Callable[[Array], Array], num_chains: int, key: PRNGKey) -> Array:
    """One finite prior draw per chain `[chain, Dz]`, each chain looking among its own."""

    @jax.jit
    def candidates(key: PRNGKey) -> tuple[Array, Array, Array]:
        def one(key: PRNGKey) -> tuple[Array, Array, Array]:
            z = prior.ravel_z(prior.unconstrain(prior.sample(key=key)))
            return z, *jax.value_and_grad(potential)(z)

        return jax.vmap(one)(jax.random.split(key, num_chains))

    starts, found = None, np.zeros(num_chains, bool)
    values, gradients = [], []
    for i in range(TRIES):
        z, value, gradient = (np.asarray(part) for part in candidates(jax.random.fold_in(key, i)))
        good = np.isfinite(z).all(1) & np.isfinite(value) & np.isfinite(gradient).all(1)
        starts = z.copy() if starts is None else np.where((good & ~found)[:, None], z, starts)
        found |= good
        if found.all():
            return jnp.asarray(starts)
        values.append(value)
        gradients.append(gradient)
    bad = _not_finite(prior, np.concatenate(values), np.concatenate(gradients))
    raise ValueError(
        f"no start was found for {int((~found).sum())} of {num_chains} chains among {TRIES} prior draws each: {bad}. "
        f"Narrow the prior, mend the likelihood where it is not finite, or give starts: init={{path: [chain, ...]}}"
    )


def _given_starts(prior: Prior, potential: Callable[[Array], Array], num_chains: int, init: Mapping[str, Any]) -> Array:
    for name in init:
        if name not in prior.shapes:
            raise ValueError(
                f"init names {name!r}; the prior has no such parameter. {did_you_mean(name, prior.shapes)}"
            )
    for name, shape in prior.shapes.items():
        wanted = (num_chains, *shape)
        if name not in init or np.shape(init[name]) != wanted:
            given = f"has shape {list(np.shape(init[name]))}" if name in init else "is missing"
            raise ValueError(f"init[{name!r}] {given}; expected {list(wanted)}, one start for each of the chains")
    theta = {name: jnp.asarray(init[name], jnp.result_type(float)) for name in prior.shapes}
    outside = ~np.isfinite(np.asarray(jax.vmap(prior.log_prob)(theta)))
    if outside.any():
        raise ValueError(
            f"init of chain {int(np.argmax(outside))} lies outside the prior; give a theta inside its support"
        )
    z = jax.vmap(lambda one: prior.ravel_z(prior.unconstrain(one)))(theta)
    value, gradient = (np.asarray(part) for part in jax.jit(jax.vmap(jax.value_and_grad(potential)))(z))
    bad = ~(np.isfinite(value) & np.isfinite(gradient).all(axis=1))
    if bad.any():
        what = _not_finite(prior, value[bad], gradient[bad])
        raise ValueError(f"init of chain {int(np.argmax(bad))} cannot be a start: {what}; give another")
    return z


def _not_finite(prior: Prior, values: np.ndarray, gradients: np.ndarray) -> str:
    """In words: how often the log posterior was not finite, else which gradients were not."""
    bad = ~np.isfinite(values)
    words = []
    if bad.any():
        kind = "NaN" if np.isnan(values[bad]).all() else "infinite" if not np.isnan(values).any() else "NaN or infinite"
        words.append(f"log_likelihood is {kind} at {int(bad.sum())} of {len(values)} draws")
    by_leaf = {} if bad.all() else prior.unravel_z(jnp.asarray(gradients[~bad]))
    for name, value in by_leaf.items():
        rows = ~np.isfinite(np.asarray(value)).reshape(len(value), -1).all(axis=1)
        if rows.any():
            words.append(f"its gradient in {name!r} is not finite at {int(rows.sum())} of {len(values)} draws")
    return ", ".join(words)
