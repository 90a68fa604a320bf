"""Figures of the report: matplotlib objects without global state, turned into pictures that a page can carry."""

import base64
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import numpy as np
from scipy import stats

from vbinfer._names import PRNGKey
from vbinfer.draws.draws import FailureRow

from .evidence import Evidence, FeatureRow
from .section import Image
from .words import two

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

PRIOR, POSTERIOR, OBSERVED = "#8b95a3", "#0b5cad", "#c2410c"
INK, FAINT = "#1f2933", "#d5dae1"
LONGEST = 32  # characters of a name in a figure
FARTHEST = 3.2  # prior predictive half-widths shown
STYLE: dict[str, object] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": "#7b8794",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "vbinfer",
    "figure.facecolor": "white",
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw under the report's style and leave matplotlib's settings as they were."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(STYLE):  # pyright: ignore[reportArgumentType]  # keys are matplotlib's literals
            return draw(*args, **kwargs)

    return inside


def new(width: float, height: float) -> "Figure":
    """An empty figure, in inches, that belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


@styled
def image(figure: "Figure", alt: str, form: Literal["svg", "png"] = "svg") -> Image:
    """The figure as a data address: SVG for lines, PNG (160 dots per inch) for matrices and clouds of points."""
    buffer = io.BytesIO()
    figure.draw_without_rendering()  # arranges the parts
    figure.set_layout_engine("none")  # or saving would arrange them twice more, which is most of the time
    metadata = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    figure.savefig(buffer, format=form, dpi=160, metadata=metadata)
    mime = "image/svg+xml" if form == "svg" else "image/png"
    return Image(f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}", alt)


def plain(text: str) -> str:
    """Text that matplotlib takes literally, cut where it would push the figure aside; tables have it whole."""
    text = "".join(sign if sign.isprintable() else "?" for sign in text)  # SVG cannot hold the others
    short = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    return short.replace("$", r"\$")


def label(name: str, unit: str) -> str:
    """A parameter with its unit."""
    return plain(f"{name} ({unit})" if unit else name)


@styled
def marginal(e: Evidence, i: int) -> Image:
    """Prior and posterior density of one parameter, its mean, and the truth where it is known."""
    figure = new(3.9, 2.5)
    axes = figure.subplots()
    values, name = e.samples[:, i], e.names[i]
    low, high = _view(e, i)
    bins = np.linspace(values.min(), values.max(), min(40, max(12, int(len(values) ** 0.4))))
    if e.constant[i]:
        axes.axvline(values[0], color=POSTERIOR, lw=1.8, label="posterior, constant")
    else:
        axes.hist(values, bins.tolist(), density=True, color=POSTERIOR, alpha=0.22, linewidth=0)
        grid = np.linspace(low, high, 400)
        axes.plot(grid, stats.gaussian_kde(values)(grid), color=POSTERIOR, lw=1.8, label="posterior")
    curve = _prior_density(e, i, np.linspace(low, high, 400))
    if curve is not None:
        axes.plot(*curve, color=PRIOR, lw=1.6, ls=(0, (4, 2)), label="prior")
    if e.truth is not None:
        axes.axvline(e.truth[i], color=OBSERVED, lw=1.6, label="true value")
    axes.set(xlabel=label(name, e.unit(name)), xlim=(low, high), yticks=[])
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("density")
    figure.legend(loc="outside upper left", ncols=3)
    return image(figure, f"Prior and posterior density of {name}: posterior mean {values.mean():.3g}, "
                         f"standard deviation {values.std():.2g}")  # fmt: skip


def _view(e: Evidence, i: int) -> tuple[float, float]:
    """The range of an axis: prior and posterior, and the truth."""
    shown = [np.quantile(e.samples[:, i], [0.001, 0.999])]
    if e.prior_samples is not None:
        shown.append(np.quantile(e.prior_samples[:, i], [0.002, 0.998]))
    if e.truth is not None:
        shown.append(e.truth[[i]])
    every = np.concatenate(shown)
    margin = 0.03 * (np.ptp(every) or 1.0)
    return float(every.min() - margin), float(every.max() + margin)


def _prior_density(e: Evidence, i: int, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The exact density of a scalar parameter's prior, else an estimate from prior draws."""
    name = e.names[i]
    if e.prior is not None and e.prior.shapes.get(name) == ():
        import jax.numpy as jnp

        dist: Any = e.prior.dists[name]  # numpyro types `support` as optional
        inside = np.asarray(dist.support(jnp.asarray(grid)))
        safe = np.where(inside, grid, np.asarray(dist.sample(_fixed_key())))
        return grid, np.where(inside, np.exp(np.asarray(dist.log_prob(jnp.asarray(safe)))), 0.0)
    if e.prior_samples is None:
        return None
    if np.ptp(e.prior_samples[:, i]) == 0.0:
        return None
    return grid, stats.gaussian_kde(e.prior_samples[:, i])(grid)


def _fixed_key() -> PRNGKey:
    import jax

    return jax.random.key(0)


