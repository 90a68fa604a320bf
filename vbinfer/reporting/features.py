"""Prior and posterior prediction of features, FC, FCD, spectra."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer.diagnostics.figure import Axis, Band, Figure, Intervals, Line, Mark, Panel, Picture, Points, Rule
from vbinfer.diagnostics.predictive import (
    FEWEST_REPLICATES,
    PredictiveCheck,
    pooled_p,
    predictive_check,
    test_quantities,
    together,
)
from vbinfer.diagnostics.prior_check import Misspecification, misspecification
from vbinfer.diagnostics.result import Status, worst
from vbinfer.diagnostics.thresholds import (
    OUTSIDE_POSTERIOR,
    OUTSIDE_PRIOR,
    OUTSIDE_SHARE,
    P_FAIL,
    P_WARN,
    UNPREDICTED_FAIL,
    UNPREDICTED_WARN,
)
from vbinfer.features.dynamics import fcd_matrix
from vbinfer.features.matrices import fc_matrix, upper_triangle

from .brain import MOST_TRACES, connections, side_of, signals, traces
from .evidence import Evidence, RecordingLike, series
from .format import MINUS, fixed2, number, of_time, paragraph, percent, signed
from .sections import Block, Check, Table, Topic, topic_of

MOST_FEATURES, MOST_DRAWS = 40, 50
FARTHEST = 3.2  # half-widths of the predictive range that are drawn
SHORTEST = 8  # samples, for a spectrum


class Feature(NamedTuple):
    """One feature of the recording among simulations."""

    name: str
    observed: float
    prior_percentile: float | None
    posterior_percentile: float | None
    prior: np.ndarray | None
    posterior: np.ndarray | None


def percentile(value: float, sample: np.ndarray | None) -> float | None:
    """Percentile of a value in a sample; ties count half."""
    if sample is None:
        return None
    return float(100.0 * (np.mean(sample < value) + 0.5 * np.mean(sample == value))) if np.isfinite(value) else np.nan


def features_of(e: Evidence) -> list[Feature]:
    """Features of the recording, without the missing ones."""
    if e.x_o is None:
        return []
    missing = e.posterior.info.get("missing", ())
    before = e.draws if e.draws is not None else e.extras.prior_predictive
    sources = (e.draws, e.predictive, e.extras.prior_predictive)
    names = next((s.names for s in sources if s is not None and s.names), [f"x[{i}]" for i in range(e.x_o.size)])
    columns, rows = (_columns(before), _columns(e.predictive)), []
    for i, (name, value) in enumerate(zip(names, e.x_o.tolist(), strict=True)):
        prior, posterior = (None if values is None else values[i] for values in columns)
        if name in missing:
            continue
        rows.append(Feature(name, value, percentile(value, prior), percentile(value, posterior), prior, posterior))
    return rows


def _unexplained(rows: Sequence[Feature]) -> str:
    """A sentence on unexplained features that are not finite."""
    bad = [row.name for row in rows if not np.isfinite(row.observed)]
    return f"the recording is not finite in {', '.join(bad[:MOST_FEATURES])}" if bad else ""


def _columns(source: Any) -> np.ndarray | None:
    """Valid simulated features `[F, n]`."""
    return None if source is None or not np.any(source.valid) else np.asarray(source.x, np.float64)[source.valid].T


def outside(value: float | None, edge: float) -> bool:
    """Whether a percentile is within `edge` of an end."""
    return value is not None and not edge <= value <= 100.0 - edge


def data(e: Evidence, rows: Sequence[Feature]) -> Topic | None:
    """Section of the data: is the recording possible?"""
    # a fixed key: the report of the same inputs is the same page
    found = _unexplained(rows) or e.answer("Misspecification", misspecification, e.x_o, e.draws, key=jax.random.key(0))
    blocks: list[Block] = [] if e.observed is None else [_recording(e.observed)]
    if missing := e.posterior.info.get("missing"):
        blocks.append(
            f"{len(missing)} features are missing in the recording, and the posterior is that given the others: "
            f"{', '.join(missing[:MOST_FEATURES])}."
        )
    numbers: dict[str, Any] = {"features": [dict(zip(Feature._fields[:4], row, strict=False)) for row in rows]}
    with_prior = [row for row in rows if row.prior is not None]
    # a joint test takes the place of looking at features one by one
    if isinstance(found, Misspecification):
        topic = topic_of("misspecification", found, "data", "")
        checks, numbers = topic.checks, numbers | dict(topic.numbers)
        blocks.append(paragraph(found.findings, None))
    else:
        blocks += [f"No test of all features together: {found}."] if found else []
        checks = _inside(e, with_prior)
    if with_prior:
        shown = _most_extreme(with_prior)
        cut = "" if len(shown) == len(rows) else f" The {len(shown)} most extreme of {len(rows)} are shown."
        blocks += [_strips(shown, cut), _feature_table(shown, cut)]
    title = "The data and what the model can produce"
    return Topic("data", title, blocks, checks, numbers) if blocks or checks else None


def _inside(e: Evidence, rows: Sequence[Feature]) -> list[Check]:
    """Each feature by itself, for want of a joint test."""
    question = Misspecification.question
    if not rows:
        if e.draws is None or e.x_o is None:
            return []
        said = "No simulation worked: there is nothing to compare with."
        return [Check(question, "fail", said, "#failures", Misspecification.rule)]
    odd = [row.name for row in rows if outside(row.prior_percentile, OUTSIDE_PRIOR)]
    said = f"All {len(rows)} features of the recording lie inside the model's prior predictive range."
    if odd:
        names = ", ".join(odd[:4]) + (", ..." if len(odd) > 4 else "")
        said = f"{len(odd)} of {len(rows)} features of the recording lie where the model hardly goes: {names}."
    status: Status = "fail" if len(odd) > OUTSIDE_SHARE * len(rows) else "warn" if odd else "pass"
    rule = (
        f"Each feature's percentile among valid prior draws. Warn: any outside {OUTSIDE_PRIOR:g} to "
        f"{100 - OUTSIDE_PRIOR:g}. Fail: more than {percent(OUTSIDE_SHARE)} of them. "
        "Features are looked at one by one: odd combinations go unseen."
    )
    return [Check(question, status, said, "#data", rule)]


def _recording(observed: RecordingLike) -> Figure:
    """Signals and their correlations."""
    values = np.asarray(observed.values, np.float64)
    (steps, n), (scale, unit) = values.shape, of_time(len(values) * observed.period)
    length = len(values) * observed.period / scale
    if n <= MOST_TRACES:
        names = [str(label) for label in observed.labels or range(1, n + 1)]
        panels = [signals(values, observed.period, names, "Signals", "observed")]
    else:
        sd = values.std(axis=0)
        z = (values - values.mean(axis=0)) / np.where(sd > 0, sd, 1.0)
        picture = Picture(z.T, (-2.5, 2.5), "grey", (0.0, length, n + 0.5, 0.5))
        words = f"Signals of {n} channels over {length:.1f} {unit}"
        panels = [Panel((picture,), Axis("time", unit), Axis(f"channel (n = {n})"), words, title="Signals")]
    between = ""
    if n > 2:
        panels += _fc_panels({"Functional connectivity": _fcs(values[None])[0]}, observed.labels)
        between = ", and the correlations between them"
    caption = (
        f"The recording: {n} channels, {steps} samples, one every {observed.period:g} ms ({length:.1f} {unit}), each "
        f"on its own scale{between}."
    )
    return Figure(panels, caption)


def _most_extreme(rows: Sequence[Feature]) -> list[Feature]:
    """The features that are drawn, in their order."""
    at = np.array([50.0 if row.prior_percentile is None else row.prior_percentile for row in rows])
    # NaN counts as the most extreme of all
    far = np.nan_to_num(np.abs(at - 50.0), nan=100.0)
    return [rows[i] for i in sorted(np.argsort(-far, kind="stable")[:MOST_FEATURES])]


def _strips(rows: Sequence[Feature], cut: str) -> Figure:
    """Features scaled by their predictive 90 % ranges.

    Those become [-1, 1].
    """
    samples = {of: [getattr(row, of) for row in rows] for of in ("prior", "posterior")}
    known = {of: values for of, values in samples.items() if values[0] is not None}
    # ends of the predictive 90 % ranges, [2, F]
    ends = {of: np.array([np.quantile(one, [0.05, 0.95]) for one in values]).T for of, values in known.items()}
    # each feature has a scale of its own: its 90 % range becomes [-1, 1], whatever its unit
    of, (low, high) = next(iter(ends.items()))

    def scale(values: np.ndarray) -> np.ndarray:
        return np.clip((2.0 * values - low - high) / np.where(high > low, high - low, 1.0), -FARTHEST, FARTHEST)

    marks: list[Mark] = [Rule(0.0)]
    if "prior" in ends:
        marks.append(Intervals(*scale(ends["prior"]), role="prior", label="prior predictive, 90 %", thick=True))
    if "posterior" in ends:
        marks.append(Intervals(*scale(ends["posterior"]), label="posterior predictive, 90 %"))
    observed = np.array([row.observed for row in rows])
    # what is not finite is drawn at the far end, where nobody overlooks it
    places = scale(np.where(np.isfinite(observed), observed, np.inf))
    marks.append(Points(places, np.arange(len(rows)), "observed", "recording"))
    panel = Panel(
        marks,
        Axis(f"scaled: the 90 % range of the {of} predictive is {MINUS}1 to 1"),
        Axis(limits=(len(rows) - 0.4, -0.6), ticks=[row.name for row in rows]),
        f"{len(rows)} features of the recording on the scale of their {of} predictive ranges; numbers are in the "
        "table below",
    )
    n = ", ".join(f"{name} n = {len(values[0]):,}" for name, values in known.items())
    caption = (
        f"Features of the recording (orange) on the scale of the {of} predictive distribution; simulations: "
        f"{n}. Beyond {FARTHEST:g} they are drawn at {FARTHEST:g}.{cut}"
    )
    return Figure([panel], caption, "large")


def _feature_table(rows: Sequence[Feature], cut: str) -> Table:
    cells, marks = [], set()
    for i, row in enumerate(rows):
        low, middle, high = (number(float(value)) for value in np.quantile(np.asarray(row.prior), [0.05, 0.5, 0.95]))
        before = f"{row.prior_percentile:.1f}"
        if outside(row.prior_percentile, OUTSIDE_PRIOR):
            marks.add(i)
            before += " outside"
        after = [] if row.posterior_percentile is None else [f"{row.posterior_percentile:.1f}"]
        cells.append([row.name, number(row.observed), middle, f"{low} to {high}", before, *after])
    head = [
        "feature",
        "recording",
        "prior median",
        "prior 90 % range",
        "percentile in prior",
        "percentile in posterior",
    ]
    caption = f"The recording's features and their percentiles among simulations.{cut}"
    return Table(head[: len(cells[0])], cells, caption, frozenset(marks))


def predicted(e: Evidence, rows: Sequence[Feature]) -> Topic | None:
    """The section of prediction: does the posterior predict the data?"""
    found = _unexplained(rows) or e.answer("PredictiveCheck", predictive_check, e.predictive, e.x_o)
    shown = [row for row in rows if row.posterior is not None]
    both = {"posterior": series(e.predictive), "prior": series(e.extras.prior_predictive)}
    simulated = {role: ys for role, ys in both.items() if ys is not None}
    recorded, fcs = np.zeros((0, 0)), {}
    # two channels have one correlation, which is no matrix to compare
    if e.observed is not None and e.observed.values.shape[1] > 2:
        recorded = _fcs(e.observed.values[None])[0]
        fcs = {f"{role} predictive": _fcs(ys).mean(axis=0) for role, ys in simulated.items()}
        if e.extras.structural is not None:
            fcs["structural connectivity"] = e.extras.structural
    match = {name: fc_correlation(fc, recorded) for name, fc in fcs.items()}
    p_series = series_p(both["posterior"], e.observed)
    blocks: list[Block] = []
    if shown:
        blocks += [_share_inside(shown) + ".", *_predictive_blocks(found, p_series)]
        if shown[0].prior is None:
            blocks.append(_strips(_most_extreme(shown), ""))
    if e.observed is not None:
        if match:
            brain = {"Recording": recorded, **{name.capitalize(): fc for name, fc in fcs.items()}}
            blocks.append(connections(brain, e.observed.labels, e.extras.centres))
        if both["posterior"] is not None:
            blocks.append(traces(e.observed, both["posterior"][0], e.observed.labels))
        blocks += _spectra(both["posterior"], e.observed)
        if match:
            blocks += _fc_blocks(e.observed, recorded, fcs, match, simulated)
            blocks += _fcd_blocks(e.observed, e.extras.fcd, simulated)
    numbers: dict[str, Any] = {"fc_correlation": match}
    numbers |= {"p_series": p_series} if p_series else {}
    if isinstance(found, PredictiveCheck):
        numbers |= topic_of("predictive_check", found, "", "").numbers
    asked = bool(shown) or "posterior predictive" in match
    checks = [_predicts(shown, match, found, p_series)] if asked else []
    title = "What the posterior predicts" if e.predictive is not None else "Functional connectivity"
    return Topic("predictive", title, blocks, checks, numbers) if blocks or checks else None


def series_p(replicates: np.ndarray | None, observed: RecordingLike | None) -> dict[str, float]:
    """Adjusted p of statistics of the series.

    Without unit and level, which BOLD has not, and of which models have none that agrees with the scanner's: each
    recording is centred by channel and brought to a variance of one over all channels.
    """
    if replicates is None or observed is None or len(replicates) < FEWEST_REPLICATES:
        return {}
    rows = together(np.asarray(observed.values, np.float64), np.asarray(replicates, np.float64))
    if rows.shape[1] < 4 or rows.shape[2] < 3 or not np.isfinite(rows[0]).all():
        return {}
    # unit and level go; what is left is shape over time and across channels
    rows = rows - rows.mean(axis=1, keepdims=True)
    rows = rows / np.maximum(rows.std(axis=(1, 2), keepdims=True), 1e-30)
    names, statistics = test_quantities(rows)
    kept = [i for i, name in enumerate(names) if name not in ("mean", "log sd")]
    return dict(zip([names[i] for i in kept], pooled_p(statistics[:, kept])[1].tolist(), strict=True))


def _share_inside(rows: Sequence[Feature]) -> str:
    simulated = rows[0].posterior
    assert simulated is not None
    inside = sum(not outside(row.posterior_percentile, OUTSIDE_POSTERIOR) for row in rows)
    return (
        f"{inside} of {len(rows)} features of the recording lie inside the central "
        f"{percent(1 - OUTSIDE_POSTERIOR / 50)} of {simulated.size:,} posterior predictive simulations"
    )


def _predicts(rows: Sequence[Feature], match: Mapping[str, float], found: Any, p_series: Mapping[str, float]) -> Check:
    far = sum(outside(row.posterior_percentile, OUTSIDE_POSTERIOR) for row in rows)
    share, words = far / len(rows) if rows else 0.0, [_share_inside(rows)] if rows else []
    post, prior = match.get("posterior predictive"), match.get("prior predictive")
    # structure alone predicts FC to some degree, and so does the prior: that is what to beat
    no_better = post is not None and prior is not None and not post > prior
    if post is not None:
        others = [f"{fixed2(value)} for the {name}" for name, value in match.items() if name != "posterior predictive"]
        text = f"mean predicted FC correlates with the recording's FC at r = {fixed2(post)}"
        words.append(text + (f" ({', '.join(others)})" if others else ""))
    odd = [name for name, p in p_series.items() if p < P_WARN]
    warned = share > UNPREDICTED_WARN or no_better or bool(odd)
    statuses: list[Status] = ["fail" if share > UNPREDICTED_FAIL else "warn" if warned else "pass"]
    if isinstance(found, PredictiveCheck):
        statuses.append(found.verdict)
        words.append(f"features as the recording's have p = {found.p_value:.2g} among them")
        words += [f"unlike them: {', '.join(found.off[:6])}"] if found.off else []
    words += [f"the series differ in {', '.join(odd)}"] if odd else []
    return Check(
        "Does the posterior predict the data?",
        worst(statuses),
        paragraph(["; ".join(words)]),
        "#predictive",
        f"Warn: more than {percent(UNPREDICTED_WARN)} of the features outside ({percent(OUTSIDE_POSTERIOR / 50)} "
        f"expected), an FC no closer to the recording's than the prior predictive, or p < {P_WARN:g} of all features "
        f"together (vb.diagnostics.predictive_check) or of a statistic of the series. Fail: more than "
        f"{percent(UNPREDICTED_FAIL)} "
        f"outside, or p < {P_FAIL:g} of the features. The data are used twice: passing is weak evidence.",
    )


def _predictive_blocks(found: PredictiveCheck | str | None, p_series: Mapping[str, float]) -> list[Block]:
    """p-values of the features and of the series."""
    blocks: list[Block] = []
    if isinstance(found, PredictiveCheck):
        blocks.append(paragraph(found.findings, None))
        order = np.argsort(found.p_adjusted, kind="stable")[:MOST_FEATURES]
        rows = [[found.names[j], f"{found.p_features[j]:.2g}", f"{found.p_adjusted[j]:.2g}"] for j in order]
        marks = frozenset(np.flatnonzero(found.p_adjusted[order] < P_WARN).tolist())
        cut = "" if len(order) == len(found.names) else f" The {len(order)} smallest of {len(found.names)}."
        words = f"Two-sided predictive p-values by feature; adjusted for how many there are.{cut}"
        blocks.append(Table(["feature", "p", "adjusted p"], rows, words, marks))
    elif found:
        blocks.append(f"No test of all features together: {found}.")
    if p_series:
        rows = [[name, f"{p:.2g}"] for name, p in p_series.items()]
        words = "Statistics of the series that the features may not hold; p adjusted for their number."
        blocks.append(Table(["statistic of the series", "adjusted p"], rows, words))
    return blocks


# ---- functional connectivity


def _fcs(ys: np.ndarray) -> np.ndarray:
    """FC of series, one after the other.

    Series `[n, T, N]` give FC `[n, N, N]`; all at once would take more memory.
    """
    return np.asarray(jax.lax.map(fc_matrix, jnp.asarray(ys, jnp.result_type(float))), np.float64)


def upper(matrix: np.ndarray) -> np.ndarray:
    """The entries above the diagonal."""
    return np.asarray(matrix, np.float64)[upper_triangle(len(matrix))]


def fc_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two matrices over their symmetrised upper triangles."""
    x, y = (upper((np.asarray(m, np.float64) + np.transpose(m)) / 2.0) for m in (a, b))
    return float(np.corrcoef(x, y)[0, 1])


