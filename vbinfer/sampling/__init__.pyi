from .mclmc import MCLMC as MCLMC
from .nuts import HMC as HMC
from .nuts import NUTS as NUTS
from .sample import sample_mcmc as sample_mcmc
from .sampler import ChainSampler as ChainSampler
from .smc import TemperedSMC as TemperedSMC
