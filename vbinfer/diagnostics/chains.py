"""Have the chains of a posterior converged?"""

import dataclasses
from typing import Any

import numpy as np
from scipy.stats import rankdata

from vbinfer.posterior import Posterior

from .chain_measures import Located, ebfmi, ess, locate_divergences, mcse, rhat
from .figure import MOST_PANELS, Axis, Bars, Figure, Panel, Rule, share_axis
from .recovery import as_rows
from .result import (
    STATUSES,
    AbstractResult,
    ByLeaf,
    Names,
    Status,
    chosen,
    listed,
    percent,
    status_of,
)
from .thresholds import (
    ACCEPT_SHORT,
    DIVERGING_FAIL,
    EBFMI_FAIL,
    EBFMI_WARN,
    ESS_FAIL,
    ESS_PER_CHAIN,
    ESS_WARN,
    RHAT_FAIL,
    RHAT_WARN,
)

_FEWEST = 4
_FEWEST_DRAWN = 20
Finding = tuple[Status, str]


@dataclasses.dataclass(frozen=True)
class Convergence(AbstractResult):
    """Result of `vb.diagnostics.convergence`.

    Attributes:
        verdict: `pass`, `warn` or `fail`, the worst of what was checked.
        findings: one sentence per check, the worst first.
        rhat: rank-normalised split R-hat by path; empty with one chain.
        ess_bulk: effective sample size of the bulk, by path.
        ess_tail: effective sample size of the 5 % and 95 % quantiles, by path.
        mcse: Monte-Carlo standard error of the mean, by path.
        step_size: last step size `[chain]`; None where the sampler does not say, as all that follow.
        divergences: divergent transitions `[chain]`.
        ebfmi: energy fraction of missing information `[chain]`.
        saturated: share of trajectories cut at the largest tree depth `[chain]`.
        acceptance: mean acceptance `[chain]`.
        located: the parameters in which divergent draws differ from others, most telling first.
        unchecked: what could not be looked at.
        ranks: by flattened parameter, how each chain's draws are spread over the ranks of all, as densities
            `[chain, bin]` with mean 1; for the first parameters, of several chains.
    """

    question = "Did the chains mix?"
    rule = (
        f"Warn: R-hat above {RHAT_WARN}, effective sample size below {ESS_PER_CHAIN} per chain or {ESS_WARN} in all, "
        f"any divergence, E-BFMI below {EBFMI_WARN}, acceptance {ACCEPT_SHORT} below its target, trajectories cut, or "
        f"R-hat or divergences that cannot be checked. Fail: R-hat above {RHAT_FAIL}, effective sample size below "
        f"{ESS_FAIL}, {percent(DIVERGING_FAIL)} divergent, E-BFMI below {EBFMI_FAIL}, or a chain that does not move."
    )
    beside = ("ranks",)
    verdict: Status
    findings: Names
    rhat: ByLeaf
    ess_bulk: ByLeaf
    ess_tail: ByLeaf
    mcse: ByLeaf
    step_size: np.ndarray | None = None
    divergences: np.ndarray | None = None
    ebfmi: np.ndarray | None = None
    saturated: np.ndarray | None = None
    acceptance: np.ndarray | None = None
    located: tuple[Located, ...] = ()
    unchecked: Names = ()
    ranks: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def figure(self) -> Figure | None:
        """Rank histograms of each chain, flat where mixed."""
        if not self.ranks:
            return None
        return Figure(
            tuple(_rank_panel(name, rows) for name, rows in self.ranks.items()),
            f"Ranks of the draws of n = {len(next(iter(self.ranks.values())))} chains: flat where they have mixed.",
        )


