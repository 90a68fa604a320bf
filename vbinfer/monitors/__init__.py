"""What is recorded of a simulation."""

from vbinfer.monitors.base import AbstractMonitor as AbstractMonitor
from vbinfer.monitors.bold import BalloonWindkessel as BalloonWindkessel
from vbinfer.monitors.raw import Raw as Raw, Subsample as Subsample, TimeAverage as TimeAverage
