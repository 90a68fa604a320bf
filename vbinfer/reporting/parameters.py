"""Parameters: posterior against prior and truth."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from vbinfer.diagnostics.figure import Axis, Bars, Figure, Intervals, Line, Panel, Points, Role, Rule
from vbinfer.diagnostics.modes import Modes
from vbinfer.diagnostics.recovery import REGIONS, Recovered, eye, nothing_learned, recover, region_of
from vbinfer.diagnostics.result import Status, status_of
from vbinfer.diagnostics.thresholds import (
    EDGE_POSTERIOR,
    EDGE_PRIOR,
    FAMILY_FAIL,
    FAMILY_WARN,
    NOTHING_LEARNED,
    WELL_DETERMINED,
)
from vbinfer.posterior import Posterior, hdi, variance_shrinkage

from .evidence import Evidence
from .format import MINUS, fixed2, number, percent, plus_minus, round_to_sd
from .sections import Block, Table, Text, Topic
from .verdict import Check

HDI_PROB = 0.94
PRIOR_DRAWS = 4_000
MOST_PARAMETERS, MOST_PAIRS, MOST_DOTS = 12, 4, 1_000


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The D flattened parameters of a posterior.

    Attributes:
        names: `("coupling.G", "model.eta[0]", ...)`.
        units: one per name; empty for none.
        shapes: by leaf.
        samples: posterior draws `[n, D]`, float64.
        prior_samples: `[m, D]`; None without prior and draws.
        prior_moments: mean and variance `[2, D]`; NaN for the variance of a prior that has none.
        truth: `[D]`, where it is known.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    samples: np.ndarray
    prior_samples: np.ndarray | None
    prior_moments: np.ndarray | None
    truth: np.ndarray | None

    @classmethod
    def of(cls, e: Evidence) -> "Parameters":
        """From the inputs of a report."""
        names, shapes = tuple(e.posterior.names), e.posterior.shapes
        units = tuple(e.extras.units.get(name, e.extras.units.get(name.split("[")[0], "")) for name in names)
        before = moments = None
        if e.prior is not None:
            # draws are for figures and edges; shrinkage uses the exact moments
            before = flat(e.prior.sample(key=jax.random.key(0), n=PRIOR_DRAWS), shapes)
            moments = np.stack([flat(e.prior.mean(), shapes), flat(e.prior.variance(), shapes)])
        elif e.draws is not None:
            before = flat(e.draws.theta, shapes)
            moments = np.stack([before.mean(axis=0), before.var(axis=0, ddof=1)])
        samples = flat(e.posterior.theta, shapes).reshape(-1, len(names))
        truth = None if e.theta_true is None else flat(e.theta_true, shapes)
        return cls(names, units, shapes, samples, before, moments, truth)

    @property
    def constant(self) -> np.ndarray:
        """Which parameters are the same in all draws `[D]`."""
        return np.ptp(self.samples, axis=0) == 0.0

    @property
    def shrinkage(self) -> np.ndarray | None:
        """1 - posterior variance / prior variance `[D]`."""
        if self.prior_moments is None:
            return None
        return variance_shrinkage(self.prior_moments[1], self.samples.var(axis=0, ddof=1))

    @property
    def zscore(self) -> np.ndarray | None:
        """(posterior mean - truth) / posterior sd `[D]`."""
        if self.truth is None:
            return None
        sd = np.where(self.constant, np.nan, self.samples.std(axis=0, ddof=1))
        return (self.samples.mean(axis=0) - self.truth) / sd

    def view(self, i: int) -> tuple[float, float]:
        """The range of an axis: prior, posterior and truth."""
        shown = [np.quantile(self.samples[:, i], [0.001, 0.999])]
        if self.prior_samples is not None:
            shown.append(np.quantile(self.prior_samples[:, i], [0.002, 0.998]))
        if self.truth is not None:
            shown.append(self.truth[[i]])
        every = np.concatenate(shown)
        # a constant has no width of its own
        margin = 0.03 * (np.ptp(every) or 1.0)
        return float(every.min() - margin), float(every.max() + margin)

    def axis(self, i: int, **options: Any) -> Axis:
        """The axis of one parameter."""
        return Axis(self.names[i], self.units[i], self.view(i), **options)

    @property
    def most_shrunk(self) -> list[int]:
        """The parameters that are drawn, in their order."""
        # a map over 84 regions has 84 parameters: those that shrank most are drawn
        order = range(len(self.names)) if self.shrinkage is None else np.argsort(-self.shrinkage, kind="stable")
        return sorted(int(i) for i in list(order)[:MOST_PARAMETERS])

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row per parameter, JSON-able."""
        low, high = hdi(self.samples, HDI_PROB)
        rows: list[dict[str, object]] = []
        for i, name in enumerate(self.names):
            row: dict[str, object] = {"name": name, "unit": self.units[i]}
            row["mean"], row["sd"] = float(self.samples[:, i].mean()), float(self.samples[:, i].std(ddof=1))
            row["hdi"] = [float(low[i]), float(high[i])]
            if self.prior_moments is not None and self.shrinkage is not None:
                row["prior_mean"], row["prior_sd"] = map(
                    float, (self.prior_moments[0][i], self.prior_moments[1][i] ** 0.5)
                )
                row["shrinkage"] = float(self.shrinkage[i])
            if self.truth is not None and self.zscore is not None:
                row["true"], row["z"] = float(self.truth[i]), float(self.zscore[i])
            rows.append(row)
        return rows


