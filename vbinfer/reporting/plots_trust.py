"""Figures about whether to believe a posterior: calibration, recovery by region, chains, spectra, local tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vbinfer.diagnostics.calibration.band import ecdf, ecdf_band
from vbinfer.diagnostics.calibration.result import Calibration, LocalRow
from vbinfer.diagnostics.calibration.tarp import Tarp

from .plots import FAINT, OBSERVED, POSTERIOR, PRIOR, image, new, plain, styled
from .section import Image

EDGE_Z, EDGE_SHRINKAGE = 2.0, 0.5
REGIONS = ("good", "overfitted", "poorly identified", "bad prior model")
_HIGHEST = 6.0  # largest |z| shown


def region_of(shrinkage: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Number of the region in `REGIONS` of each pair of shrinkage and |z|."""
    narrow, far = np.asarray(shrinkage) >= EDGE_SHRINKAGE, np.abs(np.asarray(z)) > EDGE_Z
    return np.where(narrow, np.where(far, 1, 0), np.where(far, 3, 2))


@styled
def eye(names: Sequence[str], shrinkage: np.ndarray, z: np.ndarray, what: str) -> Image:
    """|z| against shrinkage `[n, D]`, with the four regions named."""
    figure = new(7.4, 4.4)
    axes = figure.subplots()
    height = np.minimum(np.abs(z), _HIGHEST)
    top = max(3.5, min(_HIGHEST, 1.1 * float(np.nanmax(height))))
    left = min(-0.05, float(np.nanmin(np.maximum(shrinkage, -1.0))) - 0.05)
    axes.axhspan(0, EDGE_Z, xmin=(EDGE_SHRINKAGE - left) / (1.04 - left), color="#e7f4ec", lw=0, zorder=0)
    axes.axhline(EDGE_Z, color=FAINT, lw=1.0, zorder=1)
    axes.axvline(EDGE_SHRINKAGE, color=FAINT, lw=1.0, zorder=1)
    colours = [POSTERIOR, OBSERVED, "#17663d", "#7a3e9d", "#8a5a00", "#0f766e"]
    for i, name in enumerate(names):
        style = {"color": colours[i % len(colours)], "label": plain(name), "mew": 0.6, "mec": "white"}
        shape = "osD^vP"[(i // len(colours) + i) % 6]
        size, alpha = (5.0, 0.7) if len(z) > 1 else (9.0, 1.0)
        axes.plot(np.maximum(shrinkage[:, i], -1.0), height[:, i], shape, ms=size, alpha=alpha, **style)
    middle = (EDGE_SHRINKAGE + 0.01 - left) / (1.04 - left)
    places = ((middle, 0.03, "left", "bottom"), (0.99, 0.97, "right", "top"), (0.01, 0.03, "left", "bottom"),
              (0.01, 0.97, "left", "top"))  # fmt: skip
    for region, (x, y, ha, va) in zip(REGIONS, places, strict=True):
        axes.text(x, y, region, transform=axes.transAxes, ha=ha, va=va, color="#52606d", fontsize=10, style="italic")
    axes.set(xlim=(left, 1.04), ylim=(0.0, top), xlabel="shrinkage", ylabel="|z| of the posterior mean")
    figure.legend(loc="outside upper left", ncols=4)
    return image(figure, f"Absolute z-score against shrinkage of {len(names)} parameters, {what}, in four regions: "
                         + ", ".join(REGIONS))  # fmt: skip


@styled
def ecdf_difference(u: np.ndarray, name: str) -> Image:
    """ECDF of the ranks u `[n]` minus the diagonal, and the simultaneous 95 % band."""
    band = ecdf_band(len(u))
    figure = new(3.9, 2.6)
    axes = figure.subplots()
    difference = ecdf(u, band.points) - band.points
    outside = (difference < band.lower - band.points - 1e-12) | (difference > band.upper - band.points + 1e-12)
    axes.fill_between(band.points, band.lower - band.points, band.upper - band.points, color=FAINT, lw=0, step="mid")
    axes.axhline(0.0, color=PRIOR, lw=0.8)
    axes.plot(band.points, difference, color=POSTERIOR, lw=1.6)
    axes.plot(band.points[outside], difference[outside], ".", color=OBSERVED, ms=4)
    axes.set(xlim=(0, 1), xlabel=f"rank of the true {plain(name)}", ylabel="ECDF difference")
    words = "leaves the 95 % band" if outside.any() else "stays inside the 95 % band"
    return image(figure, f"Ranks of {name}: the ECDF minus the diagonal {words}; largest difference "
                         f"{np.abs(difference).max():.2f}")  # fmt: skip


@styled
def coverage(study: Calibration) -> Image:
    """Share of truths inside regions of each credibility: joint, and central intervals of each parameter."""
    band = ecdf_band(len(study))
    figure = new(3.9, 3.9)
    axes = figure.subplots()
    axes.fill_between(band.points, band.lower, band.upper, color=FAINT, lw=0)
    axes.plot([0, 1], [0, 1], color=PRIOR, lw=0.8)
    for i in range(study.u.shape[1]):
        central = ecdf(np.abs(2.0 * study.u[:, i] - 1.0), band.points)
        axes.plot(
            band.points, central, color="#5b7fa6", lw=0.9, alpha=0.7, label="central, one parameter"[: 99 * (i == 0)]
        )
    axes.plot(band.points, ecdf(study.coverage.credibility, band.points), color=POSTERIOR, lw=2.0, label="joint HPD")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="credibility", ylabel="share of truths inside", aspect="equal")
    axes.legend(loc="lower right")
    rows = [row for row in study.coverage.rows if row.region == "HPD"]
    said = ", ".join(f"{100 * row.covered:.0f} % of truths in {100 * row.level:.0f} % regions" for row in rows)
    return image(figure, f"Expected coverage: {said}")


@styled
def tarp(found: Tarp) -> Image:
    """Expected coverage by balls around random points, with its bootstrap band."""
    figure = new(3.9, 3.9)
    axes = figure.subplots()
    axes.fill_between(found.alpha, found.band[0], found.band[1], color="#bcd3ea", lw=0, label="95 % bootstrap")
    axes.plot([0, 1], [0, 1], color=PRIOR, lw=0.8)
    axes.plot(found.alpha, found.ecp, color=POSTERIOR, lw=2.0, label="TARP")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="credibility", ylabel="expected coverage", aspect="equal")
    axes.legend(loc="lower right")
    return image(figure, f"TARP: expected coverage against credibility; area above the diagonal {found.atc:.3f}")


