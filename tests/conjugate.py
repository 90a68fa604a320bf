"""One parameter, two features that tell of it and a constant: likelihood, evidence and posterior in closed form."""

import numpy as np
import numpyro.distributions as dist
import scipy.stats as st

from vbinfer.draws.draws import Draws
from vbinfer.priors import Prior

MEAN, SD = 1.0, 1.5
GAIN, OFFSET, NOISE = np.array([0.8, -1.0]), np.array([2.0, -30.0]), np.array([0.5, 0.8])
CONSTANT = 7.0
NAMES = ("rate", "power", "constant")
MARGINAL = st.multivariate_normal(OFFSET + GAIN * MEAN, np.diag(NOISE**2) + SD**2 * np.outer(GAIN, GAIN))
PRECISION = SD**-2 + np.sum((GAIN / NOISE) ** 2)
MUTUAL_INFORMATION = 0.5 * np.log(PRECISION * SD**2)  # 1.17 nats


def make_prior():
    return Prior({"mu": dist.Normal(MEAN, SD)})


def simulate(n, seed):
    rng = np.random.default_rng(seed)
    mu = rng.normal(MEAN, SD, n)
    told = OFFSET + GAIN * mu[:, None] + NOISE * rng.normal(size=(n, 2))
    return mu, np.column_stack([told, np.full(n, CONSTANT)])


def make_draws(n, seed=0):
    mu, x = simulate(n, seed)
    return Draws.from_arrays({"mu": mu}, x, names=NAMES)


def log_likelihood(mu, x):
    return st.norm.logpdf(x[..., :2], OFFSET + GAIN * np.asarray(mu)[..., None], NOISE).sum(-1)


def posterior(x):
    """Mean and sd given the trials x `[trial, 3]`."""
    x = np.atleast_2d(x)
    precision = SD**-2 + len(x) * np.sum((GAIN / NOISE) ** 2)
    return (MEAN / SD**2 + np.sum((x[:, :2] - OFFSET) * GAIN / NOISE**2)) / precision, precision**-0.5
