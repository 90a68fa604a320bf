"""Variational inference by stochastic gradients of the ELBO."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jaxtyping import Array
from numpyro import handlers, infer
from numpyro.infer import autoguide
from numpyro.infer.initialization import init_to_value
from numpyro.infer.util import log_density
from numpyro.optim import optax_to_numpyro

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.approximate.optimise import optima
from vbinfer.posterior import Posterior, provenance
from vbinfer.priors.prior import Prior
from vbinfer.sampling.importance import posterior_over_theta, weighed
from vbinfer.sampling.problem import LogLikelihood, Problem, problem_of

_GUIDES = ("diagonal", "full", "flow")
_HIDDEN = 32
_CURVE = 500
"""Points of the ELBO curve that are kept."""


class Fitted(NamedTuple):
    """Draws of a fitted q.

    Attributes:
        z: `[n, Dz]`.
        log_q: their log density `[n]`, None where it is not known.
        elbo: at every step.
    """

    z: Array
    log_q: Array | None
    elbo: np.ndarray


def fit_vi(
    prior: Prior,
    log_likelihood: LogLikelihood,
    x_o: Any,
    *,
    guide: Any = "full",
    num_steps: int = 2_000,
    learning_rate: float = 0.02,
    num_samples: int = 1_000,
    key: Array,
) -> Posterior:
    """Variational inference by numpyro's SVI.

    Finds the member q of a family that maximises the evidence lower bound

    ELBO(q) = E_q[log p(z) + log p(x_o | z) - log q(z)] = log p(x_o) - KL(q || posterior)

    Families over z, where the prior is standard normal:

    - `"diagonal"`: independent normals. For a Gaussian posterior with precision P its variances are 1 / P_ii: too
      narrow wherever parameters are correlated.
    - `"full"`: a multivariate normal; exact for a Gaussian posterior.
    - `"flow"`: an inverse autoregressive flow on top of the fitted multivariate normal, for bent and skewed ones.
    - a class of numpyro's automatic guides, or a `functools.partial` of one: applied to a model with one site `z`.
    - a function with numpyro's `sample` and `param`: a guide over the parameters, one site per path of the prior.

    It needs no chain and scales to many parameters, but minimises KL(q || posterior), which forgives what q leaves out:
    q is too narrow rather than too wide, and covers one mode of several. `posterior.info["pareto_k"]` shows it; above
    0.7 there is a warning. It starts at the best mode over z; the learning rate of Adam falls to a hundredth.

    Args:
        prior: `vb.Prior`.
        log_likelihood: `(theta, x_o) -> log p(x_o | theta)`, one number, differentiable by JAX.
        x_o: the observation; passed on as it is.
        guide: the family.
        num_steps: stochastic gradient steps, each from eight draws of q.
        learning_rate: of Adam, at the start.
        num_samples: draws of the fitted q.
        key: a JAX key.

    Returns:
        `Posterior`, one chain: `log_prob` the normalised log q(theta), None for a guide whose density is not known;
        `info` has `elbo` (of the draws, with `elbo_error`), `elbo_curve`, `pareto_k`, `log_evidence_importance`.

    Raises:
        ValueError: an ELBO that is not finite; a guide that is none, or whose sites are not the parameters.

    References:
        Kucukelbir et al. 2017, J. Mach. Learn. Res. 18(14), arXiv:1603.00788; Kingma et al. 2016, arXiv:1606.04934
        (inverse autoregressive flow).

    Example:
        >>> import jax, vbinfer as vb
        >>> import numpyro.distributions as dist
        >>> prior = vb.Prior({"mu": dist.Normal(0.0, 1.0)})
        >>> posterior = vb.approximate.fit_vi(prior, lambda theta, y: dist.Normal(theta["mu"], 1.0).log_prob(y), 2.0,
        ...                       num_steps=500, key=jax.random.key(0))
        >>> bool(abs(posterior.theta["mu"].mean() - 1.0) < 0.1)
        True
    """
    key, began = _check.key(key), time.perf_counter()
    num_steps, num_samples = _check.count(num_steps, "num_steps"), _check.count(num_samples, "num_samples")
    search = _Search(num_steps, _check.positive(learning_rate, "learning_rate", 0.02), num_samples)
    problem = problem_of(prior, log_likelihood, x_o)
    fitted = _fitted(problem, guide, search, key)
    info = provenance("VI", key, began, "numpyro", "optax") | {
        "guide": guide if isinstance(guide, str) else getattr(guide, "__name__", type(guide).__name__),
        "num_steps": num_steps,
        "learning_rate": search.learning_rate,
        "elbo_curve": [float(x) for x in fitted.elbo[:: max(1, len(fitted.elbo) // _CURVE)]],
    }
    if fitted.log_q is not None:
        ratios, smoothed = weighed(problem, fitted.z, fitted.log_q, "fit_vi")
        error = float(ratios.std(ddof=1) / np.sqrt(num_samples)) if num_samples > 1 else None
        info |= {"elbo": float(ratios.mean()), "elbo_error": error, "pareto_k": smoothed.pareto_k}
        info |= {"log_evidence_importance": smoothed.log_mean}
    return posterior_over_theta(problem, fitted.z, fitted.log_q, None, info)


class _Search(NamedTuple):
    """Sizes of the optimisation."""

    num_steps: int
    learning_rate: float
    num_samples: int


def _fitted(problem: Problem, guide: Any, search: _Search, key: PRNGKey) -> Fitted:
    """Draws of the guide, fitted as its kind asks."""
    if isinstance(guide, str):
        if guide not in _GUIDES:
            raise ValueError(
                f"guide={guide!r} was given; expected one of {', '.join(map(repr, _GUIDES))}, a class of numpyro's "
                "automatic guides such as AutoLowRankMultivariateNormal, or a guide function"
            )
        if guide == "flow" and problem.prior.z_dim > 1:  # in one dimension an affine flow is the normal
            return _flow(problem, search, key)
        guide = autoguide.AutoDiagonalNormal if guide == "diagonal" else autoguide.AutoMultivariateNormal
    base = guide.func if isinstance(guide, functools.partial) else guide
    if isinstance(base, type) and issubclass(base, autoguide.AutoGuide):
        return _from_mode(problem, guide, search, key)
    if isinstance(guide, autoguide.AutoGuide) or not callable(guide):
        raise TypeError(
            f"guide is a {type(guide).__name__}; expected a name, a guide function, or the class of an automatic guide "
            "instead of one that already has its model: write guide=AutoLowRankMultivariateNormal"
        )
    return _own_guide(problem, guide, search, key)


def _from_mode(problem: Problem, family: Any, search: _Search, key: PRNGKey) -> Fitted:
    """An automatic guide over z, from the best mode."""
    k_mode, k_fit, k_draw = jax.random.split(key, 3)
    mode = jnp.asarray(optima(problem, num_starts=8, space="z", max_steps=200, key=k_mode).basins[0].z)
    made = family(_model(problem, lambda z: z), init_loc_fn=init_to_value(values={"z": mode}))
    params, elbo = _ascend(problem, _model(problem, lambda z: z), made, search, k_fit)
    if not isinstance(made, autoguide.AutoContinuous):
        return Fitted(made.sample_posterior(k_draw, params, sample_shape=(search.num_samples,))["z"], None, elbo)
    return Fitted(*_draw(made, params, search.num_samples, k_draw), elbo)


def _flow(problem: Problem, search: _Search, key: PRNGKey) -> Fitted:
    """A flow on the fitted multivariate normal.

        numpyro's flow           affine
    e  ---------------->  u  ---------------->  z = m + L u,     log q(z) = log q(u) - log det L

    In u the posterior is close to a standard normal, where the flow begins.
    """
    k_normal, k_fit, k_draw = jax.random.split(key, 3)
    normal = _from_mode(problem, autoguide.AutoMultivariateNormal, search, k_normal)
    # of the draws, not of the parameters: a few per cent do not matter to coordinates
    centre = normal.z.mean(axis=0)
    root = jnp.linalg.cholesky(jnp.cov(normal.z, rowvar=False) + 1e-9 * jnp.eye(problem.prior.z_dim))
    model = _model(problem, lambda u: centre + root @ u)
    made = autoguide.AutoIAFNormal(model, hidden_dims=[_HIDDEN, _HIDDEN], nonlinearity=_tanh())
    slower = search._replace(learning_rate=search.learning_rate / 4)
    params, elbo = _ascend(problem, model, made, slower, k_fit)
    u, log_q = _draw(made, params, search.num_samples, k_draw)
    log_det = jnp.log(jnp.diagonal(root)).sum()
    # the second curve is an ELBO over u; log det L makes it one over z, so that the two are one curve
    return Fitted(centre + u @ root.T, log_q - log_det, np.concatenate([normal.elbo, elbo + float(log_det)]))


def _tanh() -> tuple[Callable, Callable]:
    """A smooth activation for numpyro's flows, as (init, apply)."""
    return lambda key, shape: (shape, ()), lambda params, x, **_: jnp.tanh(x)


