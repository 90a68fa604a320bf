"""Posterior draws from a source, for many data sets."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer._names import PRNGKey, unravel
from vbinfer.diagnostics.chain_measures import effective_draws
from vbinfer.diagnostics.recovery import as_rows
from vbinfer.diagnostics.result import Shapes
from vbinfer.posterior import Posterior

CHUNK = 64
"""Data sets asked about together by `.sample_batch`."""


def chunk_size(source: Any, count: int) -> int:
    """Data sets per chunk.

    Equal chunks; of one data set where each is sampled by itself, which may take a minute of Markov chains.

    Raises:
        TypeError: an object that cannot be asked.
    """
    if callable(getattr(source, "sample_batch", None)):
        # ceil(count / number of chunks): equal chunks of at most 64, so that the last one is hardly filled up
        return -(-count // -(-count // CHUNK))
    if callable(getattr(source, "sample", None)) or callable(source):
        return 1
    raise TypeError(
        f"source is a {type(source).__name__}; expected an object with .sample(x_o, n=, key=), such as what "
        "vb.NPE().fit returns, or a function (x_o, n, key) -> vb.Posterior"
    )


def sample_posteriors(
    source: Any, x: np.ndarray, shapes: Shapes, *, n: int, key: PRNGKey, start: int, width: int
) -> tuple[np.ndarray, float]:
    """Posterior draws of one chunk, and their smallest ESS.

    Draws are `[B, n, D]`.

    The key of a chunk is `fold_in(key, start)`. A posterior with several chains is thinned evenly to n draws. A source
    with `.run_batch`, as `vb.sampling.ChainSampler`, says itself what its draws are worth.

    Args:
        source: a posterior for any x.
        x: summaries of the chunk.
        shapes: the parameters that are wanted, in order.
        n: draws per data set.
        key: randomness of the whole study.
        start: number of the first data set of the chunk.
        width: data sets in a whole chunk; a shorter last one is filled up: one shape is one compilation.
    """
    # by the chunk's own place, so that a study that goes on later draws the same
    k = jax.random.fold_in(key, start)
    if callable(getattr(source, "sample_batch", None)):
        # the last chunk is filled up with copies of its last row: one shape is one compilation
        filled, independent = np.concatenate([x, np.repeat(x[-1:], width - len(x), axis=0)]), float(n)
        if callable(getattr(source, "run_batch", None)):
            run = source.run_batch(filled, n=n, key=k)
            theta, independent = run.theta, min(independent, float(np.min(run.ess)))
        else:
            theta = source.sample_batch(filled, n=n, key=k)
        check_names(theta, shapes)
        for name, shape in shapes.items():
            if np.shape(theta[name]) != (width, n, *shape):
                wanted = ", ".join(map(str, (width, n, *shape)))
                raise ValueError(
                    f"source.sample_batch gave {name!r} of shape {list(np.shape(theta[name]))}; expected [{wanted}]"
                )
        rows = as_rows(theta, shapes)[: len(x)]
    else:
        drawn = [_one(source, row, shapes, n, k, start + i) for i, row in enumerate(x)]
        rows, independent = np.stack([one for one, _ in drawn]), min(worth for _, worth in drawn)
    finite = np.isfinite(rows).all(axis=(1, 2))
    if not finite.all():
        raise ValueError(
            f"the posterior of held-out data set {start + finite.argmin()} holds NaN or infinite draws; look at it "
            f"with source.sample(x_o, n={n}, key=key) before anything is said of calibration"
        )
    return rows, independent


def log_density(source: Any, rows: np.ndarray, x: np.ndarray, shapes: Shapes) -> np.ndarray:
    """Log density of each draw at its own x.

    log q(theta | x) `[B, L]` of theta `[B, L, D]` and x `[B, F]`.
    """
    thetas = (unravel(jnp.asarray(one), shapes) for one in rows)
    return np.stack([np.asarray(source.log_prob(theta, x_o), np.float64) for theta, x_o in zip(thetas, x, strict=True)])


def check_names(theta: Mapping[str, Any], shapes: Shapes) -> None:
    """Refuse a posterior over other parameters than the draws."""
    if set(theta) != set(shapes):
        raise ValueError(
            f"the source's posteriors are over {', '.join(sorted(theta))} but the draws have "
            f"{', '.join(sorted(shapes))}: these draws are of another study; simulate some with the source's own prior"
        )


def _one(source: Any, x_o: np.ndarray, shapes: Shapes, n: int, key: PRNGKey, number: int) -> tuple[np.ndarray, float]:
    """Draws `[n, D]` for one data set, and their worth."""
    sample = getattr(source, "sample", None)
    posterior = sample(x_o, n=n, key=key) if sample is not None else source(x_o, n, key)
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"the source gave a {type(posterior).__name__} for held-out data set {number}; expected a vb.Posterior: "
            'write vb.Posterior({"path": array [chain, draw, ...]})'
        )
    check_names(posterior.theta, shapes)
    rows = np.concatenate(as_rows(posterior.theta, shapes))
    total = len(rows)
    if total < n:
        raise ValueError(
            f"the posterior of held-out data set {number} has {total} draw{'s' * (total != 1)} and "
            f"num_posterior_samples={n} were asked for; draw more, or write num_posterior_samples={max(10, total)}"
        )
    # evenly over all chains: chain-major order, so that each chain gives its share
    return rows[(np.arange(n) * total) // n], effective_draws(posterior, n)