def convergence(posterior: Posterior) -> Convergence:
    """Check whether chains found the posterior, with enough draws.

    R-hat above 1.01 warns, above 1.05 fails; effective sample size below 100 per chain or 400 in all warns, below 100
    in all fails (Vehtari et al. 2021, doi:10.1214/20-BA1221); a divergence warns, 1 % of them fail, and the parameters
    where they sit are named (Betancourt 2017, doi:10.48550/arXiv.1701.02434); E-BFMI below 0.3 warns, below 0.2 fails
    (Betancourt 2016, doi:10.48550/arXiv.1604.00695); trajectories cut at the largest tree depth, and an acceptance 0.2
    below its target, warn.

    Blind to a mode that no chain has visited, and to everything in the model: chains can agree on a wrong posterior.
    `vb.diagnostics.sbc` asks that. Draws of an amortised posterior are independent, and need none of this.

    Args:
        posterior: chains, better four. What its sampler did not record is not checked, and said.

    Raises:
        ValueError: fewer than four draws per chain, or draws that are not finite.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> rng = np.random.default_rng(0)
        >>> draws = rng.normal(size=(4, 500)) + np.array([[0.0], [0.0], [0.0], [3.0]])   # one chain in another mode
        >>> found = vb.diagnostics.convergence(vb.Posterior({"coupling.G": draws}))
        >>> found.verdict, found.findings[0][:27]
        ('fail', 'the chains disagree: R-hat ')
    """
    _check(posterior)
    several, names = posterior.num_chains > 1, posterior.names
    rows = as_rows(posterior.theta, posterior.shapes)  # [chain, draw, D]
    by_leaf = {
        "rhat": rhat(posterior) if several else {},
        "ess_bulk": ess(posterior, "bulk"),
        "ess_tail": ess(posterior, "tail"),
        "mcse": mcse(posterior),
    }
    by_chain, found = _by_chain(posterior)
    found = _about_leaves(rows, names, by_leaf) + found
    unchecked = () if several else ("R-hat",)
    unchecked += tuple(called for name, called in _CALLED.items() if name not in by_chain)
    if unchecked:
        status: Status = "warn" if {"divergences", "R-hat"} & set(unchecked) else "pass"
        found.append((status, f"{', '.join(unchecked)} could not be checked: {_why(posterior)}"))
    found.sort(key=lambda one: -STATUSES.index(one[0]))
    ranks = _ranks(rows, names) if several and posterior.num_samples >= _FEWEST_DRAWN else {}
    said = tuple(sentence for _, sentence in found)
    return Convergence(found[0][0], said, **by_leaf, **by_chain, unchecked=unchecked, ranks=ranks)


_CALLED = {
    "divergences": "divergences",
    "ebfmi": "E-BFMI",
    "saturated": "tree depth",
    "acceptance": "acceptance",
    "step_size": "step size",
}


def _by_chain(posterior: Posterior) -> tuple[dict[str, Any], list[Finding]]:
    """What the sampler recorded, by chain, and what it says."""
    stats, kernel = posterior.sample_stats or {}, posterior.info.get("kernel")
    options = kernel if isinstance(kernel, dict) else {}
    depth, target = options.get("max_tree_depth"), options.get("target_accept")
    found: dict[str, Any] = {}
    said: list[Finding] = []
    if "diverging" in stats:
        found["divergences"] = stats["diverging"].astype(bool).sum(1)
        found["located"] = locate_divergences(posterior)
        broken = "energy" in stats and not np.isfinite(stats["energy"]).all()
        said.append(_about_divergences(found["divergences"], found["located"], posterior.num_samples, broken))
    if "energy" in stats:
        found["ebfmi"] = ebfmi(posterior)
        finite = np.isfinite(stats["energy"])
        said += [] if finite.all() else [_about_infinite(finite)]
        said += [_about_energy(found["ebfmi"])] if finite.any() else []
    if "num_steps" in stats and depth is not None:
        found["saturated"] = (stats["num_steps"] >= 2**depth - 1).mean(1)
        said.append(_about_depth(found["saturated"], depth))
    if "accept_prob" in stats:
        found["acceptance"] = stats["accept_prob"].astype(float).mean(1)
        said += [] if target is None else [_about_acceptance(found["acceptance"], target)]
    if "step_size" in stats:
        found["step_size"] = stats["step_size"][:, -1]
    return found, said


