"""Simulation-based inference for virtual-brain models.

A JAX simulator core gives batched prior-predictive draws to neural estimators and gradients to samplers; priors,
summaries and diagnostics are shared by both.

The public names are listed in `__init__.pyi`, which type checkers read; each loads on first use (SPEC 1), so that
importing the package, or asking the command line for help, loads nothing that is not used.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
