"""Whether the chains of a posterior can be believed: one light over R-hat, ESS, divergences, energy and tree depth."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vbinfer.diagnostics.contraction import ByLeaf
from vbinfer.diagnostics.divergences import Located, locate
from vbinfer.diagnostics.mcmc import ess, mcse, rhat
from vbinfer.diagnostics.result import STATUSES, AbstractResult, Status
from vbinfer.posterior import Posterior

RHAT_WARN, RHAT_FAIL = 1.01, 1.05
ESS_PER_CHAIN, ESS_WARN, ESS_FAIL = 100, 400, 100
EBFMI_WARN, EBFMI_FAIL = 0.3, 0.2
DIVERGING_FAIL = 0.01
"""Share of transitions that diverged from which the draws are not those of the posterior."""
_ACCEPT_SHORT = 0.2
_FEWEST = 4


class _Said(NamedTuple):
    light: Status
    sentence: str


@dataclasses.dataclass(frozen=True)
class Convergence(AbstractResult):
    """What `vb.convergence` found.

    Attributes:
        verdict: `pass`, `warn` or `fail`, the worst of what was checked.
        findings: one sentence per question.
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
    """

    verdict: Status
    findings: tuple[str, ...]
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
    unchecked: tuple[str, ...] = ()

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers as JSON takes them; None where not finite or not known."""
        leaves = {
            name: {path: _plain(value) for path, value in getattr(self, name).items()}
            for name in ("rhat", "ess_bulk", "ess_tail", "mcse")
        }
        chains = ("step_size", "divergences", "ebfmi", "saturated", "acceptance")
        return (
            leaves
            | {name: None if getattr(self, name) is None else _plain(getattr(self, name)) for name in chains}
            | {"located": [one._asdict() for one in self.located], "unchecked": list(self.unchecked)}
        )


def convergence(posterior: Posterior) -> Convergence:
    """Whether the chains have found the posterior, and whether there are enough draws: the checks of a sampling run.

    R-hat above 1.01 warns, above 1.05 fails; effective sample size below 100 per chain or 400 in all warns, below 100
    in all fails (Vehtari et al. 2021, doi:10.1214/20-BA1221); a divergence warns, 1 % of them fail, and the parameters
    where they sit are named (Betancourt 2017, doi:10.48550/arXiv.1701.02434); E-BFMI below 0.3 warns, below 0.2 fails
    (Betancourt 2016, doi:10.48550/arXiv.1604.00695); trajectories cut at the largest tree depth, and an acceptance 0.2
    below its target, warn.

    Blind to a mode that no chain has visited, and to everything in the model: chains can agree on a wrong posterior.
    `vb.sbc` asks that. Draws of an amortised posterior are independent, and need none of this.

    Args:
        posterior: chains, better four. What its sampler did not record is not checked, and said.

    Raises:
        ValueError: fewer than four draws per chain, or draws that are not finite.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> rng = np.random.default_rng(0)
        >>> draws = rng.normal(size=(4, 500)) + np.array([[0.0], [0.0], [0.0], [3.0]])   # one chain in another mode
        >>> found = vb.convergence(vb.Posterior({"coupling.G": draws}))
        >>> found.verdict, found.findings[0][:27]
        ('fail', 'the chains disagree: R-hat ')
    """
    _check(posterior)
    moving = {name: np.asarray(~_stuck(value).any(0)) for name, value in posterior.theta.items()}
    several = posterior.num_chains > 1
    r, error = rhat(posterior) if several else {}, mcse(posterior)
    bulk, tail = ess(posterior, "bulk"), ess(posterior, "tail")
    said = [_about_rhat(posterior, r, moving), *_about_stuck(posterior), _about_ess(posterior, bulk, tail, moving)]
    stats, unchecked = dict(posterior.sample_stats or {}), [] if several else ["R-hat"]
    located: tuple[Located, ...] = ()
    known: dict[str, np.ndarray] = {}

    def per_chain(name: str, field: str, what: str, of: Callable[[np.ndarray], np.ndarray]) -> bool:
        if field not in stats:
            unchecked.append(what)
            return False
        known[name] = of(stats[field])
        return True

    if per_chain("divergences", "diverging", "divergences", lambda v: v.astype(bool).sum(1)):
        located = locate(posterior)
        said.append(_about_divergences(posterior, known["divergences"], located))
    if per_chain("ebfmi", "energy", "E-BFMI", _ebfmi):
        said.append(_about_energy(known["ebfmi"]))
    depth, target = (_option(posterior, name) for name in ("max_tree_depth", "target_accept"))
    if depth is None:
        unchecked.append("tree depth")
    elif per_chain("saturated", "num_steps", "tree depth", lambda v: (v >= 2**depth - 1).mean(1)):
        said.append(_about_depth(known["saturated"], depth))
    if per_chain("acceptance", "accept_prob", "acceptance", lambda v: v.astype(float).mean(1)) and target is not None:
        said.append(_about_acceptance(known["acceptance"], target))
    per_chain("step_size", "step_size", "step size", lambda v: v[:, -1])
    if {"divergences", "R-hat"} & set(unchecked):
        said.append(_Said("warn", f"{', '.join(unchecked)} could not be checked: {_why(posterior)}"))
    elif unchecked:
        said.append(_Said("pass", f"{', '.join(unchecked)} could not be checked: {_why(posterior)}"))
    said = [one for one in said if one is not None]
    verdict = max((one.light for one in said), key=STATUSES.index)
    sentences = tuple(one.sentence for one in sorted(said, key=lambda one: -STATUSES.index(one.light)))
    return Convergence(verdict, sentences, r, bulk, tail, error, **known, located=located, unchecked=tuple(unchecked))


