"""Do several methods give one posterior?"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey, flat_names
from vbinfer.execute.batches import key_ints
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

from .chain_measures import effective_draws
from .figure import Axis, Bars, Figure, Rule, by_name
from .recovery import as_rows, in_z, like_prior
from .result import STATUSES, AbstractResult, Names, Status, chosen, listed, worst
from .thresholds import (
    C2ST_FAIL,
    C2ST_WARN,
    FEW_INDEPENDENT,
    MEAN_FAIL,
    MEAN_WARN,
    P_FAIL,
    P_WARN,
    SD_FAIL,
    SD_WARN,
)
from .twosample import c2st, mmd

_MOST, _FEWEST = 1_000, 50
_RELABELLED = 199


class Pair(NamedTuple):
    """Two methods compared on equally many draws."""

    first: str
    second: str
    c2st: float
    """Accuracy of a classifier that tells their draws apart: 0.5 if it cannot, 1 if they are disjoint."""
    p: float
    """That draws so unlike come from one distribution: the rank of their discrepancy among relabelled draws."""
    mean_difference: np.ndarray
    """(mean of the first - mean of the second) / sd `[D]`, sd the root mean square of both."""
    sd_ratio: np.ndarray
    """sd of the first / sd of the second `[D]`."""
    status: Status


@dataclasses.dataclass(frozen=True)
class Agreement(AbstractResult):
    """Result of `compare_posteriors`.

    Attributes:
        verdict: the worst of a pair.
        findings: a sentence per pair, the worst first.
        names: of the D coordinates.
        methods: what was compared.
        pairs: one `Pair` for each two of them.
        num_draws: draws of each method that were compared.
    """

    question = "Do methods agree on this posterior?"
    rule = (
        f"Fail: p < {P_FAIL:g} and C2ST above {C2ST_FAIL:g}, means {MEAN_FAIL:g} sd apart or an sd {SD_FAIL:g} times "
        f"the other. Warn: p < {P_WARN:g} and C2ST above {C2ST_WARN:g}, {MEAN_WARN:g} sd or {SD_WARN:g} times; fewer "
        f"than {FEW_INDEPENDENT} independent draws, or nothing learned."
    )
    verdict: Status
    findings: Names
    names: Names
    methods: Names
    pairs: tuple[Pair, ...]
    num_draws: int

    def figure(self) -> Figure:
        """How well a classifier tells each two methods apart."""
        values = np.array([pair.c2st for pair in self.pairs])
        names = [f"{pair.first}, {pair.second}" for pair in self.pairs]
        panel = by_name(
            (Bars(values, along="y"), Rule(0.5), Rule(C2ST_WARN, role="observed", dashed=True)),
            names,
            Axis("C2ST", limits=(0.4, 1.0)),
            "C2ST of " + ", ".join(f"{name}: {value:.2f}" for name, value in zip(names, values, strict=True)),
        )
        caption = (
            f"How often a classifier tells two methods apart, {self.num_draws:,} draws of each: 0.5 if it cannot; "
            "above the dashed line a difference matters."
        )
        return Figure([panel], caption, "half")


def compare_posteriors(posteriors: Mapping[str, Any], *, prior: Prior | None = None, key: PRNGKey) -> Agreement:
    """Compare what several methods give for one observation.

    Each two are compared in z, where the prior is standard normal (without a prior, in theta): by
    `vb.diagnostics.c2st`, by means
    and sds of each coordinate, and by the p-value of `vb.diagnostics.mmd`, whose relabelling is exact for independent
    draws: chains
    are thinned to their effective number, 1,000 draws of each at most. Methods that differ at all differ certainly with
    enough draws: a warning needs a difference that matters and is no chance.

    - `fail`: p < 0.01, and C2ST above 0.7, means 0.5 sd apart, or an sd 1.5 times the other;
    - `warn`: p < 0.05, and C2ST above 0.6, means 0.25 sd apart, or an sd 1.25 times the other.

    Methods that share a fault agree on it: two networks trained on one set of draws, any two with one wrong simulator.
    It says nothing of which is right: `vb.calibrate` and `vb.diagnostics.posterior_sbc` do. Thin tails are hardly
    looked at.

    Args:
        posteriors: name to posterior of the same parameters and x_o, two or more.
        prior: their prior; by default that of the first posterior that has one.
        key: decides which draws are compared and how they are exchanged.

    Raises:
        TypeError: a value that is no posterior.
        ValueError: fewer than two, other parameters or another x_o, a constant parameter, draws that are not finite or
            worth fewer than 50 independent ones.

    Lueckmann et al. 2021, AISTATS, doi:10.48550/arXiv.2101.04653 (C2ST between posteriors).

    Example:
        >>> import jax, numpy as np, vbinfer as vb
        >>> rng = np.random.default_rng(0)
        >>> npe, nuts = (vb.Posterior({"G": rng.normal(size=(1, 300))}) for _ in range(2))
        >>> vb.diagnostics.compare_posteriors({"NPE": npe, "NUTS": nuts}, key=jax.random.key(0)).verdict
        'pass'
    """
    key = _check.key(key)
    known = _checked(posteriors)
    prior = prior if prior is not None else next((p.prior for p in known.values() if p.prior is not None), None)
    names, rows = _coordinates(known, prior)
    worth = {name: int(effective_draws(p, p.num_chains * p.num_samples)) for name, p in known.items()}
    least = min(worth, key=lambda name: worth[name])
    # p-values of permutations are exact for independent draws only: keep as many as the poorest method is worth
    count = min(_MOST, worth[least])
    if count < _FEWEST:
        raise ValueError(
            f"the draws of {least} are worth {count} independent ones; at least {_FEWEST} are needed, 1,000 are "
            "wanted: run longer chains"
        )
    rng = np.random.default_rng(key_ints(key))
    drawn = {name: row[rng.permutation(len(row))[:count]] for name, row in rows.items()}
    two = enumerate(itertools.combinations(known, 2))
    pairs = [_pair(pair, rows, drawn, jax.random.fold_in(key, i)) for i, pair in two]
    pairs.sort(key=lambda row: (-STATUSES.index(row.status), -row.c2st))
    said = [_sentence(row, names) for row in pairs]
    idle = [name for name, row in drawn.items() if prior is not None and like_prior(row)]
    if idle:
        said.append(f"nothing learned: the posterior of {listed(idle)} is the prior")
    if len({np.shape(p.x_o) for p in known.values() if p.x_o is not None}) > 1:
        said.append("they do not condition on the same numbers: what features leave out makes a right posterior wider")
    if count < FEW_INDEPENDENT:
        said.append(f"{count} independent draws of each are few: only gross differences can be seen")
    status = worst([pairs[0].status, "warn" if idle or count < FEW_INDEPENDENT else "pass"])
    return Agreement(status, tuple(said), names, tuple(known), tuple(pairs), count)


def _pair(two: tuple[str, str], rows: Mapping[str, np.ndarray], drawn: Mapping[str, np.ndarray], key: PRNGKey) -> Pair:
    mean_a, mean_b = (rows[name].mean(axis=0) for name in two)
    sd_a, sd_b = (rows[name].std(axis=0, ddof=1) for name in two)
    # one scale for both sets, symmetric in them
    sd = np.sqrt(0.5 * (sd_a**2 + sd_b**2))
    difference, ratio = (mean_a - mean_b) / sd, sd_a / sd_b
    told = c2st(*(drawn[name] for name in two))
    # scaled: the kernel of MMD has one length for all coordinates
    p = mmd(*((drawn[name] - mean_a) / sd for name in two), key=key, num_permutations=_RELABELLED).p_value
    far, wide = np.abs(difference).max(), np.maximum(ratio, 1.0 / ratio).max()
    status: Status = "pass"
    if p < P_WARN and (told > C2ST_WARN or far > MEAN_WARN or wide > SD_WARN):
        status = "warn"
    if p < P_FAIL and (told > C2ST_FAIL or far > MEAN_FAIL or wide > SD_FAIL):
        status = "fail"
    return Pair(*two, told, p, difference, ratio, status)


def _sentence(row: Pair, names: Names) -> str:
    i = int(np.argmax(np.abs(row.mean_difference)))
    j = int(np.argmax(np.abs(np.log(row.sd_ratio))))
    far, ratio = row.mean_difference[i], row.sd_ratio[j]
    times = max(ratio, 1.0 / ratio)
    told = f"C2ST {row.c2st:.2f} (p = {row.p:.2g})"
    if row.status == "pass":
        return (
            f"{row.first} and {row.second} agree: {told}; largest mean difference "
            f"{abs(far):.2f} sd ({names[i]}), largest ratio of sds {times:.2f} ({names[j]})"
        )
    how = "differ" if row.status == "warn" else "disagree"
    higher = row.first if far > 0 else row.second
    wider = row.first if ratio > 1 else row.second
    return (
        f"{row.first} and {row.second} {how}: {told}; {higher} has the mean of "
        f"{names[i]} higher by {abs(far):.2f} sd, {wider} the sd of {names[j]} {times:.2f} times as large: "
        "not both are right; look at the convergence of each, at several modes, and at the calibration of the network"
    )


def _checked(posteriors: Any) -> dict[str, Posterior]:
    if not isinstance(posteriors, Mapping):
        given = type(posteriors).__name__
        raise TypeError(
            f"posteriors is a {given}; write "
            'vb.diagnostics.compare_posteriors({"NPE": posterior, "NUTS": other}, key=key)'
        )
    if len(posteriors) < 2:
        raise ValueError(f"{len(posteriors)} posterior was given; give two or more, by name of their methods")
    for name, one in posteriors.items():
        if not isinstance(one, Posterior):
            raise TypeError(f"{name!r} is a {type(one).__name__}; expected a vb.Posterior")
    known = {str(name): one for name, one in posteriors.items()}
    lead, shapes = next((name, one.shapes) for name, one in known.items())
    seen = {name: one.x_o for name, one in known.items() if one.x_o is not None}
    for name, one in known.items():
        if one.shapes != shapes:  # as dictionaries: in any order
            raise ValueError(f"{lead} is over {shapes} and {name} over {one.shapes}; compare the same")
        if not all(np.isfinite(value).all() for value in one.theta.values()):
            raise ValueError(f"the draws of {name} hold NaN or infinite numbers; leave these out, and say so")
    for name, x_o in seen.items():
        other = next(iter(seen))
        if x_o.shape == seen[other].shape and not np.allclose(x_o, seen[other], rtol=1e-5):
            raise ValueError(f"{other} and {name} have different x_o; compare posteriors of one observation")
    return known


def _coordinates(known: Mapping[str, Posterior], prior: Prior | None) -> tuple[Names, dict[str, np.ndarray]]:
    """Names, and draws `[n, D]` of each posterior.

    In z where the prior is known.
    """
    lead = next(iter(known.values()))
    if prior is not None and prior.shapes != lead.shapes:
        raise ValueError(f"prior is over {prior.shapes} and the posteriors over {lead.shapes}; give their prior")
    names, shapes = lead.names, lead.shapes if prior is None else prior.shapes
    rows = {name: np.concatenate(as_rows(one.theta, shapes)).astype(float) for name, one in known.items()}
    if prior is not None:
        names = flat_names(prior.z_shapes)
        rows = {name: in_z(prior, row) for name, row in rows.items()}
    for name, row in rows.items():
        still = chosen(names, row.std(axis=0) <= 1e-12)
        if still:
            raise ValueError(f"{listed(still)} is constant in {name}; leave it out of the comparison")
    return names, rows
