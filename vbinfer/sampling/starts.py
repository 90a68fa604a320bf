"""Where chains start: screened prior draws, or the user's points."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._names import Named, PRNGKey, Theta
from vbinfer._param import did_you_mean
from vbinfer.priors.prior import Prior
from vbinfer.sampling.problem import Problem, RunOptions, constrained

TRIES = 100
"""Draws per chain among which a start is looked for."""
CANDIDATES = 64
"""Prior draws per chain of which a likely start is picked."""
_TELLS = 0.3
"""How far from 1/2 the chance must be that a failed draw lies above a finite one, for a parameter to be named."""
NARROW = "Narrow the prior, or mend the likelihood where it is not finite"


def starting_points(problem: Problem, options: RunOptions, key: PRNGKey) -> Array:
    """One start per chain `[chain, Dz]`.

    U and its gradient are finite there. Without `init` each chain takes the first finite one of its own prior draws. A
    mapping gives theta, leaves `[chain, ...]`. Anything with `basins` (a `MapFit`) gives its optima in turn, best
    first; anything with leaves `[chain, draw, ...]` under `theta` (a `Posterior`) one random draw per chain, from the
    chain of the same number where there are as many.
    """
    init, n, prior = options.init, options.num_chains, problem.prior
    if init is None:
        return prior_starts(problem, n, key)
    if hasattr(init, "basins"):
        thetas = [basin.theta for basin in init.basins]
        _check_leaves(prior, thetas[0])
        init = {name: np.stack([thetas[i % len(thetas)][name] for i in range(n)]) for name in prior.shapes}
    if isinstance(init, Mapping):
        return _given(problem, n, init)
    if isinstance(getattr(init, "theta", None), Mapping):
        return _drawn(problem, n, init.theta, key)
    raise TypeError(
        f"init is a {type(init).__name__}; expected theta as a dictionary {{path: [chain, ...]}}, a Posterior, "
        f"or what fit_map returned"
    )


def prior_starts(problem: Problem, num_chains: int, key: PRNGKey) -> Array:
    """One finite prior draw per chain `[chain, Dz]`."""
    return screened(
        problem,
        lambda i: _chain_draws(problem.prior, num_chains, key, i),
        "prior draws",
        f"{NARROW}, or give starts: init={{path: [chain, ...]}}",
    )[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _chain_draws(prior: Prior, num_chains: int, key: PRNGKey, i: Array | int) -> Array:
    return _draw_each(prior, jax.random.split(jax.random.fold_in(key, i), num_chains))


@functools.partial(jax.jit, static_argnums=0)
def _row_draws(prior: Prior, keys: Array, i: Array | int) -> Array:
    return _draw_each(prior, jax.vmap(jax.random.fold_in, (0, None))(keys, i))


def _draw_each(prior: Prior, keys: Array) -> Array:
    """A prior draw for each key, as z `[row, Dz]`."""
    return jax.vmap(lambda key: prior.ravel_z(prior.unconstrain(prior.sample(key=key))))(keys)


@functools.partial(jax.jit, static_argnums=(0, 1))
def prior_draws(prior: Prior, n: int, key: PRNGKey) -> Array:
    """n prior draws as z `[n, Dz]`."""
    return prior.ravel_z(prior.unconstrain(prior.sample(key=key, n=n)))


def likely_starts(problem: Problem, keys: Array) -> Array:
    """One start per row, in proportion to likelihood.

    Among `CANDIDATES` prior draws of its own. Chains side by side wait for the slowest, and one that begins far out in
    the tail is slow for all of them: there U is so large that its rounding rejects all but tiny steps (measured on a
    network of four nodes, 400 Heun steps: step sizes of 1e-5 and trees of full depth for hundreds of draws). Draws
    without a finite value and gradient are left out; a row that has none among its candidates takes the first finite
    one of more.

    Args:
        problem: its x has one observation per row, `[row, ...]`.
        keys: one per row `[row]`.

    Returns:
        z `[row, Dz]`.
    """
    z, found = problem.run(_likely, keys)
    if bool(found.all()):
        return z
    # numbers from CANDIDATES on: none of these was among the candidates
    more, _ = screened(
        problem, lambda i: _row_draws(problem.prior, keys, CANDIDATES + i), "prior draws", NARROW, shared=False
    )
    return jnp.where(found[:, None], z, more)


def _likely(problem: Problem, keys: Array) -> tuple[Array, Array]:
    """Likely starts `[row, Dz]`, and whether one was found."""
    prior = problem.prior
    # the key after those of the leaves, which `prior.sample` takes: the noise must not know the candidate
    own = jax.vmap(lambda key, i: jax.random.fold_in(jax.random.fold_in(key, i), len(prior.dists)), (0, None))

    # The Gumbel trick: the largest of log-likelihood + Gumbel noise is one draw in proportion to the likelihood, so a
    # scan that keeps the best so far holds one candidate per row in memory, not all of them.
    def consider(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
        best, chosen = carry
        z = _row_draws(prior, keys, i)
        value, gradient = _slopes(problem, Problem.log_likelihood, False, z)
        score = value + jax.vmap(jax.random.gumbel)(own(keys, i))
        score = jnp.where(finite(z, value, gradient), score, -jnp.inf)
        better = score > best
        return (jnp.where(better, score, best), jnp.where(better[:, None], z, chosen)), None

    kind = jnp.result_type(float)
    nothing = jnp.full(len(keys), -jnp.inf, kind), jnp.zeros((len(keys), prior.z_dim), kind)
    (best, z), _ = jax.lax.scan(consider, nothing, jnp.arange(CANDIDATES))
    return z, jnp.isfinite(best)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _picked(prior: Prior, num_chains: int, theta: Theta, key: PRNGKey, i: Array | int) -> Array:
    k_chain, k_draw = jax.random.split(jax.random.fold_in(key, i))
    there, draws = next(iter(theta.values())).shape[:2]
    # as many chains as before: each goes on from its own, so that separate modes stay separate
    own = jnp.arange(num_chains)
    chain = own if there == num_chains else jax.random.randint(k_chain, (num_chains,), 0, there)
    draw = jax.random.randint(k_draw, (num_chains,), 0, draws)
    return prior.ravel_z(prior.unconstrain({name: value[chain, draw] for name, value in theta.items()}))


def _drawn(problem: Problem, num_chains: int, theta: Named, key: PRNGKey) -> Array:
    prior = problem.prior
    _check_leaves(prior, {name: np.asarray(value)[0, 0] for name, value in theta.items()})
    leaves = {name: jnp.asarray(theta[name], jnp.result_type(float)) for name in prior.shapes}
    return screened(
        problem,
        lambda i: _picked(prior, num_chains, leaves, key, i),
        "draws of init",
        "Give the posterior of this prior and likelihood, or leave init out: prior draws",
    )[0]


def _given(problem: Problem, num_chains: int, init: Named) -> Array:
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
    outside = ~np.isfinite(np.asarray(prior.log_prob(init)))
    if outside.any():
        raise ValueError(
            f"init of chain {int(np.argmax(outside))} lies outside the prior; give a theta inside its support"
        )
    z = prior.ravel_z(prior.unconstrain(init))
    parts = _evaluated(problem, z)
    bad = ~finite(*parts)
    if bad.any():
        what = not_finite(prior, *(part[bad] for part in parts))
        raise ValueError(f"init of chain {int(np.argmax(bad))} cannot be a start: {what}; give another")
    return z


def _check_leaves(prior: Prior, theta: Named) -> None:
    def shown(shapes: Mapping[str, tuple[int, ...]]) -> str:
        return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))

    given = {name: np.shape(value) for name, value in theta.items()}
    if given != prior.shapes:
        raise ValueError(f"init has the parameters {shown(given)}; this prior has {shown(prior.shapes)}")


def screened(
    problem: Problem, propose: Callable[[int], Array], what: str, remedy: str, *, shared: bool = True
) -> tuple[Array, int]:
    """Row by row the first finite proposal.

    U and its gradient are finite there.

    Args:
        problem: the density; with `shared=False` its x has one observation per row.
        propose: `i -> z [row, Dz]`, the proposals of try i.
        what: what is proposed, for the message.
        remedy: what to do where nothing is found, for the message.
        shared: one observation for all rows.

    Returns:
        z `[row, Dz]`, and how many proposals were refused.

    Raises:
        ValueError: a row without a start among `TRIES`; says which parameter is to blame.
    """
    seen: list[tuple[np.ndarray, ...]] = []
    # try        0       1       2
    # row 0    [ok]      .       .      each row keeps its first finite proposal, whatever the others need;
    # row 1   [NaN]    [ok]      .      all rows are evaluated at every try, in one program
    # row 2   [NaN]   [NaN]    [ok]
    starts, found, refused = np.zeros(0), np.zeros(0, bool), 0
    for i in range(TRIES):
        z, value, gradient = _evaluated(problem, propose(i), shared)
        good = finite(z, value, gradient)
        if i == 0:
            starts, found = z, np.zeros(len(z), bool)
        starts = np.where((good & ~found)[:, None], z, starts)
        found |= good
        refused += int((~good).sum())
        if found.all():
            return jnp.asarray(starts), refused
        seen.append((z, value, gradient))
    refuse_gaps(problem.x_o)
    bad = not_finite(problem.prior, *(np.concatenate(part) for part in zip(*seen, strict=True)))
    raise ValueError(
        f"{int((~found).sum())} of {len(found)} starts were not found among {TRIES} {what} each: {bad}. {remedy}"
    )


def refuse_gaps(x_o: Any) -> None:
    """Raise ValueError where an observation is NaN or infinite.

    To be asked where the likelihood was found wanting: some likelihoods know what to do with a missing number.
    """
    for leaf in jax.tree.leaves(x_o):
        array = np.asarray(leaf)
        if array.dtype.kind not in "fc" or np.isfinite(array).all():
            continue
        places = np.argwhere(~np.isfinite(array)).tolist()
        kind = "NaN" if np.isnan(array).any() else "infinite"
        shown = ", ".join(str(place) for place in places[:5]) + (", ..." if len(places) > 5 else "")
        raise ValueError(
            f"x_o is {kind} at {shown} and the log-likelihood is finite nowhere; fill in or leave out what is missing, "
            "or take a likelihood that skips NaN, such as vb.likelihoods.Gaussian"
        )


def finite(z: Any, value: Any, gradient: Any) -> Any:
    """Rows `[row]` that are finite, with their value and gradient."""
    xp = jnp if isinstance(value, jax.Array) else np
    return xp.isfinite(z).all(1) & xp.isfinite(value) & xp.isfinite(gradient).all(1)


def _evaluated(problem: Problem, z: Array, shared: bool = True) -> tuple[np.ndarray, ...]:
    """z, U and dU/dz as arrays of NumPy."""
    slopes = problem.run(_slopes, z, static=(Problem.potential, shared))
    return tuple(np.asarray(part) for part in (z, *slopes))


def _slopes(problem: Problem, density: Callable[..., Array], shared: bool, z: Array) -> tuple[Array, Array]:
    """A density of the problem and its gradient.

    `[row]` and `[row, Dz]`. Both: the gradient may be NaN where the value is not.
    """

    def one(z: Array, x: Any) -> tuple[Array, Array]:
        return jax.value_and_grad(functools.partial(density, dataclasses.replace(problem, x=x)))(z)

    return jax.vmap(one, (0, None if shared else 0))(z, problem.x)


def not_finite(prior: Prior, z: np.ndarray, values: np.ndarray, gradients: np.ndarray) -> str:
    """Where and why the log posterior is not finite.

    How often, and through which parameter.

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
    for name, rows in _broken(prior, gradients[~bad]).items():
        words.append(f"its gradient in {name!r} is not finite at {rows} of {len(values)} draws")
    return ", ".join(words)


