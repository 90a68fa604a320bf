"""Is the posterior right at this one observation?

The local classifier two-sample test.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey, flat_names
from vbinfer.draws.draws import Draws
from vbinfer.execute.batches import key_ints
from vbinfer.neural.scaler import Standardise

from .calibration.posterior_draws import chunk_size, sample_posteriors
from .figure import Axis, Bars, Figure, Panel, Rule
from .permutation_classifier import fit_labellings
from .recovery import as_rows, in_z
from .result import (
    AbstractResult,
    Names,
    Status,
    chosen,
    json_able,
    listed,
    observation,
    status_of,
    worst,
)
from .thresholds import P_FAIL, P_WARN

_FEWEST = 100
_NEIGHBOURS = 60
_SHARE = 0.08
_TELLING = 0.3  # correlation with a parameter that hints at where the posterior errs


@dataclasses.dataclass(frozen=True)
class LC2ST(AbstractResult):
    """Result of `vb.diagnostics.lc2st`.

    Attributes:
        verdict: `fail` when the posterior at x_o is rejected (p < 0.01); `warn` when p < 0.05, or when x_o lies
            outside the draws, so that nothing near it was tested.
        findings: sentences.
        p_value: of "q(theta | x_o) is the posterior": the larger of `p_classifier` and `p_local`.
        p_classifier: rank of `statistic` among `null`.
        p_local: rank of `gain` among the gains under the null.
        statistic: mean over posterior draws of (d - 1/2)^2, at most 1/4.
        null: the statistic under each relabelling `[num_null]`.
        gain: share of the label's variance that held-out predictions explain around x_o.
        probability: d at each posterior draw `[num_posterior_samples]`: above 1/2 where truths are more frequent
            than the posterior says.
        tilt: correlation of d with each parameter `[D]`; positive where the posterior lies too low.
        names: names of the D parameters.
    """

    question = "Is the posterior right at this recording?"
    rule = (
        "A classifier tries to tell posterior draws from truths around this recording. "
        f"Fail: p < {P_FAIL:g}. Warn: p < {P_WARN:g}, or the recording lies outside the simulations."
    )
    verdict: Status
    findings: Names
    p_value: float
    p_classifier: float
    p_local: float
    statistic: float
    null: np.ndarray
    gain: float
    probability: np.ndarray
    tilt: np.ndarray
    names: Names

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers, JSON-able."""
        kept = {name: getattr(self, name) for name in ("p_value", "p_classifier", "p_local", "statistic", "gain")}
        tilt = dict(zip(self.names, self.tilt, strict=True))
        return json_able(kept | {"tilt": tilt, "num_null": len(self.null)})

    def figure(self) -> Figure:
        """The classifier's statistic among its values for a right posterior."""
        counts, edges = np.histogram(self.null, 20)
        panel = Panel(
            (
                Bars(counts.astype(float), edges, role="null", label="if all is right"),
                Rule(self.statistic, "x", "observed", "this posterior"),
            ),
            Axis("statistic of the classifier"),
            Axis(numbers=False),
            f"Statistic of the local test among {len(self.null)} relabellings: p = {self.p_classifier:.2g}",
        )
        caption = (
            f"The classifier's statistic, and what it is for a right posterior, n = {len(self.null)} relabellings."
        )
        return Figure([panel], caption, "half")


