"""Cohorts: a population over subjects, pooled by reweighting."""

import dataclasses
import functools
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer import _check
from vbinfer._arviz import PARETO_K
from vbinfer._names import PRNGKey, Theta
from vbinfer._param import did_you_mean
from vbinfer.approximate import mixtures as mixture
from vbinfer.neural.scaler import user_stacklevel
from vbinfer.posterior import Posterior, provenance
from vbinfer.priors.prior import Prior
from vbinfer.priors.transforms import leaf_map
from vbinfer.sampling.importance import Smoothed, pareto_smoothed
from vbinfer.sampling.sample import sample_mcmc
from vbinfer.sampling.tempering import systematic

MOST_DRAWS = 2_000
"""Draws of a subject that are weighed, evenly taken from those that there are."""
FEW, HOPELESS = 50, 10
"""Effective draws of a subject below which it is named; below which weights are not tried."""
_HYPER_DRAWS = 500
_NUM_STARTS, _NUM_CHAINS, _NUM_WARMUP = 200, 4, 300
_HALF_LOG_2PI = 0.5 * np.log(2.0 * np.pi)


@dataclasses.dataclass(frozen=True, eq=False)
class Cohort:
    """What `vb.cohort` returns.

    Attributes:
        population: posterior of mean and sd of each leaf, over the subjects; `info` holds `over` (leaf to "theta" or
            "z"), `likelihood` ("weights" or "mixtures"), and `ess` and `khat` of the weights by subject.
        subjects: posterior of each subject given the whole cohort, shrunken towards the population.
        posteriors: as they were given.
    """

    population: Posterior
    subjects: dict[str, Posterior]
    posteriors: dict[str, Posterior]

    def difference(self, groups: Mapping[str, Sequence[str]], *, key: PRNGKey) -> Posterior:
        """Posterior of the difference between two groups' means.

        Each group is a population of its own, with its own mean and sd under the hyperprior of this cohort, so that
        neither is shrunken towards the other: leaf `"<leaf>"` holds mean of the first group minus mean of the second,
        over theta or z as `population.info["over"]` says.

        Args:
            groups: two names, and the subjects of each: `{"patients": ["sub-01", ...], "controls": [...]}`.
            key: a JAX key.

        Raises:
            ValueError: not two groups, an unknown subject, or one in both.
        """
        if len(groups) != 2:
            raise ValueError(
                f"difference was given {len(groups)} groups; expected two: "
                '{"patients": ["sub-01", ...], "controls": ["sub-02", ...]}'
            )
        members = {str(group): [str(name) for name in names] for group, names in groups.items()}
        for group, names in members.items():
            for name in names:
                if name not in self.posteriors:
                    raise ValueError(
                        f"group {group!r} has {name!r}, which is no subject. {did_you_mean(name, self.posteriors)}"
                    )
            if not names or len(set(names)) < len(names):
                raise ValueError(f"group {group!r} is {names}; expected subjects, each once")
        first, second = members.values()
        if both := sorted(set(first) & set(second)):
            raise ValueError(f"{', '.join(both)} in both groups; a subject belongs to one")
        hyperprior = self.population.prior
        assert hyperprior is not None
        keys = jax.random.split(_check.key(key))
        pooled = [
            cohort({name: self.posteriors[name] for name in names}, hyperprior, key=k).population
            for names, k in zip((first, second), keys, strict=True)
        ]
        means = {leaf: [one.theta[f"{leaf}.mean"] for one in pooled] for leaf in self.population.info["over"]}
        info = {"method": "cohort, difference", "groups": members, "over": self.population.info["over"]}
        return Posterior({leaf: a - b for leaf, (a, b) in means.items()}, info=info)

    def regress(self, score: Mapping[str, float], leaf: str, *, key: PRNGKey) -> Posterior:
        """Regression of a score on a parameter known with uncertainty.

            score_s = intercept + slope . (u_s - c) + residual e_s,   e_s ~ N(0, 1),   u_s ~ N(mean, sd)

        u_s is the leaf over theta or z, known through the posterior of subject s; c is the posterior mean of the
        population, so that the intercept is the score of an average subject. Population and regression are sampled
        together: a regression on posterior means would find slopes that are too flat or too sure.

        The priors are weak and in units of the data: Normal(mean of the scores, 2.5 sd) for the intercept,
        Normal(0, 2.5 sd of the scores / sd of the population) for the slope, HalfNormal(2.5 sd) for the residual.

        Args:
            score: a number for each subject.
            leaf: the parameter.
            key: a JAX key.

        Returns:
            Posterior of `intercept`, `slope` (in the leaf's shape), `residual`, and of the population.

        Raises:
            ValueError: an unknown leaf, a subject without a score or the other way round, scores that are not finite or
                all alike, fewer than three subjects.
        """
        began, key = time.perf_counter(), _check.key(key)
        _check.one_of(leaf, "leaf", self.population.info["over"])
        y = _scores(score, list(self.posteriors))
        level = self.population.theta[f"{leaf}.mean"].mean((0, 1)), self.population.theta[f"{leaf}.sd"].mean((0, 1))
        gathered = _gather(self.posteriors)
        shape = gathered.shapes[leaf]
        centre, width = (np.broadcast_to(v, shape) for v in level)
        # dists of the slope in the leaf's shape: Normal with arrays
        spread = float(y.std(ddof=1))
        hyper = self.population.prior
        assert hyper is not None
        prior = Prior(
            {
                "intercept": dist.Normal(float(y.mean()), 2.5 * spread),
                "slope": dist.Normal(jnp.zeros(shape), jnp.asarray(2.5 * spread / width)),
                "residual": dist.HalfNormal(2.5 * spread),
                **hyper.dists,
            }
        )
        data = gathered.data | {"score": jnp.asarray(y), "level": jnp.asarray(centre.reshape(-1))}
        found = _chains(prior, _Regression(gathered.layout, gathered.columns(leaf)), data, key)
        info = provenance("cohort, regression", key, began) | {"leaf": leaf, "divergences": found.info["divergences"]}
        return dataclasses.replace(found, x_o=y, info=info, state=None)