def ebfmi(posterior: Posterior) -> np.ndarray:
    """Energy fraction of missing information of each chain `[chain]`: how fast momentum resampling explores energies.

    E-BFMI = sum_n (E_n - E_{n-1})^2 / sum_n (E_n - mean E)^2

    Near 1 or above for light tails; below 0.3 the chain moves slowly between energy levels, as in funnels and heavy
    tails, and R-hat may not see it yet. Blind to everything within an energy level.

    Args:
        posterior: chains of a Hamiltonian sampler, with `sample_stats["energy"]` `[chain, draw]`.

    Raises:
        ValueError: no energies, or chains of fewer than four draws.

    Betancourt 2016, doi:10.48550/arXiv.1604.00695.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> energy = np.array([[0.0, 1.0, 0.0, 1.0, 0.0]])
        >>> posterior = vb.Posterior({"a": energy}, sample_stats={"energy": energy})
        >>> vb.ebfmi(posterior).round(3).tolist()         # 4 / (2 * 0.6^2 + 3 * 0.4^2)
        [3.333]
    """
    _check(posterior)
    if "energy" not in (posterior.sample_stats or {}):
        raise ValueError(
            "this posterior has no sample_stats['energy']; E-BFMI is of Hamiltonian chains: "
            "sample with kernel=vb.NUTS() or vb.HMC()"
        )
    return _ebfmi((posterior.sample_stats or {})["energy"])


def _ebfmi(energy: np.ndarray) -> np.ndarray:
    energy = np.asarray(energy, np.float64)
    around = ((energy - energy.mean(1, keepdims=True)) ** 2).sum(1)
    return np.divide((np.diff(energy, axis=1) ** 2).sum(1), around, out=np.full(len(energy), np.nan), where=around > 0)


def _about_rhat(posterior: Posterior, rhat: ByLeaf, moving: dict[str, np.ndarray]) -> _Said | None:
    worst = _worst(posterior, rhat, moving, np.nanargmax) if rhat else None
    if worst is None:
        return None
    name, value = worst
    light = _light(value, RHAT_WARN, RHAT_FAIL)
    if light == "pass":
        return _Said("pass", f"the chains agree: R-hat is at most {value:.3f} ({name})")
    more = "" if (flat := _moving(posterior, rhat, moving)).size < 2 else _count(flat > RHAT_WARN)
    cause = "they sit in different places, or have not mixed" if light == "fail" else "they have not mixed well"
    return _Said(
        light,
        f"the chains disagree: R-hat of {name} is {value:.3f} (at most {RHAT_WARN} is wanted{more}): {cause}; "
        f"run longer chains, or look for a second mode",
    )


def _about_stuck(posterior: Posterior) -> list[_Said]:
    said = []
    for name, value in posterior.theta.items():
        stuck = _stuck(value).reshape(posterior.num_chains, -1)
        if stuck.any():
            chains = np.flatnonzero(stuck.any(1)).tolist()
            who = "no chain moves" if len(chains) == posterior.num_chains else f"chains {chains} do not move"
            said.append(
                _Said(
                    "fail",
                    f"{who} in {name}: it is constant there, and R-hat and ESS say nothing of it: start "
                    f"elsewhere, or take it out of the prior",
                )
            )
    return said


def _about_ess(posterior: Posterior, bulk: ByLeaf, tail: ByLeaf, moving: dict[str, np.ndarray]) -> _Said | None:
    found = [_worst(posterior, ess, moving, np.nanargmin) for ess in (bulk, tail)]
    pairs = [(worst[1], worst[0], kind) for worst, kind in zip(found, ("bulk", "tail"), strict=True) if worst]
    if not pairs:
        return None
    value, name, kind = min(pairs)
    wanted = max(ESS_WARN, ESS_PER_CHAIN * posterior.num_chains)
    total = posterior.num_chains * posterior.num_samples
    light: Status = "fail" if value < ESS_FAIL else "warn" if value < wanted else "pass"
    if light == "pass":
        return _Said("pass", f"the {total} draws are worth at least {value:.0f} independent ones ({name}, {kind})")
    return _Said(
        light,
        f"the {total} draws are worth only {value:.0f} independent ones in the {kind} of {name} "
        f"({wanted} are wanted, 100 per chain); run longer chains",
    )


