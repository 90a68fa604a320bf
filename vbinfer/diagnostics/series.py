"""Numbers that describe recordings, for comparing one with its replicates."""

import numpy as np

_LONG_ENOUGH = 60


def series_statistics(recordings: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and values `[n, S]` of statistics of recordings `[n, T, N]`.

    Means over nodes: `mean`, `log sd`, `lag-1 autocorrelation`; of functional connectivity, the Pearson correlations of
    nodes: `fc.mean`, `fc.sd`, `fc.match` (correlation with the mean FC of the other recordings), and `fcd.sd` (of the
    correlations between FC in windows of a fifth of the recording); `spectrum`, the root mean square difference of
    the log periodogram in 16 bands from the mean of the other recordings. Statistics that need more than one node
    or 60 samples are left out where there are fewer. Every recording is treated alike, the observed one too.
    """
    n, length, nodes = recordings.shape
    centred = recordings - recordings.mean(axis=1, keepdims=True)
    sd = np.maximum(centred.std(axis=1), 1e-30)
    lagged = np.mean(centred[:, 1:] * centred[:, :-1], axis=1) / sd**2
    columns = {
        "mean": recordings.mean(axis=(1, 2)),
        "log sd": np.log(sd).mean(axis=1),
        "lag-1 autocorrelation": lagged.mean(axis=1),
        "spectrum": _from_others(_log_spectrum(centred / sd[:, None])),
    }
    if nodes > 1:
        fc = _fc(recordings)
        columns |= {"fc.mean": fc.mean(axis=1)}
    if nodes > 2:
        others = (fc.sum(axis=0) - fc) / max(n - 1, 1)
        columns |= {"fc.sd": fc.std(axis=1), "fc.match": _correlation(fc, others)}
        if length >= _LONG_ENOUGH:
            columns["fcd.sd"] = np.array([_fcd_sd(one) for one in recordings])
    return tuple(columns), np.stack(list(columns.values()), axis=1)


def _fc(recordings: np.ndarray) -> np.ndarray:
    """Correlations above the diagonal `[n, pairs]`; 0 with a constant node."""
    u = recordings - recordings.mean(axis=1, keepdims=True)
    u = u / np.maximum(np.sqrt(np.sum(u**2, axis=1, keepdims=True)), 1e-30)
    rows, columns = np.triu_indices(recordings.shape[2], 1)
    return np.einsum("nti,ntj->nij", u, u)[:, rows, columns]


def _fcd_sd(recording: np.ndarray) -> float:
    window = len(recording) // 5
    starts = np.linspace(0, len(recording) - window, 13).astype(int)
    fc = _fc(np.stack([recording[s : s + window] for s in starts]))
    pairs = np.triu_indices(len(starts), 1)
    return float(_correlation(fc[pairs[0]], fc[pairs[1]]).std())


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return np.sum(a * b, axis=1) / np.maximum(np.sqrt(np.sum(a**2, axis=1) * np.sum(b**2, axis=1)), 1e-30)


def _log_spectrum(scaled: np.ndarray) -> np.ndarray:
    """Log of the node-averaged periodogram in up to 16 bands of equal width `[n, band]`."""
    power = np.mean(np.abs(np.fft.rfft(scaled, axis=1)[:, 1:]) ** 2, axis=2)
    bands = np.array_split(power, min(16, power.shape[1]), axis=1)
    return np.log(np.maximum(np.stack([band.mean(axis=1) for band in bands], axis=1), 1e-30))


def _from_others(rows: np.ndarray) -> np.ndarray:
    others = (rows.sum(axis=0) - rows) / max(len(rows) - 1, 1)
    return np.sqrt(np.mean((rows - others) ** 2, axis=1))