def _own_guide(problem: Problem, guide: Callable, search: _Search, key: PRNGKey) -> Fitted:
    """A guide function over theta, its sites named by path."""
    prior = problem.prior
    k_look, k_fit, k_draw = jax.random.split(key, 3)
    sites = handlers.trace(handlers.seed(guide, k_look)).get_trace()
    latent = [name for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]]
    if not set(prior.shapes) <= set(latent):
        raise ValueError(
            f"the guide samples {', '.join(sorted(latent)) or 'nothing'}; the prior has {', '.join(prior.shapes)}: "
            f"write numpyro.sample({next(iter(prior.shapes))!r}, ...) for each of them"
        )

    def model() -> None:
        theta = prior.numpyro()
        numpyro.factor("log_likelihood", problem.likelihood(theta, problem.x))

    params, elbo = _ascend(problem, model, guide, search, k_fit)
    drawn = infer.Predictive(guide, params=params, num_samples=search.num_samples)(k_draw)
    theta = {name: jnp.asarray(drawn[name]) for name in prior.shapes}
    z = jax.vmap(lambda one: prior.ravel_z(prior.unconstrain(one)))(theta)
    if len(latent) > len(prior.shapes):
        return Fitted(z, None, elbo)  # a guide with variables of its own has no density in closed form
    log_q = jax.vmap(lambda one: jnp.asarray(log_density(guide, (), {}, {**params, **one})[0]))(theta)
    # the guide is a density over theta: log q(z) = log q(theta) + log|d theta / d z|
    return Fitted(z, log_q + jax.vmap(lambda one: problem.theta(one)[1])(z), elbo)


