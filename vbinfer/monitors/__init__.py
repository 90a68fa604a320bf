"""What is recorded of a simulation."""

from vbinfer.monitors.base import AbstractMonitor as AbstractMonitor
from vbinfer.monitors.raw import Raw as Raw, Subsample as Subsample, TimeAverage as TimeAverage
from vbinfer.monitors.bold import BalloonWindkessel as BalloonWindkessel
from vbinfer.monitors.hrf import HRF as HRF
from vbinfer.monitors.kernels import (
    AbstractKernel as AbstractKernel,
    DampedSinesKernel as DampedSinesKernel,
    DoubleGammaKernel as DoubleGammaKernel,
    GammaKernel as GammaKernel,
    TvbVolterraKernel as TvbVolterraKernel,
    VolterraKernel as VolterraKernel,
)
from vbinfer.monitors.average import SpatialAverage as SpatialAverage
from vbinfer.monitors.of_regions import OfRegions as OfRegions
from vbinfer.monitors.projection import EEG as EEG, MEG as MEG, SEEG as SEEG
from vbinfer.monitors.sensors import (
    Sensors as Sensors,
    read_projection as read_projection,
    read_sensors as read_sensors,
    region_gain as region_gain,
    seeg_gain as seeg_gain,
)
from vbinfer.monitors.online import RunningCovariance as RunningCovariance, RunningFC as RunningFC
from vbinfer.monitors.spikes import Firing as Firing, Rates as Rates, Spikes as Spikes, SpikeTimes as SpikeTimes
