"""Simulation-based inference for virtual-brain models.

A JAX simulator core gives batched prior-predictive draws to neural estimators and gradients to samplers; priors,
summaries and diagnostics are shared by both.
"""

from vbinfer import features as features, models as models, monitors as monitors, noise as noise
from vbinfer._io import load as load
from vbinfer._param import bind as bind, param as param, paths as paths
from vbinfer.datasets import (
    Recording as Recording,
    load_connectome as load_connectome,
    load_recording as load_recording,
)
from vbinfer.diagnostics.contraction import shrinkage as shrinkage, zscore as zscore
from vbinfer.diagnostics.mcmc import ess as ess, mcse as mcse, rhat as rhat
from vbinfer.execute.executor import Local as Local, use_cores as use_cores
from vbinfer.features import Summary as Summary
from vbinfer.infer.draws import Draws as Draws
from vbinfer.infer.flows import MAF as MAF, NSF as NSF
from vbinfer.infer.mcmc import NUTS as NUTS, sample_mcmc as sample_mcmc
from vbinfer.infer.npe import NPE as NPE, AmortizedPosterior as AmortizedPosterior
from vbinfer.infer.posterior import Posterior as Posterior
from vbinfer.infer.predictive import Predictive as Predictive, posterior_predictive as posterior_predictive
from vbinfer.infer.prior_predictive import sample_prior_predictive as sample_prior_predictive
from vbinfer.integrators import Euler as Euler, Heun as Heun
from vbinfer.models import AbstractVectorField as AbstractVectorField
from vbinfer.network import coupling as coupling
from vbinfer.network.connectome import Connectome as Connectome
from vbinfer.priors import Prior as Prior
from vbinfer.reporting import report as report
from vbinfer.simulation import (
    ForwardModel as ForwardModel,
    Simulator as Simulator,
    Solution as Solution,
    simulate as simulate,
)