def cohort(posteriors: Mapping[str, Posterior], hyperprior: Prior, *, key: PRNGKey) -> Cohort:
    """Pool posteriors of many subjects by reweighting.

    A normal population for each leaf, independent of the other leaves:

        u_s ~ N(mean, sd^2),   (mean, sd) ~ hyperprior
        p(x_s | mean, sd) ~ (1/n) sum_i N(u_si; mean, sd^2) / p(u_si),   u_si ~ q(u | x_s)

    u is theta where the leaf's support is unbounded, else its z, in which the prior is standard normal. Nothing is
    simulated or trained again. NUTS samples mean and sd. The draws of a subject are then resampled by their weights,
    averaged over mean and sd, smoothed by a Pareto tail.

    Weights only move between draws that exist. Where the population lies in the tails of a subject's posterior, or
    leaves are many, they are carried by few (`population.info["ess"]`, `["khat"]`): a warning names the subject, and
    q(u | x_s) of all becomes a mixture of up to three Gaussians, by BIC, with that integral in closed form, the prior's
    part p(u) a normal (`info["likelihood"]` is then "mixtures").

    Args:
        posteriors: subject to posterior, with `prior=`, of the same leaves. At most 2,000 draws of each are used.
        hyperprior: `vb.Prior({"<leaf>.mean": ..., "<leaf>.sd": ...})` for every leaf; a scalar, or in the leaf's shape.
        key: a JAX key.

    Raises:
        TypeError: no `Posterior`, no `Prior`.
        ValueError: no subject, two of one name, other leaves or shapes, posteriors without a prior or outside it, a
            hyperprior that lacks a leaf, names an unknown one, or allows a negative sd.

    Example:
        >>> import jax, numpy as np, vbinfer as vb
        >>> import numpyro.distributions as dist
        >>> rng, prior = np.random.default_rng(0), vb.Prior({"G": dist.Normal(0.0, 3.0)})
        >>> draws = {f"sub-{s}": rng.normal(rng.normal(1.0, 0.5), 0.3, (1, 200)) for s in range(8)}
        >>> posteriors = {name: vb.Posterior({"G": values}, prior=prior) for name, values in draws.items()}
        >>> hyperprior = vb.Prior({"G.mean": dist.Normal(0.0, 3.0), "G.sd": dist.HalfNormal(1.0)})
        >>> found = vb.cohort(posteriors, hyperprior, key=jax.random.key(0))
        >>> sorted(found.population.theta), len(found.subjects)
        (['G.mean', 'G.sd'], 8)

    The weights of Hogg, Myers & Bovy 2010, ApJ 725, 2166, doi:10.1088/0004-637X/725/2/2166.
    """
    began, key = time.perf_counter(), _check.key(key)
    given = _checked(posteriors)
    gathered = _gather(given)
    _check_hyperprior(hyperprior, gathered.shapes)
    if len(given) == 1:
        warnings.warn(
            f"the cohort is one subject, {next(iter(given))!r}, and says nothing about the spread over subjects: sd is "
            "that of the hyperprior",
            stacklevel=user_stacklevel(),
        )
    k_chains, k_take = jax.random.split(key)
    found, ess = None, [_effective(one) for one in _weighed(gathered, _guess(gathered))]
    if min(ess) > HOPELESS:  # chains of weights would crawl
        found = _chains(hyperprior, _Population(gathered.layout), gathered.data, k_chains)
    weighed = dict(zip(given, _weighed(gathered, _guess(gathered) if found is None else _some(found)), strict=True))
    ess = {name: _effective(one) for name, one in weighed.items()}
    khat = {name: float(one.pareto_k) for name, one in weighed.items()}
    bad = [name for name in given if khat[name] > PARETO_K or ess[name] < FEW]
    if found is None or bad:
        _warn(bad, ess, khat)
        found, subjects = _smooth(given, gathered, hyperprior, k_chains, k_take)
    else:
        subjects = {}
        for i, (name, one) in enumerate(weighed.items()):
            keep = systematic(jax.random.fold_in(k_take, i), jnp.asarray(np.exp(one.log_weights)))
            subjects[name] = _taken(given[name], gathered.rows[name][np.asarray(keep)], ess[name], khat[name])
    info = provenance("cohort", key, began) | {"over": gathered.over, "ess": ess, "khat": khat}
    info |= {"likelihood": "mixtures" if bad else "weights", "divergences": found.info["divergences"]}
    return Cohort(dataclasses.replace(found, x_o=None, info=info, state=None), subjects, given)