@styled
def pairs(e: Evidence, order: Sequence[int]) -> Image:
    """Posterior draws over prior draws for each pair of parameters, with their correlation."""
    d = len(order)
    side = min(9.6, 2.5 * d + 0.6)
    figure = new(side, side)
    grid = figure.subplots(d, d, squeeze=False)
    pick = np.random.default_rng(0)
    for row, i in enumerate(order):
        for col, j in enumerate(order):
            axes = grid[row, col]
            if col > row:
                axes.set_axis_off()
                r = np.corrcoef(e.samples[:, i], e.samples[:, j])[0, 1]
                axes.text(0.5, 0.5, f"r = {two(r)}", ha="center", va="center", transform=axes.transAxes, fontsize=12)
                continue
            _pair(axes, e, i, j, pick)
            axes.tick_params(labelleft=col == 0 and row > 0, labelbottom=row == d - 1)
            if row == d - 1:
                axes.set_xlabel(label(e.names[j], e.unit(e.names[j])))
            if col == 0 and row > 0:
                axes.set_ylabel(label(e.names[i], e.unit(e.names[i])))
    return image(figure, "Pair plot of " + ", ".join(e.names[i] for i in order) + ": prior draws in grey, "
                 "posterior draws in blue", "png")  # fmt: skip


def _pair(axes: "Axes", e: Evidence, i: int, j: int, pick: np.random.Generator) -> None:
    if i == j:
        bins = np.linspace(*_view(e, i), 41).tolist()
        if e.prior_samples is not None:
            axes.hist(e.prior_samples[:, i], bins, density=True, histtype="step", color=PRIOR, lw=1.2)
        axes.hist(e.samples[:, i], bins, density=True, color=POSTERIOR, alpha=0.75, linewidth=0)
        axes.set(xlim=_view(e, i), yticks=[])
        if e.truth is not None:
            axes.axvline(e.truth[i], color=OBSERVED, lw=1.2)
        return
    for values, colour, alpha in ((e.prior_samples, PRIOR, 0.5), (e.samples, POSTERIOR, 0.45)):
        if values is not None:
            some = values[pick.permutation(len(values))[:1000]]
            axes.plot(some[:, j], some[:, i], ".", ms=4.0, color=colour, alpha=alpha, mew=0)
    if e.truth is not None:
        axes.plot(e.truth[j], e.truth[i], "P", ms=8, color=OBSERVED, mec="white", mew=0.8)
    axes.set(xlim=_view(e, j), ylim=_view(e, i))


@styled
def strips(rows: Sequence[FeatureRow]) -> Image:
    """Each feature of the recording on the scale of its prior predictive distribution."""
    figure = new(7.4, 0.62 + 0.235 * len(rows))
    axes = figure.subplots()
    reach = 1.2
    for y, row in enumerate(rows):
        low, _, high = _quantiles(row.prior if row.prior is not None else row.posterior)
        put = functools.partial(_on_scale, low=low, high=high)
        for values, colour, width in ((row.prior, FAINT, 8.0), (row.posterior, POSTERIOR, 3.0)):
            if values is not None:
                a, m, b = put(_quantiles(values))
                axes.plot([a, b], [y, y], color=colour, lw=width, solid_capstyle="butt", zorder=2)
                axes.plot(m, y, "|", color=PRIOR if colour == FAINT else "white", ms=width, mew=1.4, zorder=3)
                reach = max(reach, -a, b)
        where = float(put([row.observed])[0]) if np.isfinite(row.observed) else FARTHEST
        reach = max(reach, abs(where))
        shape = "o" if abs(where) < FARTHEST else ">" if where > 0 else "<"
        style = {"color": OBSERVED, "ms": 5, "mec": "white", "mew": 0.6, "zorder": 4, "clip_on": False}
        axes.plot(where, y, shape, **style)
    axes.set_yticks(range(len(rows)), [plain(row.name) for row in rows])
    axes.set(xlim=(-1.04 * reach, 1.04 * reach), ylim=(len(rows) - 0.4, -0.6))
    of = "prior" if rows[0].prior is not None else "posterior"
    axes.set_xlabel(f"scaled so that the 90 % range of the {of} predictive is \N{MINUS SIGN}1 to 1")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=FAINT, lw=0.8, zorder=1)
    lines = [] if rows[0].prior is None else [("prior predictive, 90 %", FAINT, 8.0)]
    lines += [] if rows[0].posterior is None else [("posterior predictive, 90 %", POSTERIOR, 3.0)]
    _legend(figure, lines, "recording")
    return image(figure, f"{len(rows)} features of the recording on the scale of their prior predictive ranges; "
                         "the table below gives the numbers")  # fmt: skip


def _on_scale(values: Sequence[float], low: float, high: float) -> np.ndarray:
    """Values on a scale where [low, high] is [-1, 1], cut at `FARTHEST`."""
    return np.clip((2.0 * np.asarray(values) - low - high) / ((high - low) or 1.0), -FARTHEST, FARTHEST)


