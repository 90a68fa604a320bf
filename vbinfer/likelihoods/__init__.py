"""Likelihoods of recordings given parameters, and the densities of stochastic paths."""

from .transition import transition_log_prob as transition_log_prob
from .transition import innovations as innovations
