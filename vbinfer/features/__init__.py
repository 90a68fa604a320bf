"""Features: named numbers that describe a recording, and the `Summary` that puts them in a row."""

from .base import Feature as Feature
from .base import Preprocess as Preprocess
from .summary import Summary as Summary
from .connectivity import fc_stat as fc_stat
from .dynamics import fcd_stat as fcd_stat
from .connectivity import fc as fc
from .connectivity import fc_match as fc_match
from .temporal import moments as moments
from .temporal import amplitude as amplitude
from .temporal import autocorrelation as autocorrelation
from .temporal import bandpass as bandpass
from .temporal import skewness as skewness
from .connectivity import fc_matrix as fc_matrix
from .dynamics import fcd_matrix as fcd_matrix
from .connectivity import homotopic as homotopic
