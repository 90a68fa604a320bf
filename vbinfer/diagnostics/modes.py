"""Does a posterior have several modes?

Then its mean and sd describe nothing, and one chain may have seen one of them.
"""

from typing import NamedTuple

import numpy as np

from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

from .chain_measures import effective_draws
from .recovery import as_rows, in_z
from .thresholds import MODE_DEPTH, MODE_P, MODE_SHARE

_MOST, _FEWEST = 1_000, 100
_CELLS, _KEPT = 256, (0.5, 99.5)
_FIRST, _PER_LINE = 40, 150
"""Samples that tell most lines with one mode, and for each direction looked at, so that p can be small enough."""


class Modes(NamedTuple):
    """Two modes, or two groups of them, of a posterior."""

    where: str
    """The parameter that tells them apart, or `a combination of the parameters`."""
    p: float
    """That so deep a valley comes from a distribution with one mode, times the number of directions looked at."""
    shares: tuple[float, float]
    """Of the draws in each, the larger first."""
    centres: np.ndarray
    """Median of each parameter in each, `[2, D]`."""


def find_modes(posterior: Posterior, prior: Prior | None = None) -> Modes | None:
    """Find two modes of a posterior, or None.

    Along each parameter, and along the line between the two clusters of all draws, found on one half of them and judged
    on the other.

    Along a line, h is the smallest bandwidth with which a Gaussian kernel density of the draws has one mode. It is
    large if there are two; p is the share of samples from that density, of the same variance, which still have more
    than one mode at h (Silverman 1981, doi:10.1111/j.2517-6161.1981.tb01155.x). Draws are taken in z where a prior is
    given, so that its edges are no modes, thinned to their effective number, and the outer 0.5 % at each end are left
    out. Two modes are reported for p < 0.01 over all directions, each of 5 % of the draws at least, with a valley below
    0.7 of the lower peak (of the density with bandwidth h / 2).

    Blind to modes with less than that, to modes that lie around each other, and to every mode that no draw has reached.

    >>> rng = np.random.default_rng(0)
    >>> a = np.where(rng.random(800) < 0.3, -1.0, 1.0) + 0.3 * rng.normal(size=800)
    >>> found = find_modes(Posterior({"a": a[None], "b": rng.normal(size=(1, 800))}))
    >>> found.where, [round(share, 1) for share in found.shares]
    ('a', [0.7, 0.3])
    """
    source = posterior if prior is None else prior
    theta = np.concatenate(as_rows(posterior.theta, source.shapes)).astype(float)
    rng = np.random.default_rng(0)  # the same draws have the same modes
    n = min(_MOST, len(theta), int(effective_draws(posterior, len(theta)))) if posterior.num_samples > 3 else 0
    theta = theta[rng.permutation(len(theta))[:n]]
    if n < _FEWEST or not np.isfinite(theta).all():
        return None
    rows = theta if prior is None else in_z(prior, theta)
    sd = rows.std(axis=0)
    moving = np.flatnonzero(sd > 1e-9)
    rows = (rows[:, moving] - rows[:, moving].mean(axis=0)) / sd[moving]
    half, lines = n // 2, []
    if prior is None or prior.z_dim == prior.dim:
        lines = [(source.names[i], line, line) for i, line in zip(moving, rows.T, strict=True)]
    # a direction that was chosen to separate draws separates them: it is judged on others
    direction = _between_clusters(rows[:half], rng) if rows.shape[1] > 1 else None
    if direction is not None:
        line = rows @ direction
        lines.append(("a combination of the parameters", line, line[half:]))
    found = []
    for where, line, judged in lines:
        p, cut, depth = _two_modes(judged, _PER_LINE * len(lines), rng)
        left, p = line < cut, p * len(lines)
        share = min(left.mean(), 1.0 - left.mean())
        if p < MODE_P + 1e-9 and share >= MODE_SHARE and depth < MODE_DEPTH:
            found.append((p, where, left))
    if not found:
        return None
    # the combination is the last of equals
    p, where, left = min(found, key=lambda one: one[0])
    groups = sorted((theta[left], theta[~left]), key=len, reverse=True)
    shares = len(groups[0]) / n, len(groups[1]) / n
    return Modes(where, float(p), shares, np.stack([np.median(group, axis=0) for group in groups]))


