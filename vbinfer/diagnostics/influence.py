"""What decides a posterior: features of data, or prior?"""

import dataclasses
from typing import Any

import numpy as np
from scipy.special import rel_entr
from scipy.stats import chi2

from vbinfer import _check
from vbinfer._names import PRNGKey, SimulatorLike, flat_names
from vbinfer.execute.batches import feature_names
from vbinfer.posterior import Posterior
from vbinfer.sampling.importance import pareto_smoothed

from .figure import Axis, Bars, Figure, Rule, by_name
from .information import Information, local_information
from .recovery import in_z
from .result import AbstractResult, Names, Status, json_able, listed
from .thresholds import CONFLICT, NOTHING_LEARNED, SENSITIVE

_FEWEST = 100
_SHOWN = 3
_MOST_BARS = 16
_ALPHAS = (0.99, 1.01)


@dataclasses.dataclass(frozen=True)
class Sensitivity(AbstractResult):
    """Result of `vb.diagnostics.sensitivity`.

    z are the coordinates in which the prior is standard normal.

    Attributes:
        verdict: `pass`; `warn` when some combination of parameters is not determined, or the prior and the data pull
            against each other; `fail` when nothing was learned at all.
        findings: sentences.
        names: names of the D coordinates of z.
        eigenvalues: posterior variances along the eigen-directions in units of the prior's, ascending `[D]`.
        directions: the eigen-directions as columns `[D, D]`.
        num_determined: directions whose variance the data brought below 0.9 of the prior's.
        prior_sensitivity: by path of flattened theta, power-scaling of the prior; 0.05 and more is sensitive.
        likelihood_sensitivity: likewise of the likelihood; empty if the posterior has no `log_prob`.
        feature_names: names of the F features.
        information: Fisher information, Jacobian, noise covariance and nats by feature at the posterior mean.
    """

    question = "What decides the posterior: the data or the prior?"
    rule = (
        f"Warn: a combination of parameters keeps more than {1.0 - NOTHING_LEARNED:g} of its prior variance, or prior "
        f"and data pull against each other (power-scaling above {SENSITIVE:g} and a mean outside {CONFLICT:g} of the "
        "prior). Fail: every combination does."
    )
    verdict: Status
    findings: Names
    names: Names
    eigenvalues: np.ndarray
    directions: np.ndarray
    num_determined: int
    prior_sensitivity: dict[str, float]
    likelihood_sensitivity: dict[str, float]
    feature_names: Names
    information: Information

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers, JSON-able."""
        kept = ("names", "eigenvalues", "directions", "prior_sensitivity", "likelihood_sensitivity")
        features = dict(zip(self.feature_names, self.information.loss, strict=True))
        more = {"feature_nats": features, "total_nats": self.information.total, "fisher": self.information.fisher}
        return json_able({name: getattr(self, name) for name in kept} | more)

    def figure(self) -> Figure:
        """What the data determine, and the features that tell it."""
        kept = self.eigenvalues[:_MOST_BARS]
        names = [combination(direction, self.names, 2) for direction in self.directions.T[: len(kept)]]
        order = np.argsort(-self.information.loss)[:_MOST_BARS]
        lost = self.information.loss[order]
        panels = (
            by_name(
                (Bars(kept, along="y"), Rule(1.0 - NOTHING_LEARNED, role="observed", dashed=True)),
                names,
                Axis("posterior / prior variance"),
                f"Posterior variance of {len(kept)} combinations of parameters over the prior's, from {kept[0]:.2g}",
            ),
            by_name(
                (Bars(lost, along="y"),),
                [self.feature_names[j] for j in order],
                Axis("nats lost without"),
                f"Nats lost without each of {len(order)} features, largest {lost[0]:.2g}",
            ),
        )
        caption = (
            f"Left: what the data determine, best first. Right: the features that tell it, from "
            f"{self.information.num_simulated} simulations."
        )
        return Figure(panels, caption, "half")


def sensitivity(posterior: Posterior, fwd: SimulatorLike, *, key: PRNGKey, num_repeats: int = 256) -> Sensitivity:
    """Ask what the data determine, through which features.

    Three looks at one posterior. (1) The eigen-directions of its covariance in z, where the prior has unit variance
    in every direction: an eigenvalue near 1 is a combination that nothing was learned of. (2) Simulations around its
    mean: Fisher information of the features about z, and the nats that would be lost with each (information that
    others carry too is not lost). (3) Power-scaling of the prior and, with `log_prob`, of the likelihood: both
    sensitive and the posterior mean outside the prior's 99 % is a conflict of prior and data, only the prior sensitive
    is a weak likelihood.

    (1) is the covariance: blind to several modes and to curved ridges. (2) is local and linear: it sees nothing far
    from the mean, and not what the variability of x says. (3) sees small changes of the prior as a whole.

    Args:
        posterior: draws with `prior`; `log_prob` allows power-scaling of the likelihood.
        fwd: the simulator, `(theta, key) -> x`.
        key: noise of the simulations.
        num_repeats: simulations at the posterior mean; each of 2 D points around it takes a quarter as many.

    Raises:
        ValueError: a posterior without prior, fewer than 100 draws, too few valid simulations for F features.

    Kallioinen et al. 2023, doi:10.1007/s11222-023-10366-5 (power-scaling).

    Example:
        found = vb.diagnostics.sensitivity(posterior, fwd, key=jax.random.key(5))
        print(*found.findings, sep="\\n")
    """
    key, repeats = _check.key(key), _check.count(num_repeats, "num_repeats", "256")
    prior = posterior.prior
    if prior is None:
        raise ValueError("this posterior has no prior; write vb.Posterior(theta, prior=prior)")
    rows, dim = posterior.ravel().astype(float), prior.z_dim
    fewest = max(_FEWEST, 2 * dim)
    if len(rows) < fewest:
        raise ValueError(f"this posterior has {len(rows)} draws; sensitivity needs {fewest} or more: sample more")
    z = in_z(prior, rows)
    centre = z.mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(z.T)))
    values = np.maximum(values, 1e-12)
    # draws of the prior itself scatter down to this (Marchenko & Pastur), which is not learning
    edge = (1.0 - NOTHING_LEARNED) * (1.0 - np.sqrt(dim / len(z))) ** 2
    # half a posterior sd along each eigen-direction: within the posterior, and large against noise
    steps = (0.5 * np.sqrt(np.minimum(values, 1.0)) * vectors).T
    found = local_information(prior, fwd, centre, steps, key=key, num_repeats=repeats)
    labels = feature_names(fwd, len(found.noise))
    parts = [np.asarray(prior.log_prob(prior.unravel(rows)), float)]
    if posterior.log_prob is not None:
        parts.append(np.asarray(posterior.log_prob, float).ravel() - parts[0])
    scaled = [dict(zip(posterior.names, power_sensitivity(rows, one).tolist(), strict=True)) for one in parts]
    by_prior, likely = scaled[0], scaled[1] if len(scaled) > 1 else {}
    names, determined = flat_names(prior.z_shapes), int(np.sum(values < edge))
    # both are sensitive for many good models too; a conflict is a posterior that lies where the prior hardly goes: the
    # posterior mean of z scatters less than the prior, so this is seen in fewer than 1 % of the model's own data
    far = np.sum(centre**2) > chi2.ppf(CONFLICT, dim)
    both = [name for name, value in likely.items() if min(by_prior[name], value) >= SENSITIVE]
    conflict = both if far else []
    status: Status = "fail" if determined == 0 else "warn" if determined < len(values) or conflict else "pass"
    said = [*_about_directions(values, vectors, names, determined), *_about_features(found, labels)]
    said += _about_prior(by_prior, bool(likely), conflict, both)
    return Sensitivity(status, tuple(said), names, values, vectors, determined, by_prior, likely, labels, found)


def _about_directions(values: np.ndarray, directions: np.ndarray, names: Names, determined: int) -> list[str]:
    if determined == 0:
        return [
            "nothing learned: along no combination of parameters is the posterior narrower than the prior "
            f"(smallest variance ratio {values[0]:.2g})."
        ]
    said = []
    for k, (value, direction) in enumerate(zip(values, directions.T, strict=True)):
        what = combination(direction, names)
        if k < min(determined, _SHOWN):
            said.append(f"{what} is determined {value**-0.5:.2g} times better than the prior has it.")
        elif k >= max(determined, len(names) - _SHOWN):
            said.append(f"{what} is not determined: its posterior variance is {value:.2g} of the prior's.")
    return said


def _about_features(nats: Information, names: Names) -> list[str]:
    order = np.argsort(-nats.loss)
    if nats.total < 0.1:
        return [f"At the posterior mean the features say little: {nats.total:.2g} nats together."]
    best = [f"{names[j]} ({nats.loss[j]:.2g})" for j in order[:_SHOWN]]
    said = [f"Around the posterior mean the features carry {nats.total:.2g} nats; lost most without: {listed(best)}."]
    idle = [names[j] for j in order[::-1] if nats.alone[j] < 0.01]
    if idle:
        said.append(f"Features that say nothing there: {listed(idle)}.")
    if nats.num_failed:
        said.append(f"{nats.num_failed} of {nats.num_simulated} simulations around the mean failed and were left out.")
    return said


def _about_prior(prior: dict[str, float], with_likelihood: bool, conflict: list[str], both: list[str]) -> list[str]:
    said = []
    if conflict:
        said.append(f"Prior and data pull against each other in {listed(conflict)} (power-scaling above {SENSITIVE}).")
    elif both:
        said.append(
            f"Prior and data both count in {listed(both)} (power-scaling above {SENSITIVE}); they do not conflict."
        )
    alone = [name for name, value in prior.items() if value >= SENSITIVE and name not in both]
    if alone:
        why = ": the data say little of them" if with_likelihood else ""
        said.append(f"The prior decides a share of {listed(alone)} (power-scaling above {SENSITIVE}){why}.")
    return said


def combination(direction: np.ndarray, names: Names, most: int = 4) -> str:
    """A direction in words, largest coefficient first and positive.

    Small ones are left out.

    >>> combination(np.array([-0.39, 0.02, 0.92]), ("model.w", "sigma", "coupling.G"))
    '0.92 coupling.G - 0.39 model.w'
    """
    order = np.argsort(-np.abs(direction))[:most]
    first, *others = [j for i, j in enumerate(order) if i == 0 or abs(direction[j]) > 0.2]
    if not others:
        return names[first]
    signed = direction * np.sign(direction[first])
    text = f"{signed[first]:.2f} {names[first]}"
    for j in others:
        text += f" {'+' if signed[j] > 0 else '-'} {abs(signed[j]):.2f} {names[j]}"
    return text


def power_sensitivity(rows: np.ndarray, log_component: np.ndarray) -> np.ndarray:
    """Sensitivity of each marginal to power-scaling one component `[D]`.

    The component of the posterior, its prior or its likelihood, is raised to the power alpha.
    Draws get the weights w_i = p(theta_i)^(alpha - 1), Pareto smoothed, p being the prior or the likelihood; the
    weighted and the plain empirical distribution are compared by the cumulative Jensen-Shannon distance, and

        sensitivity = (CJS(0.99) + CJS(1.01)) / (log2 1.01 - log2 0.99)

    A shift of a normal marginal by s posterior sd per unit of log2 alpha gives about 0.3 s; above 0.05 is worth a look.

    Args:
        rows: posterior draws `[n, D]`.
        log_component: log prior density, or log likelihood up to a constant, of each `[n]`.

    Kallioinen, Paananen, Bürkner & Vehtari 2023, Stat. Comput. 34, doi:10.1007/s11222-023-10366-5.
    """
    total = np.zeros(rows.shape[1])
    if np.ptp(log_component) < 1e-9:  # a flat prior stays flat
        return total
    for alpha in _ALPHAS:
        # p^alpha is p times p^(alpha - 1): reweighing stands in for a new fit
        weights = np.exp(pareto_smoothed((alpha - 1.0) * log_component).log_weights)
        total += [cjs_distance(column, weights) for column in rows.T]
    return total / (np.log2(_ALPHAS[1]) - np.log2(_ALPHAS[0]))


def cjs_distance(x: np.ndarray, weights: np.ndarray) -> float:
    """Cumulative Jensen-Shannon distance of weighted from unweighted draws.

    From 0 to 1.
    With P and Q the two distribution functions and M their mean,

        CJS(P | Q) = int P log2(P / M) dx + int (Q - P) dx / (2 ln 2)
        distance = sqrt((CJS(P | Q) + CJS(Q | P)) / int (P + Q) dx)

    and the same for -x, of which the larger counts: the measure does not treat both tails alike.

    Nguyen & Vreeken 2015, ECML PKDD, doi:10.1007/978-3-319-23525-7_11.

    >>> round(cjs_distance(np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.5, 0.5])), 3)
    0.483
    """
    return max(_one_side(x, weights), _one_side(-x, weights))


def _one_side(x: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(x)
    width = np.diff(x[order])
    p = np.cumsum(weights[order] / weights.sum())[:-1]
    q = np.arange(1, len(x)) / len(x)
    middle = 0.5 * (p + q)
    bound = np.sum(width * (p + q))
    if bound <= 0.0:
        return 0.0
    # the correction terms (Q - P) and (P - Q) cancel in the sum of both directions
    both = np.sum(width * (rel_entr(p, middle) + rel_entr(q, middle))) / np.log(2.0)
    return float(np.sqrt(max(both, 0.0) / bound))