def _quantiles(values: np.ndarray | None) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values if values is not None else np.zeros(1), [0.05, 0.5, 0.95])
    return float(low), float(middle), float(high)


def _legend(figure: "Figure", lines: Sequence[tuple[str, str, float]], dot: str) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, lw=width, label=text) for text, colour, width in lines]
    handles.append(Line2D([], [], color=OBSERVED, marker="o", ls="", ms=5, label=dot))
    figure.legend(handles=handles, loc="outside upper left", ncols=3)


@styled
def training(train: np.ndarray, val: np.ndarray, best: int) -> Image:
    """Loss per epoch, on the draws trained on and on those held out."""
    figure = new(7.4, 3.1)
    axes = figure.subplots()
    axes.plot(np.arange(1, len(train) + 1), train, color=PRIOR, lw=1.4, label="trained on")
    axes.plot(np.arange(1, len(val) + 1), val, color=POSTERIOR, lw=1.8, label="held out")
    finite = np.concatenate([train, val])[np.isfinite(np.concatenate([train, val]))]
    if 0 < best <= len(val):
        axes.axvline(best, color=OBSERVED, lw=1.0, ls=(0, (4, 2)), label="best epoch")
    if len(finite):
        low, top = finite.min(), np.quantile(finite, 0.98)
        axes.set_ylim(low - 0.05 * (top - low) - 1e-3, top + 0.1 * (top - low) + 1e-3)
    axes.set(xlabel="epoch", ylabel="loss (nats per draw)")
    figure.legend(loc="outside upper left", ncols=3)
    return image(figure, f"Training and held-out loss over {len(val)} epochs, best at epoch {best}")


@styled
def recovery(e: Evidence, truth: np.ndarray, draws: np.ndarray, i: int) -> Image:
    """Known truth against posterior mean and standard deviation, one point per simulated observation."""
    figure = new(3.6, 3.6)
    axes = figure.subplots()
    mean, sd = draws[:, :, i].mean(axis=1), draws[:, :, i].std(axis=1, ddof=1)
    shown = np.concatenate([truth[:, i], mean - sd, mean + sd])
    ends = np.array([shown.min(), shown.max()]) + 0.05 * (np.ptp(shown) or 1.0) * np.array([-1, 1])
    axes.plot(ends, ends, color=PRIOR, lw=1.0, ls=(0, (4, 2)))
    axes.errorbar(truth[:, i], mean, sd, fmt="o", ms=4.5, color=POSTERIOR, mec="white", mew=0.6, elinewidth=1.2)
    name = label(e.names[i], e.unit(e.names[i]))
    axes.set(xlim=ends, ylim=ends, xlabel=f"true {name}", ylabel="posterior mean ± sd", aspect="equal")
    return image(figure, f"True against estimated {e.names[i]} for {len(truth)} simulated observations")


@styled
def replicates(e: Evidence, i: int, others: Mapping[str, np.ndarray]) -> Image:
    """One parameter as estimated from each segment of the data: mean, 50 % and 94 % intervals."""
    figure = new(3.9, 0.9 + 0.34 * (len(others) + 1))
    axes = figure.subplots()
    rows = {"this posterior": e.samples, **others}
    for y, values in enumerate(rows.values()):
        wide = np.quantile(values[:, i], [0.03, 0.97])
        middle = np.quantile(values[:, i], [0.25, 0.75])
        colour = POSTERIOR if y == 0 else "#5b7fa6"
        axes.plot(wide, [y, y], color=colour, lw=1.4)
        axes.plot(middle, [y, y], color=colour, lw=5.0, solid_capstyle="butt")
        axes.plot(values[:, i].mean(), y, "o", ms=6, color="white", mec=colour, mew=1.5)
    axes.set_yticks(range(len(rows)), [plain(name) for name in rows])
    axes.set(xlim=_view(e, i), ylim=(len(rows) - 0.5, -0.5), xlabel=label(e.names[i], e.unit(e.names[i])))
    axes.tick_params(axis="y", length=0)
    return image(figure, f"Estimates of {e.names[i]} from {len(rows)} recordings or segments")


@styled
def failures(e: Evidence, rows: Sequence[FailureRow], name: str, top: float) -> Image:
    """Share of failed simulations per region of one parameter's prior."""
    figure = new(3.9, 2.5)
    axes = figure.subplots()
    low, high = _view(e, e.names.index(name))
    edges = np.clip([[row.low, row.high] for row in rows], low, high)
    axes.bar(
        edges[:, 0],
        [100 * row.share for row in rows],
        width=edges[:, 1] - edges[:, 0],
        align="edge",
        color=OBSERVED,
        edgecolor="white",
        linewidth=0.8,
    )
    axes.set(xlabel=label(name, e.unit(name)), ylabel="failed (%)", xlim=(low, high), ylim=(0.0, top))
    return image(figure, f"Failed simulations by region of {name}, highest {max(row.share for row in rows):.0%}")
