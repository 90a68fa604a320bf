"""Hidden paths as parameters: of noise, or of states."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import Named
from vbinfer._param import bind, did_you_mean
from vbinfer.likelihoods.base import predicted
from vbinfer.likelihoods.transition import transition_log_prob
from vbinfer.priors.families import families
from vbinfer.priors.prior import Prior
from vbinfer.simulation import Simulator, Solution, simulate
from vbinfer.simulation.transition import check_invertible

NOISE, STATE = "noise_path.", "state_path."


@dataclasses.dataclass(frozen=True, eq=False)
class NoisePath:
    """Noise of a simulator as parameters: the non-centred state-space form.

    z_ki ~ N(0, 1) for step k, node i and state variable, named `"noise_path.<variable>"`, `[T, N]`;
    x = simulate(theta, noise_path=z);   y ~ observation(x)

    Theta and z are independent in the prior, so that samplers move them easily where the recording says little about a
    step: few or noisy observations. Where it says much, take `StatePath`. Works with every integrator
    and every noise. `Coloured` noise has a start besides, which `key` draws: the posterior is conditional on it.

    Args:
        sim: a simulator with noise.
        t1: duration, ms.
        monitor: whose samples are compared with the recording; the only one if there is one.
        init: as for `vb.simulate`.
        key: for the start of `Coloured` noise alone.
        checkpoint: as for `vb.simulate`.

    >>> import jax, vbinfer as vb, numpyro.distributions as dist
    >>> sim = vb.Simulator(vb.models.Linear(gamma=-1.0), integrator=vb.Heun(dt=0.5), noise=vb.noise.Additive(0.3),
    ...                    monitors={"x": vb.monitors.Subsample(period=1.0, var="x")})
    >>> hidden = vb.likelihoods.NoisePath(sim, t1=10.0)
    >>> prior = hidden.extend(vb.Prior({"model.gamma": dist.Uniform(-2.0, -0.1)}))
    >>> prior.shapes
    {'model.gamma': (), 'noise_path.x': (20, 1)}
    >>> log_likelihood = vb.likelihoods.Gaussian(hidden, sigma=0.1)       # for vb.sample_mcmc(prior, log_likelihood, y)
    >>> log_likelihood.sample(prior.sample(key=jax.random.key(0)), jax.random.key(1)).shape
    (10, 1)
    """

    sim: Simulator
    t1: float
    monitor: str | None = None
    init: Any = None
    key: Array | None = None
    checkpoint: Any = None

    def __post_init__(self) -> None:
        if self.sim.noise is None:
            raise ValueError(
                "the simulator has no noise, so there is no path to infer; build it with noise=vb.noise.Additive(...), "
                "or give vb.simulate to a likelihood such as vb.likelihoods.Gaussian"
            )
        known = tuple(self.sim.monitors)
        if self.monitor is None and len(known) > 1:
            raise ValueError(f"the simulator has the monitors {', '.join(known)}; name one: monitor={known[0]!r}")
        _check.one_of(self.monitor, "monitor", (*known, None))
        _steps(self.sim, self.t1)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names of the path's parameters, and their shape `[T, N]`."""
        assert self.sim.noise is not None
        steps, states = _steps(self.sim, self.t1), self.sim.state_shapes()
        return {NOISE + name: (steps, *states[name].shape) for name in self.sim.noise.noisy(states)}

    def extend(self, prior: Prior) -> Prior:
        """The prior of theta together with that of the path."""
        return _extended(prior, {name: families()["Normal"](0.0, 1.0).expand(s) for name, s in self.shapes.items()})

    def simulate(self, theta: Named) -> Solution:
        """The run with these parameters and this path."""
        path = {name.removeprefix(NOISE): _leaf(theta, name, shape) for name, shape in self.shapes.items()}
        sim = _bound(self.sim, theta)
        return simulate(sim, t1=self.t1, key=self.key, init=self.init, noise_path=path, checkpoint=self.checkpoint)

    def __call__(self, theta: Named) -> Array:
        """Samples of the monitor, `[samples, N]`."""
        name = self.monitor or next(iter(self.sim.monitors))
        y = self.simulate(theta).ys[name]
        only = next(iter(y.values())) if isinstance(y, Mapping) and len(y) == 1 else y
        return predicted(lambda _: only, theta, f"monitor {name!r}")