def weak_hyperprior(prior: Prior) -> Prior:
    """Hyperprior as wide as the prior of one subject.

    mean ~ N(m, s^2) and sd ~ HalfNormal(s) for each element, m and s of the prior over theta, 0 and 1 over z.
    """
    dists = {}
    for leaf, (centre, width) in _own_level(prior).items():
        dists[f"{leaf}.mean"] = dist.Normal(jnp.asarray(centre), jnp.asarray(width))
        dists[f"{leaf}.sd"] = dist.HalfNormal(jnp.asarray(width))
    return Prior(dists)


def _own_level(prior: Prior) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and sd of each leaf of u under the prior."""
    mean, variance, level = prior.mean(), prior.variance(), {}
    for leaf, d in prior.dists.items():
        shape = prior.z_shapes[leaf]
        level[leaf] = np.zeros(shape), np.ones(shape)
        if _unbounded(d):
            level[leaf] = mean[leaf], np.sqrt(np.where(np.isfinite(variance[leaf]), variance[leaf], 1.0))
    return level


def _unbounded(d: Any) -> bool:
    low, high = leaf_map(d).bounds()
    return bool(np.isinf(low).all() and np.isinf(high).all())


Layout = tuple[tuple[str, tuple[int, ...]], ...]
"""Leaves in the order of u's columns, and their shapes."""


