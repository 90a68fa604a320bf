from .equilibria import FixedPoints as FixedPoints
from .equilibria import fixed_points as fixed_points
from .exponents import lyapunov as lyapunov
from .linear import Linear as Linear
from .linear import linearise as linearise
from .mou import fit_mou as fit_mou
from .mvar import fit_mvar as fit_mvar
from .sweeps import sweep as sweep
