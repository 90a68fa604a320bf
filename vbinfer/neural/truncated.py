"""Truncated priors: proposals of sequential rounds that need no correction."""

import abc
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.special import ndtr, ndtri

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer.priors.prior import Prior

CANDIDATES = 8192
_MARGIN = 0.1
_OVERSAMPLE = 32
_LEAST_ACCEPTANCE = 0.005
_PATIENCE = 20
"""Blocks looked at, as a multiple of those expected, before sampling gives up."""


class AbstractTruncation(abc.ABC):
    """A prior cut to a region R.

    p(theta) 1[theta in R] / mass.
    """

    prior: Prior
    acceptance: float
    """Share of candidates kept."""
    mass: float
    """Share of the prior that lies in the region."""

    @abc.abstractmethod
    def contains(self, theta: Mapping[str, Any]) -> np.ndarray:
        """`[...]`: whether theta lies in the region."""

    @abc.abstractmethod
    def _block(self, key: PRNGKey) -> tuple[Mapping[str, Any], np.ndarray]:
        """Candidates, and which of them are draws."""

    def sample(self, *, key: PRNGKey, n: int) -> Theta:
        """Draw from the prior within the region: leaves `[n, ...]`.

        Raises:
            RuntimeError: far fewer candidates are kept than when the region was measured.
        """
        key, n = _check.key(key), _check.count(n, "n")
        blocks: list[dict[str, np.ndarray]] = []
        found = 0
        for i in range(_PATIENCE * (1 + int(n / (self.acceptance * CANDIDATES)))):
            theta, kept = self._block(jax.random.fold_in(key, i))
            blocks.append({name: np.asarray(value)[kept] for name, value in theta.items()})
            found += int(kept.sum())
            if found >= n:
                return {name: jnp.asarray(np.concatenate([b[name] for b in blocks])[:n]) for name in blocks[0]}
        raise RuntimeError(
            f"{found} of {n} draws were found in {len(blocks) * CANDIDATES} candidates, though {self.acceptance:.2g} "
            "of them should be kept; widen the region (epsilon=, num_samples=, lost=), or narrow the prior"
        )

    def log_prob(self, theta: Mapping[str, Any]) -> Array:
        """log p(theta) - log(mass) `[...]` inside, -inf outside."""
        return jnp.where(self.contains(theta), self.prior.log_prob(theta) - np.log(self.mass), -jnp.inf)


