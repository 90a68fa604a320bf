"""Gaussian mixtures in place of a subject's draws, where too few of them lie in the population."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

MOST_COMPONENTS = 3
_NOWHERE = -1e30


class Mixtures(NamedTuple):
    """Posteriors of all subjects.

    Of w, the parameters in units of the prior: q(w | x_s) is sum_k exp(log_share) N(w; a, L^-1), the prior N(0, 1). In
    a population N(m, sd^2), with w = m + sd e, M = L - 1 and d = m - a, each component has its integral in closed form,

        log int N(w; a, L^-1) N(w; m, sd^2) / N(w; 0, 1) dw
            = (log det L - log det B + a'a + g' B^-1 g - d' M d) / 2 + a' d,
        B = 1 + sd M sd,   g = sd (a - M d),   e ~ N(B^-1 g, B^-1),

    whatever the distance between draws and population, and to rounding where sd is 0.
    """

    log_share: Array
    """`[S, K]`, minus infinity where a subject has fewer components."""
    centre: Array
    """`[S, K, E]`."""
    precision: Array
    """`[S, K, E, E]`, nowhere below 1."""

    def components(self, m: Array, sd: Array) -> tuple[Array, Array, Array]:
        """Log weights `[S, K]`, and e given the population.

        Of e B^-1 g and the Cholesky factor of B.
        """
        eye = jnp.eye(len(m))
        M, d = self.precision - eye, m - self.centre
        pulled = jnp.einsum("skij,skj->ski", M, d)
        factor, g = jnp.linalg.cholesky(eye + sd[:, None] * M * sd), sd * (self.centre - pulled)
        half = jax.scipy.linalg.solve_triangular(factor, g[..., None], lower=True)
        logdet = lambda F: 2.0 * jnp.log(jnp.diagonal(F, axis1=-2, axis2=-1)).sum(axis=-1)  # noqa: E731
        twice = logdet(jnp.linalg.cholesky(self.precision)) - logdet(factor) + jnp.sum(half[..., 0] ** 2, axis=-1)
        twice = twice + jnp.sum(self.centre * (self.centre + 2.0 * d) - d * pulled, axis=-1)
        e = jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans=1)[..., 0]
        return self.log_share + 0.5 * twice, e, factor

    def log_likelihood(self, m: Array, sd: Array) -> Array:
        """log p(x | m, sd), up to a constant."""
        return jax.scipy.special.logsumexp(self.components(m, sd)[0], axis=1).sum()

    def sample(self, m: Array, sd: Array, key: Array) -> Array:
        """A draw of w for each subject, `[S, E]`."""
        log_weight, e, factor = self.components(m, sd)
        which, normal = jax.random.split(key)
        k = jax.random.categorical(which, log_weight)
        rows = jnp.arange(len(k))
        z = jax.random.normal(normal, e.shape[::2])
        spread = jax.scipy.linalg.solve_triangular(factor[rows, k], z[..., None], lower=True, trans=1)[..., 0]
        return m + sd * (e[rows, k] + spread)


def fit(w: np.ndarray, log_prior: np.ndarray) -> Mixtures:
    """Mixtures of draws.

    The number of components is by BIC. Where the prior is not normal, draws are taken by N(w; 0, 1) / p(w) first.

    Args:
        w: `[S, n, E]`, in units of the prior.
        log_prior: `[S, n]`, the prior's density of w.
    """
    S, _, E = w.shape
    log_share = np.full((S, MOST_COMPONENTS), _NOWHERE)
    centre, precision = np.zeros((S, MOST_COMPONENTS, E)), np.tile(np.eye(E), (S, MOST_COMPONENTS, 1, 1))
    for s in range(S):
        found = _best(_under_normal(w[s], log_prior[s]))
        for k, (share, mean, cov) in enumerate(zip(found.weights_, found.means_, found.covariances_, strict=True)):
            values, vectors = np.linalg.eigh(cov)
            # data only narrow a normal prior; a direction that they leave alone may look wider by chance
            precision[s, k] = (vectors / np.clip(values, 1e-12, 1.0)) @ vectors.T
            log_share[s, k], centre[s, k] = np.log(max(share, 1e-30)), mean
    return Mixtures(*(jnp.asarray(a, jnp.result_type(float)) for a in (log_share, centre, precision)))


def _under_normal(w: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
    log_weight = -0.5 * np.sum(w**2, axis=1) - log_prior
    if np.ptp(log_weight) < 1e-3:
        return w
    share = np.exp(log_weight - log_weight.max())
    positions = (np.arange(len(w)) + 0.5) / len(w)
    return w[np.searchsorted(np.cumsum(share) / share.sum(), positions)]


def _best(w: np.ndarray) -> Any:
    from sklearn.mixture import GaussianMixture

    n, E = w.shape
    most = max(1, min(MOST_COMPONENTS, n // (10 * E * (E + 3) // 2 + 1)))
    fits = [GaussianMixture(k, reg_covar=1e-8, random_state=0).fit(w) for k in range(1, most + 1)]
    return min(fits, key=lambda one: one.bic(w))
