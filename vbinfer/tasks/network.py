"""Brunel's random network: inhibition and drive from statistics of spikes."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer._names import Theta
from vbinfer.integrators import Native
from vbinfer.monitors import Rates
from vbinfer.network.connectome import Connectome
from vbinfer.network.coupling import Linear
from vbinfer.network.delays import Delays
from vbinfer.noise import Poisson
from vbinfer.priors.prior import Prior
from vbinfer.simulation.forward import ForwardModel
from vbinfer.simulation.simulator import Simulator
from vbinfer.spiking.firing import FiringSummary
from vbinfer.spiking.lif import LIF
from vbinfer.tasks.base import Task, no_likelihood

_N, _EXCITATORY, _P, _J, _DT = 1_250, 1_000, 0.1, 0.5, 0.1
_TAU, _V_TH = 20.0, 20.0
_LOW, _HIGH = np.array([4.0, 1.0, 0.5]), np.array([8.0, 3.0, 3.0])
_START, _T1 = 60.0, 300.0


def _paths(theta: Theta) -> dict[str, Array]:
    g, eta, *delay = jnp.moveaxis(theta["theta"], -1, 0)
    # eta 1 is the drive whose mean just reaches threshold: rate J tau = v_th
    paths = {"coupling.inh.G": -g * _J, "noise.rate": eta * _V_TH / (_J * _TAU)}
    # lags are lengths over speed, and lengths are 1 mm
    return paths | {f"connectome.{name}.speed": 1.0 / d for d in delay for name in ("exc", "inh")}


def brunel(delay: bool = False) -> Task:
    """Inhibition and drive of Brunel's network of 1,250 neurons.

    From statistics of 0.24 s of its spikes.

    LIF neurons (tau 20 ms, threshold 20 mV, reset 10 mV for 2 ms; dt = 0.1 ms), 1,000 excitatory with synapses of
    0.5 mV, 250 inhibitory with -g 0.5 mV, every connection with probability 0.1, in a graph of each draw's own; 1.5 ms
    from spike to spike; Poisson trains from outside at eta times the rate whose mean just reaches threshold.

    theta = (g, eta), uniform on [4, 8] x [1, 3], and with `delay=True` the delay, on [0.5, 3] ms. x: rate, CV, local
    variation, Fano factor, synchrony and correlation (`vb.spiking.FiringSummary`, counts in 5 ms) after 0.06 s.

    The likelihood is not known, nor is the posterior: judge one by calibration.

    doi:10.1023/A:1008925309027 (Brunel 2000)
    """
    n_theta, wiring = (3 if delay else 2), {"p": _P, "delay": 1.0 if delay else 1.5, "key": None}
    sim = Simulator(
        LIF(tau=_TAU, v_th=_V_TH, v_reset=10.0, t_ref=2.0, interpolate=False),
        {
            "exc": Connectome.random(_N, sources=range(_EXCITATORY), **wiring),
            "inh": Connectome.random(_N, sources=range(_EXCITATORY, _N), **wiring),
        },
        coupling={"exc": Linear(G=_J), "inh": Linear(G=-5.0 * _J)},
        delays=Delays(max=float(_HIGH[2]) if delay else None),
        integrator=Native(_DT),
        noise=Poisson(rate=2.0 * _V_TH / (_J * _TAU), weight=_J),
        monitors={"firing": Rates(_T1, start=_START)},
    )
    spread = {"v": _V_TH * (np.arange(_N) * 0.6180339887498949 % 1.0)}  # evenly below threshold, in both populations
    forward = ForwardModel(sim, t1=_T1, summary=FiringSummary(), init=spread, to_paths=_paths)
    prior = Prior({"theta": dist.Uniform(jnp.asarray(_LOW[:n_theta]), jnp.asarray(_HIGH[:n_theta])).to_event(1)})
    name = "brunel_delay" if delay else "brunel"
    return Task(name, prior, forward, no_likelihood(name), len(FiringSummary.names))
