"""`sample_mcmc`: one front for every kernel."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer.posterior import Posterior, provenance
from vbinfer.priors.prior import Prior
from vbinfer.sampling.mclmc import MCLMC
from vbinfer.sampling.nuts import HMC, NUTS
from vbinfer.sampling.problem import AbstractKernel, LogLikelihood, RunOptions, check_kernel, problem_of, sampled_theta
from vbinfer.sampling.store import numbers

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
    init: Any = None,
    chain_method: str = "auto",
    store: str | Path | None = None,
    progress: bool = False,
) -> Posterior:
    """Sample p(theta | x_o), all chains side by side.

    The density is proportional to p(theta) p(x_o | theta). Chains move in z, where the prior is standard normal, so no
    draw leaves the prior's support. Each starts from its own prior draw at which the likelihood and its gradient are
    finite: chains that disagree (`vb.diagnostics.rhat`) show a posterior with several modes. A likelihood that turns
    NaN on the way
    ends the trajectory there, a divergence. A likelihood that simulates noise from a fixed key conditions on that one
    noise path.

    Args:
        prior: `vb.Prior`.
        log_likelihood: `(theta, x_o) -> log p(x_o | theta)`, one number, differentiable by JAX. Another x_o of the same
            shape with the same function compiles nothing, unless the function needs the values of x_o: write `jnp`, not
            NumPy, on them.
        x_o: the observation, an array or a tree of them; anything else is passed on as it is.
        kernel: `vb.sampling.NUTS()` by default; `vb.sampling.HMC`, `vb.sampling.MCLMC`, `vb.sampling.TemperedSMC`.
        num_warmup: steps per chain that adapt step size and mass matrix, discarded.
        num_samples: draws per chain.
        num_chains: independent chains; four are the least with which R-hat says much.
        key: a JAX key; not used where `init` is a run that goes on, which has its own.
        init: starts instead of prior draws: theta, leaves `[chain, ...]`; a `Posterior` (`vb.approximate.pathfinder`,
            `vb.approximate.fit_laplace`, an earlier run), one random draw per chain; or a `MapFit`, its optima in
            turn. The
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
    key, began = _check.key(key), time.perf_counter()
    state = _left_behind(prior, init, kernel, num_warmup, num_chains)
    if kernel is None and state is not None:
        kernel = _CONTINUED[init.info["method"]](**init.info["kernel"])
    chosen: AbstractKernel = check_kernel(NUTS() if kernel is None else kernel)
    options = RunOptions(
        _check.count(num_warmup, "num_warmup", 500, least=0),
        _check.count(num_samples, "num_samples", 500),
        _check.count(num_chains, "num_chains", 4),
        key,
        init,
        progress,
        _check.one_of(chain_method, "chain_method", ("auto", "vectorized", "parallel")),
        None if store is None else Path(store),
        state,
    )
    run = chosen.run(problem_of(prior, log_likelihood, x_o), options)
    theta, log_prob = sampled_theta(prior, run.z, run.potential_energy)
    info = provenance(type(chosen).__name__, key, began, "numpyro", "blackjax") | {
        "kernel": dataclasses.asdict(chosen),
        "num_warmup": num_warmup,
        "divergences": int(np.sum(run.stats["diverging"])) if "diverging" in run.stats else 0,
        **run.info,
    }
    return Posterior(theta, log_prob, run.stats, numbers(x_o), prior, run.log_evidence, info, run.state)


def _left_behind(
    prior: Prior, init: Any, kernel: AbstractKernel | None, num_warmup: int, num_chains: int
) -> Mapping[str, np.ndarray] | None:
    """State of a run that goes on, or None."""
    if not isinstance(init, Posterior):
        return None
    if init.prior is not None and init.prior != prior:
        raise ValueError(
            f"init is a posterior of another study: its prior is {init.prior!r}, this one is {prior!r}; "
            f"give a posterior of the same prior, or theta as a dictionary"
        )
    # with a warm-up a posterior gives starting points only; without, its chains go on where they were
    if num_warmup != 0 or not init.state:
        return None
    there = init.num_chains
    if there != num_chains:
        raise ValueError(f"init has {there} chains to go on; write num_chains={there}, not {num_chains}")
    method, options = init.info.get("method"), init.info.get("kernel")
    if kernel is not None and (type(kernel).__name__ != method or dataclasses.asdict(kernel) != options):
        raise ValueError(
            f"init was sampled by {method} with {options}, but kernel={kernel!r} was given; "
            f"leave kernel out to go on, or give num_warmup to start anew from its draws"
        )
    return init.state
