"""Held-out data sets with their truths and posterior draws."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey, flat_names
from vbinfer.diagnostics.recovery import as_rows
from vbinfer.diagnostics.result import Names, Shapes
from vbinfer.diagnostics.thresholds import FEWEST_DATA_SETS, FEWEST_RANKED, WANTED_DATA_SETS
from vbinfer.draws.draws import Draws
from vbinfer.execute.batches import key_ints
from vbinfer.io.fingerprint import checksum
from vbinfer.io.folder import Folder, Kind, OtherStudyError
from vbinfer.priors.prior import Prior

from .posterior_draws import (
    check_names,
    chunk_size,
    log_density,
    sample_posteriors,
)

POSTERIORS = Kind(head="study.npz", holds="posteriors", parts="*.npz", label="calibration-study")
"""A folder of them: `study.npz` describes the study, `chunk-000000.npz` holds those of the first data sets, ..."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Data sets unseen in training, with their posterior draws.

    n of them, with L draws each.

    Under the null hypothesis, theta* and its L posterior draws are exchangeable given x. So is any function of one of
    them that treats all L + 1 alike otherwise, and the rank of theta* is uniform and independent of x.

    Attributes:
        names: flattened parameters, D of them.
        truth: `[n, D]`.
        draws: `[n, L, D]`.
        x: `[n, F]`.
        features: names of the F summaries.
        log_q: `[n, L + 1]`, the truth's first, where the source has a density.
        log_prior: `[n]`, of the truth, where the prior is known.
        moments: mean and variance of the prior, `[2, D]`, where it is known.
        failed: data sets whose simulation failed; they are not among the n.
        ess: smallest effective sample size among the posteriors, at most L.
        key: of the ties and the reference points.
    """

    names: Names
    truth: np.ndarray
    draws: np.ndarray
    x: np.ndarray
    features: Names
    log_q: np.ndarray | None
    log_prior: np.ndarray | None
    moments: np.ndarray | None
    failed: int
    ess: float
    key: PRNGKey

    def __len__(self) -> int:
        return len(self.truth)

    @functools.cached_property
    def pooled(self) -> np.ndarray:
        """Truth, then draws: `[n, L + 1, D]` float64.

        Symmetric functions of them leave ranks uniform.
        """
        return np.concatenate([self.truth[:, None], self.draws], axis=1).astype(np.float64)

    @functools.cached_property
    def ranks(self) -> np.ndarray:
        """Ranks `[n, D]` of every parameter, 0..L."""
        return ranks(self.pooled)

    @functools.cached_property
    def u(self) -> np.ndarray:
        """Uniform ranks `[n, D]` of every parameter."""
        rng = self.rng("marginal")
        return np.stack([uniforms(values, rng) for values in np.moveaxis(self.pooled, 2, 0)], axis=1)

    @functools.cached_property
    def joint(self) -> np.ndarray:
        """Uniform ranks `[n]` of the truth's density.

        1 - u is the credibility of the smallest highest-density region that holds the truth.
        A source without a density is ranked by minus the Mahalanobis distance in the mean and covariance over truth and
        draws together (with a small ridge), for which highest-density regions are ellipses.
        """
        if self.log_q is not None:
            return uniforms(self.log_q, self.rng("hpd"))
        centred = self.pooled - self.pooled.mean(axis=1, keepdims=True)
        centred = centred / np.maximum(self.pooled.std(axis=1, keepdims=True), 1e-300)
        cov = np.einsum("nli,nlj->nij", centred, centred) / centred.shape[1] + 1e-6 * np.eye(centred.shape[2])
        distance = np.einsum("nli,nil->nl", centred, np.linalg.solve(cov, np.moveaxis(centred, 1, 2)))
        return uniforms(-distance, self.rng("hpd"))

    @functools.cached_property
    def nearer(self) -> np.ndarray:
        """Share `[n]` of draws nearer to random points.

        Nearer than the truth is.

        Distances are in units of the prior's sd.
        The reference of one data set is the truth of another, in a random cycle through all of them: it is spread as
        the prior is and knows nothing of this data set.
        """
        rng, (mean, sd) = self.rng("tarp"), self.scale()
        # a cycle: no data set is its own reference, and each is one once
        order = rng.permutation(len(self))
        reference = np.empty_like(order)
        reference[order] = np.roll(order, 1)
        at = (self.truth[reference] - mean) / sd
        # squared distances rank as distances do
        return uniforms((((self.pooled - mean) / sd - at[:, None]) ** 2).sum(axis=2), rng)

    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and sd `[D]` of the prior.

        Of the truths where the prior is unknown or has no variance.
        """
        mean, var = self.truth.mean(axis=0, dtype=float), self.truth.var(axis=0, ddof=1, dtype=float)
        if self.moments is not None:
            known = np.isfinite(self.moments).all(axis=0) & (self.moments[1] > 0)
            mean, var = np.where(known, self.moments[0], mean), np.where(known, self.moments[1], var)
        return mean, np.sqrt(var)

    def rng(self, purpose: str) -> np.random.Generator:
        """Random generator for one purpose.

        Adding a test does not change the numbers of another.
        """
        return np.random.default_rng([*key_ints(self.key), *purpose.encode()])


