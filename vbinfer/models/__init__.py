"""Population models: one paper, one file."""

from vbinfer.models.base import AbstractModel as AbstractModel, AbstractVectorField as AbstractVectorField
from vbinfer.models.coombes_byrne import CoombesByrne2D as CoombesByrne2D
from vbinfer.models.custom import custom as custom
from vbinfer.models.damped_oscillator import DampedOscillator as DampedOscillator
from vbinfer.models.dcm import BilinearDCM as BilinearDCM
from vbinfer.models.dopa import DopaAdaptiveQIF as DopaAdaptiveQIF
from vbinfer.models.epileptor import Epileptor as Epileptor
from vbinfer.models.epileptor2d import Epileptor2D as Epileptor2D
from vbinfer.models.gast import GastSchmidtKnosche as GastSchmidtKnosche
from vbinfer.models.hopf import StuartLandau as StuartLandau, SupHopf as SupHopf
from vbinfer.models.jansen_rit import JansenRit as JansenRit
from vbinfer.models.jansen_rit_populations import JansenRitPopulations as JansenRitPopulations
from vbinfer.models.kuramoto import Kuramoto as Kuramoto
from vbinfer.models.larter_breakspear import LarterBreakspear as LarterBreakspear
from vbinfer.models.linear import Linear as Linear
from vbinfer.models.mixed import Mixed as Mixed
from vbinfer.models.montbrio import MontbrioPazoRoxin as MontbrioPazoRoxin
from vbinfer.models.oscillator import Generic2dOscillator as Generic2dOscillator
from vbinfer.models.plasticity import InhibitoryPlasticity as InhibitoryPlasticity
from vbinfer.models.reduced_sets import (
    ReducedSetFitzHughNagumo as ReducedSetFitzHughNagumo,
    ReducedSetHindmarshRose as ReducedSetHindmarshRose,
)
from vbinfer.models.regional_maps import RegionalMaps as RegionalMaps
from vbinfer.models.robinson import Robinson as Robinson
from vbinfer.models.wilson_cowan import WilsonCowan as WilsonCowan
from vbinfer.models.wong_wang import ReducedWongWang as ReducedWongWang
from vbinfer.models.wong_wang_exc_inh import (
    ReducedWongWangExcInh as ReducedWongWangExcInh,
    balanced_inhibition as balanced_inhibition,
)
from vbinfer.models.zerlaut import ZerlautAdaptationFirstOrder as ZerlautAdaptationFirstOrder
