"""Markov chain Monte Carlo over z: kernels, the loop that runs their chains, and `sample_mcmc`."""

from vbinfer.infer.mcmc.front import sample_mcmc as sample_mcmc
from vbinfer.infer.mcmc.mclmc import MCLMC as MCLMC
from vbinfer.infer.mcmc.nuts import HMC as HMC
from vbinfer.infer.mcmc.nuts import NUTS as NUTS
from vbinfer.infer.mcmc.smc import TemperedSMC as TemperedSMC
