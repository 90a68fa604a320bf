"""A linear-Gaussian problem with a known posterior, and posteriors of it that are wrong in one known way each.

Five correlated parameters of very unequal scale, ten correlated features, the last two of them noise alone; float64
NumPy throughout, many data sets at once.
"""

import jax
import numpy as np
import numpyro.distributions as dist
import scipy.stats as st

from vbinfer.draws.draws import Draws
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

MEAN = np.array([0.3, -4.6, 100.0, 0.0, 2.0])
SD = np.array([0.1, 0.3, 25.0, 1.0, 0.004])
PRIOR_COV = np.diag(SD**2) + np.diag([0.4 * SD[0] * SD[1], 0, -0.3 * SD[2] * SD[3], 0], 1)
PRIOR_COV = (PRIOR_COV + PRIOR_COV.T) / 2.0 + np.diag(np.zeros(5))
GAIN = np.random.default_rng(7).normal(size=(10, 5)) * np.array([1.5, 1.0, 1.2, 0.6, 0.8]) / SD
GAIN[8:] = 0.0
OFFSET = np.array([0.0, 2.0, 3.0, -2.0, 500.0, 1.0, -7.0, 0.4, 0.0, 9.0])
_ROOT = np.random.default_rng(8).normal(size=(10, 10))
NOISE_COV = 0.5 * _ROOT @ _ROOT.T / 10.0 + np.diag(np.linspace(0.5, 2.0, 10))
NAMES = ("coupling.G", "model.eta", "model.tau", "model.w", "noise.sigma")
FEATURES = tuple(f"fc[{i}]" for i in range(10))


def make_prior():
    """The same prior in the package's terms, as one leaf."""
    return Prior({"theta": dist.MultivariateNormal(np.asarray(MEAN, np.float32), np.asarray(PRIOR_COV, np.float32))})


def make_draws(n, seed):
    rng = np.random.default_rng(seed)
    theta = rng.multivariate_normal(MEAN, PRIOR_COV, n)
    x = theta @ GAIN.T + OFFSET + rng.multivariate_normal(np.zeros(10), NOISE_COV, n)
    return Draws.from_arrays({name: theta[:, i] for i, name in enumerate(NAMES)}, x, names=FEATURES)


def conditional(used):
    """Gain `[5, F]` and covariance of the posterior given the features `used`."""
    a, noise = GAIN[used], NOISE_COV[np.ix_(used, used)]
    gain = PRIOR_COV @ a.T @ np.linalg.inv(a @ PRIOR_COV @ a.T + noise)
    return gain, PRIOR_COV - gain @ a @ PRIOR_COV


ALL = np.arange(10)
K, COV = conditional(ALL)


def most_informative(i):
    """The feature whose absence widens the posterior of parameter i most."""
    return int(np.argmax([conditional(np.delete(ALL, j))[1][i, i] for j in ALL]))


class Exact:
    """The exact posterior, or one made wrong: sd times `scale`, means moved by `shift` posterior sds."""

    def __init__(self, scale=1.0, shift=0.0, log_scale=None):
        self.scale, self.shift = scale, shift
        self.factor = np.linalg.cholesky(COV)

    def _mean(self, x):
        return MEAN + (x - OFFSET - GAIN @ MEAN) @ K.T + self.shift * np.sqrt(np.diag(COV))

    def _rows(self, x, n, key):
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        return self._mean(x)[:, None] + self.scale * rng.normal(size=(len(x), n, 5)) @ self.factor.T

    def sample_batch(self, x, *, n, key):
        rows = self._rows(np.asarray(x, float), n, key)
        return {name: rows[:, :, i] for i, name in enumerate(NAMES)}

    def sample(self, x_o, *, n, key):
        return Posterior(self.sample_batch(np.asarray(x_o)[None], n=n, key=key), x_o=x_o)

    def log_prob(self, theta, x):
        rows = np.stack([np.asarray(theta[name], float) for name in NAMES], axis=-1)
        z = np.linalg.solve(self.scale * self.factor, (rows - self._mean(np.asarray(x, float))).T)
        return -0.5 * (z**2).sum(axis=0) - np.log(np.diag(self.scale * self.factor)).sum() - 2.5 * np.log(2 * np.pi)


class Altered:
    """The exact draws changed afterwards by `change(rows [B, n, 5], x [B, F], rng)`; there is no density."""

    def __init__(self, change):
        self.change = change

    def sample_batch(self, x, *, n, key):
        x = np.asarray(x, float)
        rng = np.random.default_rng([11, *np.asarray(jax.random.key_data(key))])
        rows = self.change(Exact()._rows(x, n, key), x, rng)
        return {name: rows[:, :, i] for i, name in enumerate(NAMES)}


def swapped(rows, x, rng):
    """One parameter's marginal in place of another's, in prior units: of different centre and width."""
    unit = (rows[:, :, 0] - MEAN[0]) / SD[0]
    rows[:, :, 3] = MEAN[3] + SD[3] * unit
    return rows


def shuffled(rows, x, rng):
    """Every marginal right, every correlation lost."""
    return np.stack([rng.permuted(rows[:, :, i], axis=1) for i in range(5)], axis=2)


def ignoring(rows, x, rng):
    """The marginal of the first parameter given all but its most informative feature."""
    used = np.delete(ALL, most_informative(0))
    gain, cov = conditional(used)
    mean = MEAN[0] + (x[:, used] - OFFSET[used] - GAIN[used] @ MEAN) @ gain[0]
    rows[:, :, 0] = mean[:, None] + np.sqrt(cov[0, 0]) * rng.normal(size=rows.shape[:2])
    return rows


def prior_itself(rows, x, rng):
    return rng.multivariate_normal(MEAN, PRIOR_COV, rows.shape[:2])


SOURCES = {
    "correct": Exact(),
    "sd x 0.7": Exact(scale=0.7),
    "sd x 1.4": Exact(scale=1.4),
    "shift 0.5 sd": Exact(shift=0.5),
    "marginal swapped": Altered(swapped),
    "correlations lost": Altered(shuffled),
    "feature ignored": Altered(ignoring),
    "the prior": Altered(prior_itself),
}


def ks(u):
    return st.kstest(u, "uniform").pvalue
