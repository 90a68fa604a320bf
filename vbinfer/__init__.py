"""Simulation-based inference for virtual-brain models.

A JAX simulator core gives batched prior-predictive draws to neural estimators and gradients to samplers; priors,
summaries and diagnostics are shared by both.

The public names are listed in `__init__.pyi`, which type checkers read; each loads on first use (SPEC 1), so that
importing the package, or asking the command line for help, loads nothing that is not used.
"""

import importlib as _importlib

import lazy_loader as _lazy_loader

from vbinfer._moved import MOVED as _MOVED

_public, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """A public name, or one that has moved since 0.1.0."""
    if name not in _MOVED:
        return _public(name)
    module, _, attribute = _MOVED[name].partition(":")
    found = _importlib.import_module(module)
    return getattr(found, attribute) if attribute else found