class TruncatedPrior(AbstractTruncation):
    """The prior where all but epsilon of a posterior lies.

    p(theta) 1[theta in R] / mass, where
    R = {theta: log q(theta | x_o) - log p(theta) >= c, and z(theta) in the box}

    c is the epsilon-quantile of log q - log p over draws of q: among regions with as much of q, this one holds the
    least of the prior (Neyman & Pearson), and it does not depend on how a parameter is written; under a uniform prior
    it is the highest-density region. The box holds these draws along their principal axes in z, a tenth wider on each
    side; it cuts off corners far from every draw, and lets R be sampled where a plain draw of the prior hardly ever
    falls in.

    Draws are exact where 1 in 200 or more is accepted: z is standard normal in the box (so is the prior in z, along any
    axes), and is kept if it lies in R. Below that, as from 10 to 15 parameters on, each draw is one of 32 of q, taken
    with weight p / q inside R, 0 outside (`method="resampling"`), which is exact only in the limit of many; so it is
    under priors that are not standard normal in z (simplices, correlation matrices).
    Every draw lies in R either way. A posterior network may be trained on such draws together with earlier ones by its
    plain loss: within R all of them are proportional to the prior. For observations whose posterior leaves R they say
    little.

    Args:
        prior: the prior of the study.
        amortized: a fitted posterior with `.sample(x_o, n=, key=)` and `.log_prob(theta, x)`: from `vb.NPE`, or
            `vb.neural.SbiEstimator` with NPE, NPE_A, FMPE, NPSE.
        x_o: observed summary `[F]`.
        key: decides the draws by which c, the box and the mass are estimated.
        epsilon: share of the posterior left out at most by the threshold.
        num_samples: draws of the posterior.
        round: number that draws from this proposal carry.

    Attributes:
        threshold: c.
        method: `"rejection"` or `"resampling"`.
        acceptance: share of candidates kept.
        mass: share of the prior that lies in R.

    Raises:
        ValueError: epsilon that is no share, a prior over other parameters than the posterior's.
        TypeError: a fitted likelihood or ratio.

    Deistler, Goncalves & Macke 2022, NeurIPS, doi:10.48550/arXiv.2210.04815.

    Example:
        region = vb.neural.TruncatedPrior(prior, amortized, x_o, key=jax.random.key(3))
        more = vb.sample_prior_predictive(prior, simulator, n=1_000, key=jax.random.key(4), proposal=region)
        amortized, info = vb.NPE().fit(draws + more, prior, key=jax.random.key(5))
    """

    def __init__(
        self,
        prior: Prior,
        amortized: Any,
        x_o: Any,
        *,
        key: PRNGKey,
        epsilon: float = 1e-4,
        num_samples: int = 10_000,
        round: int = 1,
    ) -> None:
        key, num_samples = _check.key(key), _check.count(num_samples, "num_samples", "10_000")
        self.round, self.epsilon = _check.count(round, "round", 1), small_share(epsilon)
        _check_proposal(prior, amortized)
        self.prior = prior
        k_draw, k_mass = jax.random.split(key)
        posterior = amortized.sample(x_o, n=num_samples, key=k_draw)
        self.x_o = np.asarray(posterior.x_o)
        self._amortized = amortized
        theta = {name: value[0] for name, value in posterior.theta.items()}
        excess = np.asarray(posterior.log_prob[0], float) - np.asarray(prior.log_prob(theta), float)
        # log q - log p, not log q: the region is then the same however a parameter is written
        usable = np.isfinite(excess)
        if usable.sum() < 0.5 * num_samples:
            raise ValueError(
                f"log q is finite at {usable.sum()} of {num_samples} draws of the posterior; train it again with a "
                "lower learning_rate"
            )
        self.threshold = float(np.quantile(excess[usable], epsilon))
        self._box = _Box.around(np.asarray(prior.to_z(theta))[usable])
        self.method, self.acceptance, self.mass = self._measure(k_mass)

    def contains(self, theta: Mapping[str, Any]) -> np.ndarray:
        """`[...]`: whether theta lies in the region."""
        return self._box.contains(np.asarray(self.prior.to_z(theta))) & (self._excess(theta) >= self.threshold)

    def _excess(self, theta: Mapping[str, Any]) -> np.ndarray:
        log_q = np.asarray(self._amortized.log_prob(theta, self.x_o))
        value = log_q - np.asarray(self.prior.log_prob(theta))
        return np.where(np.isfinite(value), value, -np.inf)

    def _posterior(self, key: PRNGKey) -> Mapping[str, Any]:
        """Candidates from q."""
        with warnings.catch_warnings():  # of an unusual x_o the first draws have told
            warnings.filterwarnings("ignore", message="x_o lies outside")
            posterior = self._amortized.sample(self.x_o, n=CANDIDATES, key=key)
        return {name: value[0] for name, value in posterior.theta.items()}

    def _block(self, key: PRNGKey) -> tuple[Mapping[str, Any], np.ndarray]:
        if self.method == "resampling":
            return self._resampled(key)
        theta = self.prior.from_z(self._box.sample(key, CANDIDATES))[0]
        return theta, self.contains(theta)

    def _resampled(self, key: PRNGKey) -> tuple[Mapping[str, Any], np.ndarray]:
        """Pick one of each 32 candidates from q.

        In proportion to p / q inside R.
        """
        k_draw, k_pick = jax.random.split(key)
        theta = self._posterior(k_draw)
        log_weight = np.where(self.contains(theta), -self._excess(theta), -np.inf)
        # Gumbel maximum: of each group one candidate, with probability in proportion to its weight
        score = log_weight + np.asarray(jax.random.gumbel(k_pick, log_weight.shape))
        groups = score.reshape(-1, _OVERSAMPLE)
        chosen = groups.argmax(axis=1) + _OVERSAMPLE * np.arange(len(groups))
        kept = np.zeros(CANDIDATES, bool)
        kept[chosen[np.isfinite(groups.max(axis=1))]] = True
        return theta, kept

    def _measure(self, key: PRNGKey) -> tuple[str, float, float]:
        """The method, its acceptance, and the prior mass of R."""
        _, k_box, key = jax.random.split(key, 3)
        self.method = "rejection"
        if self.prior.z_is_normal:
            accepted = float(self._block(k_box)[1].mean())
            if accepted >= _LEAST_ACCEPTANCE:
                return "rejection", accepted, accepted * self._box.mass
        theta = self._posterior(key)
        # mass = E_q[p / q 1_R]; inside R log q - log p is at least the threshold, so a weight is bounded
        weight = np.where(self.contains(theta), np.exp(-np.maximum(self._excess(theta), self.threshold)), 0.0)
        return "resampling", 1.0 / _OVERSAMPLE, float(weight.mean())