@styled
def local_bias(rows: Sequence[LocalRow], name: str) -> Image:
    """Mean score of the truth in fifths of the posterior mean, with two standard errors, and in fifths of the truth."""
    figure = new(3.9, 2.9)
    axes = figure.subplots()
    axes.axhline(0.0, color=PRIOR, lw=0.8)
    for by, colour, shape in (("truth", "#c5ccd6", "s"), ("posterior mean", POSTERIOR, "o")):
        own = [row for row in rows if row.name == name and row.by == by]
        centre = [0.5 * (row.low + row.high) for row in own]
        style: dict[str, Any] = {
            "color": colour,
            "ms": 6,
            "lw": 1.0,
            "mew": 0.8,
            "mec": "white" if shape == "o" else PRIOR,
        }
        if by == "truth":
            axes.plot(centre, [row.score_mean for row in own], shape, ls=":", label="by truth (not a test)", **style)
        else:
            error = [2.0 / np.sqrt(row.n) for row in own]
            axes.errorbar(centre, [row.score_mean for row in own], error, fmt=shape, label="by posterior mean", **style)
    axes.set(xlabel=plain(name), ylabel="truth \N{MINUS SIGN} posterior, in sd")
    figure.legend(loc="outside upper left", ncols=2)
    own = [row for row in rows if row.name == name and row.by == "posterior mean"]
    said = ", ".join(f"{row.score_mean:.2f}" for row in own)
    return image(figure, f"Mean score of the true {name} in fifths of its posterior mean: {said}")


