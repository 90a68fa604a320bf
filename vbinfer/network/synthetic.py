"""Invented networks, for tests and examples."""

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer.network.procedural import RandomGraph


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


def random_edges(
    n: int, in_degree: int | None, p: float | None, weight: Any, delay: float, key: Array, sources: Any
) -> dict[str, Any]:
    """Arguments of `Connectome` for `Connectome.random`."""
    n = _check.count(n, "n", least=2)
    if (in_degree is None) == (p is None):
        raise ValueError(
            "random takes in_degree or p, one of the two; write Connectome.random(1000, in_degree=100, ...)"
        )
    senders = _senders(n, sources)
    delay = _check.number(delay, "delay", 1.5, "ms, 0 or more", least=0.0)
    most = len(senders) - (n == len(senders) or bool(np.isin(np.arange(n), senders).any()))
    if in_degree is not None:
        in_degree = _check.count(in_degree, "in_degree", 100, least=0, most=most)
    elif not (p == 1 or p == 0):
        p = _check.fraction(p, "p", 0.1)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(_check.key(key))).astype(np.uint32).tolist())
    columns = [_drawn(rng, senders, i, in_degree, p) for i in range(n)]
    targets = np.repeat(np.arange(n, dtype=np.int32), [len(c) for c in columns])
    chosen = np.concatenate(columns).astype(np.int32)
    order = np.argsort(chosen, kind="stable")  # by sender, as spikes are delivered
    edges = np.stack([targets[order], chosen[order]])
    weights = np.asarray(weight, float)
    if weights.shape not in ((), (n,)):
        raise ValueError(f"weight has shape {list(weights.shape)}; expected a number or [{n}], one per sending node")
    weights = np.broadcast_to(weights, (n,))[edges[1]]
    # delay mm at 1 mm/ms: the speed of such a network scales its delays
    return dict(weights=weights, tract_lengths=np.full(len(weights), delay), speed=1.0, edges=edges, size=n)


def _drawn(rng: np.random.Generator, senders: np.ndarray, i: int, in_degree: int | None, p: float | None) -> np.ndarray:
    """Senders to node i, without repeats and without i."""
    others = len(senders) - bool(np.isin(i, senders))
    k = int(rng.binomial(others, p or 0.0)) if in_degree is None else in_degree
    chosen = rng.choice(others, k, replace=False, shuffle=False)
    # numbers among the others to numbers among all: those from i on move up by one
    return senders[chosen + (chosen >= np.searchsorted(senders, i)) * (others < len(senders))]


def _senders(n: int, sources: Any) -> np.ndarray:
    """Numbers of the nodes that send, ascending."""
    senders = np.arange(n) if sources is None else np.unique(np.asarray(sources))
    if not len(senders) or senders.dtype.kind not in "iu" or senders[0] < 0 or senders[-1] >= n:
        raise ValueError(f"sources must be node numbers from 0 to {n - 1}, such as sources=range(0, {n})")
    return senders


def drawn_graph(
    n: int, in_degree: int | None, p: float | None, weight: Any, delay: float, sources: Any
) -> dict[str, Any]:
    """Arguments of `Connectome` for `Connectome.random` without a key."""
    n = _check.count(n, "n", least=2)
    if in_degree is not None or p is None:
        raise ValueError(
            "without a key every simulation draws its own graph, by p; write Connectome.random(1000, p=0.1, key=None), "
            "or give a key"
        )
    senders = _senders(n, sources)
    if len(senders) != senders[-1] - senders[0] + 1:
        raise ValueError("sources of a graph that is drawn must follow each other, such as sources=range(0, 800)")
    graph = RandomGraph(n, 1.0 if p == 1 else _check.fraction(p, "p", 0.1), (int(senders[0]), int(senders[-1]) + 1))
    weight = _check.number(weight, "weight", 1.0)
    delay = _check.number(delay, "delay", 1.5, "ms, 0 or more", least=0.0)
    return dict(weights=[weight], tract_lengths=[delay], speed=1.0, size=n, graph=graph)