def _broken(prior: Prior, gradients: np.ndarray) -> dict[str, int]:
    """Leaves with a gradient that is not finite.

    By name, the number of such draws.
    """
    leaves = prior.unravel_z(jnp.asarray(gradients))
    rows = {name: np.asarray(value).reshape(len(gradients), -1) for name, value in leaves.items() if value.size}
    counts = {name: int((~np.isfinite(value).all(axis=1)).sum()) for name, value in rows.items()}
    return {name: count for name, count in counts.items() if count}


def _culprit(prior: Prior, z: np.ndarray, bad: np.ndarray) -> str:
    """The parameter that tells failed draws apart.

    Nothing if none does.
    By the rank-sum statistic: P(failed draw above finite one) = (R - n (n - 1) / 2) / (n m), R the sum of the ranks
    (from 0) of the n failed draws among all n + m.
    """
    if bad.all() or not np.isfinite(z).all():
        return ""
    columns = np.asarray(prior.ravel(constrained(prior, z)[0]))
    # argsort twice gives ranks; ties do not occur among continuous draws
    ranks = columns.argsort(axis=0).argsort(axis=0)
    n, m = int(bad.sum()), int((~bad).sum())
    above = (ranks[bad].sum(axis=0) - n * (n - 1) / 2) / (n * m)
    best = int(np.argmax(np.abs(above - 0.5)))
    if abs(above[best] - 0.5) < _TELLS:
        return ""
    failed, finite_ = np.median(columns[bad, best]), np.median(columns[~bad, best])
    side = "large" if above[best] > 0.5 else "small"
    return f", mostly at {side} {prior.names[best]!r} (median {failed:.3g} there, {finite_:.3g} where it is finite)"
