"""Neurons of `vb.cable`.

Spikes without a likelihood, a passive cell with its exact posterior.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.cable import Cell, K, Km, Leak, Na, single
from vbinfer.features import spikes
from vbinfer.integrators import Native
from vbinfer.monitors import Subsample
from vbinfer.noise import Additive
from vbinfer.priors.prior import Prior
from vbinfer.simulation.forward import ForwardModel
from vbinfer.simulation.simulator import Simulator
from vbinfer.stimuli import Pulse
from vbinfer.tasks.base import Task, no_likelihood

HH_NAMES = ("g_na", "g_k", "g_m", "g_leak", "tau_max", "v_t", "sigma", "e_leak")
_LOW = np.array([5e-4, 1e-7, 1e-7, 1e-6, 50.0, -90.0, 0.01, -110.0])
_HIGH = np.array([8e-2, 1.5e-2, 6e-4, 6e-4, 3000.0, -40.0, 1.0, -50.0])
_ON, _LASTS, _END, _PERIOD = 10.0, 100.0, 120.0, 0.1


def _hh_paths(theta: Theta) -> dict[str, Array]:
    g_na, g_k, g_m, g_leak, tau_max, v_t, sigma, e_leak = (theta["theta"][..., k] for k in range(8))
    paths = {"na.g": g_na, "na.vt": v_t, "k.g": g_k, "k.vt": v_t, "km.g": g_m, "km.taumax": tau_max}
    paths |= {"leak.g": g_leak, "leak.e": e_leak}
    return {f"model.soma.{name}": value for name, value in paths.items()} | {"noise.sigma.V": sigma}


def _hh_features(v: Array) -> Array:
    """Spikes, mean and spread at rest.

    Four moments during the stimulus.
    """
    count = spikes(onset=_ON, duration=_LASTS, only=("spike_count",))(v, _PERIOD)
    on, off = round(_ON / _PERIOD), round((_ON + _LASTS) / _PERIOD)
    rest, driven = v[on // 2 : on, 0], v[on:off, 0]
    mean, std = driven.mean(), driven.std()
    z = (driven - mean) / jnp.where(std > 0.0, std, 1.0)
    return jnp.concatenate([count, jnp.stack([rest.mean(), rest.std(), mean, std, (z**3).mean(), (z**4).mean() - 3.0])])


def hodgkin_huxley() -> Task:
    """Eight parameters of a spiking cortical cell, seven features.

    The cell of Pospischil et al. 2008 (sodium, potassium, slow potassium, leak) under 100 ms of current with noise on
    its voltage, after the problem of Goncalves et al. 2020 (doi:10.7554/eLife.56261). theta, in the order of
    `vb.tasks.HH_NAMES`: g_na, g_k, g_m, g_leak (S/cm2), tau_max (ms), v_t (mV), sigma (mV per root of ms), e_leak (mV),
    uniform. x: number of spikes, mean and standard deviation at rest, mean, standard deviation, skewness and kurtosis
    during the stimulus.

    The likelihood is not known, nor is the posterior: judge one by calibration.
    """
    channels = (Leak(), Na(e=53.0), K(e=-107.0), Km(e=-107.0))
    cell = Cell(single(length=70.0, radius=35.0), {"soma": channels}, v_init=-70.0, settle="rest")
    sim = Simulator(
        cell,
        integrator=Native(dt=0.05),
        noise=Additive(sigma={"V": 0.1}),
        stimulus=Pulse(_ON, _LASTS, 0.5),
        monitors={"v": Subsample(period=_PERIOD, var="V")},
    )
    forward = ForwardModel(sim, t1=_END, summary=_hh_features, to_paths=_hh_paths)
    prior = Prior({"theta": dist.Uniform(jnp.asarray(_LOW), jnp.asarray(_HIGH)).to_event(1)})

    return Task("hodgkin_huxley", prior, forward, no_likelihood("hodgkin_huxley"), 7)


_TIMES = np.arange(1, 31) * 2.0
_SD = 0.5
_CURRENT, _AREA = 0.05, 400.0 * np.pi
_CENTRE, _SPREAD = np.array([0.0, np.log(1e-4), -70.0]), np.array([0.3, 0.4, 5.0])


def passive_cell() -> Task:
    """Passive cell from one noisy step response.

    Capacitance, leak and resting potential.

    theta = (log C, log g, e) with C in uF/cm2, g in S/cm2, e in mV, normal; x is the voltage every 2 ms for 60 ms after
    0.05 nA comes on, with independent noise of 0.5 mV. The simulation is that of `vb.cable`, with its gradients.

    The exact posterior: given C and g the voltage is e plus a known curve, so that e is normal; (log C, log g) is drawn
    from a grid of 600 by 600 over seven standard deviations around its mode, and spread within its cell.
    """
    cell = Cell(single(length=20.0, radius=10.0), {"soma": Leak(g=1e-4, e=-70.0)}, v_init=-70.0)
    sim = Simulator(
        cell,
        integrator=Native(dt=0.25),
        stimulus=Pulse(-1.0, 1e3, _CURRENT),
        monitors={"v": Subsample(period=2.0, var="V")},
    )

    def paths(theta: Theta) -> dict[str, Array]:
        log_c, log_g, e = (theta["theta"][..., k] for k in range(3))
        return {
            "model.capacitance": jnp.exp(log_c),
            "model.soma.leak.g": jnp.exp(log_g),
            "model.soma.leak.e": e,
            "model.v_init": e,
        }

    predict = ForwardModel(sim, t1=60.0, summary=lambda v: v[:, 0], to_paths=paths)
    prior = Prior({"theta": dist.Normal(jnp.asarray(_CENTRE), jnp.asarray(_SPREAD)).to_event(1)})

    def simulator(theta: Theta, key: PRNGKey) -> Array:
        return predict(theta, None) + _SD * jax.random.normal(key, _TIMES.shape)

    def log_likelihood(theta: Theta, x: Any) -> Array:
        return dist.Normal(predict(theta, None), _SD).log_prob(x).sum()

    return Task("passive_cell", prior, simulator, log_likelihood, len(_TIMES), _passive_posterior)


def _curve(log_c: np.ndarray, log_g: np.ndarray) -> np.ndarray:
    """Deflection at the times, mV, `[..., time]`."""
    g = np.exp(log_g)[..., None]
    tau = 1e-3 * np.exp(log_c)[..., None] / g
    return 100.0 * _CURRENT / (g * _AREA) * (1.0 - np.exp(-_TIMES / tau))


def _marginal(x: np.ndarray, log_c: np.ndarray, log_g: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Log density of (log C, log g) without e.

    Mean and standard deviation of e given them.
    """
    residual = x - _curve(log_c, log_g)
    precision = len(_TIMES) / _SD**2 + 1.0 / _SPREAD[2] ** 2
    pull = residual.sum(axis=-1) / _SD**2 + _CENTRE[2] / _SPREAD[2] ** 2
    prior = ((log_c - _CENTRE[0]) / _SPREAD[0]) ** 2 + ((log_g - _CENTRE[1]) / _SPREAD[1]) ** 2
    fit = (residual**2).sum(axis=-1) / _SD**2 - pull**2 / precision
    return -0.5 * (fit + prior), pull / precision, precision**-0.5