def ranks(values: np.ndarray) -> np.ndarray:
    """Draws below the truth `[n]`, ties counted half.

    Of values `[n, L + 1]`, the truth's first; halves are rounded down.
    """
    below, equal = _counts(values)
    return below + equal // 2


def uniforms(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Randomised probability integral transform `[n]`.

    Of values `[n, L + 1]`, the truth's first:

        u = (#{draws < truth} + v (#{draws = truth} + 1)) / (L + 1),   v ~ U(0, 1)

    Exactly uniform on (0, 1) when truth and draws are exchangeable, for any L and with any ties; (r + 1/2) / (L + 1)
    would be uniform on a grid only.

    >>> values = np.array([[2.5, 1.0, 2.0, 3.0]])
    >>> bool(0.5 < uniforms(values, np.random.default_rng(0))[0] < 0.75)
    True
    """
    below, equal = _counts(values)
    # a random place within the rank turns a uniform grid into a uniform distribution
    v = np.clip(rng.random(len(values)), 1e-12, 1.0 - 1e-12)
    return (below + v * (equal + 1)) / values.shape[1]


def _counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws below the truth, and equal to it `[n]`."""
    truth, draws = values[:, :1], values[:, 1:]
    return (draws < truth).sum(axis=1), (draws == truth).sum(axis=1)


def held_out(
    source: Any,
    draws: Draws,
    *,
    num_posterior_samples: int,
    key: PRNGKey,
    prior: Prior | None = None,
    density: bool = True,
    store: str | Path | None = None,
) -> HeldOut:
    """Sample the posterior of every valid draw.

    Raises:
        TypeError: no draws, or a source that cannot be asked.
        ValueError: fewer than 50 valid draws, a constant parameter, a truth outside the prior, draws of another study,
            a posterior that is not finite or has too few draws.
    """
    key, per = _check.key(key), _check.count(num_posterior_samples, "num_posterior_samples", "500")
    check_ranked(per)
    prior = getattr(source, "prior", None) if prior is None else prior
    theta, truth, x = _usable(draws)
    _check_features(source, draws)
    shapes, moments, log_prior, folder = draws.shapes, None, None, None
    if isinstance(prior, Prior):
        check_names(prior.shapes, shapes)
        log_prior = _log_prior(prior, theta, np.flatnonzero(draws.valid))
        moments = np.stack([as_rows(one, shapes) for one in (prior.mean(), prior.variance())]).astype(float)
    density = density and callable(getattr(source, "log_prob", None))
    k_posteriors, k_test = jax.random.split(key)
    if store is not None:
        study = {
            "key": key_ints(key),
            "num_posterior_samples": per,
            "data": checksum({"x": x, "theta": truth}),
            "source": described(source),
            "density": density,
        }
        folder = Folder.open(store, study, POSTERIORS)
    parts = _in_chunks(source, truth, x, shapes, per, k_posteriors, density, folder)
    return HeldOut(
        names=flat_names(shapes),
        truth=truth,
        draws=np.concatenate([part["rows"] for part in parts]),
        x=x,
        features=draws.names,
        log_q=np.concatenate([part["log_q"] for part in parts]) if density else None,
        log_prior=log_prior,
        moments=moments,
        failed=int((~draws.valid).sum()),
        ess=float(min(part["ess"] for part in parts)),
        key=k_test,
    )


def check_ranked(per: int) -> None:
    """Refuse posterior draws too few to rank among."""
    if per < FEWEST_RANKED:
        raise ValueError(
            f"num_posterior_samples={per} was given; a rank among so few says little: write num_posterior_samples=500"
        )


def _in_chunks(
    source: Any,
    truth: np.ndarray,
    x: np.ndarray,
    shapes: Shapes,
    per: int,
    key: PRNGKey,
    density: bool,
    folder: Folder | None,
) -> list[dict[str, np.ndarray]]:
    """Posterior draws, their worth and density, by chunk.

    From the folder where it has them.
    """
    parts, size = [], chunk_size(source, len(x))
    wanted = ("rows", "ess", "log_q") if density else ("rows", "ess")
    for start in range(0, len(x), size):
        name = f"chunk-{start:06d}.npz"
        there = {} if folder is None or folder.missing(name) else folder.read(name, wanted, start=start)
        # the first chunk is always drawn again and compared: that tells another source from the same one
        if there and start > 0:
            parts.append(there)
            continue
        chunk = x[start : start + size]
        rows, independent = sample_posteriors(source, chunk, shapes, n=per, key=key, start=start, width=size)
        part = {"rows": rows, "ess": np.asarray(independent)}
        if density:
            both = np.concatenate([truth[start : start + size, None], rows], axis=1)
            part["log_q"] = log_density(source, both, chunk, shapes)
            bad = np.isnan(part["log_q"]).any(axis=1)
            if bad.any():
                raise ValueError(
                    f"source.log_prob is NaN for held-out data set {start + bad.argmax()}; "
                    "a density must be a number, or -inf outside the support"
                )
        if folder is not None and not there:
            folder.put(name, part, start=start)
        elif folder is not None and any(not np.array_equal(there[one], value) for one, value in part.items()):
            raise OtherStudyError(
                f"store={str(folder.path)!r} was begun with another source: the same question about the first "
                "data set now has another answer. Give another folder; nothing was changed."
            )
        parts.append(part)
    return parts


def _usable(draws: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Parameters and summaries of the valid draws.

    Leaves, truths `[n, D]` and x `[n, F]`.
    """
    more = "write vb.sample_prior_predictive(prior, simulator, n=300, key=another_key)"
    if not isinstance(draws, Draws):
        raise TypeError(f"draws is a {type(draws).__name__}; expected held-out vb.Draws: {more}")
    # draws of later rounds, or with a proposal density, are not the prior's
    proposed = draws.round != 0
    if draws.log_q is not None:
        proposed |= ~np.isnan(draws.log_q)
    proposed &= draws.valid
    if proposed.any():
        raise ValueError(
            f"{proposed.sum()} of {len(draws)} held-out draws came from a proposal, not from the prior; ranks are "
            f"uniform over the prior only: {more}"
        )
    theta, x = draws.usable()
    n = len(x)
    if n == 0:
        raise ValueError(f"all {len(draws)} held-out draws failed; there is nothing to calibrate on")
    if n < FEWEST_DATA_SETS:
        raise ValueError(
            f"{n} of {len(draws)} held-out draws are valid; at least {FEWEST_DATA_SETS} are needed for a verdict, "
            f"and {WANTED_DATA_SETS} or more are wanted: {more}"
        )
    truth = as_rows(theta, draws.shapes)
    for name, column in zip(flat_names(draws.shapes), truth.T, strict=True):
        if column.min() == column.max():
            raise ValueError(
                f"{name} is {column[0]:.6g} in every held-out draw; a constant has no posterior to calibrate: "
                "leave it out of the prior"
            )
    return theta, truth, x


def _log_prior(prior: Prior, theta: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """log p(theta*) `[n]`; refuse a truth outside the prior."""
    value = np.asarray(prior.log_prob(theta), float)
    outside = ~np.isfinite(value)
    if not outside.any():
        return value
    row = int(outside.argmax())
    one = {name: leaf[row] for name, leaf in theta.items()}
    odd = [name for name in one if not np.isfinite(Prior({name: prior.dists[name]}).log_prob({name: one[name]}))]
    given = ", ".join(f"{name} = {np.asarray(one[name]).tolist()}" for name in odd or one)
    raise ValueError(
        f"row {rows[row]} of the draws has {given}, outside the source's prior: these draws are of another study; "
        "simulate some with the prior it was trained on"
    )


def _check_features(source: Any, draws: Draws) -> None:
    names, plain = getattr(source, "names", None), flat_names({"x": draws.x.shape[1:]})
    if not isinstance(names, tuple) or plain in (names, draws.names) or names == draws.names:
        return
    odd = sorted(set(names) ^ set(draws.names))
    which = f"differ in {', '.join(odd[:6])}" if odd else "are the same in another order"
    raise ValueError(
        f"the draws have {len(draws.names)} features and the source was trained on {len(names)}; they {which}: "
        "these draws are of another study; use the Summary that the source was trained with"
    )


def described(source: Any) -> str:
    """Name of a function or of a type."""
    return getattr(source, "__qualname__", type(source).__name__)
