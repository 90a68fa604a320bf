"""What determines a posterior: directions the data settle, features that carry them, and the prior's share."""

import dataclasses
from typing import Any

import numpy as np
from scipy.stats import chi2

from vbinfer import _check
from vbinfer._names import PRNGKey, SimulatorLike, flat_names
from vbinfer.diagnostics.contraction import in_z
from vbinfer.diagnostics.information import Information, local_information
from vbinfer.diagnostics.power_scaling import power_sensitivity
from vbinfer.diagnostics.result import AbstractResult, Status, listed
from vbinfer.execute.batches import feature_names
from vbinfer.posterior import Posterior

NOT_DETERMINED = 0.9
THRESHOLD = 0.05
_FEWEST = 100
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Sensitivity(AbstractResult):
    """Result of `vb.sensitivity`. z are the coordinates in which the prior is standard normal.

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

    verdict: Status
    findings: tuple[str, ...]
    names: tuple[str, ...]
    eigenvalues: np.ndarray
    directions: np.ndarray
    num_determined: int
    prior_sensitivity: dict[str, float]
    likelihood_sensitivity: dict[str, float]
    feature_names: tuple[str, ...]
    information: Information

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers, JSON-able."""
        features = zip(self.feature_names, self.information.loss.tolist(), strict=True)
        return {
            "names": list(self.names),
            "eigenvalues": self.eigenvalues.tolist(),
            "directions": self.directions.tolist(),
            "prior_sensitivity": self.prior_sensitivity,
            "likelihood_sensitivity": self.likelihood_sensitivity,
            "feature_nats": dict(features),
            "total_nats": self.information.total,
            "fisher": self.information.fisher.tolist(),
        }


def sensitivity(posterior: Posterior, fwd: SimulatorLike, *, key: PRNGKey, num_repeats: int = 256) -> Sensitivity:
    """Which combinations of parameters the data determine, which features tell it, and how much the prior decides.

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
        found = vb.sensitivity(posterior, fwd, key=jax.random.key(5))
        print(*found.findings, sep="\\n")
    """
    key, repeats = _check.key(key), _check.count(num_repeats, "num_repeats", "256")
    prior = posterior.prior
    if prior is None:
        raise ValueError("this posterior has no prior; write vb.Posterior(theta, prior=prior)")
    rows = posterior.ravel().astype(float)
    fewest = max(_FEWEST, 2 * prior.z_dim)
    if len(rows) < fewest:
        raise ValueError(f"this posterior has {len(rows)} draws; sensitivity needs {fewest} or more: sample more")
    theta = prior.unravel(rows)
    z = in_z(prior, rows)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(z.T)))
    values = np.maximum(values, 1e-12)
    # draws of the prior itself scatter down to this (Marchenko & Pastur), which is not learning
    edge = NOT_DETERMINED * (1.0 - np.sqrt(prior.z_dim / len(z))) ** 2
    steps = (0.5 * np.sqrt(np.minimum(values, 1.0)) * vectors).T
    found = local_information(prior, fwd, z.mean(axis=0), steps, key=key, num_repeats=repeats)
    labels = feature_names(fwd, len(found.noise))
    log_prior = np.asarray(prior.log_prob(theta), float)
    scaled = dict(zip(posterior.names, power_sensitivity(rows, log_prior).tolist(), strict=True))
    likely = {}
    if posterior.log_prob is not None:
        log_likelihood = np.asarray(posterior.log_prob, float).ravel() - log_prior
        likely = dict(zip(posterior.names, power_sensitivity(rows, log_likelihood).tolist(), strict=True))
    names = flat_names(prior.z_shapes)
    determined = int(np.sum(values < edge))
    # both are sensitive for many good models too; a conflict is a posterior that lies where the prior hardly goes: the
    # posterior mean of z scatters less than the prior, so this is seen in fewer than 1 % of the model's own data
    far = np.sum(z.mean(axis=0) ** 2) > chi2.ppf(0.99, prior.z_dim)
    both = [name for name in likely if scaled[name] >= THRESHOLD and likely[name] >= THRESHOLD]
    conflict = both if far else []
    light: Status = "fail" if determined == 0 else "warn" if determined < len(values) or conflict else "pass"
    result = Sensitivity(light, (), names, values, vectors, determined, scaled, likely, labels, found)
    return dataclasses.replace(
        result, findings=(*_directions(result), *_features(result), *_prior(result, conflict, both))
    )


def _directions(found: Sensitivity) -> list[str]:
    if found.num_determined == 0:
        return [
            "nothing learned: along no combination of parameters is the posterior narrower than the prior "
            f"(smallest variance ratio {found.eigenvalues[0]:.2g})."
        ]
    said = [
        f"{combination(found.directions[:, k], found.names)} is determined {found.eigenvalues[k] ** -0.5:.2g} times "
        "better than the prior has it."
        for k in range(min(found.num_determined, _SHOWN))
    ]
    loose = range(max(found.num_determined, len(found.names) - _SHOWN), len(found.names))
    said += [
        f"{combination(found.directions[:, k], found.names)} is not determined: its posterior variance is "
        f"{found.eigenvalues[k]:.2g} of the prior's."
        for k in loose
    ]
    return said


def _features(found: Sensitivity) -> list[str]:
    nats, order = found.information, np.argsort(-found.information.loss)
    if nats.total < 0.1:
        return [f"At the posterior mean the features say little: {nats.total:.2g} nats together."]
    best = [f"{found.feature_names[j]} ({nats.loss[j]:.2g})" for j in order[:_SHOWN]]
    said = [f"Around the posterior mean the features carry {nats.total:.2g} nats; lost most without: {listed(best)}."]
    idle = [found.feature_names[j] for j in order[::-1] if nats.alone[j] < 0.01]
    if idle:
        said.append(f"Features that say nothing there: {listed(idle)}.")
    if nats.num_failed:
        said.append(f"{nats.num_failed} of {nats.num_simulated} simulations around the mean failed and were left out.")
    return said


def _prior(found: Sensitivity, conflict: list[str], both: list[str]) -> list[str]:
    said = []
    if conflict:
        said.append(f"Prior and data pull against each other in {listed(conflict)} (power-scaling above {THRESHOLD}).")
    elif both:
        said.append(
            f"Prior and data both count in {listed(both)} (power-scaling above {THRESHOLD}); they do not conflict."
        )
    alone = [name for name, value in found.prior_sensitivity.items() if value >= THRESHOLD and name not in both]
    if alone:
        why = ": the data say little of them" if found.likelihood_sensitivity else ""
        said.append(f"The prior decides a share of {listed(alone)} (power-scaling above {THRESHOLD}){why}.")
    return said


def combination(direction: np.ndarray, names: tuple[str, ...], most: int = 4) -> str:
    """A direction in words, the largest coefficient first and positive; small ones are left out.

    >>> combination(np.array([-0.39, 0.02, 0.92]), ("model.w", "sigma", "coupling.G"))
    '0.92 coupling.G - 0.39 model.w'
    """
    order = [j for j in np.argsort(-np.abs(direction)) if abs(direction[j]) > 0.2][:most] or [
        int(np.argmax(np.abs(direction)))
    ]
    signed = direction * np.sign(direction[order[0]])
    if len(order) == 1:
        return names[order[0]]
    text = f"{signed[order[0]]:.2f} {names[order[0]]}"
    for j in order[1:]:
        text += f" {'+' if signed[j] > 0 else '-'} {abs(signed[j]):.2f} {names[j]}"
    return text
