"""The network: who is connected to whom, and how they drive each other."""

from vbinfer.network import coupling as coupling
from vbinfer.network.connectome import Connectome as Connectome
