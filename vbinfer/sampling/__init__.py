"""Markov chain Monte Carlo over z: kernels, the loop that runs their chains, and `sample_mcmc`."""

from vbinfer.sampling.sample import sample_mcmc as sample_mcmc
from vbinfer.sampling.mclmc import MCLMC as MCLMC
from vbinfer.sampling.nuts import HMC as HMC
from vbinfer.sampling.nuts import NUTS as NUTS
from vbinfer.sampling.smc import TemperedSMC as TemperedSMC