def _about_leaves(rows: np.ndarray, names: Names, by_leaf: dict[str, ByLeaf]) -> list[Finding]:
    """What R-hat and ESS say of rows `[chain, draw, D]`."""
    # exactly constant, not nearly: a sampler that rejects everything repeats its start
    stuck = (rows == rows[:, :1]).all(axis=1)  # [chain, D]
    found = [_about_stuck(stuck, names)] if stuck.any() else []
    still = stuck.any(axis=0)
    if still.all():
        return found
    # a parameter that stands still in some chain has numbers, and they say nothing of it
    flat = {
        name: np.where(still, np.nan, np.concatenate([np.ravel(value) for value in leaves.values()]))
        for name, leaves in by_leaf.items()
        if leaves
    }
    if "rhat" in flat:
        found.append(_about_rhat(flat["rhat"], names))
    return [*found, _about_ess({"bulk": flat["ess_bulk"], "tail": flat["ess_tail"]}, names, *rows.shape[:2])]


def _about_stuck(stuck: np.ndarray, names: Names) -> Finding:
    moving, where = ~stuck.any(axis=1), listed(chosen(names, stuck.any(axis=0)))
    who = f"chains {np.flatnonzero(~moving).tolist()} do not move" if moving.any() else "no chain moves"
    return "fail", (
        f"{who} in {where}: it is constant there, and R-hat and ESS say nothing of it: start elsewhere, or take it out "
        "of the prior"
    )


def _about_rhat(values: np.ndarray, names: Names) -> Finding:
    i = int(np.nanargmax(values))
    status = status_of(-values[i], -RHAT_WARN, -RHAT_FAIL)  # large ones are bad
    if status == "pass":
        return status, f"the chains agree: R-hat is at most {values[i]:.3f} ({names[i]})"
    above = int((values > RHAT_WARN).sum())
    more = f"; {above} of {len(values)} parameters are above" if above > 1 else ""
    cause = "they sit in different places, or have not mixed" if status == "fail" else "they have not mixed well"
    return status, (
        f"the chains disagree: R-hat of {names[i]} is {values[i]:.3f} (at most {RHAT_WARN} is wanted{more}): {cause}; "
        "run longer chains, or look for a second mode"
    )


def _about_ess(kinds: dict[str, np.ndarray], names: Names, chains: int, draws: int) -> Finding:
    # the poorer of bulk and tail, and the poorest parameter in it
    kind = min(kinds, key=lambda one: np.nanmin(kinds[one]))
    i = int(np.nanargmin(kinds[kind]))
    value, wanted, total = kinds[kind][i], max(ESS_WARN, ESS_PER_CHAIN * chains), chains * draws
    status = status_of(value, wanted, ESS_FAIL)
    if status == "pass":
        return status, f"the {total} draws are worth at least {value:.0f} independent ones ({names[i]}, {kind})"
    return status, (
        f"the {total} draws are worth only {value:.0f} independent ones in the {kind} of {names[i]} "
        f"({wanted} are wanted, {ESS_PER_CHAIN} per chain); run longer chains"
    )


def _about_divergences(count: np.ndarray, located: tuple[Located, ...], draws: int, broken: bool) -> Finding:
    total, every = int(count.sum()), len(count) * draws
    if not total:
        return "pass", "no transition diverged"
    where = f"; {'; '.join(one.sentence for one in located[:3])}" if located else ""
    # no step is small enough for the edge of a region without a likelihood
    remedy = "mend the likelihood where it is NaN or infinite"
    if not broken:
        remedy = (
            "raise target_accept to 0.95, write the model so that scales and effects are independent a priori, or, "
            f"where there are such parts of the prior, {remedy}"
        )
    return "fail" if total >= DIVERGING_FAIL * every else "warn", (
        f"{total} of {every} transitions diverged (chains: {', '.join(map(str, count.tolist()))}), so parts of the "
        f"posterior are not reached{where}; {remedy}"
    )


