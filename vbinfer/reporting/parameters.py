"""Parameters: posterior against prior and truth."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from vbinfer.diagnostics.figure import Axis, Bars, Figure, Intervals, Line, Mark, Panel, Points, Role, Rule, by_name
from vbinfer.diagnostics.modes import Modes, find_modes
from vbinfer.diagnostics.recovery import REGIONS, Recovered, as_rows, eye, nothing_learned, recover, region_of
from vbinfer.diagnostics.result import Shapes, status_of
from vbinfer.diagnostics.thresholds import (
    EDGE_POSTERIOR,
    EDGE_PRIOR,
    FAMILY_FAIL,
    FAMILY_WARN,
    NOTHING_LEARNED,
    WELL_DETERMINED,
)
from vbinfer.posterior import Posterior, hdi, variance_shrinkage

from .brain import regional
from .evidence import Evidence
from .format import MINUS, fixed2, number, percent, plus_minus, round_to_sd
from .sections import Block, Check, Table, Topic

HDI_PROB = 0.94
PRIOR_DRAWS = 4_000
MOST_PARAMETERS, MOST_PAIRS, MOST_DOTS = 12, 4, 1_000
MOST_ANSWERED, MOST_LISTED = 3, 4


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The D flattened parameters of a posterior.

    Attributes:
        names: `("coupling.G", "model.eta[0]", ...)`.
        units: one per name; empty for none.
        shapes: by leaf.
        samples: posterior draws `[n, D]`, float64.
        prior_samples: `[m, D]`; None without prior and draws.
        prior_moments: mean and variance `[2, D]`; NaN without prior and draws, and for a variance that there is not.
        truth: `[D]`; NaN where it is not known.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    shapes: Shapes
    samples: np.ndarray
    prior_samples: np.ndarray | None
    prior_moments: np.ndarray
    truth: np.ndarray

    @classmethod
    def of(cls, e: Evidence) -> "Parameters":
        """From the inputs of a report."""
        names, shapes = tuple(e.posterior.names), e.posterior.shapes
        units = tuple(e.extras.units.get(name, e.extras.units.get(name.split("[")[0], "")) for name in names)
        before, moments = None, np.full((2, len(names)), np.nan)
        if e.prior is not None:
            # draws are for figures and edges; shrinkage uses the exact moments
            before = flat(e.prior.sample(key=jax.random.key(0), n=PRIOR_DRAWS), shapes)
            moments = np.stack([flat(e.prior.mean(), shapes), flat(e.prior.variance(), shapes)])
        elif e.draws is not None:
            before = flat(e.draws.theta, shapes)
            moments = np.stack([before.mean(axis=0), before.var(axis=0, ddof=1)])
        truth = moments[0] * np.nan if e.theta_true is None else flat(e.theta_true, shapes)
        return cls(names, units, shapes, e.posterior.ravel().astype(np.float64), before, moments, truth)

    @property
    def constant(self) -> np.ndarray:
        """Which parameters are the same in all draws `[D]`."""
        return np.ptp(self.samples, axis=0) == 0.0

    @property
    def shrinkage(self) -> np.ndarray:
        """1 - posterior variance / prior variance `[D]`."""
        return variance_shrinkage(self.prior_moments[1], self.samples.var(axis=0, ddof=1))

    @property
    def zscore(self) -> np.ndarray:
        """(posterior mean - truth) / posterior sd `[D]`."""
        sd = np.where(self.constant, np.nan, self.samples.std(axis=0, ddof=1))
        return (self.samples.mean(axis=0) - self.truth) / sd

    def view(self, i: int) -> tuple[float, float]:
        """The range of an axis: prior, posterior and truth."""
        shown = [np.quantile(self.samples[:, i], [0.001, 0.999]), self.truth[[i]]]
        if self.prior_samples is not None:
            shown.append(np.quantile(self.prior_samples[:, i], [0.002, 0.998]))
        low, high = np.nanmin(np.concatenate(shown)), np.nanmax(np.concatenate(shown))
        # a constant has no width of its own
        margin = 0.03 * ((high - low) or 1.0)
        return float(low - margin), float(high + margin)

    def axis(self, i: int) -> Axis:
        """The axis of one parameter."""
        return Axis(self.names[i], self.units[i], self.view(i))

    @property
    def most_shrunk(self) -> list[int]:
        """The parameters that are drawn, in their order."""
        # a map over 84 regions has 84 parameters: numbers of the whole brain, and those that shrank most, are drawn
        of_maps = np.array(["[" in name and self.shapes[name.split("[")[0]] != () for name in self.names])
        return sorted(np.lexsort((-self.shrinkage, of_maps))[:MOST_PARAMETERS].tolist())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per parameter, JSON-able."""
        columns: dict[str, Any] = {"name": self.names, "unit": self.units, "mean": self.samples.mean(axis=0)}
        columns |= {"sd": self.samples.std(axis=0, ddof=1), "hdi": hdi(self.samples, HDI_PROB).T}
        if self.prior_samples is not None:
            mean, variance = self.prior_moments
            columns |= {"prior_mean": mean, "prior_sd": np.sqrt(variance), "shrinkage": self.shrinkage}
        if np.isfinite(self.truth).any():
            columns |= {"true": self.truth, "z": self.zscore}
        plain = [np.asarray(values).tolist() for values in columns.values()]
        return [dict(zip(columns, row, strict=True)) for row in zip(*plain, strict=True)]


