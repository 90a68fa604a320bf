"""A damped oscillator, the smallest model with both routes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.integrators import Heun
from vbinfer.models import DampedOscillator
from vbinfer.monitors import Subsample
from vbinfer.priors.prior import Prior
from vbinfer.simulation.forward import ForwardModel
from vbinfer.simulation.simulator import Simulator
from vbinfer.tasks.base import Task

_T1, _PERIOD, _NOISE = 20.0, 1.0, 0.2


class Series:
    """Prey and predator, one after the other."""

    names = tuple(f"{var}({k + 1:g} ms)" for k in range(round(_T1 / _PERIOD)) for var in "xy")

    def __call__(self, y: Array) -> Array:
        return jnp.ravel(y)


def damped_oscillator() -> Task:
    """Predator and prey in 20 ms, by both routes.

    theta: the self-limitation of both, `model.a` and `model.b`, uniform on [0.02, 0.5]; x: both variables once per ms,
    with normal noise of sd 0.2. The likelihood is that of the noise, so that NUTS samples the posterior which a neural
    estimator learns from draws: their answers have to agree.

    Example:
        >>> import vbinfer as vb
        >>> task = vb.tasks.damped_oscillator()
        >>> task.prior.names, task.num_features
        (('model.a', 'model.b'), 40)
    """
    sim = Simulator(
        DampedOscillator(), integrator=Heun(dt=0.1), monitors={"series": Subsample(period=_PERIOD, var=("x", "y"))}
    )
    clean = ForwardModel(sim, t1=_T1, summary=Series(), observe=_channels)
    noisy = ForwardModel(sim, t1=_T1, summary=Series(), observe=_noisy)

    def log_likelihood(theta: Theta, x: Any) -> Array:
        return dist.Normal(clean(theta, jax.random.key(0)), _NOISE).log_prob(x).sum()

    prior = Prior({name: dist.Uniform(0.02, 0.5) for name in ("model.a", "model.b")})
    return Task("damped_oscillator", prior, noisy, log_likelihood, len(Series.names))


def _channels(theta: Theta, y: Any, key: PRNGKey) -> Array:
    """Both variables of the one node as channels `[T, 2]`."""
    return jnp.concatenate(jax.tree.leaves(y), axis=1)


def _noisy(theta: Theta, y: Any, key: PRNGKey) -> Array:
    seen = _channels(theta, y, key)
    return seen + _NOISE * jax.random.normal(key, seen.shape)
