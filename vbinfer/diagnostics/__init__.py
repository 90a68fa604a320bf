"""Diagnostics: can posteriors, fits and models be believed?

The public names are listed in `__init__.pyi`; each loads on first use. Every diagnostic returns a result that explains
itself: `question`, `rule`, `verdict`, `findings`, `numbers`, `figure()`.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