def lc2st(
    source: Any, draws: Draws, x_o: Any, *, key: PRNGKey, num_posterior_samples: int = 1_000, num_null: int = 100
) -> LC2ST:
    """Local classifier two-sample test of one posterior.

    For each pair (theta*, x) of the draws one theta_q ~ q(theta | x) is drawn. A classifier d learns to tell
    (theta*, x) from (theta_q, x); where q is the posterior it cannot. At x_o

        t = mean_l (d(theta_l, x_o) - 1/2)^2,   theta_l ~ q(theta | x_o)

    is compared with classifiers refitted after swapping theta* and theta_q at random within pairs, which changes
    nothing if q is exact: p = (1 + #{null >= t}) / (num_null + 1).

    A smooth classifier that found a mistake elsewhere says something at x_o too. So a second statistic is ranked
    likewise: how much of the labels its held-out predictions explain for the simulations around x_o (Gaussian weights,
    worth 8 % of the draws and at least 60). p_value is the larger of both: a rejection needs a classifier that sees a
    difference at x_o and is right around it. Under an exact posterior at most 5 % are rejected.

    The classifier is kernel ridge regression on theta in z, as residuals of a linear regression on x, next to
    standardised x. It sees overall mismatch at x_o (location, width, dependence), not its kind: `tilt` is a hint.
    Blind to mistakes much finer than the posterior's width, to a mistake in a region of x so small that few draws lie
    in it, and to misspecification: an x_o outside the draws has nothing around it to test with.

    Args:
        source: an amortised posterior, or a callable `(x_o, n, key) -> vb.Posterior` (one call per draw: slow for
            Markov chains).
        draws: pairs from the prior and the simulator that `source` was not trained on; 500 or more. Failed ones are
            left out.
        x_o: observed summary `[F]`.
        key: randomness.
        num_posterior_samples: draws at x_o.
        num_null: relabellings.

    Raises:
        ValueError: fewer than 100 valid draws, x_o of another width or with NaN.

    Linhart, Gramfort & Rodrigues 2023, NeurIPS, doi:10.48550/arXiv.2306.03580.

    Example:
        found = vb.diagnostics.lc2st(amortized, fresh_draws, x_o, key=jax.random.key(3))
        found.verdict, found.p_value, found.findings
    """
    key, count = _check.key(key), _check.count(num_null, "num_null", "100")
    size = _check.count(num_posterior_samples, "num_posterior_samples")
    theta, x = draws.usable()
    n, names, shapes = len(x), flat_names(draws.shapes), draws.shapes
    if n < _FEWEST:
        raise ValueError(f"{n} of {len(draws)} draws are valid; lc2st needs {_FEWEST} or more, better 1,000")
    observed = observation(x_o, draws.names)
    k_pairs, k_at, k_null = jax.random.split(key, 3)
    step = chunk_size(source, n)
    drawn = [
        sample_posteriors(source, x[i : i + step], shapes, n=1, key=k_pairs, start=i, width=step)[0]
        for i in range(0, n, step)
    ]
    here = sample_posteriors(source, observed[None], shapes, n=size, key=k_at, start=0, width=1)[0][0]
    scale, prior = Standardise.fit(x), getattr(source, "prior", None)
    h, h_o = (np.asarray(scale(jnp.asarray(rows)), np.float64) for rows in (x, observed))
    rows = (as_rows(theta, shapes).astype(np.float64), np.concatenate(drawn)[:, 0], here)
    true, other, own = (one if prior is None else in_z(prior, one) for one in rows)
    first, second, at = _residuals(true, other, own, h, h_o)
    rng = np.random.default_rng(key_ints(k_null))
    # column 0 is the observed labelling; in the others theta* and its draw change places at random
    labels = np.concatenate([np.ones((n, 1)), rng.choice([-1.0, 1.0], (n, count))], axis=1)
    fitted = fit_labellings(first, second, at, labels, _weights(h, h_o), rng)
    # d - 1/2 = f / 2
    statistics, probability = np.mean(fitted.at**2, axis=0) / 4.0, 0.5 + 0.5 * fitted.at[:, 0]
    p_classifier, p_local = _p(statistics), _p(fitted.gain)
    # an intersection of two tests: both must reject, so the level is at most that of one
    p_value = max(p_classifier, p_local)
    tilt = _correlations(here, fitted.at[:, 0])
    outside = chosen(draws.names, scale.outside(observed))
    said = _about_classifier(p_value, p_classifier, n, tilt, names)
    if outside:
        said.append(f"The observation lies outside the simulations in {listed(outside)}: nothing was tested near it.")
    if len(draws) > n:
        said.append(f"{len(draws) - n} of {len(draws)} simulations failed and were left out.")
    status, gain = worst([status_of(p_value), "warn" if outside else "pass"]), float(fitted.gain[0])
    return LC2ST(
        status, tuple(said), p_value, p_classifier, p_local, float(statistics[0]), statistics[1:], gain, probability,
        tilt, names,
    )  # fmt: skip


