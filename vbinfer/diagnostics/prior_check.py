"""Could the model have made this recording?

The observation is ranked among the prior predictive draws.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer._param import did_you_mean
from vbinfer.draws.draws import Draws

from .figure import Axis, Figure, Points, Rule, by_name
from .novelty import ReferenceSet, min_p, two_sided
from .result import AbstractResult, Names, Status, chosen, features_there, listed, percent, status_of, worst
from .thresholds import FAILED_FAIL, OUTSIDE_POSTERIOR, P_FAIL, P_WARN

if TYPE_CHECKING:
    from .twosample import MMD

_FEWEST = 150
_MOST = 10_000
_TESTS: tuple[str, ...] = ("one feature", "combination", "neighbourhood")
_MOST_FEATURES = 40


@dataclasses.dataclass(frozen=True)
class Misspecification(AbstractResult):
    """Result of `vb.diagnostics.misspecification`.

    For a batch of m observations the arrays have a leading axis `[m]`.

    Attributes:
        verdict: `fail` when the model is not seen to make such data (p < 0.01); `warn` when p < 0.05, when
            more than a fifth of the draws failed, or a batch as a whole is unlike the prior predictive while each
            observation is not.
        findings: sentences.
        p_value: of "x_o is one more draw of the prior predictive", over all tests together.
        p_tests: p of each test alone: `one feature`, `combination`, `neighbourhood`, and for a batch `set` (MMD).
        names: names of the F features.
        percentile: of each feature among all valid draws, 0 to 100 `[F]`.
        p_features: two-sided p of each feature, 2 min(p, 1 - p) with (r + 1) / (n + 1) `[F]`.
        p_adjusted: the same, corrected for looking at F of them (each is its rank among the most extreme features of
            held-out draws) `[F]`.
        off: names of the features with `p_adjusted` below 0.05, where the observation fails.
        leverage: how far each feature is from what the others make one expect, in conditional sd `[F]`.
        num_valid, num_failed: draws used, and draws left out because they failed.
        mmd: the kernel test of a batch, else None.
    """

    question = "Is the recording inside what the model can produce?"
    rule = (
        "The recording's rank among the simulations by its oddest feature, by the combination of all and by its "
        f"neighbourhood, as one p-value. Warn: p < {P_WARN:g}, as for {percent(P_WARN)} of the recordings of a right "
        f"model, or more than {percent(FAILED_FAIL)} of the simulations failed. Fail: p < {P_FAIL:g}."
    )
    beside = ("mmd",)
    verdict: Status
    findings: Names
    p_value: float
    p_tests: dict[str, float]
    names: Names
    percentile: np.ndarray
    p_features: np.ndarray
    p_adjusted: np.ndarray
    off: Names
    leverage: np.ndarray
    num_valid: int
    num_failed: int
    mmd: "MMD | None" = None

    def figure(self) -> Figure:
        """Percentile of each feature among the simulations, the oddest first."""
        percentile, p = np.atleast_2d(self.percentile), np.atleast_2d(self.p_adjusted).min(axis=0)
        order = np.argsort(p, kind="stable")[:_MOST_FEATURES]
        height = np.broadcast_to(np.arange(len(order)), percentile[:, order].shape)
        panel = by_name(
            (
                Rule(OUTSIDE_POSTERIOR),
                Rule(100.0 - OUTSIDE_POSTERIOR),
                Points(percentile[:, order].ravel(), height.ravel(), "observed", "recording"),
            ),
            [self.names[j] for j in order],
            Axis("percentile among simulations", limits=(0.0, 100.0)),
            f"Percentiles of {len(order)} features of the recording among {self.num_valid} simulations",
        )
        caption = (
            f"Each feature of the recording among {self.num_valid} simulations of the prior, the oddest on top. Lines: "
            "the central 95 %. Odd combinations of features show in no single one."
        )
        return Figure([panel], caption, "large")


def misspecification(x_o: Any, draws: Any, *, key: PRNGKey, names: Sequence[str] | None = None) -> Misspecification:
    """Test whether model and prior could make the observation.

    Half of the valid draws say what is typical, x_o is ranked among the other half. Each row has three scores: the
    largest surprise of a single feature, -log p with generalised Pareto tails; the Mahalanobis distance of the normal
    scores of all features (an odd combination of features that are normal one by one); and the distance to the five
    nearest draws (a gap between the draws). A score's p-value is the share of rows, x_o among them, that score as
    high. The smallest of the three is ranked in turn, so that p_value is one exact p-value: if x_o is a draw of the
    prior predictive, P(p_value <= a) <= a, whatever the distributions of the features. Of good models 4 %
    warn and 1 % fail.

    With several observations `[m, F]` each is tested (p times m), and the set by the maximum mean discrepancy of its
    normal scores (`vb.diagnostics.mmd`); one observation is too few for that test. A set that is merely narrower than
    the prior predictive, as several recordings of one person are, is rejected by it too: it gives `warn`, not `fail`.

    Blind to whatever the features do not measure, and to a wrong model whose features can be had by wrong parameters:
    look at posterior predictive checks too. A wide prior hides much.

    Args:
        x_o: observed summary `[F]`, or several `[m, F]`; features that are NaN are missing, left out and named.
        draws: from the prior and the simulator; failed draws are left out and counted.
        key: decides which draws are the reference.
        names: features to look at; None for all.

    Raises:
        ValueError: fewer than 150 valid draws, another width, infinite or no values in x_o, an unknown name.

    Schmitt, Bürkner, Köthe & Radev 2023, doi:10.48550/arXiv.2112.08866 (simulation gaps and MMD); Vovk, Gammerman &
    Shafer 2005, doi:10.1007/b106715 (exact ranks).

    Example:
        >>> import jax, numpy as np, vbinfer as vb
        >>> g = np.random.default_rng(0).normal(size=400)
        >>> draws = vb.Draws.from_arrays({"g": g}, np.stack([g, g**2], axis=1), names=("fc.mean", "fc.std"))
        >>> found = vb.diagnostics.misspecification(np.array([0.5, 7.0]), draws, key=jax.random.key(0))
        >>> found.passed, found.p_tests["neighbourhood"] < 0.01
        (False, True)
    """
    columns = _columns(draws, names)
    rows, one, columns, gaps = _observed(x_o, draws.names, columns)
    labels = tuple(draws.names[i] for i in columns)
    valid, failed = _prior_rows(draws, columns)
    k_split, k_mmd = jax.random.split(_check.key(key))
    order = np.asarray(jax.random.permutation(k_split, len(valid)))[:_MOST]
    # one half says what is typical, the other is ranked with x_o: they never mix
    reference, held = np.array_split(valid[order], 2)
    known = ReferenceSet.fit(reference)
    held_scores = known.novelty(held)
    # each observation is ranked among the held-out rows as one more of them
    ranked = [min_p(np.concatenate([held_scores, score[None]])) for score in known.novelty(rows)]
    tests = dict(zip(_TESTS, _bonferroni(np.array([each[-1] for _, each in ranked])).tolist(), strict=True))
    p_value = alone = float(_bonferroni(np.array([p[-1] for p, _ in ranked])))
    kernel = None
    if not one:
        from .twosample import mmd

        kernel = mmd(known.marginals.scores(rows), known.marginals.scores(held), key=k_mmd)
        tests["set"] = kernel.p_value
        # two questions, each observation and the set: Bonferroni
        alone = min(1.0, 2.0 * alone)
        p_value = min(alone, 2.0 * kernel.p_value)
    percentile, p_features = two_sided(rows, valid)
    above = np.sum(held_scores[:, 0] >= known.marginals.surprise(rows)[:, :, None], axis=-1)
    p_adjusted = np.minimum((above + 1) / (len(held) + 1) * len(rows), 1.0)
    off = tuple(chosen(labels, p_adjusted.min(axis=0) < P_WARN)) if alone < P_WARN else ()
    leverage = known.residuals(rows)
    doubtful = p_value < P_WARN or failed > FAILED_FAIL * (failed + len(valid))
    said = _about_each(alone, len(rows), len(valid))
    if alone < P_WARN:
        said += _culprits(labels, rows, percentile, p_adjusted, leverage, off, tests)
    said += gaps + _caveats(kernel if alone >= P_WARN else None, len(rows), failed, len(valid))
    percentile, p_features, p_adjusted, leverage = (
        value[0] if one else value for value in (percentile, p_features, p_adjusted, leverage)
    )
    return Misspecification(
        worst([status_of(alone), "warn" if doubtful else "pass"]), tuple(said), p_value, tests, labels, percentile,
        p_features, p_adjusted, off, leverage, len(valid), failed, kernel,
    )  # fmt: skip


def _caveats(kernel: "MMD | None", observations: int, failed: int, valid: int) -> list[str]:
    said = []
    if kernel is not None and kernel.p_value < P_WARN / 2:
        said.append(
            f"As a set, the {observations} observations differ from as many draws of the prior (kernel test, p = "
            f"{kernel.p_value:.2g}); a set narrower than the prior, such as one person measured again, does so too."
        )
    if failed:
        total = failed + valid
        said.append(
            f"{failed} of {total} simulations ({100 * failed / total:.2g} %) failed and were left out: this "
            "compares with the simulations that did not fail."
        )
    return said


def _about_each(alone: float, count: int, draws: int) -> list[str]:
    if alone >= P_WARN:
        what = "The observation" if count == 1 else f"Each of the {count} observations"
        return [f"{what} is inside what the model makes under this prior (p = {alone:.2g}, {draws} draws)."]
    what = "The observation" if count == 1 else f"At least one of the {count} observations"
    return [
        f"{what} is unlike anything the model makes under this prior (p = {alone:.2g}, {draws} draws): any posterior "
        "for it is an extrapolation. Change the model, widen the prior, or look for an artefact in the recording."
    ]


def _culprits(
    names: Names,
    rows: np.ndarray,
    percentile: np.ndarray,
    adjusted: np.ndarray,
    leverage: np.ndarray,
    off: Names,
    tests: dict[str, float],
) -> list[str]:
    """Which features make the observations `[m, F]` odd."""
    said = []
    for name in off:
        j = names.index(name)
        i = int(np.argmin(adjusted[:, j]))
        side = "above" if percentile[i, j] > 50.0 else "below"
        said.append(
            f"{name} = {rows[i, j]:.4g} is off by itself: {side} {max(percentile[i, j], 100 - percentile[i, j]):.4g} % "
            f"of the simulations (p = {adjusted[i, j]:.2g} over all features)."
        )
    if not off or min(tests["combination"], tests["neighbourhood"]) < P_WARN:
        size = np.abs(leverage).max(axis=0)
        order = np.argsort(-size)[:4]
        odd = [f"{names[j]} ({size[j]:.2g} sd)" for j in order if size[j] > max(2.0, 0.3 * size[order[0]])]
        if odd and len(names) > 1:
            alone = "" if off else "No feature is off by itself. "
            said.append(f"{alone}Given the other features, most unexpected: {listed(odd)}.")
        elif not off:
            said.append("No feature is off by itself; it lies in a gap between the simulations.")
    return said


def _prior_rows(draws: Draws, columns: list[int]) -> tuple[np.ndarray, int]:
    """Features of the valid prior draws, and how many failed."""
    prior_draws = draws.round == 0  # later rounds lie around x_o, and would make anything typical
    total = int(prior_draws.sum())
    valid = np.asarray(draws.x, np.float64)[draws.valid & prior_draws][:, columns]
    if len(valid) < _FEWEST:
        raise ValueError(
            f"{len(valid)} of {total} prior draws are valid; the rank of x_o needs {_FEWEST} or more: simulate more"
        )
    return valid, total - len(valid)


def _bonferroni(p: np.ndarray) -> np.ndarray:
    """p of several observations `[m, ...]` together."""
    return np.minimum(p.min(axis=0) * len(p), 1.0)


def _columns(draws: Any, names: Sequence[str] | None) -> list[int]:
    if not isinstance(draws, Draws):
        raise TypeError(
            f"draws is a {type(draws).__name__}; expected vb.Draws, as vb.sample_prior_predictive makes: "
            "vb.diagnostics.misspecification(x_o, draws, key=key)"
        )
    for name in names or ():
        if name not in draws.names:
            raise ValueError(f"names has {name!r}; the draws have no such feature. {did_you_mean(name, draws.names)}")
    return [draws.names.index(name) for name in (draws.names if names is None else names)]


def _observed(x_o: Any, names: Names, columns: list[int]) -> tuple[np.ndarray, bool, list[int], list[str]]:
    """Observations, whether it is one, columns there, a sentence."""
    array, width = np.asarray(x_o, dtype=np.float64), len(names)
    if array.ndim not in (1, 2) or array.shape[-1] != width or len(array) == 0:
        raise ValueError(
            f"x_o has shape {list(array.shape)}; the draws have {width} features: expected [{width}], or "
            f"[m, {width}] for several observations, from the same Summary"
        )
    rows, labels = np.atleast_2d(array)[:, columns], [names[i] for i in columns]
    bad = chosen(labels, np.isinf(rows).any(axis=0))
    if bad:
        raise ValueError(
            f"x_o has infinite values in {listed(bad)}; clean the recording, leave these features out with "
            "names=[...], or write NaN where one is missing"
        )
    there, said = features_there(rows, labels)
    kept = [i for i, flag in zip(columns, there.tolist(), strict=True) if flag]
    return rows[:, there], array.ndim == 1 or len(array) == 1, kept, said
