"""SLCP among features that say nothing."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.tasks.base import Task
from vbinfer.tasks.sbibm import slcp

_FEATURES, _DISTRACTORS, _COMPONENTS, _SEED = 8, 92, 20, 20


def slcp_distractors() -> Task:
    """sbibm's SLCP with 92 distractors: 100 features in any order.

    Eight of them are those of `vb.tasks.slcp`; the others are one draw of a mixture of 20 Student t distributions with
    2 degrees of freedom in 92 dimensions, centres N(0, 15^2 I), lower triangular scales with N(0, 9) below a diagonal
    of 3 exp(a), a ~ N(0, 1). The posterior is that of slcp given its eight features, and `log_likelihood` that of
    slcp: the noise's own density does not depend on theta and is left out.

    The numbers of the mixture and of the order are drawn here from a fixed seed; sbibm's lie in a pickle, so that
    results are comparable in law. `vb.tasks.reference("slcp_distractors", i)` hides observation i of slcp in the same
    way.

    Lueckmann et al. 2021, appendix T.4, doi:10.48550/arXiv.2101.04653.
    """
    plain = slcp()

    def simulator(theta: Theta, key: PRNGKey) -> Array:
        first, second = jax.random.split(key)
        return hidden(plain.simulator(theta, first), second)

    def log_likelihood(theta: Theta, x: Any) -> Array:
        return plain.log_likelihood(theta, jnp.asarray(x)[_order()[:_FEATURES]])

    return Task("slcp_distractors", plain.prior, simulator, log_likelihood, _FEATURES + _DISTRACTORS)


def hidden(x: Array, key: PRNGKey) -> Array:
    """The features of slcp `[8]` among distractors, `[100]`."""
    which, direction, tail = jax.random.split(key, 3)
    centres, scales = _mixture()
    k = jax.random.randint(which, (), 0, _COMPONENTS)
    z = jax.random.normal(direction, (_DISTRACTORS,)) / jnp.sqrt(jax.random.exponential(tail))  # chi2_2 / 2
    noise = jnp.asarray(centres)[k] + jnp.asarray(scales)[k] @ z
    return jnp.zeros(_FEATURES + _DISTRACTORS).at[_order()].set(jnp.concatenate([jnp.asarray(x), noise]))


@functools.cache
def _mixture() -> tuple[np.ndarray, np.ndarray]:
    """Centres `[20, 92]` and scales `[20, 92, 92]`."""
    rng, shape = np.random.RandomState(_SEED), (_COMPONENTS, _DISTRACTORS)
    centres = 15.0 * rng.standard_normal(shape)
    diagonal = 3.0 * np.exp(rng.standard_normal(shape))
    scales = np.tril(3.0 * rng.standard_normal((*shape, _DISTRACTORS)), -1) + diagonal[..., None] * np.eye(_DISTRACTORS)
    return centres.astype(np.float32), scales.astype(np.float32)


@functools.cache
def _order() -> np.ndarray:
    """Where each feature, then each distractor, stands among the 100."""
    return np.random.RandomState(_SEED + 1).permutation(_FEATURES + _DISTRACTORS)
