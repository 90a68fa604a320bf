from .laplace import fit_laplace as fit_laplace
from .optimise import MapFit as MapFit
from .optimise import fit_map as fit_map
from .paths import pathfinder as pathfinder
from .population import smc_abc as smc_abc
from .rejection import rejection_abc as rejection_abc
from .svi import fit_vi as fit_vi
