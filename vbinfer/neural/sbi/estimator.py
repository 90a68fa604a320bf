"""Estimators of the sbi package behind the contract of `vb.NPE`."""

import dataclasses
import inspect
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer._param import did_you_mean
from vbinfer.draws.draws import Draws
from vbinfer.io import npz
from vbinfer.neural.fit_info import HELD, FitInfo, contrastive_gain, density_gain, has_converged
from vbinfer.neural.sbi.core import AbstractFitted
from vbinfer.neural.sbi.inputs import DiscreteZ, Inputs, find_discrete, find_discrete_z, fit_inputs
from vbinfer.neural.sbi.networks import (
    METHODS,
    builder,
    check_network,
    complete,
    components,
    find_method,
    require_tabpfn,
)
from vbinfer.neural.sbi.posteriors import SbiLikelihood, SbiPosterior, SbiRatio, wrap
from vbinfer.neural.sbi.quiet import NullTracker, quiet_torch, require
from vbinfer.neural.training_data import check_proposal, training_pairs
from vbinfer.priors._torch import to_torch
from vbinfer.priors.prior import Prior

DEFAULTS = {"training_batch_size": 200, "learning_rate": 1e-3, "max_num_epochs": 500}
_SET_HERE = {"self", "resume_training", "force_first_round_loss", "discard_prior_samples", "retrain_from_scratch",
             "show_train_summary", "calibration_kernel", "use_combined_loss", "loss_kwargs"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SbiEstimator:
    """A neural estimator of the sbi package.

    For its networks and its users; `vb.NPE` is the faster one.

    | method | fits | gives |
    |---|---|---|
    | `"NPE"` | q(theta given x), a flow or mixture, by maximum likelihood (NPE-C in its first round) | `log_prob` |
    | `"NPE_A"` | the same as a mixture of Gaussians | `log_prob` |
    | `"NPE_B"` | the same as NPE, which it differs from in sbi's own later rounds only | `log_prob` |
    | `"NPE_PFN"` | nothing: TabPFN reads the draws as context; needs tabpfn and its weights | `log_prob` |
    | `"MNPE"` | q(theta given x) where some parameters are rounded to whole numbers by the simulator | `log_prob` |
    | `"FMPE"`, `"NPSE"` | q(theta given x) by flow or score matching; sampled through the ODE | `log_prob` |
    | `"NLE"` | p(x given theta), a flow or mixture | `log_likelihood` |
    | `"MNLE"` | the same where some features are discrete | `log_likelihood` |
    | `"NRE"` | p(x given theta) / p(x), by a classifier, up to a factor of x | `log_ratio` |
    | `"NRE_C"` | the same, by the contrastive loss: without that factor | `log_ratio` |
    | `"BNRE"` | the same, balanced: rather too wide than too narrow | `log_ratio` |

    All have `.sample(x_o, n=, key=)`. Networks are trained on z, in which the prior is N(0, I), and on standardised
    summaries: nothing leaks out of the prior's support. Draws of all rounds count alike: likelihoods and ratios may
    come from any proposal, posteriors from truncated priors. One torch thread, on the CPU.

    Args:
        method: a name of the table.
        network: options of sbi's network functions: `model` (a name, or a function `(batch_theta, batch_x) ->
            network`), `hidden_features`, `num_transforms`, `num_components`, `embedding_net`, .... For MNLE also
            `discrete`, the names of the discrete features; by default those with whole numbers only and 20 values at
            most. For MNPE `discrete` names parameters, as in `prior.names`, of which the simulator reads only the
            nearest whole number: k in {0, 1, 2}, equally likely, has the prior `Uniform(-0.5, 2.5)`.
        training: options of sbi's `train`: `training_batch_size`, `learning_rate`, `stop_after_epochs`,
            `max_num_epochs`, `validation_fraction`, `clip_max_norm`; of NRE `num_atoms`, of NRE_C `num_classes` and
            `gamma`, of BNRE `regularization_strength`.

    Raises:
        ValueError: a method or network that is not there.

    NPE: Greenberg, Nonnenmacher & Macke 2019, doi:10.48550/arXiv.1905.07488. NPE-A: Papamakarios & Murray 2016,
    doi:10.48550/arXiv.1605.06376. NPE-B: Lueckmann et al. 2017, doi:10.48550/arXiv.1711.01861. NPE-PFN: Vetter et al.
    2025, doi:10.48550/arXiv.2504.17660. FMPE: Wildberger et al. 2023, doi:10.48550/arXiv.2305.17161. NPSE: Sharrock et
    al. 2022, doi:10.48550/arXiv.2210.04872. NLE: Papamakarios, Sterratt & Murray 2019, doi:10.48550/arXiv.1805.07226.
    MNLE: Boelts et al. 2022, doi:10.7554/eLife.77220. NRE: Durkan, Murray & Papamakarios 2020,
    doi:10.48550/arXiv.2002.03712. NRE-C: Miller, Weniger & Forre 2022, doi:10.48550/arXiv.2210.06170. BNRE: Delaunoy et
    al. 2022, doi:10.48550/arXiv.2208.13624. sbi: Tejero-Cantero et al. 2020, doi:10.21105/joss.02505.

    Example:
        estimator = vb.neural.SbiEstimator("NPE", network={"model": "nsf"})
        amortized, info = estimator.fit(draws, prior, key=jax.random.key(1))
    """

    method: str = "NPE"
    _: dataclasses.KW_ONLY
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        find_method(self.method)
        check_network(self.method, self.network)
        if not isinstance(self.training, Mapping):  # names are checked when sbi is there to say them
            raise TypeError(
                f"SbiEstimator(training={self.training!r}) was given; expected a dictionary, such as "
                "training={'max_num_epochs': 200}"
            )

    def fit(
        self, draws: Draws, prior: Prior, *, key: PRNGKey, progress: bool = False
    ) -> tuple[SbiPosterior | SbiLikelihood | SbiRatio, FitInfo]:
        """Train on the valid draws, of all rounds.

        Args:
            draws: from `sample_prior_predictive`; rows with `valid=False` are left out and counted.
            prior: the prior that they came from.
            key: decides initial weights, held-out rows and minibatches, through torch's seed within the fit.
            progress: show sbi's progress line.

        Raises:
            ValueError: too few valid draws, draws of other parameters than the prior's, a draw outside it, options that
                sbi does not have, or a proposal that a posterior network cannot be trained on.
            ImportError: sbi or torch is missing; of NPE_PFN, tabpfn.
        """
        started, key = time.perf_counter(), _check.key(key)
        require()
        z, x = training_pairs(draws, prior)
        family, asked = find_method(self.method).family, self.network.get("discrete")
        if family in ("density", "field"):
            check_proposal(draws, prior)
        features = find_discrete(x, draws.names, asked) if self.method == "MNLE" else ()
        discrete = find_discrete_z(np.asarray(z), prior, asked) if self.method == "MNPE" else DiscreteZ()
        inputs = fit_inputs(x, draws.names, family, features)
        pairs = (np.asarray(z, np.float32), inputs(x))
        with quiet_torch(jax.random.fold_in(key, 0), progress):
            spec = complete(self.method, self.network, prior.z_dim, inputs)
            # train on what the network sees; gain is measured on z, before the coding
            train = _read_context if self.method == "NPE_PFN" else _train
            fit = train(self, spec, (discrete.encode(pairs[0]), pairs[1]), (inputs, discrete), progress)
        fitted = wrap(self.method, spec, fit.net, prior, inputs, discrete)
        info = FitInfo(
            method=self.method,
            backend="sbi",
            train=fit.train,
            val=fit.val,
            best_epoch=int(np.argmin(fit.val)) + 1,
            info_gain=_gain(fitted, pairs[0][fit.held], x[fit.held], jax.random.fold_in(key, 1)),
            converged=fit.converged,
            num_train=len(x) - len(fit.held),
            num_val=len(fit.held),
            seconds=time.perf_counter() - started,
            versions=npz.versions("sbi", "torch"),
            num_failed=len(draws) - len(x),
        )
        fitted.info.update(info.notes)
        return fitted, info


class _Fit(NamedTuple):
    """A trained network with its curves and held-out rows."""

    net: Any
    train: np.ndarray
    val: np.ndarray
    held: np.ndarray
    converged: bool


def _train(
    estimator: SbiEstimator,
    spec: Mapping[str, Any],
    pairs: tuple[np.ndarray, np.ndarray],
    seen: tuple[Inputs, DiscreteZ],
    progress: bool,
) -> _Fit:
    """Train by sbi's own trainer, all rows alike."""
    import torch
    from sbi import inference

    name, dim = estimator.method, pairs[0].shape[1]
    method = METHODS[name]
    trainer_class, options = getattr(inference, method.trainer), {**DEFAULTS, **estimator.training}
    _check_training(name, trainer_class, estimator.training)
    # only its dimension counts here: a first round trains by maximum likelihood
    prior = torch.distributions.MultivariateNormal(torch.zeros(dim), torch.eye(dim))
    network = {method.argument: builder(name, spec, *seen), **components(name, spec)}
    trainer = trainer_class(prior=prior, tracker=NullTracker(), show_progress_bars=progress, **network)
    trainer.append_simulations(*(to_torch(rows) for rows in pairs))
    net = trainer.train(**options)
    net.eval()
    train, val = (np.asarray(trainer.summary[which], float) for which in ("training_loss", "validation_loss"))
    if method.family == "field":  # summed over the times at which the held-out loss is taken
        times = options.get("validation_times", 10)
        val = val / (times if isinstance(times, int) else len(times))
    cap = int(options["max_num_epochs"]) + 1  # sbi runs one epoch more than its cap
    return _Fit(net, train, val, np.asarray(trainer.val_indices), has_converged(train, val, cap))


def _read_context(
    estimator: SbiEstimator,
    spec: Mapping[str, Any],
    pairs: tuple[np.ndarray, np.ndarray],
    seen: tuple[Inputs, DiscreteZ],
    progress: bool,
) -> _Fit:
    """Give the draws to TabPFN as context; nothing is trained."""
    if estimator.training:
        raise ValueError("NPE_PFN trains nothing; leave training= out, or use SbiEstimator('NPE')")
    require_tabpfn(spec)
    held, rows = np.split(np.random.permutation(len(pairs[0])), [max(2, len(pairs[0]) // 10)])  # seeded by the key
    z, h = (to_torch(part) for part in pairs)
    # TabPFNFlow keeps these rows and fits nothing: held-out rows must stay out of its context
    net = builder("NPE_PFN", spec, *seen)(z[rows], h[rows])
    losses = [-np.mean(net.log_prob(z[part][None], condition=h[part]).numpy()) for part in (rows[:HELD], held[:HELD])]
    return _Fit(net, np.array(losses[:1]), np.array(losses[1:]), held, True)


def _check_training(name: str, trainer_class: Any, training: Mapping[str, Any]) -> None:
    known = set(inspect.signature(trainer_class.train).parameters) - _SET_HERE
    for option in training:
        if option not in known:
            raise ValueError(
                f"{name} was given training={{{option!r}: ...}}; the training options of sbi that can be set here are "
                f"{', '.join(sorted(known))}. {did_you_mean(option, known)}"
            )


def _gain(fitted: AbstractFitted, z: np.ndarray, x: np.ndarray, key: PRNGKey) -> float:
    """Nats over the prior on held-out pairs."""
    if fitted.is_posterior:
        dear = fitted.method.family == "field" or fitted.name == "NPE_PFN"  # an ODE for each
        theta = fitted.to_theta(z[: HELD if dear else len(z)])
        return density_gain(fitted.log_density(theta, x[: HELD if dear else len(z)]), fitted.prior.log_prob(theta))
    with quiet_torch(None):
        return contrastive_gain(fitted.score, fitted.prior, z, fitted.inputs(x[:HELD]), key)
