"""Densities by name, as saved estimators and study files name them."""

from collections.abc import Mapping
from typing import Any

from vbinfer.neural.densities.base import AbstractDensity
from vbinfer.neural.densities.flows import MAF, NSF
from vbinfer.neural.densities.mixture import MDN
from vbinfer.neural.densities.regional import Regional

DENSITIES: dict[str, type[AbstractDensity]] = {"MAF": MAF, "NSF": NSF, "MDN": MDN, "Regional": Regional}


def density_from_spec(spec: Mapping[str, Any]) -> AbstractDensity:
    """The density that `to_spec` described."""
    options = {name: value for name, value in spec.items() if name != "name"}
    return DENSITIES[spec["name"]](**options)
