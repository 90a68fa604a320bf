"""Neurons with a shape.

Units as NEURON's: ms, mV, uF/cm2, S/cm2, Ohm cm, um, nA, uS.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
