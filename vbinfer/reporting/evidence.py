"""Everything a report is about, and the numbers that its checks, figures and tables share."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from numpy.typing import ArrayLike

from vbinfer._param import did_you_mean
from vbinfer.diagnostics.calibration.result import Calibration
from vbinfer.diagnostics.modes import Modes, find_modes
from vbinfer.draws.draws import Draws
from vbinfer.draws.predictive import Predictive
from vbinfer.neural.fit_info import FitInfo
from vbinfer.posterior import Posterior, hdi
from vbinfer.priors.prior import Prior

from .asked import Asked, Diagnostic
from .section import Section

HDI_PROB = 0.94
PRIOR_DRAWS = 4_000


@runtime_checkable
class RecordingLike(Protocol):
    """A recording as the report reads it: values `[time, node]`, a sampling period in ms, one label per node."""

    @property
    def values(self) -> np.ndarray: ...
    @property
    def period(self) -> float: ...
    @property
    def labels(self) -> Sequence[str] | None: ...


@dataclasses.dataclass(frozen=True)
class Recovery:
    """Simulated observations of known truth, and what the estimator said about each.

    Args:
        theta_true: the truths, leaves `[n, ...]`.
        theta: posterior draws for each observation, leaves `[n, draw, ...]`, as `sample_batch` returns them.

    Raises:
        ValueError: different parameters, or a different number of observations, in the two.
    """

    theta_true: Mapping[str, ArrayLike]
    theta: Mapping[str, ArrayLike]

    def __post_init__(self) -> None:
        if set(self.theta_true) != set(self.theta):
            raise ValueError(
                f"Recovery has truths of {sorted(self.theta_true)} but posterior draws of {sorted(self.theta)}; "
                "give the same parameters in both"
            )
        for name, truth in self.theta_true.items():
            given = np.shape(self.theta[name])
            if len(given) < 2 or given[0] != np.shape(truth)[0] or given[2:] != np.shape(truth)[1:]:
                raise ValueError(
                    f"Recovery of {name!r}: truths {list(np.shape(truth))} with draws {list(given)}; "
                    "expected [n, ...] and [n, draw, ...]"
                )


@dataclasses.dataclass(frozen=True)
class Extras:
    """What a report may carry beyond the posterior's own evidence.

    Args:
        prior_predictive: simulations from the prior with their series, for FC and FCD beside the posterior's.
        recovery: the same estimator asked about simulated observations of known truth.
        replicates: name to posterior, the same question asked of other segments or sessions.
        structural: structural connectivity `[node, node]`, compared with the recording's FC.
        sections: sections of the user's own, placed before the provenance.
        notes: further facts for the provenance table (seeds, timings, command).
        units: unit by parameter path (`{"model.tau": "ms"}`).
        fcd: window and step of the functional connectivity dynamics, in ms.
        title: the heading of the page.
    """

    prior_predictive: Predictive | None = None
    recovery: Recovery | None = None
    replicates: Mapping[str, Posterior] = dataclasses.field(default_factory=dict)
    structural: np.ndarray | None = None
    sections: Sequence[Section] = ()
    notes: Mapping[str, object] = dataclasses.field(default_factory=dict)
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fcd: tuple[float, float] = (60e3, 5e3)
    title: str = "Posterior report"


@dataclasses.dataclass(frozen=True)
class FeatureRow:
    """One feature of the recording beside its prior and posterior predictive distribution; percentiles in 0..100."""

    name: str
    observed: float
    prior: np.ndarray | None
    posterior: np.ndarray | None
    prior_percentile: float | None
    posterior_percentile: float | None


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The inputs of one report; derived numbers are computed once, on first use."""

    posterior: Posterior
    prior: Prior | None = None
    draws: Draws | None = None
    fit: FitInfo | None = None
    predictive: Predictive | None = None
    observed: RecordingLike | None = None
    theta_true: Mapping[str, ArrayLike] | None = None
    extras: Extras = dataclasses.field(default_factory=Extras)
    calibration: Calibration | None = None
    given: Mapping[str, Diagnostic] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_draws()
        known = list(self.posterior.theta)
        given: dict[str, Mapping[str, object]] = {"theta_true": self.theta_true or {}}
        if self.extras.recovery is not None:
            given["recovery"] = self.extras.recovery.theta
        for source, theta in given.items():
            for name in theta:
                if name not in known:
                    raise ValueError(
                        f"{source} names {name!r}; the posterior has no such parameter. {did_you_mean(name, known)}"
                    )
            missing = [name for name in known if theta and name not in theta]
            if missing:
                raise ValueError(f"{source} lacks {missing}; the posterior has {known}")
        self._check_features()
        self._check_nodes()

    def _check_draws(self) -> None:
        for name, leaf in self.posterior.theta.items():
            bad = int(np.sum(~np.isfinite(np.asarray(leaf, np.float64))))
            if bad:
                raise ValueError(
                    f"the posterior's {name} is NaN or infinite in {bad} of {np.size(leaf)} draws; "
                    "find out why before reporting, or leave these draws out and say so"
                )
        if self.prior is not None and set(self.prior.shapes) != set(self.posterior.theta):
            raise ValueError(
                f"prior is over {', '.join(sorted(self.prior.shapes))} but the posterior is over "
                f"{', '.join(sorted(self.posterior.theta))}; give the prior that the posterior was made with"
            )
        total = self.posterior.num_chains * self.posterior.num_samples
        if total < 2:
            raise ValueError(f"the posterior has {total} draw; a report needs at least 2, better 1,000")
        if self.calibration is not None and set(self.calibration.names) != set(self.posterior.names):
            raise ValueError(
                f"calibration is of {', '.join(self.calibration.names)} but the posterior is of "
                f"{', '.join(self.posterior.names)}; give the calibration of the same study"
            )

    def _check_features(self) -> None:
        x_o = self.posterior.x_o
        sources = {
            "draws": self.draws,
            "predictive": self.predictive,
            "prior_predictive": self.extras.prior_predictive,
        }
        sizes = {name: np.shape(item.x)[1] for name, item in sources.items() if item is not None}
        if x_o is not None:
            sizes["posterior.x_o"] = np.size(x_o)
        if len(set(sizes.values())) > 1:
            text = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise ValueError(f"numbers of features differ: {text}; pass results of one and the same Summary")

    def _check_nodes(self) -> None:
        if self.observed is None:
            return
        if np.ndim(self.observed.values) != 2:
            raise ValueError(f"observed.values has shape {list(np.shape(self.observed.values))}; expected [time, node]")
        n = np.shape(self.observed.values)[1]
        for name, item in (("predictive", self.predictive), ("prior_predictive", self.extras.prior_predictive)):
            ys = series(item)
            if ys is not None and ys.shape[-1] != n:
                raise ValueError(
                    f"observed has {n} channels but {name}.ys has {ys.shape[-1]} nodes; "
                    "the recording's channels must be the connectome's rows"
                )
        if self.extras.structural is not None and np.shape(self.extras.structural) != (n, n):
            given = list(np.shape(self.extras.structural))
            raise ValueError(f"structural is {given} but the recording has {n} channels; expected [{n}, {n}]")

    # ---- parameters, flattened in the order of `names`

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.posterior.names)

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: np.shape(leaf)[2:] for name, leaf in self.posterior.theta.items()}

    def flat(self, theta: Mapping[str, object]) -> np.ndarray:
        """Leaves `[..., *shape]` as `[..., D]` in float64."""
        parts = []
        for name, shape in self.shapes.items():
            leaf = np.asarray(theta[name], dtype=np.float64)
            parts.append(leaf.reshape((*leaf.shape[: leaf.ndim - len(shape)], -1)))
        return np.concatenate(parts, axis=-1)

    @functools.cached_property
    def samples(self) -> np.ndarray:
        return self.flat(self.posterior.theta).reshape(-1, len(self.names))

    @functools.cached_property
    def prior_samples(self) -> np.ndarray | None:
        if self.prior is not None:
            return self.flat(self.prior.sample(key=jax.random.key(0), n=PRIOR_DRAWS))
        return None if self.draws is None else self.flat(self.draws.theta)

    @functools.cached_property
    def constant(self) -> np.ndarray:
        """Which parameters have one and the same value in all posterior draws, `[D]`."""
        return np.ptp(self.samples, axis=0) == 0.0

    @functools.cached_property
    def asked(self) -> Asked:
        """Diagnostics of this posterior, given or computed."""
        observed = None if self.observed is None else np.asarray(self.observed.values)
        return Asked(self.posterior, self.draws, self.predictive, observed, self.given)

    @functools.cached_property
    def modes(self) -> Modes | None:
        """Two modes of the posterior, if it has any."""
        return find_modes(self.posterior, self.prior)

    @functools.cached_property
    def prior_moments(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and variance of the prior, each `[D]`; NaN for the variance of a prior that has none."""
        if self.prior is not None:
            return self.flat(self.prior.mean()), self.flat(self.prior.variance())
        if self.prior_samples is None:
            return None
        return self.prior_samples.mean(axis=0), self.prior_samples.var(axis=0, ddof=1)

    @functools.cached_property
    def truth(self) -> np.ndarray | None:
        return None if self.theta_true is None else self.flat(self.theta_true)

    @functools.cached_property
    def shrinkage(self) -> np.ndarray | None:
        """1 - posterior variance / prior variance, `[D]`; NaN where the prior has no finite variance, or no width."""
        if self.prior_moments is None:
            return None
        before, after = self.prior_moments[1], self.samples.var(axis=0, ddof=1)
        there = np.isfinite(before) & (before > 0.0)
        return np.where(there, 1.0 - after / np.where(there, before, 1.0), np.nan)

    @functools.cached_property
    def zscore(self) -> np.ndarray | None:
        """(posterior mean - truth) / posterior sd, `[D]`; NaN for a parameter that is constant."""
        if self.truth is None:
            return None
        sd = np.where(self.constant, np.nan, self.samples.std(axis=0, ddof=1))
        return (self.samples.mean(axis=0) - self.truth) / sd

    @functools.cached_property
    def outside_prior(self) -> list[str]:
        """Leaves of `theta_true` that lie where the prior has no density."""
        if self.theta_true is None or self.prior is None:
            return []
        import jax.numpy as jnp

        names = []
        for name, dist in self.prior.dists.items():
            value = jnp.asarray(self.theta_true[name], jnp.result_type(float))
            inside = dist.support(value) if dist.support is not None else True
            if not bool(np.all(np.asarray(inside))):
                names.append(name)
        return names

    @functools.cached_property
    def parameters(self) -> list[dict[str, object]]:
        """One row per flattened parameter, JSON-able."""
        low, high = hdi(self.samples, HDI_PROB)
        rows: list[dict[str, object]] = []
        for i, name in enumerate(self.names):
            row: dict[str, object] = {
                "name": name,
                "unit": self.unit(name),
                "mean": float(self.samples[:, i].mean()),
                "sd": float(self.samples[:, i].std(ddof=1)),
                "hdi": [float(low[i]), float(high[i])],
            }
            if self.prior_moments is not None and self.shrinkage is not None:
                row["prior_mean"] = float(self.prior_moments[0][i])
                row["prior_sd"] = float(np.sqrt(self.prior_moments[1][i]))
                row["shrinkage"] = float(self.shrinkage[i])
            if self.truth is not None and self.zscore is not None:
                row["true"], row["z"] = float(self.truth[i]), float(self.zscore[i])
            rows.append(row)
        return rows

    def unit(self, name: str) -> str:
        return self.extras.units.get(name, self.extras.units.get(name.split("[")[0], ""))

    # ---- features

    @functools.cached_property
    def prior_x(self) -> np.ndarray | None:
        source = self.draws if self.draws is not None else self.extras.prior_predictive
        return None if source is None else np.asarray(source.x, np.float64)[np.asarray(source.valid)]

    @functools.cached_property
    def posterior_x(self) -> np.ndarray | None:
        source = self.predictive
        return None if source is None else np.asarray(source.x, np.float64)[np.asarray(source.valid)]

    @functools.cached_property
    def features(self) -> list[FeatureRow]:
        """Every feature of the recording; empty without `posterior.x_o`."""
        if self.posterior.x_o is None:
            return []
        x_o = np.asarray(self.posterior.x_o, np.float64).ravel()
        named = [s for s in (self.draws, self.predictive, self.extras.prior_predictive) if s is not None and s.names]
        names = named[0].names if named else [f"x[{i}]" for i in range(x_o.size)]
        rows = []
        for i, (name, value) in enumerate(zip(names, x_o, strict=True)):
            prior = None if self.prior_x is None or not len(self.prior_x) else self.prior_x[:, i]
            post = None if self.posterior_x is None or not len(self.posterior_x) else self.posterior_x[:, i]
            rows.append(FeatureRow(name, float(value), prior, post, percentile(value, prior), percentile(value, post)))
        return rows

    # ---- functional connectivity

    @functools.cached_property
    def fc_observed(self) -> np.ndarray | None:
        if self.observed is None or np.shape(self.observed.values)[1] < 3:  # two channels have one correlation
            return None
        return fc(self.observed.values)

    @functools.cached_property
    def fc_posterior(self) -> np.ndarray | None:
        return mean_fc(self.predictive)

    @functools.cached_property
    def fc_prior(self) -> np.ndarray | None:
        return mean_fc(self.extras.prior_predictive)

    @functools.cached_property
    def fc_match(self) -> dict[str, float]:
        """Pearson correlation with the recording's FC over the upper triangle, by source."""
        if self.fc_observed is None:
            return {}
        sources = {
            "posterior predictive": self.fc_posterior,
            "prior predictive": self.fc_prior,
            "structural connectivity": self.extras.structural,
        }
        return {name: match(fc_, self.fc_observed) for name, fc_ in sources.items() if fc_ is not None}


def percentile(value: float, sample: np.ndarray | None) -> float | None:
    """Where a value lies in a sample, 0..100; ties count half. None without a sample, NaN for NaN."""
    if sample is None:
        return None
    if not np.isfinite(value):
        return float("nan")
    return float(100.0 * (np.mean(sample < value) + 0.5 * np.mean(sample == value)))


def upper(matrix: np.ndarray) -> np.ndarray:
    """The entries above the diagonal."""
    return np.asarray(matrix, np.float64)[np.triu_indices(len(matrix), 1)]


def match(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two square matrices over their symmetrised upper triangles."""
    left, right = (upper((np.asarray(m, np.float64) + np.asarray(m, np.float64).T) / 2.0) for m in (a, b))
    return float(np.corrcoef(left, right)[0, 1])


def fc(y: np.ndarray) -> np.ndarray:
    """Pearson correlations `[node, node]` of `[time, node]` in float64; 0 with a constant channel."""
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.atleast_2d(np.nan_to_num(np.corrcoef(np.asarray(y, np.float64).T), nan=0.0))
    np.fill_diagonal(matrix, 1.0)
    return matrix


def series(predictive: Predictive | None) -> np.ndarray | None:
    """Simulated series `[n, time, node]` of the draws that did not fail; None without, or with several monitors."""
    if predictive is None or predictive.ys is None or isinstance(predictive.ys, Mapping):
        return None
    ys = np.asarray(predictive.ys)[np.asarray(predictive.valid)]
    return ys if len(ys) else None


def mean_fc(predictive: Predictive | None) -> np.ndarray | None:
    """The mean FC of the draws that did not fail; None without series."""
    ys = series(predictive)
    return None if ys is None else np.mean([fc(y) for y in ys], axis=0)
