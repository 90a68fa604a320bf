"""The questions of a report, one function each: None where an input is missing, else a light and a sentence."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from vbinfer.diagnostics.predictive import PredictiveCheck
from vbinfer.diagnostics.prior_check import Misspecification
from vbinfer.diagnostics.result import worst
from vbinfer.draws.draws import FailureRow

from .asked import paragraph
from .evidence import Evidence
from .trust import calibrated, given_checks, mixed, truth_held
from .verdict import Check, Status
from .words import number, percent, two

LEARNED, CLEARLY = 0.1, 0.5  # shrinkage below which nothing was learned; above which a parameter is well determined
EDGE_PRIOR, EDGE_POSTERIOR = 0.025, 0.25  # posterior share in an outer tail of the prior that asks for a wider prior
OUTSIDE = 0.5  # percent: a feature outside the central 99 % of the prior predictive
MANY_OUTSIDE = 0.2
FAILED_WARN, FAILED_FAIL = 0.01, 0.2
COVERAGE = 0.9
WITHIN_2SD = 0.9545  # mass of a normal distribution within 2 sd
SERIES = 0.05
GAP = 1.0  # nats between training and held-out loss


def checks(evidence: Evidence) -> tuple[list[Check], list[str]]:
    """The checks that the inputs allow, and for the others what would allow them."""
    done, absent = [], []
    for check, needs in _QUESTIONS:
        result = check(evidence)
        if result is not None:
            done.append(result)
        elif needs:
            absent.append(needs)
    return done + given_checks(evidence), absent


def _light(fail: bool, warn: bool) -> Status:
    return "fail" if fail else "warn" if warn else "pass"


def _learned(e: Evidence) -> Check | None:
    if e.shrinkage is None:
        return None
    gain = None if e.fit is None else e.fit.info_gain
    no_gain = gain is not None and not gain > 0.0
    known = e.shrinkage[np.isfinite(e.shrinkage)]
    nothing = no_gain or bool(len(known) and np.all(known < LEARNED))
    words = [_taught(e, i) for i in range(len(e.names))]
    listed = "; ".join(words[:6]) + (f"; and {len(words) - 6} more" if len(words) > 6 else "")
    head = "Nothing learned: the posterior is no better than the prior. " if nothing else ""
    tail = "" if gain is None else f"; on average the estimator gains {two(gain)} nats over the prior"
    edges = edge_shares(e)
    crowded = [f"{name} ({percent(share)} at the {end} end)" for name, end, share in edges if share > EDGE_POSTERIOR]
    edge = (
        f" The posterior presses against the prior's edge: {', '.join(crowded)}; ask whether it should reach further."
        if crowded
        else ""
    )
    return Check(
        "What was learned?",
        _light(nothing, len(known) < len(e.names) or bool(np.any(known < LEARNED)) or bool(crowded)),
        f"{head}{listed}{tail}.{edge}{modes_note(e)}",
        "#posterior",
        "Shrinkage = 1 \N{MINUS SIGN} posterior variance / prior variance. "
        f"Fail: below {LEARNED:g} for every parameter, or no held-out information gain. "
        f"Warn: below {LEARNED:g} for one, or more than {percent(EDGE_POSTERIOR)} of the "
        f"posterior in an outer {percent(EDGE_PRIOR, 1)} of the prior.",
    )


def _taught(e: Evidence, i: int) -> str:
    """What was learned of one parameter, in words."""
    name, value = e.names[i], float("nan") if e.shrinkage is None else float(e.shrinkage[i])
    if not math.isfinite(value):
        variance = None if e.prior_moments is None else float(e.prior_moments[1][i])
        fixed = "the prior holds it fixed" if variance == 0.0 else "the prior has no finite variance to compare with"
        return f"{name}: {fixed}"
    if e.constant[i]:
        return f"{name}: all posterior draws are the same, which no sampler should give"
    how = "well determined" if value >= CLEARLY else "partly determined" if value >= LEARNED else "nothing learned"
    return f"{name}: {how} (shrinkage {two(value)})"


def modes_note(e: Evidence) -> str:
    """What is to be said of several modes; nothing of one."""
    found = e.modes
    if found is None:
        return ""
    places = f"along {found.where}"
    if found.where in e.names:
        i = e.names.index(found.where)
        low, high = (number(float(centre[i])) for centre in found.centres)
        places = f"in {found.where}, around {low} and {high}"
    chains = (
        " Chains that sit in different modes make R-hat large, and the shares then say where they started."
        if e.posterior.num_chains > 1
        else ""
    )
    if e.fit is not None:
        chains = " A network can make modes of its own: see whether they stay when it is trained with another key."
    shares = " and ".join(percent(share) for share in found.shares)
    return (
        f" The posterior has several modes {places} ({shares} of the draws): mean, sd and shrinkage describe none of "
        f"them.{chains}"
    )


def edge_shares(e: Evidence) -> list[tuple[str, str, float]]:
    """For each parameter and end of the prior, the posterior's share beyond the prior's outer quantile."""
    if e.prior_samples is None:
        return []
    low, high = np.quantile(e.prior_samples, [EDGE_PRIOR, 1.0 - EDGE_PRIOR], axis=0)
    shares = []
    for i, name in enumerate(e.names):
        shares.append((name, "lower", float(np.mean(e.samples[:, i] < low[i]))))
        shares.append((name, "upper", float(np.mean(e.samples[:, i] > high[i]))))
    return shares


def _inside(e: Evidence) -> Check | None:
    question = "Is the recording inside what the model can produce?"
    found = e.asked.misspecification
    if isinstance(found, Misspecification):
        return Check(question, found.verdict, paragraph(found.findings, 4), "#data", _JOINT)
    rows = [row for row in e.features if row.prior_percentile is not None]
    if not rows and e.draws is not None and e.posterior.x_o is not None and not np.any(e.draws.valid):
        return Check(question, "fail", "No simulation worked: there is nothing to compare with.", "#failures", _JOINT)
    if not rows:
        return None
    outside = [row for row in rows if is_outside(row.prior_percentile)]
    share = len(outside) / len(rows)
    if outside:
        names = ", ".join(row.name for row in outside[:4]) + (", ..." if len(outside) > 4 else "")
        sentence = f"{len(outside)} of {len(rows)} features of the recording lie where the model hardly goes: {names}."
    else:
        sentence = f"All {len(rows)} features of the recording lie inside the model's prior predictive range."
    return Check(
        question,
        _light(share > MANY_OUTSIDE, bool(outside)),
        sentence,
        "#data",
        f"Each feature's percentile among valid prior draws. Warn: any outside {OUTSIDE:g} to {100 - OUTSIDE:g}. "
        f"Fail: more than {percent(MANY_OUTSIDE)} of them. "
        "Features are looked at one by one: odd combinations go unseen.",
    )


_JOINT = (
    "vb.misspecification: the recording's rank among the simulations by its oddest feature, by the combination of all "
    "and by its neighbourhood, as one p-value. Warn: p < 0.05, as for 5 % of the recordings of a right model, or more "
    "than a fifth of the simulations failed. Fail: p < 0.01."
)


def is_outside(value: float | None) -> bool:
    """Whether a percentile is outside the central range; NaN is."""
    return value is not None and not OUTSIDE <= value <= 100.0 - OUTSIDE


@dataclasses.dataclass(frozen=True)
class RecoveryRow:
    """One parameter of a recovery study over `n` simulated observations."""

    name: str
    n: int
    within_2sd: int
    covered: int
    coverage_low: float
    coverage_high: float
    p_within: float
    p_covered: float
    median_shrinkage: float
    r: float


def recovery_rows(e: Evidence) -> list[RecoveryRow]:
    """Per parameter: counts of truths recovered, coverage with its exact binomial interval, shrinkage, correlation."""
    if e.extras.recovery is None:
        return []
    truth, draws = e.flat(e.extras.recovery.theta_true), e.flat(e.extras.recovery.theta)
    mean, sd, n = draws.mean(axis=1), draws.std(axis=1, ddof=1), len(truth)
    low, high = np.quantile(draws, [0.5 - COVERAGE / 2, 0.5 + COVERAGE / 2], axis=1)
    within = np.sum(np.abs(mean - truth) < 2.0 * sd, axis=0)
    covered = np.sum((low <= truth) & (truth <= high), axis=0)
    prior_var = e.prior_moments[1] if e.prior_moments is not None else np.full(len(e.names), np.nan)
    rows = []
    for i, name in enumerate(e.names):
        test = stats.binomtest(int(covered[i]), n, COVERAGE)
        interval = test.proportion_ci(0.95)
        row = RecoveryRow(
            name=name,
            n=n,
            within_2sd=int(within[i]),
            covered=int(covered[i]),
            coverage_low=float(interval.low),
            coverage_high=float(interval.high),
            p_within=float(stats.binom.cdf(within[i], n, WITHIN_2SD)),
            p_covered=float(test.pvalue),
            median_shrinkage=float(np.median(1.0 - sd[:, i] ** 2 / prior_var[i])),
            r=float(np.corrcoef(truth[:, i], mean[:, i])[0, 1]) if n > 2 else float("nan"),
        )
        rows.append(row)
    return rows


def _recovers(e: Evidence) -> Check | None:
    rows = recovery_rows(e)
    if not rows:
        return None
    smallest = min(min(row.p_within, row.p_covered) for row in rows) * 2 * len(rows)
    words = [
        f"{row.name} {row.within_2sd} and {row.covered} (median shrinkage {two(row.median_shrinkage)})"
        for row in rows[:6]
    ]
    head = f"Of {rows[0].n} known truths, within 2 posterior sd and inside the {percent(COVERAGE)} interval: "
    return Check(
        "Does the estimator recover known truths?",
        _light(smallest < 0.001, smallest < 0.05),
        head + "; ".join(words) + ".",
        "#recovery",
        f"Exact binomial tests of both counts against 95 % and {percent(COVERAGE)}, shared over parameters. "
        "Warn: p < 0.05. Fail: p < 0.001.",
    )


def _converged(e: Evidence) -> Check | None:
    fit = e.fit
    if fit is None:
        return None
    train, val = np.asarray(fit.train, float), np.asarray(fit.val, float)
    if not len(val) or not np.isfinite(val).any():
        sentence = f"{fit.method} did not train: no finite held-out loss was recorded."
        return Check("Did training converge?", "fail", sentence, "#training", _TRAINING)
    best = min(int(fit.best_epoch), len(val))  # counted from 1; 0 is the untrained network
    gap = float(val[best - 1] - train[best - 1]) if 0 < best <= len(train) else float("nan")
    overfit, gained = gap > GAP, bool(fit.info_gain > 0.0)
    state = "converged" if fit.converged else "has not converged: held-out loss was still falling when training ended"
    sentence = (
        f"{fit.method} {state} (best of {len(val)} epochs at {best}; {fit.num_train:,} draws to train on, "
        f"{fit.num_val:,} held out)."
    )
    sentence += f" It fits its training draws {gap:.2f} nats better than held-out ones: overfitted." if overfit else ""
    sentence += "" if gained else f" On held-out draws it is no better than the prior ({two(fit.info_gain)} nats)."
    light = _light(not fit.converged and not gained, not fit.converged or overfit or not gained)
    return Check("Did training converge?", light, sentence, "#training", _TRAINING)


_TRAINING = (
    f"Warn: stopped by the limit of epochs, or held-out loss {GAP:g} nat above training loss, or no held-out gain. "
    "Fail: not converged and no gain, or no finite loss."
)


def _predicts(e: Evidence) -> Check | None:
    rows = [row for row in e.features if row.posterior_percentile is not None]
    fc = e.fc_match
    if not rows and "posterior predictive" not in fc:
        return None
    outside = [r for r in rows if r.posterior_percentile is None or not 2.5 <= r.posterior_percentile <= 97.5]
    share = len(outside) / len(rows) if rows else 0.0
    words = []
    if rows:
        n = len(rows[0].posterior) if rows[0].posterior is not None else 0
        words.append(
            f"{len(rows) - len(outside)} of {len(rows)} features of the recording lie inside the central 95 % of "
            f"{n} posterior predictive simulations"
        )
    post, prior = fc.get("posterior predictive"), fc.get("prior predictive")
    no_better = post is not None and prior is not None and not post > prior
    if post is not None:
        others = [f"{two(value)} for the {name}" for name, value in fc.items() if name != "posterior predictive"]
        text = f"mean predicted FC correlates with the recording's FC at r = {two(post)}"
        words.append(text + (f" ({', '.join(others)})" if others else ""))
    found, odd = e.asked.predictive, [name for name, p in e.asked.series.items() if p < SERIES]
    lights: list[Status] = [_light(share > 0.5, share > 0.2 or no_better or bool(odd))]
    if isinstance(found, PredictiveCheck):
        lights.append(found.verdict)
        words.append(f"features as the recording's have p = {found.p_value:.2g} among them")
        words += [f"unlike them: {', '.join(found.off[:6])}"] if found.off else []
    words += [f"the series differ in {', '.join(odd)}"] if odd else []
    said = "; ".join(words)
    return Check(
        "Does the posterior predict the data?",
        worst(lights),
        f"{said[0].upper()}{said[1:]}.",
        "#predictive",
        "Warn: more than 20 % of the features outside (5 % expected), an FC no closer to the recording's than the "
        "prior predictive, or p < 0.05 of all features together (vb.predictive_check) or of a statistic of the series. "
        "Fail: more than 50 % outside, or p < 0.01 of the features. The data are used twice: passing is weak evidence.",
    )


def _failed(e: Evidence) -> Check | None:
    if e.draws is None:
        return None
    n, failed = len(e.draws), int(np.sum(~np.asarray(e.draws.valid)))
    share = failed / n if n else 1.0
    sentence = f"None of {n:,} simulations failed." if not failed else f"{failed:,} of {n:,} simulations failed"
    if failed:
        rows = failure_rows(e)
        most = max(rows, key=lambda row: (row.share, row.n)) if rows else None
        where = (
            "" if most is None else f", most often for {most.parameter} {region(most)} ({percent(most.share)} there)"
        )
        sentence += f"{where}. The posterior holds for parameters at which the simulation works."
    return Check(
        "Did simulations fail?",
        _light(share >= FAILED_FAIL, share >= FAILED_WARN),
        sentence,
        "#failures",
        f"Warn: {percent(FAILED_WARN)} or more. Fail: {percent(FAILED_FAIL)} or more.",
    )


def failure_rows(e: Evidence, bins: int = 10) -> list[FailureRow]:
    """Failed draws by region of the prior, regions without draws left out; empty without draws or a prior."""
    if e.draws is None or e.prior is None:
        return []
    return [row for row in e.draws.failures(e.prior, bins=bins) if row.n]


def region(row: FailureRow) -> str:
    """A region of the prior in words."""
    if not math.isfinite(row.low):
        return f"below {row.high:.3g}"
    return f"above {row.low:.3g}" if not math.isfinite(row.high) else f"between {row.low:.3g} and {row.high:.3g}"


_QUESTIONS: tuple[tuple[Callable[[Evidence], Check | None], str], ...] = (
    (_learned, "what was learned (give prior=)"),
    (_inside, "whether the recording is inside what the model can produce (give draws= and a posterior with x_o)"),
    (_recovers, "recovery of known truths (give extras=Extras(recovery=...))"),
    (_converged, "training (give fit=)"),
    (mixed, ""),
    (truth_held, ""),
    (_predicts, "posterior prediction (give predictive=)"),
    (calibrated, "calibration of the estimator over the prior (give calibration=vb.calibrate(...))"),
    (_failed, "failed simulations (give draws=)"),
)
