"""Approximate posteriors: optimisation, variational, importance, ABC."""

from vbinfer.approximate.optimise import fit_map as fit_map
from vbinfer.approximate.laplace import fit_laplace as fit_laplace
from vbinfer.approximate.svi import fit_vi as fit_vi
from vbinfer.approximate.paths import pathfinder as pathfinder
from vbinfer.approximate.rejection import rejection_abc as rejection_abc
from vbinfer.approximate.population import smc_abc as smc_abc