class _Gathered(NamedTuple):
    """Draws of all subjects.

    Attributes:
        data: `log_prior` `[subject, n]` of u; `powers` `[subject, n, 2 E]`, v and v^2 of v = (u - centre) / width.
        rows: by subject, which of its draws these are.
        shapes: of each leaf of u.
        over: of each leaf, "theta" or "z".
    """

    data: dict[str, Array]
    rows: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]
    over: dict[str, str]

    @property
    def layout(self) -> Layout:
        """Leaves and shapes, hashable."""
        return tuple(self.shapes.items())

    def columns(self, leaf: str) -> tuple[int, ...]:
        """Columns of a leaf in u."""
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        at = list(self.shapes).index(leaf)
        return tuple(range(sum(sizes[:at]), sum(sizes[: at + 1])))


def _gather(posteriors: Mapping[str, Posterior]) -> _Gathered:
    n = min(MOST_DRAWS, min(one.num_chains * one.num_samples for one in posteriors.values()))
    us, priors, rows = [], [], {}
    shapes: dict[str, tuple[int, ...]] = {}
    over: dict[str, str] = {}
    for name, posterior in posteriors.items():
        total, prior = posterior.num_chains * posterior.num_samples, posterior.prior
        assert prior is not None
        rows[name] = np.floor((np.arange(n) + 0.5) * total / n).astype(int)
        columns, log_prior = [], np.zeros(n)
        for leaf, d in prior.dists.items():
            value = np.asarray(posterior.theta[leaf]).reshape(total, *prior.shapes[leaf])[rows[name]]
            u, log_p, over[leaf] = _over(leaf, d, value)
            shapes[leaf] = u.shape[1:]
            columns.append(u.reshape(n, -1))
            log_prior += log_p
        if not np.isfinite(log_prior).all():
            raise ValueError(
                f"{int(np.sum(~np.isfinite(log_prior)))} draws of {name!r} have no density under its own prior; give "
                "the prior that its posterior was made with"
            )
        us.append(np.concatenate(columns, axis=1))
        priors.append(log_prior)
    u, log_prior = np.stack(us), np.stack(priors)
    centre, width = u.mean((0, 1)), np.maximum(u.std((0, 1)), 1e-30)
    v = (u - centre) / width
    data = {"powers": np.concatenate([v, v**2], axis=-1), "log_prior": log_prior, "centre": centre, "width": width}
    return _Gathered({name: jnp.asarray(value) for name, value in data.items()}, rows, shapes, over)


