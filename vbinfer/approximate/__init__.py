"""Densities q(theta) fitted to a posterior by optimisation: Laplace, variational inference, Pathfinder."""

from vbinfer.approximate.laplace import fit_laplace as fit_laplace
from vbinfer.approximate.paths import pathfinder as pathfinder
from vbinfer.approximate.svi import fit_vi as fit_vi
