from .exponents import lyapunov as lyapunov
from .mou import fit_mou as fit_mou
from .mvar import fit_mvar as fit_mvar
from .sweeps import sweep as sweep