def _passive_posterior(x: Array, n: int, key: PRNGKey) -> np.ndarray:
    data, rng = np.asarray(x, float), np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    centre, half = _CENTRE[:2].copy(), 6.0 * _SPREAD[:2]
    for _ in range(5):  # the grid closes in on the mode
        axes = [np.linspace(c - h, c + h, 601) for c, h in zip(centre, half, strict=True)]
        grid = np.meshgrid(*axes, indexing="ij")
        log_p, _, _ = _marginal(data, *grid)
        p = np.exp(log_p - log_p.max())
        p /= p.sum()
        centre = np.array([(p * g).sum() for g in grid])
        half = np.array(
            [
                max(7.0 * np.sqrt((p * (g - c) ** 2).sum()), 3.0 * (a[1] - a[0]))
                for g, c, a in zip(grid, centre, axes, strict=True)
            ]
        )
    row = rng.choice(p.size, n, p=p.ravel())
    spread = [(a[1] - a[0]) * (rng.random(n) - 0.5) for a in axes]
    log_c, log_g = (g.ravel()[row] + s for g, s in zip(grid, spread, strict=True))
    _, mean, sd = _marginal(data, log_c, log_g)
    return np.stack([log_c, log_g, mean + sd * rng.normal(size=n)], axis=1)