def _about_infinite(finite: np.ndarray) -> Finding:
    return "warn", (
        f"the energy is not finite at {int((~finite).sum())} of {finite.size} draws: the likelihood is NaN or infinite "
        "in parts of the prior; mend it there, or narrow the prior"
    )


def _about_energy(value: np.ndarray) -> Finding:
    if np.isnan(value).any():
        return "fail", "the energy of a chain never changes: it does not move"
    least = float(value.min())
    status = status_of(least, EBFMI_WARN, EBFMI_FAIL)
    if status == "pass":
        return status, f"chains move freely between energies: E-BFMI is at least {least:.2f}"
    return status, (
        f"chains move slowly between energies: E-BFMI is {least:.2f} in chain {int(value.argmin())} (above "
        f"{EBFMI_WARN} is wanted): heavy tails or a funnel, which R-hat may not show; reparametrise"
    )


def _about_depth(share: np.ndarray, depth: int | None) -> Finding:
    if not share.any():
        return "pass", f"no trajectory was cut at the largest tree depth, {depth}"
    return "warn", (
        f"{100 * share.mean():.2g} % of the trajectories were cut at the largest tree depth, {depth}: draws are more "
        f"alike than they need be; raise max_tree_depth, or write dense_mass=True for correlated parameters"
    )


def _about_acceptance(mean: np.ndarray, target: float) -> Finding:
    least = float(mean.min())
    if not least < target - ACCEPT_SHORT:
        return "pass", f"acceptance is {mean.mean():.2f}, its target {target:g}"
    return "warn", (
        f"acceptance is {least:.2f} in chain {int(mean.argmin())}, its target {target:g}: the warm-up did not find a "
        f"step size; give more num_warmup"
    )


def _check(posterior: Posterior) -> None:
    if posterior.num_samples < _FEWEST:
        raise ValueError(
            f"chains have {posterior.num_samples} draws; expected at least {_FEWEST} per chain: sample with "
            f"num_samples=500"
        )
    for name, value in posterior.theta.items():
        bad = int((~np.isfinite(value)).sum())
        if bad:
            raise ValueError(f"{name} is NaN or infinite in {bad} of {value.size} draws; leave these out, and say so")


def _why(posterior: Posterior) -> str:
    missing = "this posterior carries no sample_stats"
    if posterior.sample_stats is not None:
        missing = f"its sample_stats are {', '.join(posterior.sample_stats) or 'empty'}"
    return f"one chain has none to agree with, and {missing}" if posterior.num_chains == 1 else missing


def _ranks(rows: np.ndarray, names: Names) -> dict[str, np.ndarray]:
    """Rank densities of each chain `[chain, bin]`, by parameter.

    Of rows `[chain, draw, D]`.
    """
    chains, draws, _ = rows.shape
    bins = max(4, min(20, draws // 25))
    found = {}
    for name, values in zip(names[:MOST_PANELS], rows.transpose(2, 0, 1), strict=False):
        # ranks of all draws of all chains together, ties in order of chains
        ranks = rankdata(values, "ordinal").reshape(chains, draws) - 1
        counts = [np.histogram(one, bins, (0, values.size))[0] for one in ranks]
        found[name] = np.stack(counts) * bins / draws
    return found


def _rank_panel(name: str, densities: np.ndarray) -> Panel:
    """Rank histograms of all chains, one over the other.

    Chain k stands on height k; 0.4 is the height of a flat one.
    """
    chains, bins = densities.shape
    edges = np.linspace(0.0, 1.0, bins + 1)
    marks: list[Bars | Rule] = []
    for chain, density in enumerate(densities):
        marks += [Bars(0.4 * density, edges, base=chain), Rule(chain + 0.4, "y", dashed=True)]
    return Panel(
        marks,
        share_axis(f"rank of {name}"),
        Axis("chain", limits=(0.0, chains + 0.1), ticks=list(map(str, range(chains)))),
        f"Rank histograms of {name} in each of {chains} chains; flat where they agree",
    )