def _over(leaf: str, d: Any, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """u, its log prior density, and what it is."""
    alone = Prior({leaf: d})
    theta = {leaf: jnp.asarray(value)}
    density = alone.log_prob(theta)
    if _unbounded(d):
        return value, np.asarray(density, float), "theta"
    z = alone.unconstrain(theta)
    inside = np.isfinite(np.asarray(density))
    density = alone.log_prob(alone.constrain(z)[0]) + alone.constrain(z)[1]
    return np.asarray(z[leaf]), np.where(inside, np.asarray(density, float), -np.inf), "z"


@dataclasses.dataclass(frozen=True)
class _Population:
    """log p(x | mean, sd) of all subjects."""

    layout: Layout

    def __call__(self, hyper: Theta, data: Any) -> Array:
        return _log_mean(_log_weights(hyper, self.layout, data))


@dataclasses.dataclass(frozen=True)
class _Mixed:
    """log p(x | mean, sd) of all subjects, by mixtures."""

    layout: Layout

    def __call__(self, hyper: Theta, data: Any) -> Array:
        mean, sd = levels(hyper, self.layout)
        return data["mixtures"].log_likelihood((mean - data["centre"]) / data["width"], sd / data["width"])


@dataclasses.dataclass(frozen=True)
class _Regression:
    """log p(x, score | mean, sd, line) of all subjects."""

    layout: Layout
    columns: tuple[int, ...]

    def __call__(self, hyper: Theta, data: Any) -> Array:
        log_weight, at = _log_weights(hyper, self.layout, data), jnp.asarray(self.columns)
        u = data["powers"][..., at] * data["width"][at] + data["centre"][at] - data["level"]
        line = hyper["intercept"] + u @ hyper["slope"].reshape(-1)
        error = (data["score"][:, None] - line) / hyper["residual"]
        return _log_mean(log_weight - 0.5 * error**2 - jnp.log(hyper["residual"]) - _HALF_LOG_2PI)


def _smooth(
    given: Mapping[str, Posterior], gathered: _Gathered, hyperprior: Prior, k_chains: PRNGKey, k_take: PRNGKey
) -> tuple[Posterior, dict[str, Posterior]]:
    """Population, and subjects given it, from Gaussian mixtures."""
    prior = next(iter(given.values())).prior
    assert prior is not None
    data = {name: np.asarray(value, float) for name, value in gathered.data.items()}
    u = np.split(data["powers"], 2, axis=-1)[0] * data["width"] + data["centre"]
    own = _own_level(prior)
    centre, width = (
        np.concatenate([np.broadcast_to(own[leaf][i], shape).reshape(-1) for leaf, shape in gathered.layout])
        for i in (0, 1)
    )
    mixtures = mixture.fit((u - centre) / width, data["log_prior"] + np.log(width).sum())
    scaled = {"centre": jnp.asarray(centre), "width": jnp.asarray(width)}
    found = _chains(hyperprior, _Mixed(gathered.layout), scaled | {"mixtures": mixtures}, k_chains)
    n, total = u.shape[1], found.num_chains * found.num_samples
    rows = np.arange(n) % total
    hyper = {name: jnp.asarray(v.reshape(total, *v.shape[2:])[rows]) for name, v in found.theta.items()}
    w = np.asarray(_drawn(hyper, gathered.layout, mixtures, scaled, jax.random.split(k_take, n)))
    return found, {name: _of_u(given[name], w[:, s] * width + centre, gathered) for s, name in enumerate(given)}


@functools.partial(jax.jit, static_argnums=1)
def _drawn(hyper: Theta, layout: Layout, mixtures: Any, scaled: Any, keys: Array) -> Array:
    """w given draws of the population, `[n, S, E]`."""

    def one(row: Any) -> Array:
        mean, sd = levels(row[0], layout)
        return mixtures.sample((mean - scaled["centre"]) / scaled["width"], sd / scaled["width"], row[1])

    return jax.lax.map(one, (hyper, keys))


def _of_u(posterior: Posterior, u: np.ndarray, gathered: _Gathered) -> Posterior:
    """A posterior of one chain at u, `[n, E]`."""
    theta, prior = {}, posterior.prior
    assert prior is not None
    for leaf, shape in gathered.shapes.items():
        value = jnp.asarray(u[:, list(gathered.columns(leaf))].reshape(len(u), *shape))
        if gathered.over[leaf] == "z":
            value = Prior({leaf: prior.dists[leaf]}).constrain({leaf: value})[0][leaf]
        theta[leaf] = np.asarray(value)[None]
    info = {**posterior.info, "method": f"{posterior.info.get('method', 'posterior')}, pooled by a Gaussian mixture"}
    return Posterior(theta, x_o=posterior.x_o, prior=posterior.prior, info=info)


def _chains(prior: Prior, likelihood: Any, data: Any, key: PRNGKey) -> Posterior:
    """NUTS from the likeliest of some draws of the prior."""
    # a draw with a tiny sd is very steep: from there the first trees of a chain would cost as much as all others
    k_start, k_run = jax.random.split(key)
    starts = prior.sample(key=k_start, n=_NUM_STARTS)
    value = np.nan_to_num(np.asarray(_values(likelihood, starts, data)), nan=-np.inf)
    best = np.argsort(-value)[:_NUM_CHAINS]
    init = {name: np.asarray(leaf)[best] for name, leaf in starts.items()}
    return sample_mcmc(
        prior, likelihood, data, num_warmup=_NUM_WARMUP, num_samples=500, num_chains=_NUM_CHAINS, key=k_run, init=init
    )


@functools.partial(jax.jit, static_argnums=0)
def _values(likelihood: Any, thetas: Theta, data: Any) -> Array:
    return jax.lax.map(lambda theta: likelihood(theta, data), thetas)


def levels(hyper: Theta, layout: Layout) -> tuple[Array, Array]:
    """Mean and sd `[E]` of the columns of u."""
    flat = lambda kind: jnp.concatenate(  # noqa: E731
        [jnp.broadcast_to(hyper[f"{leaf}.{kind}"], shape).reshape(-1) for leaf, shape in layout]
    )
    return flat("mean"), flat("sd")


def _log_weights(hyper: Theta, layout: Layout, data: Mapping[str, Array]) -> Array:
    """log N(u; mean, sd^2) - log p(u), `[..., n]`."""
    mean, sd = levels(hyper, layout)
    m, s = (mean - data["centre"]) / data["width"], sd / data["width"]
    # a quadratic in v, as one matrix product: its gradient is one too, and u is centred, so that no digits are lost
    linear, square = m / s**2, -0.5 / s**2
    constant = jnp.sum(square * m**2 - jnp.log(sd) - _HALF_LOG_2PI)
    return data["powers"] @ jnp.concatenate([linear, square]) + constant - data["log_prior"]


def _log_mean(log_weight: Array) -> Array:
    return jnp.sum(jax.scipy.special.logsumexp(log_weight, axis=1) - np.log(log_weight.shape[1]))


def _some(found: Posterior) -> Theta:
    """Draws of the population, some hundreds."""
    total = found.num_chains * found.num_samples
    rows = np.linspace(0, total - 1, min(total, _HYPER_DRAWS)).astype(int)
    return {name: jnp.asarray(v.reshape(total, *v.shape[2:])[rows]) for name, v in found.theta.items()}


def _guess(gathered: _Gathered) -> Theta:
    """One population, by the moments of the subjects' means."""
    means = np.split(np.asarray(gathered.data["powers"]), 2, axis=-1)[0].mean(axis=1)  # in units of all draws
    width, guess = np.asarray(gathered.data["width"]), {}
    for leaf, shape in gathered.shapes.items():
        at = list(gathered.columns(leaf))
        guess[f"{leaf}.mean"] = (means.mean(axis=0) * width + np.asarray(gathered.data["centre"]))[at].reshape(
            1, *shape
        )
        guess[f"{leaf}.sd"] = (np.maximum(means.std(axis=0), 0.1) * width)[at].reshape(1, *shape)
    return {name: jnp.asarray(value) for name, value in guess.items()}


def _weighed(gathered: _Gathered, hyper: Theta) -> list[Smoothed]:
    """Smoothed weights of each subject, averaged over populations."""
    weights = np.asarray(_average(hyper, gathered.data, gathered.layout), float)
    return [pareto_smoothed(np.log(np.maximum(w, 1e-30))) for w in weights]


def _effective(one: Smoothed) -> float:
    """Effective draws."""
    return float(1.0 / np.sum(np.exp(2.0 * one.log_weights)))


@functools.partial(jax.jit, static_argnums=2)
def _average(hyper: Theta, data: Any, layout: Layout) -> Array:
    def of(subject: tuple[Array, Array]) -> Array:
        one = data | {"powers": subject[0], "log_prior": subject[1]}
        return jax.vmap(lambda h: jax.nn.softmax(_log_weights(h, layout, one)))(hyper).mean(axis=0)

    return jax.lax.map(of, (data["powers"], data["log_prior"]))


def _taken(posterior: Posterior, rows: np.ndarray, ess: float, khat: float) -> Posterior:
    """A posterior of one chain of chosen draws."""
    theta = {name: value.reshape(-1, *value.shape[2:])[rows][None] for name, value in posterior.theta.items()}
    info = {**posterior.info, "method": f"{posterior.info.get('method', 'posterior')}, pooled", "ess": ess}
    return Posterior(theta, x_o=posterior.x_o, prior=posterior.prior, info=info | {"khat": float(khat)})


def _checked(posteriors: Any) -> dict[str, Posterior]:
    """Subjects by name, of the same leaves."""
    _check.of_kind(posteriors, "posteriors", Mapping, '{"sub-01": posterior, ...}')
    if not posteriors:
        raise ValueError('posteriors holds no subject; write {"sub-01": posterior, ...}')
    given: dict[str, Posterior] = {}
    for key, posterior in posteriors.items():
        name = str(key)
        if name in given:
            raise ValueError(f"two subjects have the name {name!r}; give each its own")
        _check.of_kind(posterior, f"subject {name!r}", Posterior, "amortized.sample(x_o, n=1_000, key=key)")
        if posterior.prior is None:
            raise ValueError(
                f"the posterior of {name!r} has no prior, by which its draws are weighed; write "
                "vb.Posterior(theta, prior=prior)"
            )
        given[name] = posterior
    first, like = next(iter(given.items()))
    assert like.prior is not None
    for name, posterior in given.items():
        if posterior.shapes != like.shapes:
            raise ValueError(
                f"{name!r} has the parameters {posterior.shapes}, {first!r} has {like.shapes}; a cohort shares "
                "parameters and regions: give subjects of the same parcellation and prior"
            )
        assert posterior.prior is not None
        if posterior.prior != like.prior:
            raise ValueError(
                f"the prior of {name!r} is {posterior.prior!r} and differs from that of {first!r}, {like.prior!r}; "
                "make the posteriors with one prior"
            )
    return given


def _check_hyperprior(hyperprior: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    _check.of_kind(hyperprior, "hyperprior", Prior, 'vb.Prior({"<leaf>.mean": ..., "<leaf>.sd": ...})')
    wanted = {f"{leaf}.{kind}": shape for leaf, shape in shapes.items() for kind in ("mean", "sd")}
    for name, shape in hyperprior.shapes.items():
        if name not in wanted:
            raise ValueError(f"the hyperprior names {name!r}, which no leaf has. {did_you_mean(name, wanted)}")
        if shape not in ((), wanted[name]):
            raise ValueError(f"the hyperprior of {name!r} has shape {list(shape)}; expected [] or {list(wanted[name])}")
    for name in wanted:
        if name not in hyperprior.shapes:
            example = "dist.Normal(0.0, 1.0)" if name.endswith(".mean") else "dist.HalfNormal(1.0)"
            raise ValueError(f"the hyperprior lacks {name!r}; add {name!r}: {example}")
    outside = hyperprior.mass_outside({name: 0.0 for name in wanted if name.endswith(".sd")}, {})
    for name, mass in outside.items():
        if name.endswith(".sd") and mass > 0.0:
            raise ValueError(f"the hyperprior of {name!r} reaches below 0; write {name!r}: dist.HalfNormal(1.0)")


def _scores(score: Mapping[str, float], names: list[str]) -> np.ndarray:
    """Scores in the order of the subjects."""
    given = {str(name): value for name, value in score.items()}
    if missing := [name for name in names if name not in given]:
        raise ValueError(f"score lacks {', '.join(missing)}; give every subject of the cohort a number")
    for name in given:
        if name not in names:
            raise ValueError(f"score names {name!r}, which is no subject. {did_you_mean(name, names)}")
    y = np.array([_check.number(given[name], f"score[{name!r}]", 12.5) for name in names])
    if len(y) < 3 or np.ptp(y) == 0.0:
        raise ValueError(f"the scores are {y.tolist()}; a line needs three subjects or more whose scores differ")
    return y


def _warn(bad: Sequence[str], ess: Mapping[str, float], khat: Mapping[str, float]) -> None:
    listed = ", ".join(f"{name} (khat {khat[name]:.2f}, {ess[name]:.0f} effective draws)" for name in bad[:5])
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    warnings.warn(
        f"reweighting is not reliable for {listed}{more}: few draws lie where the population is. All subjects were "
        "pooled by Gaussian mixtures fitted to their draws instead, which extend beyond them. To do without, give more "
        "draws of each subject, fewer leaves, or fit with a prior closer to the population",
        stacklevel=user_stacklevel(),
    )