def _model(problem: Problem, z_of: Callable[[Array], Array]) -> Callable[[], None]:
    """A numpyro model of the posterior with one site `z`."""
    # numpyro needs a density at the site, and initialises from it; the factor takes it away again
    base = dist.Normal(0.0, 1.0).expand([problem.prior.z_dim]).to_event(1)

    def model() -> None:
        z = jnp.asarray(numpyro.sample("z", base))
        numpyro.factor("posterior", problem.log_density(z_of(z)) - jnp.asarray(base.log_prob(z)))

    return model


def _ascend(problem: Problem, model: Any, guide: Any, search: _Search, key: PRNGKey) -> tuple[dict, np.ndarray]:
    """Fitted parameters of the guide, and the ELBO.

    Raises:
        ValueError: an ELBO that is not finite.
    """
    rate = optax.cosine_decay_schedule(search.learning_rate, search.num_steps, alpha=0.01)
    # clipped far out: single draws of q in a tail have gradients that would throw Adam's moments off for long
    optimiser = optax_to_numpyro(optax.chain(optax.clip_by_global_norm(100.0), optax.adam(rate)))
    svi = infer.SVI(model, guide, optimiser, infer.Trace_ELBO(num_particles=8))
    result = svi.run(key, search.num_steps, progress_bar=False)
    elbo = -np.asarray(result.losses, float)
    bad = ~np.isfinite(elbo)
    if bad.any():
        raise ValueError(
            f"the ELBO is not finite at {int(bad.sum())} of {len(elbo)} steps, first at step {int(np.argmax(bad))}: "
            "log_likelihood is NaN or infinite at draws of q. Narrow the prior, mend the likelihood, lower "
            "learning_rate, or sample with vb.sampling.TemperedSMC(), which gives such parameters weight zero"
        )
    return result.params, elbo


def _draw(guide: autoguide.AutoContinuous, params: dict, n: int, key: PRNGKey) -> tuple[Array, Array]:
    """Draws of an automatic guide and their exact log density."""
    q = guide.get_posterior(params)
    if isinstance(q, dist.TransformedDistribution):
        z, steps = q.sample_with_intermediates(key, (n,))
        return jnp.asarray(z), jnp.asarray(q.log_prob(z, intermediates=steps))
    q = q.to_event(len(q.batch_shape))  # numpyro gives the diagonal one without an event axis
    z = q.sample(key, (n,))
    return jnp.asarray(z), jnp.asarray(q.log_prob(z))
