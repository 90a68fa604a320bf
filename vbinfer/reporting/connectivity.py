"""Functional connectivity and its dynamics in a report: recording, posterior predictive, prior predictive."""

import numpy as np

from . import plots_fc
from .evidence import Evidence, RecordingLike, fc, series, upper
from .plots import OBSERVED, POSTERIOR, PRIOR
from .section import Images, Table, Text
from .words import signed

FCD_DRAWS = 50


def fc_blocks(e: Evidence, observed: RecordingLike, recorded: np.ndarray) -> list[Text | Table | Images]:
    """FC matrices on one colour scale, scatters over pairs of regions, and the table of correlations."""
    there = {"Recording": recorded}
    caption = "Functional connectivity (Pearson correlation) on one colour scale."
    for name, source, mean in (
        ("posterior", e.predictive, e.fc_posterior),
        ("prior", e.extras.prior_predictive, e.fc_prior),
    ):
        if source is not None and mean is not None:
            there[f"{name.capitalize()} predictive mean"] = mean
            caption += f" Mean over {int(np.sum(source.valid))} simulations from the {name}."
    pictures = plots_fc.fc_matrices(there, observed.labels)
    blocks: list[Text | Table | Images] = [Images(pictures, caption, "third")]
    clouds = [
        plots_fc.fc_scatter(recorded, values, title, ylabel)
        for title, ylabel, values in (
            ("Posterior predictive", "predicted correlation", e.fc_posterior),
            ("Prior predictive", "predicted correlation", e.fc_prior),
            ("Structural connectivity", "connection weight", e.extras.structural),
        )
        if values is not None
    ]
    if clouds:
        n = len(upper(recorded))
        blocks.append(Images(clouds, f"One point per pair of regions, n = {n:,}; r is Pearson's correlation.", "third"))
        rows = [[name, signed(f"{value:.3f}")] for name, value in e.fc_match.items()]
        caption = "Pearson correlation over the upper triangle."
        blocks.append(Table(["compared with the recording's FC", "r"], rows, caption))
    return blocks


def fcd_blocks(e: Evidence, observed: RecordingLike) -> list[Text | Table | Images]:
    """FCD matrices and distributions; one sentence where the recording is too short for them."""
    window, step = e.extras.fcd
    minutes = len(observed.values) * observed.period / 60e3
    if minutes * 60e3 < window + step:
        return [Text(f"No FCD: {minutes:.1f} minutes hold fewer than two windows of {window / 1e3:g} s.")]
    lags = (max(1, round(window / observed.period)), max(1, round(step / observed.period)))
    recorded = fcd(np.asarray(observed.values), *lags)
    groups, colours = {"recording": upper(recorded)}, [OBSERVED]
    pictures = [plots_fc.fcd_matrix(recorded, "Recording", step / 60e3)]
    for name, source, colour in (
        ("posterior predictive", e.predictive, POSTERIOR),
        ("prior predictive", e.extras.prior_predictive, PRIOR),
    ):
        ys = series(source)
        if ys is not None:
            matrices = [fcd(y, *lags) for y in ys[:FCD_DRAWS]]
            entries = [upper(values) for values in matrices]
            groups[f"{name} (n = {len(matrices)})"] = np.concatenate(entries)
            colours.append(colour)
            typical = matrices[int(np.argsort(np.asarray([np.var(values) for values in entries]))[len(entries) // 2])]
            pictures.append(plots_fc.fcd_matrix(typical, f"One {name} draw", step / 60e3))
    caption = (
        f"Functional connectivity dynamics: correlation between the FC of windows of {window / 1e3:g} s, one every "
        f"{step / 1e3:g} s. The simulated draw shown is the one whose FCD has the median variance."
    )
    pooled = "Distribution of the FCD entries above the diagonal; simulations pooled."
    density = plots_fc.distributions(groups, colours, "correlation between the FC of two windows")
    return [Images(pictures, caption, "third"), Images([density], pooled, "large")]


def fcd(y: np.ndarray, width: int, step: int) -> np.ndarray:
    """FCD of one series `[time, node]`: windows in samples, every full one counts."""
    vectors = [upper(fc(y[start : start + width])) for start in range(0, len(y) - width + 1, step)]
    return fc(np.asarray(vectors).T)
