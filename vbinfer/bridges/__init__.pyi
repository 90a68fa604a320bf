from .tvb import from_tvb as from_tvb
