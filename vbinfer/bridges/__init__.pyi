from .jaxley import from_jaxley as from_jaxley
from .tvb import from_tvb as from_tvb