class _Box(NamedTuple):
    """A box in z along `axes` (columns)."""

    axes: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def around(cls, z: np.ndarray) -> "_Box":
        # principal axes of the draws: a tilted posterior fills a tilted box far better than an upright one
        axes = np.linalg.svd(np.cov(z.astype(np.float64).T).reshape(z.shape[1], -1))[0]
        along = z @ axes
        margin = _MARGIN * np.ptp(along, axis=0)
        return cls(axes, along.min(axis=0) - margin, along.max(axis=0) + margin)

    @property
    def mass(self) -> float:
        return float(np.prod(ndtr(self._lower[1]) - ndtr(self._lower[0])))

    def contains(self, z: np.ndarray) -> np.ndarray:
        along = z @ self.axes
        return np.asarray(np.all((along >= self.low) & (along <= self.high), axis=-1))

    def sample(self, key: PRNGKey, n: int) -> np.ndarray:
        """Standard normal draws `[n, D]` within the box, by quantiles."""
        (first, last), sign = self._lower, self._sign
        u = np.asarray(jax.random.uniform(key, (n, len(self.low))), np.float64)
        along = sign * ndtri(ndtr(first) + u * (ndtr(last) - ndtr(first)))
        return np.clip(along, self.low, self.high) @ self.axes.T

    @property
    def _sign(self) -> np.ndarray:
        """-1 where a side lies in the upper tail.

        Probabilities round to 1 there, and not in the lower one.
        """
        return np.where(self.low > 0.0, -1.0, 1.0)

    @property
    def _lower(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of each side, mirrored into the lower tail."""
        # ndtr(9) is 1 in float64, ndtr(-9) is 1e-19: all probabilities are taken in the lower tail
        up = self.low > 0.0
        return np.where(up, -self.high, self.low), np.where(up, -self.low, self.high)


def small_share(epsilon: float) -> float:
    """Share of a posterior that a region leaves out."""
    words = "a small share of the posterior"
    if 0.0 < (found := _check.number(epsilon, "epsilon", "1e-4", words)) < 0.5:
        return found
    raise ValueError(f"epsilon={epsilon!r} was given; expected {words}, such as 1e-4")


def _check_proposal(prior: Prior, amortized: Any) -> None:
    if not (callable(getattr(amortized, "log_prob", None)) and callable(getattr(amortized, "sample", None))):
        raise TypeError(
            f"TruncatedPrior was given a {type(amortized).__name__}; expected a posterior with .sample and .log_prob, "
            "as vb.NPE().fit returns. A learned likelihood proposes by its own posterior, in vb.neural.fit_rounds"
        )
    if amortized.prior.shapes != prior.shapes:
        raise ValueError(
            f"the posterior was fitted with a prior over {amortized.prior.shapes}, this prior has {prior.shapes}; "
            "give the prior of the study"
        )


Truncated = TruncatedPrior  # the name of version 0.1
