"""Estimators of the sbi package behind the same contract as `vb.NPE`, `vb.NLE` and `vb.NRE`."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.draws.draws import Draws
from vbinfer.io import npz
from vbinfer.neural.fit_info import FitInfo
from vbinfer.neural.sbi.core import Core
from vbinfer.neural.sbi.fitted import SbiLikelihood, SbiPosterior, SbiRatio, wrap
from vbinfer.neural.sbi.gain import info_gain
from vbinfer.neural.sbi.inputs import find_discrete, fit_inputs
from vbinfer.neural.sbi.methods import check_network, check_training, find_method
from vbinfer.neural.sbi.network import complete
from vbinfer.neural.sbi.quiet import quiet_torch, require
from vbinfer.neural.sbi.training import fit_network
from vbinfer.neural.training_data import check_proposal, training_pairs
from vbinfer.priors.prior import Prior


@dataclasses.dataclass(frozen=True)
class SbiEstimator:
    """A neural estimator of the sbi package, where its networks or its users are wanted; `vb.NPE` is the faster one.

    | method | fits | gives |
    |---|---|---|
    | `"NPE"` | q(theta given x), a flow or mixture, by maximum likelihood (NPE-C in its first round) | `log_prob` |
    | `"NPE_A"` | the same as a mixture of Gaussians | `log_prob` |
    | `"FMPE"`, `"NPSE"` | q(theta given x) by flow or score matching; sampled through the ODE | `log_prob` |
    | `"NLE"` | p(x given theta), a flow or mixture | `log_likelihood` |
    | `"MNLE"` | the same where some features are discrete | `log_likelihood` |
    | `"NRE"` | p(x given theta) / p(x), by a classifier | `log_ratio` |
    | `"BNRE"` | the same, balanced: rather too wide than too narrow | `log_ratio` |

    All have `.sample(x_o, n=, key=)`. Networks are trained on z, in which the prior is N(0, I), and on standardised
    summaries: nothing leaks out of the prior's support. Draws of all rounds count alike: likelihoods and ratios may
    come from any proposal, posteriors from truncated priors. One torch thread, on the CPU.

    Args:
        method: a name of the table.
        network: options of sbi's network functions: `model` (a name, or a function `(batch_theta, batch_x) ->
            network`), `hidden_features`, `num_transforms`, `num_components`, `embedding_net`, .... For MNLE also
            `discrete`, the names of the discrete features; by default those with whole numbers only and 20 values at
            most.
        training: options of sbi's `train`: `training_batch_size`, `learning_rate`, `stop_after_epochs`,
            `max_num_epochs`, `validation_fraction`, `clip_max_norm`; of NRE `num_atoms`, of BNRE
            `regularization_strength`.

    Raises:
        ValueError: a method or network that is not there.

    NPE: Greenberg, Nonnenmacher & Macke 2019, doi:10.48550/arXiv.1905.07488. NPE-A: Papamakarios & Murray 2016,
    doi:10.48550/arXiv.1605.06376. FMPE: Wildberger et al. 2023, doi:10.48550/arXiv.2305.17161. NPSE: Sharrock et al.
    2022, doi:10.48550/arXiv.2210.04872. NLE: Papamakarios, Sterratt & Murray 2019, doi:10.48550/arXiv.1805.07226. MNLE:
    Boelts et al. 2022, doi:10.7554/eLife.77220. NRE: Durkan, Murray & Papamakarios 2020, doi:10.48550/arXiv.2002.03712.
    BNRE: Delaunoy et al. 2022, doi:10.48550/arXiv.2208.13624. sbi: Tejero-Cantero et al. 2020,
    doi:10.21105/joss.02505.

    Example:
        amortized, info = vb.SbiEstimator("NPE", network={"model": "nsf"}).fit(draws, prior, key=jax.random.key(1))
    """

    method: str = "NPE"
    _: dataclasses.KW_ONLY
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        find_method(self.method)
        check_network(self.method, self.network)
        check_training(self.training)

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
            ImportError: sbi or torch is missing.
        """
        started, key = time.perf_counter(), _check.key(key)
        require()
        z, x = training_pairs(draws, prior)
        family = find_method(self.method).family
        if family in ("density", "field"):
            check_proposal(draws, prior)
        discrete = find_discrete(x, draws.names, self.network.get("discrete")) if self.method == "MNLE" else None
        inputs = fit_inputs(x, draws.names, family, discrete)
        pairs = (np.asarray(z, np.float32), inputs(x))
        with quiet_torch(jax.random.fold_in(key, 0), progress):
            spec = complete(self.method, self.network, prior.z_dim, inputs)
            fit = fit_network(self.method, spec, self.training, pairs, inputs, progress)
        core = Core(self.method, spec, fit.net, prior, inputs, {"converged": fit.converged})
        info = FitInfo(
            method=self.method,
            backend="sbi",
            train=fit.train,
            val=fit.val,
            best_epoch=int(np.argmin(fit.val)) + 1,
            info_gain=info_gain(core, pairs[0][fit.held], x[fit.held], jax.random.fold_in(key, 1)),
            converged=fit.converged,
            num_train=len(x) - len(fit.held),
            num_val=len(fit.held),
            seconds=time.perf_counter() - started,
            versions=npz.versions("sbi", "torch"),
            num_failed=len(draws) - len(x),
        )
        core.info.update(sentence=info.sentence, info_gain=info.info_gain)
        return wrap(core), info
