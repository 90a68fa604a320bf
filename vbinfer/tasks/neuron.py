"""Noisy LIF neuron with a posterior by Siegert's formula."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.integrators import Native
from vbinfer.monitors import Rates
from vbinfer.noise import Additive
from vbinfer.priors.prior import Prior
from vbinfer.simulation.forward import ForwardModel
from vbinfer.simulation.simulator import Simulator
from vbinfer.spiking.firing import FiringSummary
from vbinfer.spiking.lif import LIF
from vbinfer.spiking.theory import siegert
from vbinfer.tasks.base import Task

_DT, _T1, _TAU, _CELLS = 0.1, 3_100.0, 20.0, 20
_LOW, _HIGH = np.array([14.0, 4.0]), np.array([24.0, 8.0])
_ERROR = np.array([0.08, 0.08])
_CELL: dict[str, Any] = dict(tau=_TAU, v_th=20.0, v_reset=10.0, t_ref=2.0)


def lif() -> Task:
    """Drive and noise of a LIF neuron.

    From its rate and CV.

    tau dv = (mu - v) dt + sigma sqrt(tau) dW, tau = 20 ms, threshold 20 mV, reset 10 mV for 2 ms; dt = 0.1 ms.

    theta = (mu, sigma), uniform on [14, 24] x [4, 8] mV. Features are the logarithms of mean rate (1/s) and CV of 20
    such neurons over 3 s, measured with normal errors of standard deviation 0.08, which outweigh those of the
    simulation. The log-likelihood is that of Siegert's formula, with the shift of a threshold tested once per step; the
    exact sampler draws from it on a grid.
    """
    sim = Simulator(
        LIF(**_CELL),
        integrator=Native(_DT),
        nodes=_CELLS,
        noise=Additive({"v": 1.0}),
        monitors={"r": Rates(_T1, start=100.0)},
    )
    forward = ForwardModel(sim, t1=_T1, summary=FiringSummary())

    def simulator(theta: Theta, key: PRNGKey) -> Array:
        mu, sigma = theta["theta"][0], theta["theta"][1]
        k_cells, k_error = jax.random.split(key)
        rate, cv = forward({"model.v_rest": mu, "noise.sigma.v": sigma / _TAU**0.5}, k_cells)[:2]
        # silence is a value too
        x = jnp.log(jnp.stack([jnp.maximum(rate, 0.05), jnp.maximum(cv, 0.05)]))
        return x + jnp.asarray(_ERROR, x.dtype) * jax.random.normal(k_error, (2,), x.dtype)

    prior = Prior({"theta": dist.Uniform(jnp.asarray(_LOW), jnp.asarray(_HIGH))})
    return Task("lif", prior, simulator, _log_likelihood, 2, _exact)


def _log_likelihood(theta: Theta, x: Any) -> Array:
    mu, sigma = theta["theta"][..., 0], theta["theta"][..., 1]
    cell = _CELL | {"v_th": _CELL["v_th"] + 0.5826 * sigma * (_DT / _TAU) ** 0.5}
    rate, cv = siegert(mu, sigma, **cell)
    expected = jnp.log(jnp.stack([1e3 * rate, cv], axis=-1))
    return -0.5 * (((jnp.asarray(x) - expected) / _ERROR) ** 2).sum(axis=-1)


def _exact(x: Array, n: int, key: PRNGKey) -> Array:
    axes = [low + (np.arange(160) + 0.5) / 160 * (high - low) for low, high in zip(_LOW, _HIGH, strict=True)]
    grid = jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2), x.dtype)
    log_p = jax.lax.map(lambda theta: _log_likelihood({"theta": theta}, x), grid, batch_size=256)
    k_cell, k_within = jax.random.split(key)
    chosen = grid[jax.random.categorical(k_cell, log_p, shape=(n,))]
    return chosen + (jax.random.uniform(k_within, (n, 2), x.dtype) - 0.5) * jnp.asarray((_HIGH - _LOW) / 160, x.dtype)
