from . import features as features, models as models, monitors as monitors, noise as noise
from .network import coupling as coupling
from ._io import load as load
from ._param import Leaf as Leaf, bind as bind, param as param, paths as paths
from .datasets import Recording as Recording, load_connectome as load_connectome, load_recording as load_recording
from .diagnostics.contraction import shrinkage as shrinkage, zscore as zscore
from .diagnostics.mcmc import ess as ess, mcse as mcse, rhat as rhat
from .execute.executor import Local as Local, use_cores as use_cores
from .features.summary import Summary as Summary
from .infer.draws import Draws as Draws
from .infer.fit_info import FitInfo as FitInfo
from .infer.flows import MAF as MAF, NSF as NSF
from .infer.mcmc import NUTS as NUTS, sample_mcmc as sample_mcmc
from .infer.npe import NPE as NPE, AmortizedPosterior as AmortizedPosterior
from .infer.posterior import Posterior as Posterior
from .infer.predictive import Predictive as Predictive, posterior_predictive as posterior_predictive
from .infer.prior_predictive import sample_prior_predictive as sample_prior_predictive
from .infer.torch_sbi import SbiEstimator as SbiEstimator
from .integrators import Euler as Euler, Heun as Heun
from .models.base import AbstractVectorField as AbstractVectorField
from .network.connectome import Connectome as Connectome
from .priors.prior import Prior as Prior
from .reporting.evidence import Extras as Extras, Recovery as Recovery
from .reporting.page import report as report
from .reporting.section import Section as Section
from .reporting.verdict import Verdict as Verdict
from .simulation.forward import ForwardModel as ForwardModel
from .simulation.simulate import simulate as simulate
from .simulation.simulator import Simulator as Simulator
from .simulation.solution import Solution as Solution