@dataclasses.dataclass(frozen=True, eq=False)
class StatePath:
    """States of a simulator as parameters: the centred state-space form.

    x_k are parameters named `"state_path.<variable>"`, `[T + 1, N]`, and
    log p(x_1 ... x_T | x_0, theta) = `transition_log_prob` joins the likelihood, evaluated at all steps side by side:
    no simulation is run. Good where the recording says much about every state; where it says little, theta and the path
    depend on each other strongly, and `NoisePath` mixes better.

    A sampler needs a prior to start from: `reference` is the scale on which the states are looked for. It is divided
    out again, so it changes how fast a chain moves and not where it goes, but for x_0, whose prior it is.

    Args:
        sim: a simulator as `transition_log_prob` takes it.
        t1: duration, ms.
        reference: a numpyro distribution for a single state, `dist.Normal(0.0, 1.0)`, or a mapping from state variable
            to such; with the support of the variable (`dist.LogNormal` for a rate).
        init: the state from which the path departs, if it is known: then leaves are `[T, N]`, without x_0.
        slack: as for `transition_log_prob`.

    >>> import jax, vbinfer as vb, numpyro.distributions as dist
    >>> euler = vb.integrators.Euler(dt=0.5)
    >>> sim = vb.Simulator(vb.models.Linear(gamma=-1.0), integrator=euler, noise=vb.noise.Additive(0.3))
    >>> states = vb.likelihoods.StatePath(sim, t1=10.0, reference=dist.Normal(0.0, 0.5))
    >>> prior = states.extend(vb.Prior({"model.gamma": dist.Uniform(-2.0, -0.1)}))
    >>> observed = vb.likelihoods.Gaussian(lambda theta: states(theta)["x"][1:], sigma=0.1)
    >>> def log_likelihood(theta, y):                                     # for vb.sample_mcmc(prior, log_likelihood, y)
    ...     return states.log_prob(theta) + observed(theta, y)
    """

    sim: Simulator
    t1: float
    reference: Any
    init: Any = None
    slack: Any = None

    def __post_init__(self) -> None:
        check_invertible(self.sim)
        variables = self.sim.model.variables()
        if isinstance(self.reference, Mapping):
            for name in self.reference:
                if name not in variables:
                    raise ValueError(f"reference names {name!r}. {did_you_mean(name, variables)}")
            for name in variables:
                if name not in self.reference:
                    raise ValueError(f"reference lacks {name!r}; give a distribution for {', '.join(variables)}")
        for d in self._references().values():
            if not hasattr(d, "log_prob") or not hasattr(d, "expand"):
                raise TypeError(
                    f"reference was given as {d!r}; expected a numpyro distribution such as dist.Normal(0.0, 1.0)"
                )
        _steps(self.sim, self.t1)

    def _references(self) -> dict[str, Any]:
        many = self.reference if isinstance(self.reference, Mapping) else None
        return {name: self.reference if many is None else many[name] for name in self.sim.model.variables()}

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Names of the parameters of the path, and their shape."""
        rows = _steps(self.sim, self.t1) + (self.init is None)
        return {STATE + name: (rows, self.sim.n_nodes) for name in self.sim.model.variables()}

    def extend(self, prior: Prior) -> Prior:
        """The prior of theta with the reference of the path."""
        d = self._references()
        return _extended(prior, {name: d[name.removeprefix(STATE)].expand(s) for name, s in self.shapes.items()})

    def __call__(self, theta: Named) -> dict[str, Array]:
        """States by variable, `[T + 1, N]`; T with `init`."""
        return {name.removeprefix(STATE): _leaf(theta, name, shape) for name, shape in self.shapes.items()}

    def log_prob(self, theta: Named) -> Array:
        """log p(path | theta), less the reference's log-density.

        A term of the log-likelihood: the sampler adds the reference, as part of the prior, and here it goes again.

        The density of x_0 under the reference is its prior, and stays.
        """
        path, d = self(theta), self._references()
        first = 1 if self.init is None else 0
        total = transition_log_prob(_bound(self.sim, theta), path, init=self.init, slack=self.slack)
        return total - sum(d[name].log_prob(x[first:]).sum() for name, x in path.items())


def _steps(sim: Simulator, t1: float) -> int:
    t1 = _check.number(t1, "t1", 1000.0, "a finite number of ms")
    n = round(t1 / sim.dt)
    if n < 1 or abs(n * sim.dt - t1) > 1e-6 * max(abs(t1), sim.dt):
        raise ValueError(f"t1={t1:g} ms was given; expected a multiple of dt = {sim.dt:g} ms above 0")
    return n


def _extended(prior: Prior, leaves: dict[str, Any]) -> Prior:
    for name in leaves:
        if name in prior.dists:
            raise ValueError(f"the prior has {name!r} already; give the prior of theta alone")
    return Prior({**prior.dists, **leaves})


def _leaf(theta: Named, name: str, shape: tuple[int, ...]) -> Array:
    if name not in theta:
        raise ValueError(f"theta lacks {name!r}; sample with the prior that `extend(prior)` returns")
    leaf = jnp.asarray(theta[name], jnp.result_type(float))
    if leaf.shape != shape:
        raise ValueError(f"theta[{name!r}] has shape {list(leaf.shape)}; expected {list(shape)}, a row per step of dt")
    return leaf


def _bound(sim: Simulator, theta: Named) -> Simulator:
    """The simulator with its own parameters of theta."""
    # the others belong to the observation, such as the sigma of a likelihood
    own = {name: value for name, value in theta.items() if name.split(".")[0] in _PARTS and "." in name}
    return bind(sim, own)


_PARTS = ("model", "connectome", "coupling", "integrator", "noise", "stimulus", "delays", "monitors")