def flat(theta: Mapping[str, Any], shapes: Shapes) -> np.ndarray:
    """Leaves `[..., *shape]` as `[..., D]` in float64."""
    return as_rows(theta, shapes).astype(np.float64)


def estimates(e: Evidence, p: Parameters) -> Topic:
    """Section of the posterior: what was learned?"""
    modes = find_modes(e.posterior, e.prior)
    note = _modes_note(modes, e, p)
    shown = p.most_shrunk
    few = "those of the whole brain first, then those that shrank most"
    cut = "" if len(shown) == len(p.names) else f" {len(shown)} of {len(p.names)} parameters: {few}."
    both = " and prior (grey, dashed)" if p.prior_samples is not None else ""
    caption = f"Posterior (blue, {len(p.samples):,} draws){both}.{cut}"
    panels = [_marginal(e, p, i) for i in shown]
    blocks: list[Block] = [Figure(panels, caption, "third" if len(shown) > 2 else "half")]
    blocks += [note] if note else []
    blocks += [*_maps(e), _table(p), *_eye(e, p)]
    moving = [i for i in shown if not p.constant[i]]
    if len(moving) > 1:
        grey = " over prior draws in grey" if p.prior_samples is not None else ""
        caption = f"Pairs of parameters: posterior draws in blue{grey}; r is the correlation in the posterior."
        pairs = itertools.combinations(moving[:MOST_PAIRS], 2)
        blocks.append(Figure([_pair(p, i, j) for i, j in pairs], caption))
    checks = [] if p.prior_samples is None else [_what_was_learned(e, p, note)]
    checks += [] if e.theta_true is None else [_holds_truth(e, p)]
    numbers: dict[str, Any] = {"answer": answer(p), "parameters": p.rows}
    if modes is not None:
        numbers["modes"] = modes._asdict()
    if e.fit is not None:
        numbers |= {"info_gain": float(e.fit.info_gain), "converged": bool(e.fit.converged)}
    return Topic("posterior", "What was learned about the parameters", blocks, checks, numbers)


def _maps(e: Evidence) -> list[Block]:
    """Posterior means of parameters with a value per region."""
    n = None if e.extras.structural is None else len(e.extras.structural)
    maps = {name: np.mean(e.posterior.theta[name], axis=(0, 1)) for name, s in e.posterior.shapes.items() if s == (n,)}
    labels = None if e.observed is None else e.observed.labels
    return [regional(maps, labels, e.extras.centres, "Posterior mean of each region.")] if maps else []


