"""Which of several models made the data?

By leave-one-out prediction, by evidence, or by a classifier of their simulations.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.draws.draws import Draws
from vbinfer.execute.batches import key_ints
from vbinfer.neural.scaler import Standardise
from vbinfer.posterior import Posterior

from .figure import Axis, Bars, Figure, Panel, Points, Rule, by_name, share_axis
from .leave_one_out import Loo
from .result import AbstractResult, Names, Status, listed, observation
from .thresholds import ALIKE_ELPD

_HELD = 0.25


@dataclasses.dataclass(frozen=True)
class Comparison(AbstractResult):
    """Result of `compare_models`; models in order, best first.

    Attributes:
        verdict: whether the numbers can be used: `warn` where a model's Pareto k is high, or x_o is outside the
            simulations of every model.
        findings: sentences.
        by: `"loo"`, `"evidence"` or `"classifier"`.
        names: models, best first `[K]`.
        score: elpd, log evidence, or log probability of each `[K]`.
        difference: to the best, 0 or negative `[K]`.
        se: standard error of the difference `[K]`, of paired observations; NaN where there is none.
        probability: posterior probability of each model `[K]`; NaN by LOO, which has none.
        held_out: for the classifier: log score in nats per simulation and accuracy on held-out simulations, and the
            temperature that calibrated it.
    """

    question = "Can the comparison of models be believed?"
    rule = "Warn: densities behind it are not reliable (vb.diagnostics.loo), or the recording is unlike every model."
    verdict: Status
    findings: Names
    by: str
    names: Names
    score: np.ndarray
    difference: np.ndarray
    se: np.ndarray
    probability: np.ndarray
    held_out: dict[str, float] = dataclasses.field(default_factory=dict)

    def figure(self) -> Figure:
        """Probabilities of the models, or differences to the best."""
        if self.by == "loo":
            at, spread = np.arange(len(self.names)), np.nan_to_num(self.se)
            panel = Panel(
                (Rule(-ALIKE_ELPD, "y", dashed=True), Points(at, self.difference, error=spread)),
                Axis(ticks=self.names),
                Axis("elpd below the best", unit="nats"),
                f"Differences of elpd of {len(self.names)} models: {', '.join(self.names)}",
            )
            caption = (
                "Log predictive density below the best model's, with one standard error; above the dashed line "
                f"({ALIKE_ELPD:g}) models predict alike."
            )
        else:
            panel = by_name(
                (Bars(self.probability, along="y"),),
                self.names,
                share_axis("posterior probability"),
                f"Probabilities of {len(self.names)} models: {', '.join(self.names)}",
            )
            caption = f"Posterior probabilities of {len(self.names)} models, by {self.by}."
        return Figure([panel], caption, "half")


def compare_models(
    models: Mapping[str, Any],
    *,
    by: str = "loo",
    x_o: Any = None,
    key: PRNGKey | None = None,
    prior: Mapping[str, float] | None = None,
) -> Comparison:
    """Compare models of the same data.

    - `by="loo"`: values are `vb.diagnostics.loo` results. Difference of elpd, with the standard error of paired
    observations,
      sqrt(n var(elpd_ai - elpd_bi)). Below 4 the models predict alike, whatever the standard error (Sivula, Magnusson,
      Matamoros & Vehtari 2020, doi:10.48550/arXiv.2008.10296).
    - `by="evidence"`: values are posteriors with `log_evidence`, as `vb.sampling.TemperedSMC` makes. Bayes factors
      exp(log Z_a - log Z_b), and p(M | x_o) proportional to Z p(M). They fall without limit as a prior widens.
    - `by="classifier"`: values are `vb.Draws` of each model with the same features. A network learns p(M | x) from
      three quarters of the simulations; a temperature is fitted on the rest; p(M | x_o) is corrected for the numbers of
      simulations. It compares what the features tell, and features are rarely sufficient for model choice (Robert,
      Cornuet, Marin & Pillai 2011, doi:10.1073/pnas.1102900108).

    Every comparison is blind to a fault that all models share: look at predictive checks too.

    Args:
        models: name to result, two or more.
        by: `"loo"`, `"evidence"` or `"classifier"`.
        x_o: observed features `[F]`, for the classifier.
        key: for the classifier.
        prior: prior probabilities of the models, by name; equal by default.

    Raises:
        ValueError: fewer than two models, values of another kind, results on different data, bad probabilities.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> draws = {"a": np.zeros((1, 2))}
        >>> pair = {"one": vb.Posterior(draws, log_evidence=-4.0), "two": vb.Posterior(draws, log_evidence=-1.0)}
        >>> found = vb.diagnostics.compare_models(pair, by="evidence")
        >>> found.names, found.probability.round(3).tolist()
        (('two', 'one'), [0.953, 0.047])
    """
    kinds = {
        "loo": (Loo, "vb.diagnostics.loo(...)"),
        "evidence": (Posterior, "a vb.Posterior"),
        "classifier": (Draws, "vb.Draws"),
    }
    by = _check.one_of(by, "by", kinds)
    if len(models) < 2:
        raise ValueError(f"{len(models)} model was given; give two or more, as in {{'linear': ..., 'nonlinear': ...}}")
    for name, value in models.items():
        if not isinstance(value, kinds[by][0]):
            raise TypeError(f"model {name!r} is a {type(value).__name__}; by={by!r} takes {kinds[by][1]}")
    log_prior = _log_prior(models, prior)
    if by == "loo":
        return _by_loo(models)
    if by == "evidence":
        return _by_evidence(models, log_prior)
    return _by_classifier(models, x_o, key, log_prior)


def _by_loo(models: Mapping[str, Loo]) -> Comparison:
    sizes = {name: len(one.pointwise) for name, one in models.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"numbers of observations differ: {sizes}; compare models of the same data")
    names = sorted(models, key=lambda name: -models[name].elpd)
    best, *others = names
    # paired: models are compared on the same observations, whose difficulty cancels
    apart = np.stack([models[name].pointwise - models[best].pointwise for name in names])
    n, difference = apart.shape[1], apart.sum(axis=1)
    se = np.sqrt(n * apart.var(axis=1, ddof=1)) if n > 1 else np.full(len(names), np.nan)
    said = []
    for name, d, error in zip(others, difference[1:], se[1:], strict=True):
        clear = "clearly worse" if abs(d) > 2 * error else "not clearly worse"
        clear = "the two predict alike" if abs(d) < ALIKE_ELPD else clear
        said.append(f"{name} predicts worse than {best} by {-d:.3g} (se {error:.2g}): {clear}.")
    high = [name for name in names if not models[name].passed]
    if high:
        said.append(f"Pareto k is too high in {listed(high)}: these densities are not reliable.")
    score = np.array([models[name].elpd for name in names])
    status = "warn" if high else "pass"
    return Comparison(status, tuple(said), "loo", tuple(names), score, difference, se, score * np.nan)


def _by_evidence(models: Mapping[str, Posterior], log_prior: dict[str, float]) -> Comparison:
    missing = [name for name, one in models.items() if one.log_evidence is None or not np.isfinite(one.log_evidence)]
    if missing:
        raise ValueError(
            f"{listed(missing)} has no finite log_evidence; sample with vb.sample_mcmc(..., "
            f"kernel=vb.sampling.TemperedSMC())"
        )
    observed = [one.x_o for one in models.values() if one.x_o is not None]
    if any(x.shape != observed[0].shape or not np.array_equal(x, observed[0]) for x in observed):
        raise ValueError("the posteriors have different x_o; compare models of the same data")
    z = {name: float(one.log_evidence or 0.0) for name, one in models.items()}
    return _ranked(z, log_prior, "evidence", "pass", [], {})


def _by_classifier(
    models: Mapping[str, Draws], x_o: Any, key: PRNGKey | None, log_prior: dict[str, float]
) -> Comparison:
    if x_o is None or key is None:
        raise ValueError("by='classifier' needs x_o=[F] and key=jax.random.key(0)")
    names = next(iter(models.values())).names
    for name, one in models.items():
        if one.names != names:
            raise ValueError(f"model {name!r} has other features than the first; simulate all with one Summary")
    row = observation(x_o, names).astype(float)
    parts = [np.asarray(one.usable()[1], float) for one in models.values()]
    sizes = [len(x) for x in parts]
    if min(sizes) < 100:
        raise ValueError(f"valid simulations: {sizes}; each model needs 100 or more")
    x = np.concatenate(parts)
    h = np.asarray(Standardise.fit(x)(jnp.asarray(np.concatenate([x, row[None]]))), float)
    rng = np.random.default_rng(key_ints(_check.key(key)))
    log_p, held_out = _classify(h[:-1], np.repeat(np.arange(len(parts)), sizes), h[-1], rng)
    # p(M | x) of the classifier counts how often a model was simulated: take that out
    score = dict(zip(models, (log_p - np.log(np.array(sizes) / len(x))).tolist(), strict=True))
    said = [
        f"On held-out simulations the classifier is right in {100 * held_out['accuracy']:.3g} % "
        f"({held_out['log_score']:.2g} nats each)."
    ]
    outside = all(Standardise.fit(x).outside(row).any() for x in parts)
    if outside:
        said.append(
            "The observation lies outside the simulations of every model: no probability among them is to be trusted."
        )
    return _ranked(score, log_prior, "classifier", "warn" if outside else "pass", said, held_out)


def _classify(
    h: np.ndarray, labels: np.ndarray, row: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, float]]:
    """Calibrated log p(model | row) `[K]`.

    From a network, and a temperature fitted on held-out rows.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax
    from sklearn.neural_network import MLPClassifier

    # three quarters to fit, one quarter for the temperature and the score
    order = rng.permutation(len(h))
    held, fitting = np.split(order, [int(_HELD * len(h))])
    network = MLPClassifier(
        (32, 32), activation="tanh", alpha=1e-3, learning_rate_init=3e-3, max_iter=300, early_stopping=True,
        n_iter_no_change=20, random_state=int(rng.integers(2**31)),
    ).fit(h[fitting], labels[fitting])  # fmt: skip

    def log_p(rows: np.ndarray, log_temperature: float) -> np.ndarray:
        logits = np.log(np.maximum(network.predict_proba(rows), 1e-30))
        return log_softmax(logits * np.exp(-log_temperature), axis=1)

    def loss(log_temperature: float) -> float:
        return -float(np.mean(log_p(h[held], log_temperature)[np.arange(len(held)), labels[held]]))

    # one number, a temperature, repairs the overconfidence of a network and hardly overfits
    found: Any = minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded")
    right = np.mean(log_p(h[held], found.x).argmax(axis=1) == labels[held])
    notes = {"log_score": -float(found.fun), "accuracy": float(right), "temperature": float(np.exp(found.x))}
    return log_p(row[None], found.x)[0], notes


