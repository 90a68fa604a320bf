"""Where chains start: prior draws, or what the user gave, screened for a finite density and gradient."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer._param import did_you_mean
from vbinfer.priors.prior import Prior
from vbinfer.sampling.problem import Form, Plan, Problem

TRIES = 100
"""Draws per chain among which a start is looked for."""
CANDIDATES = 64
"""Prior draws per chain of which a likely start is picked."""
_TELLS = 0.3
"""How far from 1/2 the chance must be that a failed draw lies above a finite one, for a parameter to be named."""


def starting_points(problem: Problem, plan: Plan, key: PRNGKey) -> Array:
    """One start per chain `[chain, Dz]`, at which U and its gradient are finite.

    Without `plan.init` each chain takes the first finite one of its own prior draws. A mapping gives theta, leaves
    `[chain, ...]`. Anything with `basins` (a `MapFit`) gives its optima in turn, best first; anything with leaves
    `[chain, draw, ...]` under `theta` (a `Posterior`) one random draw per chain, from the chain of the same number
    where there are as many.
    """
    init = plan.init
    if init is None:
        return prior_starts(problem, plan.num_chains, key)
    if isinstance(init, Mapping):
        return _given(problem, plan.num_chains, init)
    if hasattr(init, "basins"):
        thetas = [basin.theta for basin in init.basins]
        _check_leaves(problem.prior, thetas[0])
        theta = {
            name: np.stack([np.asarray(thetas[i % len(thetas)][name]) for i in range(plan.num_chains)])
            for name in problem.prior.shapes
        }
        return _given(problem, plan.num_chains, theta)
    if isinstance(getattr(init, "theta", None), Mapping):
        return _drawn(problem, plan.num_chains, init.theta, key)
    raise TypeError(
        f"init is a {type(init).__name__}; expected theta as a dictionary {{path: [chain, ...]}}, a Posterior, "
        f"or what fit_map returned"
    )


def prior_starts(problem: Problem, num_chains: int, key: PRNGKey) -> Array:
    """One finite prior draw per chain `[chain, Dz]`, each chain looking among its own `TRIES`."""
    return _first_finite(
        problem.prior,
        potential_and_gradient(problem),
        lambda i: _prior_draws(problem.prior, num_chains, jax.random.fold_in(key, i)),
        "prior draws",
        "Narrow the prior, mend the likelihood where it is not finite, or give starts: init={path: [chain, ...]}",
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _prior_draws(prior: Prior, num_chains: int, key: PRNGKey) -> Array:
    return _drawn_z(prior, jax.random.split(key, num_chains))


def _drawn_z(prior: Prior, keys: Array) -> Array:
    """A prior draw for each key, as z `[row, Dz]`."""
    return jax.vmap(lambda key: prior.ravel_z(prior.unconstrain(prior.sample(key=key))))(keys)


def likely_starts(form: Form, keys: Array, x: Any) -> Array:
    """One start per row `[row, Dz]`: of `CANDIDATES` prior draws of its own one in proportion to its likelihood.

    Chains side by side wait for the slowest, and one that begins far out in the tail is slow for all of them: there U
    is so large that its rounding rejects all but tiny steps (measured on a network of four nodes, 400 Heun steps: step
    sizes of 1e-5 and trees of full depth for hundreds of draws). Draws without a finite value and gradient are left
    out; a row that has none among its candidates takes the first finite one of more.

    Args:
        form: the problem without its observation.
        keys: one per row `[row]`.
        x: an observation per row, `[row, ...]`.
    """
    z, found = _likely(form)(keys, x)
    if bool(found.all()):
        return z
    return jnp.where(found[:, None], z, _row_starts(form, keys, x))


def _row_starts(form: Form, keys: Array, x: Any) -> Array:
    evaluate = _gradients(form)
    return _first_finite(
        form.prior,
        lambda z: evaluate(z, x),
        lambda i: _row_draws(form.prior, keys, jnp.asarray(CANDIDATES + i)),
        "prior draws",
        "Narrow the prior, or mend the likelihood where it is not finite",
    )


@functools.lru_cache(maxsize=8)
def _likely(form: Form) -> Callable[[Array, Any], tuple[Array, Array]]:
    """`keys [row], x [row, ...] -> z [row, Dz], whether one was found [row]`."""

    def consider(carry: tuple[Array, Array], i: Array, keys: Array, x: Any) -> tuple[tuple[Array, Array], None]:
        best, chosen = carry
        z = _row_draws(form.prior, keys, i)
        value, gradient = jax.vmap(lambda z, x: jax.value_and_grad(form.at(x).log_likelihood)(z))(z, x)
        chance = jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(jax.random.fold_in(key, i), 1)))(keys)
        good = jnp.isfinite(z).all(1) & jnp.isfinite(value) & jnp.isfinite(gradient).all(1)
        score = jnp.where(good, value + chance, -jnp.inf)  # the largest is one draw in proportion to the likelihood
        better = score > best
        return (jnp.where(better, score, best), jnp.where(better[:, None], z, chosen)), None

    def choose(keys: Array, x: Any) -> tuple[Array, Array]:
        float_ = jnp.result_type(float)
        nothing = jnp.full(len(keys), -jnp.inf, float_), jnp.zeros((len(keys), form.prior.z_dim), float_)
        body = functools.partial(consider, keys=keys, x=x)
        (best, z), _ = jax.lax.scan(body, nothing, jnp.arange(CANDIDATES))
        return z, jnp.isfinite(best)

    return jax.jit(choose)


@functools.partial(jax.jit, static_argnums=0)
def _row_draws(prior: Prior, keys: Array, i: Array) -> Array:
    return _drawn_z(prior, jax.vmap(jax.random.fold_in, (0, None))(keys, i))


def _drawn(problem: Problem, num_chains: int, theta: Mapping[str, Any], key: PRNGKey) -> Array:
    prior = problem.prior
    _check_leaves(prior, {name: np.asarray(value)[0, 0] for name, value in theta.items()})
    there, draws = np.shape(next(iter(theta.values())))[:2]
    leaves = {name: jnp.asarray(theta[name], jnp.result_type(float)) for name in prior.shapes}

    @jax.jit
    def pick(key: PRNGKey) -> Array:
        k_chain, k_draw = jax.random.split(key)
        own = jnp.arange(num_chains)
        chain = own if there == num_chains else jax.random.randint(k_chain, (num_chains,), 0, there)
        draw = jax.random.randint(k_draw, (num_chains,), 0, draws)
        return prior.ravel_z(prior.unconstrain({name: value[chain, draw] for name, value in leaves.items()}))

    return _first_finite(
        prior,
        potential_and_gradient(problem),
        lambda i: pick(jax.random.fold_in(key, i)),
        "draws of init",
        "Give the posterior of this prior and likelihood, or leave init out: prior draws",
    )


def _given(problem: Problem, num_chains: int, init: Mapping[str, Any]) -> Array:
    prior = problem.prior
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
    value, gradient = (np.asarray(part) for part in potential_and_gradient(problem)(z))
    bad = ~(np.isfinite(value) & np.isfinite(gradient).all(axis=1))
    if bad.any():
        what = not_finite(prior, np.asarray(z)[bad], value[bad], gradient[bad])
        raise ValueError(f"init of chain {int(np.argmax(bad))} cannot be a start: {what}; give another")
    return z


def _check_leaves(prior: Prior, theta: Mapping[str, Any]) -> None:
    given = {name: np.shape(value) for name, value in theta.items()}
    wanted = {name: tuple(shape) for name, shape in prior.shapes.items()}
    if given != wanted:
        raise ValueError(f"init has the parameters {_shapes(given)}; this prior has {_shapes(wanted)}")


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))


def _first_finite(
    prior: Prior,
    evaluate: Callable[[Array], tuple[Array, Array]],
    propose: Callable[[int], Array],
    what: str,
    remedy: str,
) -> Array:
    """Row by row the first of `TRIES` proposals `[chain, Dz]` whose U and gradient are finite."""
    starts, found = np.zeros(0), np.zeros(0, bool)
    seen: list[tuple[np.ndarray, ...]] = []
    for i in range(TRIES):
        z = propose(i)
        value, gradient = evaluate(z)
        z, value, gradient = np.asarray(z), np.asarray(value), np.asarray(gradient)
        good = np.isfinite(z).all(1) & np.isfinite(value) & np.isfinite(gradient).all(1)
        if i == 0:
            starts, found = z, np.zeros(len(z), bool)
        starts = np.where((good & ~found)[:, None], z, starts)
        found |= good
        if found.all():
            return jnp.asarray(starts)
        seen.append((z, value, gradient))
    bad = not_finite(prior, *(np.concatenate(part) for part in zip(*seen, strict=True)))
    raise ValueError(
        f"no start was found for {int((~found).sum())} of {len(found)} chains among {TRIES} {what} each: {bad}. "
        f"{remedy}"
    )


def potential_and_gradient(problem: Problem) -> Callable[[Array], tuple[Array, Array]]:
    """`z [n, Dz] -> U [n], dU/dz [n, Dz]`, compiled once for a problem, or for all problems of its form."""
    if problem.form is None:
        return _potential_and_gradient(problem)
    evaluate = _gradients(problem.form)
    return lambda z: evaluate(z, repeated(problem.x_o, len(z)))


def repeated(x: Any, n: int) -> Any:
    """An observation as n equal rows."""
    return jax.tree.map(lambda leaf: np.broadcast_to(leaf, (n, *np.shape(leaf))), x)


@functools.lru_cache(maxsize=8)
def _potential_and_gradient(problem: Problem) -> Callable[[Array], tuple[Array, Array]]:
    return jax.jit(jax.vmap(jax.value_and_grad(problem.potential)))


@functools.lru_cache(maxsize=8)
def _gradients(form: Form) -> Callable[[Array, Any], tuple[Array, Array]]:
    """`z [n, Dz], x [n, ...] -> U [n], dU/dz [n, Dz]`."""
    return jax.jit(jax.vmap(lambda z, x: jax.value_and_grad(form.at(x).potential)(z)))


def not_finite(prior: Prior, z: np.ndarray, values: np.ndarray, gradients: np.ndarray) -> str:
    """In words: how often the log posterior was not finite and which parameter is to blame, else whose gradient.

    Args:
        prior: names the columns.
        z: draws `[n, Dz]`.
        values: U at each `[n]`.
        gradients: dU/dz at each `[n, Dz]`.
    """
    bad = ~np.isfinite(values)
    words = []
    if bad.any():
        kind = "NaN" if np.isnan(values[bad]).all() else "infinite" if not np.isnan(values).any() else "NaN or infinite"
        words.append(f"log_likelihood is {kind} at {int(bad.sum())} of {len(values)} draws{_culprit(prior, z, bad)}")
        names = _broken(prior, gradients[bad])
        if 0 < len(names) < len(prior.shapes):
            words.append(f"which came through {', '.join(map(repr, names))}")
    for name, rows in ({} if bad.all() else _broken(prior, gradients[~bad])).items():
        words.append(f"its gradient in {name!r} is not finite at {rows} of {len(values)} draws")
    return ", ".join(words)


def _broken(prior: Prior, gradients: np.ndarray) -> dict[str, int]:
    """The leaves whose gradient is not finite, with the number of such draws."""
    leaves = prior.unravel_z(jnp.asarray(gradients))
    counts = {
        name: int((~np.isfinite(np.asarray(value)).reshape(len(value), -1).all(axis=1)).sum())
        for name, value in leaves.items()
    }
    return {name: count for name, count in counts.items() if count}


def _culprit(prior: Prior, z: np.ndarray, bad: np.ndarray) -> str:
    """The parameter whose value tells failed draws from finite ones best, by the rank-sum statistic; or nothing."""
    if bad.all() or not np.isfinite(z).all():
        return ""
    theta: Theta = prior.constrain(prior.unravel_z(jnp.asarray(z)))[0]
    columns = np.asarray(prior.ravel(theta))
    ranks = columns.argsort(axis=0).argsort(axis=0)
    n, m = int(bad.sum()), int((~bad).sum())
    above = (ranks[bad].sum(axis=0) - n * (n - 1) / 2) / (n * m)
    best = int(np.argmax(np.abs(above - 0.5)))
    if abs(above[best] - 0.5) < _TELLS:
        return ""
    failed, finite = np.median(columns[bad, best]), np.median(columns[~bad, best])
    side = "large" if above[best] > 0.5 else "small"
    return f", mostly at {side} {prior.names[best]!r} (median {failed:.3g} there, {finite:.3g} where it is finite)"
