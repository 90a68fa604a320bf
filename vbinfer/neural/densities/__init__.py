"""Conditional densities: flows and mixtures."""

from collections.abc import Mapping
from typing import Any

from vbinfer.neural.densities.base import AbstractDensity
from vbinfer.neural.densities.flow_matching import FlowMatching as FlowMatching
from vbinfer.neural.densities.flows import MAF as MAF
from vbinfer.neural.densities.flows import NSF as NSF
from vbinfer.neural.densities.mixture import MDN as MDN
from vbinfer.neural.densities.regional import Regional as Regional

DENSITIES: dict[str, type[AbstractDensity]] = {
    "MAF": MAF,
    "NSF": NSF,
    "MDN": MDN,
    "FlowMatching": FlowMatching,
    "Regional": Regional,
}


def density_from_spec(spec: Mapping[str, Any]) -> AbstractDensity:
    """Invert `AbstractDensity.to_spec`."""
    options = {name: value for name, value in spec.items() if name != "name"}
    return DENSITIES[spec["name"]](**options)