def _fc_blocks(
    observed: RecordingLike,
    recorded: np.ndarray,
    fcs: Mapping[str, np.ndarray],
    match: Mapping[str, float],
    simulated: Mapping[str, np.ndarray],
) -> list[Block]:
    """FC matrices, scatters over pairs of regions, and correlations."""
    there, clouds, x = {"Recording": recorded}, [], upper(recorded)
    caption = "Functional connectivity (Pearson correlation) on one colour scale."
    for name, fc in fcs.items():
        role, title, label, r = name.split()[0], name.capitalize(), "connection weight", match[name]
        if role in simulated:
            there[f"{title} mean"], label = fc, "predicted correlation"
            caption += f" Mean over {len(simulated[role])} simulations from the {role}."
        marks = (Points(x, upper((fc + fc.T) / 2), marker="dot"),)
        alt = f"{title} against the recording, {len(x)} pairs of regions, r = {r:.2f}"
        axes = Axis("correlation in the recording"), Axis(label)
        clouds.append(Panel(marks, *axes, alt, title=f"{title}: r = {fixed2(r)}"))
    points = f"One point per pair of regions, n = {len(x):,}; r is Pearson's correlation."
    rows = [[name, signed(f"{value:.3f}")] for name, value in match.items()]
    return [
        Figure(_fc_panels(there, observed.labels), caption),
        Figure(clouds, points),
        Table(["compared with the recording's FC", "r"], rows, "Pearson correlation over the upper triangle."),
    ]