@styled
def rank_chains(draws: np.ndarray, name: str) -> Image:
    """Rank histograms of each chain `[chain, draw]`: flat and alike where chains have mixed."""
    chains, n = draws.shape
    order = np.empty(draws.size)
    order[np.argsort(draws.ravel(), kind="stable")] = np.arange(draws.size)
    figure = new(3.9, 0.7 + 0.42 * chains)
    axes = figure.subplots()
    bins = max(4, min(20, n // 25))
    for chain, ranks in enumerate(order.reshape(chains, n)):
        counts = np.histogram(ranks, bins=bins, range=(0, draws.size))[0] * bins / n
        edges = np.linspace(0.0, 1.0, bins + 1)
        axes.stairs(chain + 0.4 * counts, edges, baseline=chain, fill=True, color=POSTERIOR, alpha=0.7)
        axes.axhline(chain + 0.4, color=PRIOR, lw=0.7, ls=(0, (4, 2)))
    axes.set(xlim=(0, 1), ylim=(0, chains + 0.1), xlabel=f"rank of {plain(name)}", ylabel="chain")
    axes.set_yticks(np.arange(chains) + 0.2, [str(chain) for chain in range(chains)])
    return image(figure, f"Rank histograms of {name} in each of {chains} chains; flat where they agree")


@styled
def spectra(observed: np.ndarray, replicates: np.ndarray, period: float) -> Image:
    """Mean power spectrum over channels, each scaled to a variance of one: recording and 90 % of the replicates."""
    length = min(len(observed), replicates.shape[1])
    frequency = np.fft.rfftfreq(length, period / 1e3)[1:]
    mine, theirs = power(observed[None, :length]), power(replicates[:, :length])
    figure = new(7.4, 3.1)
    axes = figure.subplots()
    low, middle, high = np.quantile(theirs, [0.05, 0.5, 0.95], axis=0)
    axes.fill_between(
        frequency, low, high, color="#bcd3ea", lw=0, label=f"posterior predictive, 90 % (n = {len(theirs)})"
    )
    axes.plot(frequency, middle, color=POSTERIOR, lw=1.2)
    axes.plot(frequency, mine[0], color=OBSERVED, lw=1.2, label="recording")
    axes.set(xscale="log", yscale="log", xlabel="frequency (Hz)", ylabel="power (share of variance)")
    figure.legend(loc="outside upper left", ncols=2)
    inside = float(np.mean((mine[0] >= low) & (mine[0] <= high)))
    return image(figure, f"Power spectrum of the recording among posterior predictive ones: inside their 90 % range at "
                         f"{100 * inside:.0f} % of the frequencies")  # fmt: skip


def power(ys: np.ndarray) -> np.ndarray:
    """Mean over channels of the periodogram of `[n, T, N]`, as shares of the variance `[n, T // 2]`."""
    centred = np.asarray(ys, np.float64) - np.mean(ys, axis=1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(centred, axis=1)[:, 1:]) ** 2
    total = np.maximum(spectrum.sum(axis=1, keepdims=True), 1e-300)
    return (spectrum / total).mean(axis=2)


@styled
def null_histogram(null: np.ndarray, statistic: float, p: float) -> Image:
    """A statistic among its values under the null."""
    figure = new(3.9, 2.6)
    axes = figure.subplots()
    axes.hist(null, 20, color=PRIOR, alpha=0.6, linewidth=0, label="if all is right")
    axes.axvline(statistic, color=OBSERVED, lw=1.8, label="this posterior")
    axes.set(xlabel="statistic of the classifier", yticks=[])
    figure.legend(loc="outside upper left", ncols=2)
    return image(figure, f"Statistic of the local test among {len(null)} relabellings: p = {p:.2g}")


@styled
def bars(names: Sequence[str], values: Sequence[float], xlabel: str, mark: float | None, alt: str) -> Image:
    """Horizontal bars with a line at a threshold."""
    figure = new(3.9, 0.9 + 0.26 * len(names))
    axes = figure.subplots()
    axes.barh(range(len(names)), list(values), color=POSTERIOR, alpha=0.8)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    if mark is not None:
        axes.axvline(mark, color=OBSERVED, lw=1.2, ls=(0, (4, 2)))
    axes.set_xlabel(xlabel)
    return image(figure, alt)
