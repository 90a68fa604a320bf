"""Simulation-based inference for virtual-brain models.

A JAX simulator core gives batched prior-predictive draws to neural estimators and gradients to samplers; priors,
summaries and diagnostics are shared by both.
"""

from vbinfer import features as features, models as models, monitors as monitors, noise as noise
from vbinfer._param import bind as bind, param as param, paths as paths
from vbinfer.integrators import Euler as Euler, Heun as Heun
from vbinfer.models import AbstractVectorField as AbstractVectorField
from vbinfer.network import coupling as coupling
from vbinfer.network.connectome import Connectome as Connectome
from vbinfer.simulation import (
    ForwardModel as ForwardModel,
    Simulator as Simulator,
    Solution as Solution,
    simulate as simulate,
)
