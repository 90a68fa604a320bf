"""Invented networks, for tests and examples."""

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from vbinfer import _check


def two_hemispheres(
    n: int, key: Array, asymmetric: bool, decay_length: float, spread: float, homotopic: float, tortuosity: float
) -> dict[str, Any]:
    """Arguments of `Connectome` for `Connectome.synthetic`."""
    if not _check.is_count(n) or n < 2 or n % 2:
        near = max(2, n + n % 2) if _check.is_count(n) else 68
        raise ValueError(f"synthetic(n={n!r}): n must be even, half the nodes in each hemisphere; use n={near}")
    if not _check.number(decay_length, "decay_length", 30.0, "a number of mm") > 0.0:
        raise ValueError(f"decay_length={decay_length!r} was given; expected decay_length > 0, in mm, such as 30.0")
    spread = _check.number(spread, "spread", 1.0, "a number of at least 0", least=0.0)
    homotopic = _check.number(homotopic, "homotopic", 0.5, "a number of at least 0", least=0.0)
    tortuosity = _check.number(tortuosity, "tortuosity", 1.2, "a number, tortuosity >= 1", least=1.0)
    half = n // 2
    centres = _ellipsoid(half)
    distance = np.linalg.norm(centres[:, None] - centres[None, :], axis=-1)
    rule = np.exp(-distance / decay_length)
    left = np.arange(half)
    rule[left, left + half] = rule[left + half, left] = homotopic
    xi = np.asarray(jax.random.normal(key, (n, n)), dtype=np.float64)
    if not asymmetric:
        xi = np.triu(xi, 1) + np.triu(xi, 1).T
    weights = rule * np.exp(spread * xi - spread**2 / 2)
    np.fill_diagonal(weights, 0.0)
    digits = max(len(str(half)), 2)
    labels = tuple(f"{side}_{i + 1:0{digits}d}" for side in "LR" for i in range(half))
    return dict(weights=weights / weights.max(), tract_lengths=tortuosity * distance, labels=labels, centres=centres)


def _ellipsoid(half: int) -> np.ndarray:
    """Points on an ellipsoid, left, then their mirror images.

    Of equal share; `[2 * half, 3]` in mm, left first.
    """
    height = 0.15 + 0.85 * (np.arange(half) + 0.5) / half  # clear of the midline, where mirror images would touch
    angle = np.arange(half) * math.pi * (3.0 - math.sqrt(5.0))  # golden angle
    ring = np.sqrt(1.0 - height**2)
    right = np.stack([65.0 * height, 85.0 * ring * np.cos(angle), 60.0 * ring * np.sin(angle)], axis=1)
    return np.concatenate([right * [-1.0, 1.0, 1.0], right])
