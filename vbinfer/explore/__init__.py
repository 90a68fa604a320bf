"""Exploration of a model before inference.

Sweeps over parameters, exponents, and fits of linear models to recordings.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