def _ranked(
    score: dict[str, float],
    log_prior: dict[str, float],
    by: str,
    status: Status,
    said: list[str],
    held: dict[str, float],
) -> Comparison:
    names = sorted(score, key=lambda name: -score[name] - log_prior[name])
    evidence = np.array([score[name] for name in names])
    probability = softmax(evidence + [log_prior[name] for name in names])
    lead = (
        f"p({names[0]} | x_o) = {probability[0]:.3g} among {len(names)} models; the next, {names[1]}, has "
        f"{probability[1]:.3g} (log Bayes factor {evidence[0] - evidence[1]:.3g})."
    )
    shown, apart = np.log(probability) if by == "classifier" else evidence, evidence - evidence[0]
    none = np.full(len(names), np.nan)
    return Comparison(status, (lead, *said), by, tuple(names), shown, apart, none, probability, held)


def _log_prior(models: Mapping[str, Any], prior: Mapping[str, float] | None) -> dict[str, float]:
    prior = dict.fromkeys(models, 1.0 / len(models)) if prior is None else prior
    if set(prior) != set(models) or min(prior.values()) <= 0.0 or abs(sum(prior.values()) - 1.0) > 1e-6:
        raise ValueError(
            f"prior={dict(prior)} was given; expected a probability for each of {list(models)}, summing to 1"
        )
    return {name: float(np.log(prior[name])) for name in models}
