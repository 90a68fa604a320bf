"""Population models: one paper, one file."""

from vbinfer.models.base import AbstractModel as AbstractModel, AbstractVectorField as AbstractVectorField
from vbinfer.models.linear import Linear as Linear
from vbinfer.models.montbrio import MontbrioPazoRoxin as MontbrioPazoRoxin
from vbinfer.models.wong_wang import ReducedWongWang as ReducedWongWang
