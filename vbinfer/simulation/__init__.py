"""Putting parts together and running them."""

from vbinfer.simulation.forward import ForwardModel as ForwardModel
from vbinfer.simulation.simulate import simulate as simulate
from vbinfer.simulation.simulator import Simulator as Simulator
from vbinfer.simulation.solution import Solution as Solution
