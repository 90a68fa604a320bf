"""Densities q(theta) fitted to a posterior by optimisation: Laplace, variational inference, Pathfinder."""

from vbinfer.infer.variational.laplace import fit_laplace as fit_laplace
from vbinfer.infer.variational.paths import pathfinder as pathfinder
from vbinfer.infer.variational.svi import fit_vi as fit_vi