def _about_classifier(p_value: float, p_classifier: float, n: int, tilt: np.ndarray, names: Names) -> list[str]:
    if p_value >= P_WARN:
        elsewhere = ["It finds mistakes for other observations, not around this one."] if p_classifier < P_WARN else []
        return [
            f"At this observation a classifier cannot tell the posterior's draws from the truth (p = {p_value:.2g}, "
            f"{n} simulations); it sees overall mismatch only.",
            *elsewhere,
        ]
    said = [
        f"At this observation the posterior is wrong: a classifier tells its draws from the truth (p = {p_value:.2g}, "
        f"{n} simulations). Train on more simulations, or near the observation in rounds."
    ]
    order = np.argsort(-np.abs(tilt))[:3]
    hints = [f"{names[j]} too {'low' if tilt[j] > 0 else 'high'}" for j in order if abs(tilt[j]) > _TELLING]
    return [*said, f"Where it errs: {listed(hints)}."] if hints else said


def _residuals(
    true: np.ndarray, drawn: np.ndarray, here: np.ndarray, h: np.ndarray, h_o: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whitened residuals of theta on x, with x.

    Rows (u, h) of both classes and at x_o.

    One linear regression serves both classes.
    Given x it is invertible, so the question is unchanged, but a posterior far narrower than the prior has unit width.
    """
    n, at_o = len(h), np.broadcast_to(h_o, (len(here), len(h_o)))
    every_h = np.concatenate([h, h, at_o])
    design = np.insert(every_h, 0, 1.0, axis=1)
    theta = np.concatenate([true, drawn, here])
    slope = np.linalg.lstsq(design[: 2 * n], theta[: 2 * n], rcond=None)[0]
    left = theta - design @ slope
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(left[: 2 * n].T)))
    # a direction without spread is left as it is instead of being blown up
    whiten = vectors / np.sqrt(np.maximum(values, 1e-12 * max(values.max(), 1e-300)))
    rows = np.concatenate([left @ whiten, every_h], axis=1)
    return rows[:n], rows[n : 2 * n], rows[2 * n :]


def _weights(h: np.ndarray, h_o: np.ndarray) -> np.ndarray:
    """Gaussian weights around x_o.

    As narrow as leaves the worth of 8 % of the draws, at least 60.
    """
    squared = np.sum((h - h_o) ** 2, axis=1)
    # weights are relative: without this an x_o far from all draws would underflow to none
    squared -= squared.min()
    wanted = min(max(_NEIGHBOURS, _SHARE * len(h)), 0.9 * len(h))
    low, high = -20.0, 20.0
    weights = np.ones(len(h))
    for _ in range(50):  # bisection: the effective number falls as the weights narrow
        middle = 0.5 * (low + high)
        weights = np.exp(-squared * np.exp(middle))
        low, high = (middle, high) if weights.sum() ** 2 / np.sum(weights**2) > wanted else (low, middle)
    return weights / weights.sum()


def _p(values: np.ndarray) -> float:
    return float((1 + np.sum(values[1:] >= values[0])) / len(values))


def _correlations(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    rows, values = rows - rows.mean(axis=0), values - values.mean()
    scale = np.sqrt(np.sum(rows**2, axis=0) * np.sum(values**2))
    return np.divide(rows.T @ values, scale, out=np.zeros(rows.shape[1]), where=scale > 0.0)
