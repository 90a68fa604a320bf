"""Simulators of other packages as simulators of vbinfer.

None of them is a dependency: what is asked for is imported when it is asked for.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
