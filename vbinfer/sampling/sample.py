"""`sample_mcmc`: one front for every kernel."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.execute.batches import key_ints
from vbinfer.io import npz
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior
from vbinfer.sampling.chains import AbstractChainKernel
from vbinfer.sampling.mclmc import MCLMC
from vbinfer.sampling.nuts import HMC, NUTS
from vbinfer.sampling.potential import LogLikelihood, check_likelihood
from vbinfer.sampling.problem import AbstractKernel, Plan, Problem, form_of, problem_of, sampled_theta
from vbinfer.sampling.store import numbers

_METHODS = ("auto", "vectorized", "parallel")
_CONTINUED = {"NUTS": NUTS, "HMC": HMC, "MCLMC": MCLMC}


def sample_mcmc(
    prior: Prior,
    log_likelihood: LogLikelihood,
    x_o: Any,
    *,
    kernel: AbstractKernel | None = None,
    num_warmup: int = 500,
    num_samples: int = 500,
    num_chains: int = 4,
    key: Array,
    init: Mapping[str, Any] | Posterior | Any = None,
    chain_method: str = "auto",
    store: str | Path | None = None,
    progress: bool = False,
) -> Posterior:
    """Sample p(theta | x_o) proportional to p(theta) p(x_o | theta), with all chains side by side.

    Chains move in z, where the prior is standard normal, so no draw leaves the prior's support. Each starts from its
    own prior draw at which the likelihood and its gradient are finite: chains that disagree (`vb.rhat`) show a
    posterior with several modes. A likelihood that turns NaN on the way ends the trajectory there, a divergence. A
    likelihood that simulates noise from a fixed key conditions on that one noise path.

    Args:
        prior: `vb.Prior`.
        log_likelihood: `(theta, x_o) -> log p(x_o | theta)`, one number, differentiable by JAX.
        x_o: the observation; passed on as it is.
        kernel: `vb.NUTS()` by default; `vb.HMC`, `vb.MCLMC`, `vb.TemperedSMC`.
        num_warmup: steps per chain that adapt step size and mass matrix, discarded.
        num_samples: draws per chain.
        num_chains: independent chains; four are the least with which R-hat says much.
        key: a JAX key; not used where `init` is a run that goes on, which has its own.
        init: starts instead of prior draws: theta, leaves `[chain, ...]`; a `Posterior` (`vb.pathfinder`,
            `vb.fit_laplace`, an earlier run), one random draw per chain; or a `MapFit`, its optima in turn. The
            posterior of a finished run with `num_warmup=0` goes on where its chains stopped, with their step size, mass
            matrix and random numbers: n draws and then m more are the n + m of one run, bit for bit.
        chain_method: `"vectorized"`: all chains in one program, in lock-step. `"parallel"`: spread over the devices of
            the process (`vb.use_cores(n)` makes them), where no chain waits for one on another device. `"auto"`:
            parallel if there are several devices and the chains divide over them. A chain's draws agree up to rounding.
        store: a folder to which warm-up and draws are written in chunks of 50 draws. The same call resumes a run that
            was interrupted, and gives what it would have given, bit for bit; with a larger `num_samples` it goes on.
            `vb.load(folder)` reads the draws so far. Without a store an interruption loses the run.
        progress: show a bar.

    Returns:
        `Posterior` with `log_prob` = log p(theta) + log p(x_o | theta), unnormalised, over theta; `sample_stats`
        `diverging, accept_prob, num_steps, energy, step_size`, each `[chain, draw]`; `state`, from which it goes on.

    Raises:
        ValueError: a likelihood whose value is not one number; starts that are not finite; sizes that make no sense;
            a store or a posterior of another run.

    Example:
        >>> import jax, vbinfer as vb
        >>> import numpyro.distributions as dist
        >>> prior = vb.Prior({"mu": dist.Normal(0.0, 1.0)})
        >>> def log_likelihood(theta, y):
        ...     return dist.Normal(theta["mu"], 1.0).log_prob(y).sum()
        >>> posterior = vb.sample_mcmc(prior, log_likelihood, 2.0, num_warmup=200, num_chains=2, key=jax.random.key(0))
        >>> bool(abs(posterior.theta["mu"].mean() - 1.0) < 0.2)       # N(1, 1/2)
        True
    """
    key = _check.key(key)
    state = _state(prior, init, kernel, num_warmup, num_chains)
    kernel = _kernel(kernel, init if isinstance(init, Posterior) and state is not None else None)
    _check_sizes(num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains)
    if chain_method not in _METHODS:
        raise ValueError(f"chain_method={chain_method!r} was given; expected one of {', '.join(_METHODS)}")
    check_likelihood(prior, log_likelihood, x_o)
    folder = None if store is None else Path(store)
    plan = Plan(num_warmup, num_samples, num_chains, key, init, progress, chain_method, folder, state)
    return posterior_of(problem_of(prior, log_likelihood, x_o), kernel, plan)


def sample_form(
    prior: Prior,
    log_likelihood: LogLikelihood,
    x_o: Any,
    kernel: AbstractKernel | None,
    sizes: tuple[int, int, int],
    key: PRNGKey,
    init: Any = None,
) -> Posterior:
    """As `sample_mcmc`, by programs that take x_o as an argument: the next x_o of its shape compiles nothing.

    Args:
        prior: the prior.
        log_likelihood: `(theta, x) -> number`, hashable, and traceable by JAX in x too.
        x_o: the observation, of arrays.
        kernel: as in `sample_mcmc`; one of particles compiles for each x_o.
        sizes: `num_warmup, num_samples, num_chains`.
        key: randomness.
        init: starts, as in `sample_mcmc`.
    """
    num_warmup, num_samples, num_chains = sizes
    _check_sizes(num_warmup=num_warmup, num_samples=num_samples, num_chains=num_chains)
    kernel, x_o = _kernel(kernel, None), jax.tree.map(jnp.asarray, x_o)
    chains = isinstance(kernel, AbstractChainKernel)
    problem = form_of(prior, log_likelihood, x_o).at(x_o) if chains else problem_of(prior, log_likelihood, x_o)
    return posterior_of(problem, kernel, Plan(num_warmup, num_samples, num_chains, key, init))


def posterior_of(problem: Problem, kernel: AbstractKernel, plan: Plan) -> Posterior:
    """Run the kernel as planned, and what it made as a `Posterior` with its provenance."""
    began = time.perf_counter()
    run = kernel.run(problem, plan)
    info = {
        "method": type(kernel).__name__,
        "kernel": dataclasses.asdict(kernel) if dataclasses.is_dataclass(kernel) else repr(kernel),
        "num_warmup": plan.num_warmup,
        "divergences": int(np.sum(run.stats["diverging"])) if "diverging" in run.stats else 0,
        "seconds": time.perf_counter() - began,
        "key": key_ints(plan.key),
        "versions": npz.versions("numpyro", "blackjax"),
        **run.info,
    }
    theta, log_prob = sampled_theta(problem.prior, run.z, run.potential_energy)
    leaves = {name: np.asarray(value) for name, value in theta.items()}
    observed = numbers(problem.x_o)
    stats = {name: np.asarray(value) for name, value in run.stats.items()}
    return Posterior(leaves, np.asarray(log_prob), stats, observed, problem.prior, run.log_evidence, info, run.state)


def _state(
    prior: Prior, init: Any, kernel: AbstractKernel | None, num_warmup: int, num_chains: int
) -> Mapping[str, np.ndarray] | None:
    """What a finished run left, if `init` is one of this study that is to go on; else None."""
    state = getattr(init, "state", None)
    if isinstance(init, Posterior) and init.prior is not None and not _same(init.prior, prior):
        raise ValueError(
            f"init is a posterior of another study: its prior is {init.prior!r}, this one is {prior!r}; "
            f"give a posterior of the same prior, or theta as a dictionary"
        )
    if num_warmup != 0 or isinstance(init, Mapping) or not state:
        return None
    there = init.num_chains
    if there != num_chains:
        raise ValueError(f"init has {there} chains to go on; write num_chains={there}, not {num_chains}")
    method, options = init.info.get("method"), init.info.get("kernel")
    if kernel is not None and (type(kernel).__name__ != method or dataclasses.asdict(_dataclass(kernel)) != options):
        raise ValueError(
            f"init was sampled by {method} with {options}, but kernel={kernel!r} was given; "
            f"leave kernel out to go on, or give num_warmup to start anew from its draws"
        )
    return state


def _dataclass(kernel: AbstractKernel) -> Any:
    return kernel


def _kernel(kernel: object, continued: Posterior | None) -> AbstractKernel:
    if kernel is None and continued is not None:
        return _CONTINUED[continued.info["method"]](**continued.info["kernel"])
    if kernel is None:
        return NUTS()
    if not isinstance(kernel, AbstractKernel):
        given = kernel.__name__ if isinstance(kernel, type) else repr(kernel)
        raise TypeError(f"kernel={given} was given; expected a kernel object: write kernel=vb.NUTS()")
    return kernel


def _same(one: Prior, other: Prior) -> bool:
    if one is other:
        return True
    try:
        return npz.to_json(one.to_spec()) == npz.to_json(other.to_spec())
    except TypeError:  # a distribution without a description
        return one.shapes == other.shapes and repr(one) == repr(other)


def _check_sizes(**sizes: object) -> None:
    for name, value in sizes.items():
        least = 0 if name == "num_warmup" else 1
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name}={value!r} was given; expected a whole number of at least {least}, such as 500")