def _fc_panels(matrices: Mapping[str, np.ndarray], labels: Sequence[str] | None) -> list[Panel]:
    """FC matrices on one colour scale, left hemisphere first."""
    sides = [side_of(name) for name in labels or ()]
    n = len(next(iter(matrices.values())))
    known = len(sides) == n and set(sides) == {"l", "r"}
    # a stable sort keeps the atlas' order within each hemisphere
    order = np.argsort([side == "r" for side in sides], kind="stable") if known else np.arange(n)
    middle = sides.count("l") - 0.5
    lines = (Rule(middle), Rule(middle, "y")) if known else ()
    # one scale for all, from the bulk of the entries: a few large ones would wash out the rest
    top = float(np.quantile(np.abs(np.concatenate([upper(values) for values in matrices.values()])), 0.995)) or 1.0
    axis = Axis(f"region (n = {n}{', left before right' if known else ''})")
    return [
        Panel(
            (Picture(values[np.ix_(order, order)], (-top, top), label="correlation"), *lines),
            axis,
            Axis(),
            f"{title}: correlations between {n} regions, mean {upper(values).mean():.2f}",
            title=title,
        )
        for title, values in matrices.items()
    ]


def _fcd_blocks(observed: RecordingLike, fcd: tuple[float, float], simulated: Mapping[str, np.ndarray]) -> list[Block]:
    """FCD matrices and distributions."""
    (window, step), period = fcd, observed.period
    duration = len(observed.values) * period
    if duration < window + step:
        scale, unit = of_time(duration)
        return [f"No FCD: {duration / scale:.1f} {unit} hold fewer than two windows of {window / 1e3:g} s."]
    one = functools.partial(fcd_matrix, window=max(window, period), step=max(step, period), period=period)
    panels, groups, axis = [], [], Axis("start of window (min)")
    for role, ys in {"observed": observed.values[None], **simulated}.items():
        matrices = np.asarray(jax.lax.map(one, jnp.asarray(ys[:MOST_DRAWS], jnp.result_type(float))))
        entries = [upper(values) for values in matrices]
        # a mean over draws would have no dynamics; the median draw has typical ones
        median = int(np.argsort([np.var(values) for values in entries])[len(entries) // 2])
        title, name = f"One {role} predictive draw", f"{role} predictive (n = {len(matrices)})"
        if role == "observed":
            title, name = "Recording", "recording"
        groups.append((name, np.concatenate(entries), role))
        # windows start a step apart: the axes count from the first start to the last
        n = matrices.shape[1]
        end = n * step / 60e3
        picture = Picture(matrices[median], (0.0, 1.0), "sequential", (0.0, end, end, 0.0), "correlation")
        alt = f"{title}: correlations between {n} windows, mean {entries[median].mean():.2f}"
        panels.append(Panel((picture,), axis, axis, alt, title=title))
    caption = (
        f"Functional connectivity dynamics: correlation between the FC of windows of {window / 1e3:g} s, one every "
        f"{step / 1e3:g} s. The simulated draw shown is the one whose FCD has the median variance."
    )
    return [Figure(panels, caption), _distributions(groups)]


def _distributions(groups: Sequence[tuple[str, np.ndarray, Any]]) -> Figure:
    """Outlined histograms of FCD entries."""
    low, high = min(values.min() for _, values, _ in groups), max(values.max() for _, values, _ in groups)
    edges, lines = np.linspace(low, high if high > low else low + 1.0, 61), []
    for name, values, role in groups:
        heights = np.histogram(values, edges, density=True)[0]
        # the outline of a histogram: both ends of every bin
        lines.append(Line(np.repeat(edges, 2)[1:-1], np.repeat(heights, 2), role, name))
    label = "correlation between the FC of two windows"
    alt = f"Distributions of {label}: {', '.join(name for name, _, _ in groups)}"
    panel = Panel(lines, Axis(label), Axis("density", numbers=False), alt)
    return Figure([panel], "Distribution of the FCD entries above the diagonal; simulations pooled.", "large")


def _spectra(ys: np.ndarray | None, observed: RecordingLike) -> list[Block]:
    """Power spectra of recording and replicates."""
    if ys is None or (length := min(len(observed.values), ys.shape[1])) < SHORTEST:
        return []
    hz = np.fft.rfftfreq(length, observed.period / 1e3)[1:]
    mine, theirs = power(observed.values[None, :length])[0], power(ys[:, :length])
    low, middle, high = np.quantile(theirs, [0.05, 0.5, 0.95], axis=0)
    inside = float(np.mean((mine >= low) & (mine <= high)))
    panel = Panel(
        (
            Band(hz, low, high, "posterior", f"posterior predictive, 90 % (n = {len(theirs)})"),
            Line(hz, middle, thin=True),
            Line(hz, mine, "observed", "recording", thin=True),
        ),
        Axis("frequency", "Hz", log=True),
        Axis("power (share of variance)", log=True),
        f"Power spectrum of the recording among posterior predictive ones: inside their 90 % range at "
        f"{100 * inside:.0f} % of the frequencies",
    )
    return [Figure([panel], "Power spectra, mean over channels, each channel scaled to a variance of one.", "large")]


def power(ys: np.ndarray) -> np.ndarray:
    """Periodogram, mean over channels, as shares of the variance."""
    centred = np.asarray(ys, np.float64) - np.mean(ys, axis=1, keepdims=True)
    # without the zero frequency, which is the level
    spectrum = np.abs(np.fft.rfft(centred, axis=1)[:, 1:]) ** 2
    total = np.maximum(spectrum.sum(axis=1, keepdims=True), 1e-300)
    return (spectrum / total).mean(axis=2)