def _about_divergences(posterior: Posterior, count: np.ndarray, located: tuple[Located, ...]) -> _Said:
    total, every = int(count.sum()), posterior.num_chains * posterior.num_samples
    if not total:
        return _Said("pass", "no transition diverged")
    where = f"; {'; '.join(one.sentence for one in located[:3])}" if located else ""
    remedy = "raise target_accept to 0.95, or write the model so that scales and effects are independent a priori"
    return _Said(
        "fail" if total >= DIVERGING_FAIL * every else "warn",
        f"{total} of {every} transitions diverged (chains: {', '.join(map(str, count.tolist()))}), so parts of the "
        f"posterior are not reached{where}; {remedy}",
    )


def _about_energy(value: np.ndarray) -> _Said:
    least = float(np.min(np.where(np.isnan(value), -np.inf, value)))
    if np.isneginf(least):
        return _Said("fail", "the energy of a chain never changes: it does not move")
    light: Status = "fail" if least < EBFMI_FAIL else "warn" if least < EBFMI_WARN else "pass"
    if light == "pass":
        return _Said("pass", f"chains move freely between energies: E-BFMI is at least {least:.2f}")
    return _Said(
        light,
        f"chains move slowly between energies: E-BFMI is {least:.2f} in chain {int(np.argmin(value))} (above "
        f"{EBFMI_WARN} is wanted): heavy tails or a funnel, which R-hat may not show; reparametrise",
    )


def _about_depth(share: np.ndarray, depth: int) -> _Said:
    if not share.any():
        return _Said("pass", f"no trajectory was cut at the largest tree depth, {depth}")
    return _Said(
        "warn",
        f"{100 * share.mean():.2g} % of the trajectories were cut at the largest tree depth, {depth}: draws are more "
        f"alike than they need be; raise max_tree_depth, or write dense_mass=True for correlated parameters",
    )


def _about_acceptance(mean: np.ndarray, target: float) -> _Said:
    least = float(mean.min())
    if not least < target - _ACCEPT_SHORT:
        return _Said("pass", f"acceptance is {mean.mean():.2f}, its target {target:g}")
    return _Said(
        "warn",
        f"acceptance is {least:.2f} in chain {int(mean.argmin())}, its target {target:g}: the warm-up did not find a "
        f"step size; give more num_warmup",
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


def _stuck(value: np.ndarray) -> np.ndarray:
    """Chains in which a parameter is constant `[chain, ...]`."""
    return (value == value[:, :1]).all(1)


def _moving(posterior: Posterior, leaves: ByLeaf, moving: dict[str, np.ndarray]) -> np.ndarray:
    """Values of all parameters `[D]`, NaN for those that stand still somewhere."""
    parts = [np.where(moving[name], leaves[name], np.nan).reshape(-1) for name in posterior.theta]
    return np.concatenate(parts).astype(float)


def _worst(
    posterior: Posterior, leaves: ByLeaf, moving: dict[str, np.ndarray], pick: Callable[[np.ndarray], Any]
) -> tuple[str, float] | None:
    flat = _moving(posterior, leaves, moving)
    if np.isnan(flat).all():
        return None
    index = int(pick(flat))
    return posterior.names[index], float(flat[index])


def _option(posterior: Posterior, name: str) -> Any:
    kernel = posterior.info.get("kernel")
    return kernel.get(name) if isinstance(kernel, dict) else None


def _why(posterior: Posterior) -> str:
    if posterior.sample_stats is None:
        missing = "this posterior carries no sample_stats"
    else:
        missing = f"its sample_stats are {', '.join(posterior.sample_stats) or 'empty'}"
    return f"one chain has none to agree with, and {missing}" if posterior.num_chains == 1 else missing


def _light(value: float, warn: float, fail: float) -> Status:
    return "pass" if value <= warn else "warn" if value <= fail else "fail"


def _count(which: np.ndarray) -> str:
    return f"; {int(which.sum())} of {which.size} parameters are above" if which.sum() > 1 else ""


def _plain(value: Any) -> Any:
    """Nested lists with None where not finite."""
    array = np.asarray(value)
    if array.dtype.kind != "f":
        return array.tolist()
    return np.where(np.isfinite(array), array.astype(object), np.array(None)).tolist()