def flat(theta: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    """Leaves `[..., *shape]` as `[..., D]` in float64."""
    parts = []
    for name, shape in shapes.items():
        leaf = np.asarray(theta[name], dtype=np.float64)
        parts.append(leaf.reshape((*leaf.shape[: leaf.ndim - len(shape)], -1)))
    return np.concatenate(parts, axis=-1)


def estimates(e: Evidence, p: Parameters, modes: Modes | None) -> Topic:
    """Section of the posterior: what was learned?"""
    note = _modes_note(modes, e, p)
    shown = p.most_shrunk
    cut = "" if len(shown) == len(p.names) else f" The {len(shown)} of {len(p.names)} parameters that shrank most."
    both = " and prior (grey, dashed)" if p.prior_samples is not None else ""
    caption = f"Posterior (blue, {len(p.samples):,} draws){both}.{cut}"
    panels = tuple(_marginal(e, p, i) for i in shown)
    blocks: list[Block] = [Figure(panels, caption, "third" if len(shown) > 2 else "half")]
    blocks += [Text(note)] if note else []
    blocks += [_table(p), *_eye(e, p)]
    moving = [i for i in shown if not p.constant[i]]
    if len(moving) > 1:
        pairs = [(i, j) for k, i in enumerate(moving[:MOST_PAIRS]) for j in moving[k + 1 : MOST_PAIRS]]
        grey = " over prior draws in grey" if p.prior_samples is not None else ""
        caption = f"Pairs of parameters: posterior draws in blue{grey}; r is the correlation in the posterior."
        blocks.append(Figure(tuple(_pair(p, i, j) for i, j in pairs), caption))
    checks = [] if p.shrinkage is None else [_what_was_learned(e, p, note)]
    checks += [] if p.truth is None else [_holds_truth(e, p)]
    numbers: dict[str, Any] = {"parameters": p.rows}
    if modes is not None:
        numbers["modes"] = modes._asdict()
    if e.fit is not None:
        numbers |= {"info_gain": float(e.fit.info_gain), "converged": bool(e.fit.converged)}
    return Topic("posterior", "What was learned about the parameters", blocks, checks, numbers)


def _what_was_learned(e: Evidence, p: Parameters, note: str) -> Check:
    shrinkage = np.full(len(p.names), np.nan) if p.shrinkage is None else p.shrinkage
    gain = None if e.fit is None else e.fit.info_gain
    known, little = shrinkage[np.isfinite(shrinkage)], nothing_learned(shrinkage)
    nothing = (gain is not None and not gain > 0.0) or bool(len(known) and little.sum() == len(known))
    words = [_taught(p, i, float(value)) for i, value in enumerate(shrinkage)]
    listed = "; ".join(words[:6]) + (f"; and {len(words) - 6} more" if len(words) > 6 else "")
    head = "Nothing learned: the posterior is no better than the prior. " if nothing else ""
    tail = "" if gain is None else f"; on average the estimator gains {fixed2(gain)} nats over the prior"
    # mass at an edge: the prior, not the data, ends the posterior there
    crowded = [f"{name} ({percent(share)} at the {end} end)" for name, end, share in _edge_shares(p)
               if share > EDGE_POSTERIOR]  # fmt: skip
    edge = (
        f" The posterior presses against the prior's edge: {', '.join(crowded)}; ask whether it should reach further."
    )
    warned = len(known) < len(shrinkage) or bool(little.any()) or bool(crowded)
    return Check(
        "What was learned?",
        "fail" if nothing else "warn" if warned else "pass",
        f"{head}{listed}{tail}.{edge if crowded else ''} {note}".strip(),
        "#posterior",
        f"Shrinkage = 1 {MINUS} posterior variance / prior variance. "
        f"Fail: below {NOTHING_LEARNED:g} for every parameter, or no held-out information gain. "
        f"Warn: below {NOTHING_LEARNED:g} for one, or more than {percent(EDGE_POSTERIOR)} of the "
        f"posterior in an outer {percent(EDGE_PRIOR, 1)} of the prior.",
    )


def _taught(p: Parameters, i: int, shrinkage: float) -> str:
    """What was learned of one parameter, in words."""
    if not math.isfinite(shrinkage):
        fixed = p.prior_moments is not None and p.prior_moments[1][i] == 0.0
        why = "the prior holds it fixed" if fixed else "the prior has no finite variance to compare with"
        return f"{p.names[i]}: {why}"
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
        i = p.names.index(found.where)
        low, high = (number(float(centre[i])) for centre in found.centres)
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


def _edge_shares(p: Parameters) -> list[tuple[str, str, float]]:
    """Posterior share beyond the prior's outer quantiles."""
    if p.prior_samples is None:
        return []
    low, high = np.quantile(p.prior_samples, [EDGE_PRIOR, 1.0 - EDGE_PRIOR], axis=0)
    below, above = (p.samples < low).mean(axis=0), (p.samples > high).mean(axis=0)
    return [
        (name, end, float(share[i]))
        for i, name in enumerate(p.names)
        for end, share in (("lower", below), ("upper", above))
    ]


def truth_p(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Two-sided p of each truth's rank among the draws.

    2 min(r + 1, n - r + 1) / (n + 1), of draws `[n, D]`.
    """
    # ties count on both sides, which can only make p larger
    below, above = (samples <= truth).sum(axis=0), (samples >= truth).sum(axis=0)
    return np.minimum(1.0, 2.0 * (np.minimum(below, above) + 1) / (len(samples) + 1))


def _holds_truth(e: Evidence, p: Parameters) -> Check:
    z, smallest = np.zeros(0), 1.0
    if p.truth is not None and p.zscore is not None:
        z, smallest = p.zscore, float(truth_p(p.samples, p.truth).min() * len(p.names))
    far = [f"{name} is {fixed2(abs(value))} sd from the posterior mean"
           for name, value in list(zip(p.names, z, strict=True))[:6] if np.isfinite(value)]  # fmt: skip
    said = "True values: " + "; ".join(far) + "." if far else ""
    outside = _outside_prior(e)
    if outside:
        said = (
            f"The true value of {', '.join(outside)} lies outside the prior, where no posterior can find it; "
            f"widen the prior. {said}"
        )
    status: Status = "fail" if outside else status_of(smallest, FAMILY_WARN, FAMILY_FAIL)
    return Check(
        "Does the posterior hold the true values?",
        status,
        said or "No true value can be compared: every parameter is constant.",
        "#posterior",
        "Two-sided rank of each true value among the draws, shared over parameters. "
        f"Warn: p < {FAMILY_WARN:g}. Fail: p < {FAMILY_FAIL:g}, or a true value outside the prior.",
    )


def _outside_prior(e: Evidence) -> list[str]:
    """Leaves of the truth where the prior has no density."""
    if e.theta_true is None or e.prior is None:
        return []
    names = []
    for name, dist in e.prior.dists.items():
        value = jnp.asarray(e.theta_true[name], jnp.result_type(float))
        if dist.support is not None and not bool(np.all(np.asarray(dist.support(value)))):
            names.append(name)
    return names


def _marginal(e: Evidence, p: Parameters, i: int) -> Panel:
    """Prior and posterior density of one parameter, and the truth."""
    values, name = p.samples[:, i], p.names[i]
    grid = np.linspace(*p.view(i), 400)
    if p.constant[i]:
        marks: list[Any] = [Rule(float(values[0]), role="posterior", label="posterior, constant")]
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
    if p.truth is not None:
        marks.append(Rule(float(p.truth[i]), role="observed", label="true value"))
    moments = f"posterior mean {values.mean():.3g}, standard deviation {values.std():.2g}"
    alt = f"Prior and posterior density of {name}: {moments}"
    return Panel(tuple(marks), p.axis(i), Axis("density", numbers=False), alt)


def _prior_density(e: Evidence, p: Parameters, i: int, grid: np.ndarray) -> np.ndarray | None:
    """Exact density of a scalar prior, else an estimate."""
    name = p.names[i]
    if e.prior is not None and e.prior.shapes.get(name) == ():
        dist: Any = e.prior.dists[name]  # numpyro types `support` as optional
        inside = np.asarray(dist.support(jnp.asarray(grid)))
        # log_prob may be NaN outside the support: there it is asked about a point inside
        safe = np.where(inside, grid, np.asarray(dist.sample(jax.random.key(0))))
        return np.where(inside, np.exp(np.asarray(dist.log_prob(jnp.asarray(safe)))), 0.0)
    if p.prior_samples is None or np.ptp(p.prior_samples[:, i]) == 0.0:
        return None
    return stats.gaussian_kde(p.prior_samples[:, i])(grid)


def _pair(p: Parameters, i: int, j: int) -> Panel:
    """Posterior draws over prior draws of two parameters."""
    # a fixed choice of dots: chains are in order, so that the first ones would be one chain's
    pick, marks = np.random.default_rng(0), []
    sources: tuple[tuple[np.ndarray | None, Role], ...] = ((p.prior_samples, "prior"), (p.samples, "posterior"))
    for values, role in sources:
        if values is not None:
            some = values[pick.permutation(len(values))[:MOST_DOTS]]
            marks.append(Points(some[:, i], some[:, j], role, marker="dot"))
    if p.truth is not None:
        marks.append(Points(p.truth[[i]], p.truth[[j]], "observed", marker="square"))
    r = fixed2(float(np.corrcoef(p.samples[:, i], p.samples[:, j])[0, 1]))
    alt = f"{p.names[j]} against {p.names[i]}: prior draws in grey, posterior draws in blue, r = {r}"
    return Panel(tuple(marks), p.axis(i), p.axis(j), alt, title=f"r = {r}")


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
    cells = [[_cell(key, row.get(key), float(str(row["sd"]))) for key in there.values()] for row in p.rows]
    caption = f"Posterior by parameter. The interval is the shortest that holds {percent(HDI_PROB)} of the draws"
    caption += f"; shrinkage is 1 {MINUS} posterior variance / prior variance" if p.shrinkage is not None else ""
    caption += f"; z is (mean {MINUS} true value) / sd" if p.truth is not None else ""
    return Table(list(there), cells, caption + ".", words=2 if "unit" in there else 1)


def _cell(key: str, value: object, sd: float) -> str:
    if isinstance(value, list):
        return " to ".join(round_to_sd(value, sd))
    if not isinstance(value, float):
        return number(value)
    if not math.isfinite(value):
        return "none"
    return fixed2(value) if key in ("shrinkage", "z") else round_to_sd([value], sd)[0]


def _eye(e: Evidence, p: Parameters) -> list[Block]:
    """Shrinkage against |z|, where truths are known."""
    source = _eye_of(e, p)
    if source is None:
        return []
    names, shrinkage, z, what = source
    kept = np.flatnonzero(np.isfinite(shrinkage).all(axis=0) & np.isfinite(z).all(axis=0))[:MOST_PARAMETERS]
    if not len(kept):
        return []
    shown, shrinkage, z = [names[i] for i in kept], shrinkage[:, kept], z[:, kept]
    blocks: list[Block] = [eye(shown, shrinkage, z, what)]
    if len(z) > 1:
        regions = region_of(shrinkage, z)
        rows = [
            [name, *(percent(float(np.mean(regions[:, i] == k))) for k in range(4))] for i, name in enumerate(shown)
        ]
        blocks.append(Table(["parameter", *REGIONS], rows, "Share of the data sets in each region."))
    return blocks


class _Source(NamedTuple):
    names: tuple[str, ...]
    shrinkage: np.ndarray
    z: np.ndarray
    what: str


def _eye_of(e: Evidence, p: Parameters) -> _Source | None:
    """Shrinkage and z `[n, D]`, and what they are of."""
    # the most telling source first: many truths, then their averages, then one truth
    found = recovered(e, p)
    if found is not None and p.prior_moments is not None:
        # a posterior of one point has no z
        sd = np.where(found.sd > 0.0, found.sd, np.nan)
        what = f"one point per parameter of {len(found.truth)} simulated data sets"
        return _Source(p.names, found.shrinkage, (found.mean - found.truth) / sd, what)
    if e.calibration is not None:
        rows = e.calibration.learned.rows
        # root mean square of z from its mean and sd
        size = np.array([[np.hypot(row.z_mean, row.z_sd) for row in rows]])
        what = f"one point per parameter: root mean square z and median shrinkage over {len(e.calibration)} data sets"
        return _Source(tuple(row.name for row in rows), np.array([[row.shrinkage for row in rows]]), size, what)
    if p.zscore is not None and p.shrinkage is not None:
        return _Source(p.names, p.shrinkage[None], p.zscore[None], "one point per parameter, from its true value")
    return None


def recovered(e: Evidence, p: Parameters) -> Recovered | None:
    """Known truths against their posteriors."""
    given = e.extras.recovery
    if given is None:
        return None
    variance = None if p.prior_moments is None else p.prior_moments[1]
    return recover(p.names, flat(given.theta_true, p.shapes), flat(given.theta, p.shapes), variance)


def replicates(others: Mapping[str, Posterior], p: Parameters) -> Topic | None:
    """The same question asked of other recordings or segments."""
    if not others:
        return None
    every = {"this posterior": p.samples} | {
        name: flat(other.theta, p.shapes).reshape(-1, len(p.names)) for name, other in others.items()
    }
    shown = range(min(len(p.names), MOST_PARAMETERS))
    panels = tuple(_replicates_panel(p, i, every) for i in shown)
    caption = "Posterior mean, central 50 % (thick) and 94 % (thin) from each recording or segment."
    rows = [
        [name, *(plus_minus(float(values[:, i].mean()), float(values[:, i].std(ddof=1))) for i in shown)]
        for name, values in every.items()
    ]
    table = Table(["data", *(p.names[i] for i in shown)], rows, "Posterior mean ± sd.")
    return Topic("replicates", "Replicates", [Figure(panels, caption), table])


def _replicates_panel(p: Parameters, i: int, every: Mapping[str, np.ndarray]) -> Panel:
    ends = np.array([np.quantile(values[:, i], [0.03, 0.25, 0.75, 0.97]) for values in every.values()]).T
    means = np.array([values[:, i].mean() for values in every.values()])
    rows = np.arange(len(means))
    marks = (
        Intervals(ends[0], ends[3], "other"),
        Intervals(ends[1], ends[2], "other", thick=True),
        Points(means, rows, "posterior"),
    )
    names = Axis(limits=(len(means) - 0.5, -0.5), ticks=tuple(every))
    return Panel(marks, p.axis(i), names, f"Estimates of {p.names[i]} from {len(means)} recordings or segments")
