"""Priors over named parameters."""

from vbinfer.priors.prior import Prior as Prior