def answer(p: Parameters) -> str:
    """What was learned, in one sentence with units."""
    learned, little = p.shrinkage, nothing_learned(p.shrinkage)
    known = [i for i in np.argsort(-np.nan_to_num(learned, nan=-1.0), kind="stable") if not little[i]]
    if not known:
        return f"The data say nothing about {_listed(p.names)} that the prior did not say."
    said = []
    for i in sorted(known[:MOST_ANSWERED]):
        mean, sd = p.samples[:, i].mean(), p.samples[:, i].std(ddof=1)
        before = p.prior_moments[:, i]
        prior = f" (prior {plus_minus(before[0], math.sqrt(before[1]))})" if np.isfinite(before).all() else ""
        said.append(f"{p.names[i]} = {plus_minus(mean, sd)}{f' {p.units[i]}' if p.units[i] else ''}{prior}")
    rest = f"; {len(known) - len(said)} more are below" if len(known) > len(said) else ""
    nothing = [p.names[i] for i in np.flatnonzero(little)]
    last = f"; about {_listed(nothing)} nothing was learned" if nothing else ""
    return f"The data say: {_listed(said)}{rest}{last}."


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`; of many the first few."""
    shown = (
        list(words)
        if len(words) <= MOST_LISTED
        else [*words[: MOST_LISTED - 1], f"{len(words) - MOST_LISTED + 1} more"]
    )
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _what_was_learned(e: Evidence, p: Parameters, note: str) -> Check:
    gain = None if e.fit is None else e.fit.info_gain
    known, little = np.isfinite(p.shrinkage), nothing_learned(p.shrinkage)
    nothing = (gain is not None and not gain > 0.0) or bool(known.any() and (little == known).all())
    words = [_taught(p, i, value) for i, value in enumerate(p.shrinkage.tolist())]
    listed = "; ".join(words[:6]) + (f"; and {len(words) - 6} more" if len(words) > 6 else "")
    head = "Nothing learned: the posterior is no better than the prior. " if nothing else ""
    tail = "" if gain is None else f"; on average the estimator gains {fixed2(gain)} nats over the prior"
    # mass at an edge: the prior, not the data, ends the posterior there
    crowded, edge = ", ".join(_crowded(p)), ""
    if crowded:
        edge = f" The posterior presses against the prior's edge: {crowded}; ask whether it should reach further."
    warned = crowded or little.any() or not known.all()
    return Check(
        "What was learned?",
        "fail" if nothing else "warn" if warned else "pass",
        f"{head}{listed}{tail}.{edge} {note}".strip(),
        "#posterior",
        f"Shrinkage = 1 {MINUS} posterior variance / prior variance. "
        f"Fail: below {NOTHING_LEARNED:g} for every parameter, or no held-out information gain. "
        f"Warn: below {NOTHING_LEARNED:g} for one, or more than {percent(EDGE_POSTERIOR)} of the "
        f"posterior in an outer {percent(EDGE_PRIOR, 1)} of the prior.",
    )


def _taught(p: Parameters, i: int, shrinkage: float) -> str:
    """What was learned of one parameter, in words."""
    if not math.isfinite(shrinkage):
        why = "the prior has no finite variance to compare with"
        return f"{p.names[i]}: {'the prior holds it fixed' if p.prior_moments[1][i] == 0.0 else why}"
    if p.constant[i]:
        return f"{p.names[i]}: all posterior draws are the same, which no sampler should give"
    well = "well determined" if shrinkage >= WELL_DETERMINED else "partly determined"
    how = "nothing learned" if nothing_learned(shrinkage) else well
    return f"{p.names[i]}: {how} (shrinkage {fixed2(shrinkage)})"


def _modes_note(found: Modes | None, e: Evidence, p: Parameters) -> str:
    """A sentence about several modes."""
    if found is None:
        return ""
    places = f"along {found.where}"
    if found.where in p.names:
        low, high = (number(value) for value in found.centres[:, p.names.index(found.where)].tolist())
        places = f"in {found.where}, around {low} and {high}"
    advice = ""
    if e.posterior.num_chains > 1:
        advice = " Chains that sit in different modes make R-hat large, and the shares then say where they started."
    if e.fit is not None:
        advice = " A network can make modes of its own: see whether they stay when it is trained with another key."
    shares = " and ".join(percent(share) for share in found.shares)
    return (
        f"The posterior has several modes {places} ({shares} of the draws): mean, sd and shrinkage describe none of "
        f"them.{advice}"
    )


def _crowded(p: Parameters) -> list[str]:
    """Where the posterior lies beyond the prior's outer quantiles."""
    low, high = np.quantile(np.asarray(p.prior_samples), [EDGE_PRIOR, 1.0 - EDGE_PRIOR], axis=0)
    ends = {"lower": (p.samples < low).mean(axis=0), "upper": (p.samples > high).mean(axis=0)}
    return [
        f"{name} ({percent(share[i])} at the {end} end)"
        for i, name in enumerate(p.names)
        for end, share in ends.items()
        if share[i] > EDGE_POSTERIOR
    ]


def truth_p(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Two-sided p of each truth's rank among the draws.

    2 min(r + 1, n - r + 1) / (n + 1), of draws `[n, D]`.
    """
    # ties count on both sides, which can only make p larger
    below, above = (samples <= truth).sum(axis=0), (samples >= truth).sum(axis=0)
    return np.minimum(1.0, 2.0 * (np.minimum(below, above) + 1) / (len(samples) + 1))


def _holds_truth(e: Evidence, p: Parameters) -> Check:
    smallest = float(truth_p(p.samples, p.truth).min() * len(p.names))
    far = [
        f"{name} is {fixed2(abs(value))} sd from the posterior mean"
        for name, value in list(zip(p.names, p.zscore, strict=True))[:6]
        if np.isfinite(value)
    ]
    said = "True values: " + "; ".join(far) + "." if far else ""
    outside = _outside_prior(e)
    if outside:
        said = (
            f"The true value of {', '.join(outside)} lies outside the prior, where no posterior can find it; "
            f"widen the prior. {said}"
        )
    return Check(
        "Does the posterior hold the true values?",
        "fail" if outside else status_of(smallest, FAMILY_WARN, FAMILY_FAIL),
        said or "No true value can be compared: every parameter is constant.",
        "#posterior",
        "Two-sided rank of each true value among the draws, shared over parameters. "
        f"Warn: p < {FAMILY_WARN:g}. Fail: p < {FAMILY_FAIL:g}, or a true value outside the prior.",
    )


def _outside_prior(e: Evidence) -> list[str]:
    """Leaves of the truth where the prior has no density."""
    dists: Mapping[str, Any] = {} if e.prior is None else e.prior.dists
    truth = {name: jnp.asarray(value, jnp.result_type(float)) for name, value in (e.theta_true or {}).items()}
    return [name for name, dist in dists.items() if dist.support is not None and not np.all(dist.support(truth[name]))]


def _marginal(e: Evidence, p: Parameters, i: int) -> Panel:
    """Prior and posterior density of one parameter, and the truth."""
    values, name = p.samples[:, i], p.names[i]
    grid = np.linspace(*p.view(i), 400)
    if p.constant[i]:
        marks: list[Mark] = [Rule(float(values[0]), role="posterior", label="posterior, constant")]
    else:
        # more bins for more draws, as n^0.4
        heights, edges = np.histogram(values, min(40, max(12, int(len(values) ** 0.4))), density=True)
        marks = [
            Bars(heights, edges, role="posterior"),
            Line(grid, stats.gaussian_kde(values)(grid), label="posterior"),
        ]
    density = _prior_density(e, p, i, grid)
    if density is not None:
        marks.append(Line(grid, density, "prior", "prior", dashed=True))
    if np.isfinite(p.truth[i]):
        marks.append(Rule(float(p.truth[i]), role="observed", label="true value"))
    moments = f"posterior mean {number(float(values.mean()))}, standard deviation {number(float(values.std()), 2)}"
    alt = f"Prior and posterior density of {name}: {moments}"
    return Panel(marks, p.axis(i), Axis("density", numbers=False), alt)


def _prior_density(e: Evidence, p: Parameters, i: int, grid: np.ndarray) -> np.ndarray | None:
    """Exact density of a scalar prior, else an estimate."""
    name = p.names[i]
    if e.prior is not None and e.prior.shapes.get(name) == ():
        dist: Any = e.prior.dists[name]  # numpyro types `support` as optional
        inside = np.asarray(dist.support(jnp.asarray(grid)))
        # log_prob may be NaN outside the support: there it is asked about a point inside
        safe = np.where(inside, grid, dist.sample(jax.random.key(0)))
        return np.where(inside, np.exp(dist.log_prob(jnp.asarray(safe))), 0.0)
    if p.prior_samples is None or np.ptp(p.prior_samples[:, i]) == 0.0:
        return None
    return stats.gaussian_kde(p.prior_samples[:, i])(grid)


def _pair(p: Parameters, i: int, j: int) -> Panel:
    """Posterior draws over prior draws of two parameters."""
    # a fixed choice of dots: chains are in order, so that the first ones would be one chain's
    pick, marks = np.random.default_rng(0), []
    sources: dict[Role, np.ndarray | None] = {"prior": p.prior_samples, "posterior": p.samples}
    for role, values in sources.items():
        if values is not None:
            x, y = values[pick.permutation(len(values))[:MOST_DOTS]][:, [i, j]].T
            marks.append(Points(x, y, role, marker="dot"))
    if np.isfinite(p.truth[[i, j]]).all():
        marks.append(Points(p.truth[[i]], p.truth[[j]], "observed", marker="square"))
    r = fixed2(float(np.corrcoef(p.samples[:, i], p.samples[:, j])[0, 1]))
    alt = f"{p.names[j]} against {p.names[i]}: prior draws in grey, posterior draws in blue, r = {r}"
    return Panel(marks, p.axis(i), p.axis(j), alt, title=f"r = {r}")


def _table(p: Parameters) -> Table:
    columns = {
        "parameter": "name",
        "unit": "unit",
        "mean": "mean",
        "sd": "sd",
        f"{percent(HDI_PROB)} interval": "hdi",
        "prior mean": "prior_mean",
        "prior sd": "prior_sd",
        "shrinkage": "shrinkage",
        "true value": "true",
        "z": "z",
    }
    there = {head: key for head, key in columns.items() if any(row.get(key) not in (None, "") for row in p.rows)}
    cells = [[_cell(key, row[key], row["sd"]) for key in there.values()] for row in p.rows]
    caption = f"Posterior by parameter. The interval is the shortest that holds {percent(HDI_PROB)} of the draws"
    caption += f"; shrinkage is 1 {MINUS} posterior variance / prior variance" if "shrinkage" in there else ""
    caption += f"; z is (mean {MINUS} true value) / sd" if "z" in there else ""
    return Table(list(there), cells, caption + ".", words=2 if "unit" in there else 1)


def _cell(key: str, value: Any, sd: float) -> str:
    if isinstance(value, list):
        return " to ".join(round_to_sd(value, sd))
    if not isinstance(value, float):
        return number(value)
    if not math.isfinite(value):
        return "none"
    return fixed2(value) if key in ("shrinkage", "z") else round_to_sd([value], sd)[0]


def _eye(e: Evidence, p: Parameters) -> list[Block]:
    """Shrinkage against |z|, where truths are known."""
    # the most telling source first: many truths, then their averages, then one truth
    names, found = p.names, recovered(e, p)
    shrinkage, z, what = p.shrinkage[None], p.zscore[None], "one point per parameter, from its true value"
    if found is not None and p.prior_samples is not None:
        # a posterior of one point has no z
        shrinkage, z = found.shrinkage, (found.mean - found.truth) / np.where(found.sd > 0.0, found.sd, np.nan)
        what = f"one point per parameter of {len(found.truth)} simulated data sets"
    elif e.calibration is not None:
        rows = e.calibration.learned.rows
        names = tuple(row.name for row in rows)
        # root mean square of z from its mean and sd
        shrinkage, z = np.array([[row.shrinkage, np.hypot(row.z_mean, row.z_sd)] for row in rows]).T[:, None]
        what = f"one point per parameter: root mean square z and median shrinkage over {len(e.calibration)} data sets"
    kept = np.flatnonzero(np.isfinite(shrinkage + z).all(axis=0))[:MOST_PARAMETERS]
    if not len(kept):
        return []
    shown, shrinkage, z = [names[i] for i in kept], shrinkage[:, kept], z[:, kept]
    blocks: list[Block] = [eye(shown, shrinkage, z, what)]
    if len(z) > 1:
        shares = [[percent(float(share)) for share in (region_of(shrinkage, z) == k).mean(axis=0)] for k in range(4)]
        rows = [list(row) for row in zip(shown, *shares, strict=True)]
        blocks.append(Table(["parameter", *REGIONS], rows, "Share of the data sets in each region."))
    return blocks


def recovered(e: Evidence, p: Parameters) -> Recovered | None:
    """Known truths against their posteriors."""
    given = e.extras.recovery
    if given is None:
        return None
    variance = None if p.prior_samples is None else p.prior_moments[1]
    return recover(p.names, flat(given.theta_true, p.shapes), flat(given.theta, p.shapes), variance)


def replicates(others: Mapping[str, Posterior], p: Parameters) -> Topic | None:
    """The same question asked of other recordings or segments."""
    if not others:
        return None
    every = {"this posterior": p.samples}
    every |= {name: flat(other.theta, p.shapes).reshape(-1, len(p.names)) for name, other in others.items()}
    panels, cells = [], []
    for i, parameter in enumerate(p.names[:MOST_PARAMETERS]):
        columns = [values[:, i] for values in every.values()]
        low, first, third, high = np.array([np.quantile(values, [0.03, 0.25, 0.75, 0.97]) for values in columns]).T
        means = np.array([values.mean() for values in columns])
        marks = (
            Intervals(low, high, "other"),
            Intervals(first, third, "other", thick=True),
            Points(means, np.arange(len(columns)), "posterior"),
        )
        alt = f"Estimates of {parameter} from {len(columns)} recordings or segments"
        panels.append(by_name(marks, list(every), p.axis(i), alt))
        cells.append([plus_minus(values.mean(), values.std(ddof=1)) for values in columns])
    caption = "Posterior mean, central 50 % (thick) and 94 % (thin) from each recording or segment."
    rows = [list(row) for row in zip(every, *cells, strict=True)]
    table = Table(["data", *p.names[:MOST_PARAMETERS]], rows, "Posterior mean ± sd.")
    return Topic("replicates", "Replicates", [Figure(panels, caption), table])
