"""What neural estimators are made of: densities, embeddings, training."""

from vbinfer.neural import embeddings as embeddings
from vbinfer.neural.densities import MAF as MAF
from vbinfer.neural.densities import MDN as MDN
from vbinfer.neural.densities import NSF as NSF
from vbinfer.neural.densities import FlowMatching as FlowMatching
from vbinfer.neural.densities import Regional as Regional
from vbinfer.neural.training import Training as Training
