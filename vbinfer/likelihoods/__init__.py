"""Likelihoods of recordings, and densities of stochastic paths."""

from .base import AbstractLikelihood as AbstractLikelihood
from .gaussian import Gaussian as Gaussian
from .gaussian import StudentT as StudentT
from .gaussian import Autoregressive as Autoregressive
from .whittle import Whittle as Whittle
from .whittle import SimulatedSpectrum as SimulatedSpectrum
from .whittle import periodogram as periodogram
from .cross_spectral import CrossSpectral as CrossSpectral
from .events import Poisson as Poisson
from .events import PointProcess as PointProcess
from .escape import EscapeNoise as EscapeNoise
from .synthetic import MultivariateNormal as MultivariateNormal
from .synthetic import SyntheticLikelihood as SyntheticLikelihood
from .transition import transition_log_prob as transition_log_prob
from .transition import innovations as innovations
from .paths import NoisePath as NoisePath
from .paths import StatePath as StatePath
