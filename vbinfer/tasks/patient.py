"""A virtual epileptic patient, one unknown per region."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.features import Summary, area
from vbinfer.features.base import Feature
from vbinfer.integrators import Heun
from vbinfer.models import Epileptor2D
from vbinfer.monitors import Subsample
from vbinfer.network.connectome import Connectome
from vbinfer.network.coupling import Difference
from vbinfer.priors.prior import Prior
from vbinfer.simulation.forward import ForwardModel
from vbinfer.simulation.simulator import Simulator
from vbinfer.tasks.base import Task

SECOND = 1e3  # ms
_SECONDS, _WINDOW, _NOISE = 80, 10, 0.3


class NetworkInput(Feature):
    """A feature of what each region receives.

    sum_j w_ij (y_j - y_i).
    """

    weights: Array
    feature: Feature

    def __call__(self, y: Array, period: float) -> Array:
        strength = jnp.sum(self.weights, axis=1)
        return self.feature(y @ self.weights.T - strength[None] * y, period)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return self.feature.names(n)


def vep(connectome: Connectome | None = None) -> Task:
    """Virtual epileptic patient: 84 excitabilities and a global coupling.

    The two-dimensional Epileptor (`form="vep"`, tau = 90, one unit of its time is 1 s) in every region. Unknown are the
    excitability x0 of each, U(-5, -1), and the global coupling G, U(0, 2): paths `coupling.G` and `model.x0`. 80 s of
    x1 are seen once a second with normal noise of sd 0.3, a tenth of what a seizure rises by. A region is described by
    the integral of its signal in eight windows of 10 s, and by that of the input which the known connectome makes of
    the others' signals.

    The likelihood of these features is not known: fit `vb.NPE(density=vb.densities.Regional(84))`, and judge it by
    calibration. Jirsa et al. 2017 (doi:10.1016/j.neuroimage.2016.04.049), Hashemi et al. 2020
    (doi:10.1016/j.neuroimage.2020.116839).

    Args:
        connectome: an invented asymmetric one of 84 regions by default.

    Example:
        >>> import vbinfer as vb
        >>> task = vb.tasks.vep()
        >>> len(task.prior.names), task.num_features
        (85, 1344)
    """
    if connectome is None:
        made = Connectome.synthetic(84, key=jax.random.key(84), asymmetric=True, spread=2.0)
        connectome = made.normalise("row")
    simulator = Simulator(
        Epileptor2D(form="vep", tau=90.0, tt=1.0 / SECOND),
        connectome,
        coupling=Difference(G=1.0),
        integrator=Heun(dt=0.1 * SECOND),
        monitors={"x1": Subsample(period=SECOND, var="x1")},
    )
    last = (_SECONDS - 1) * SECOND
    begins = [begin * SECOND for begin in range(0, _SECONDS, _WINDOW)]
    own = area(intervals=tuple((begin, min(begin + _WINDOW * SECOND, last)) for begin in begins), pool="nodes")
    received = NetworkInput(jnp.asarray(connectome.dense().weights), own)
    summary = Summary(period=SECOND, n_nodes=connectome.n_nodes, signal=own, input=received)
    excitability = dist.Uniform(-5.0, -1.0).expand([connectome.n_nodes]).to_event(1)
    prior = Prior({"coupling.G": dist.Uniform(0.0, 2.0), "model.x0": excitability})
    forward = ForwardModel(simulator, t1=_SECONDS * SECOND, summary=summary, observe=_noisy)
    return Task("vep", prior, forward, _unknown, len(forward.names))


def _noisy(theta: Theta, y: Array, key: PRNGKey) -> Array:
    return y + _NOISE * jax.random.normal(key, y.shape)


def _unknown(theta: Theta, x: Any) -> Array:
    raise ValueError("vep has no likelihood of its features; fit a neural estimator to draws of task.simulator")