def _two_modes(line: np.ndarray, size: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """p of one mode; place and depth of the valley.

    From `size` samples, unless the first few have several modes too.
    """
    low, high = np.percentile(line, _KEPT)
    kept = line[(line >= low) & (line <= high)]
    if len(np.unique(kept)) < _FEWEST // 2:
        return 1.0, float(low), 1.0
    # densities live on a grid of cells, so that one matrix product gives all samples their density
    margin = 0.25 * (high - low)
    edges = np.linspace(low - margin, high + margin, _CELLS + 1)
    counts = np.histogram(kept, edges)[0].astype(float)
    step = edges[1] - edges[0]
    # bisection on a logarithmic scale: the number of modes falls as the bandwidth, in cells, grows
    narrow, wide = 1.0, float(_CELLS)
    for _ in range(20):
        middle = np.sqrt(narrow * wide)
        narrow, wide = (middle, wide) if _count(counts[:, None], middle)[0] > 1 else (narrow, middle)
    several, seen = 0, 0
    while seen < size and several <= max(2, MODE_P * seen):  # more of them than that, and it has one mode
        count = min(_FIRST, size - seen)
        # samples of the kernel density, shrunk so that their variance is that of the draws
        h, mean, shape = wide * step, kept.mean(), (count, len(kept))
        moved = rng.choice(kept, shape) - mean + h * rng.normal(size=shape)
        samples = mean + moved / np.sqrt(1.0 + (h / kept.std()) ** 2)
        binned = np.stack([np.histogram(one, edges)[0] for one in samples], axis=1).astype(float)
        several, seen = several + int(np.sum(_count(binned, wide) > 1)), seen + count
    # (1 + count) / (1 + samples) is exact at any number of samples
    p = (1 + several) / (seen + 1)
    cell, depth = _valley(counts, 0.5 * wide)
    return float(p), float(edges[0] + step * (cell + 0.5)), depth


def _densities(counts: np.ndarray, h: float) -> np.ndarray:
    """Kernel densities `[cell, sample]` of counts, h in cells."""
    cells = np.arange(len(counts))
    return np.exp(-0.5 * ((cells[:, None] - cells) / h) ** 2) @ counts


def _count(counts: np.ndarray, h: float) -> np.ndarray:
    """Number of modes of each kernel density `[sample]`."""
    # a mode is where the density stops rising; the ends count if it falls from or rises to them
    rising = np.diff(_densities(counts, h), axis=0) > 0.0
    return np.sum(rising[:-1] & ~rising[1:], axis=0) + ~rising[0] + rising[-1]


def _valley(counts: np.ndarray, h: float) -> tuple[int, float]:
    """Cell and depth of the deepest valley.

    Depth is its density over the lower peak's.

    A valley leaves enough draws on either side.
    """
    density = _densities(counts[:, None], h)[:, 0]
    # highest density to the left and to the right of each cell: the lower of both is the lower peak
    left, right = np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1]
    share = np.cumsum(counts) / counts.sum()
    depth = density / np.minimum(left, right)
    depth = np.where((share >= MODE_SHARE) & (share <= 1.0 - MODE_SHARE), depth, 1.0)
    return int(np.argmin(depth)), float(depth.min())


def _between_clusters(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Unit vector between the centres of two clusters.

    Of whitened rows, in the coordinates of the rows.
    """
    from scipy.cluster.vq import kmeans2

    values, vectors = np.linalg.eigh(np.cov(rows.T))
    whiten = vectors / np.sqrt(np.maximum(values, 1e-6))
    # k-means finds local optima: the best of four starts
    best, least = None, np.inf
    for _ in range(4):
        centres, labels = kmeans2(rows @ whiten, 2, minit="++", rng=rng)
        left = float(np.sum((rows @ whiten - centres[labels]) ** 2))
        if left < least and len(np.unique(labels)) == 2:
            best, least = whiten @ (centres[1] - centres[0]), left
    return None if best is None else best / np.linalg.norm(best)
