"""Networks: connectomes, coupling functions, delays."""

from vbinfer.network import coupling as coupling
from vbinfer.network.connectome import Connectome as Connectome
