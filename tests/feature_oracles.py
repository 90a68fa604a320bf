"""The definitions of features written once more, in float64 NumPy and SciPy, one sample and one pair at a time."""

import itertools

import numpy as np
import scipy.signal
import scipy.stats

PERIOD = 2000.0
REFERENCE = np.random.default_rng(5).lognormal(size=(6, 6))
MASK = np.random.default_rng(6).uniform(size=(6, 6)) < 0.3
BANDS = ((0.01, 0.05), (0.05, 0.2))
SEGMENT = 50 * PERIOD
WHERE = {"window": 50_700.0, "step": 7_400.0}  # 25 and 4 samples
EXTRAS = (
    *("min", "max", "sum", "abs_sum", "eig_sum", "eig_max", "eig_min", "eig_mean", "eig_std", "eig_skew"),
    *("eig_kurtosis", "pca1", "pca2", "pca3", "pca_std"),
)
FCD_EXTRAS = ("skew", "kurtosis", *EXTRAS, "var_overlapping", "var_with_zeros")


def recording(seed=0, length=150, n=6):
    """Correlated, drifting, skewed signals with unequal means and amplitudes: nothing about them is symmetric."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(length, n)) @ rng.normal(size=(n, n)) + rng.gamma(1.0, size=(length, 1))
    smooth = np.apply_along_axis(np.convolve, 0, mixed, [0.5, 0.3, 0.2], mode="same")
    return (3.0 + np.arange(n)) * (smooth + np.linspace(0.0, 1.5, n)) + np.linspace(-4.0, 9.0, n)


def still(x):
    return np.ptp(x) <= 1e-12 * np.abs(x).max()


# ---- connectivity


def np_corr(a, b):
    return 0.0 if still(a) or still(b) else float(np.corrcoef(a, b)[0, 1])


def np_fc(y):
    return np.array([[np_corr(a, b) for b in y.T] for a in y.T])


def np_above(matrix):
    return np.array([matrix[i, j] for i in range(len(matrix)) for j in range(i + 1, len(matrix))])


def np_moments(v):
    if still(v):
        return [np.mean(v), 0.0, 0.0, 0.0]
    return [np.mean(v), np.std(v), scipy.stats.skew(v), scipy.stats.kurtosis(v)]


def np_quantiles(v):
    return list(np.quantile(v, [0.05, 0.25, 0.5, 0.75, 0.95]))


def np_strengths(matrix):
    return [np.mean(np.delete(row, i)) for i, row in enumerate(matrix)]


def np_numbers(matrix):
    eigenvalues = np.linalg.eigvalsh(matrix)
    n = len(matrix)
    norms = [max((eigenvalues**k).sum(), 0.0) ** (1 / k) / n for k in (3, 4)]
    return [*np_moments(np_above(matrix)), *np_quantiles(np_above(matrix)), *norms, np.std(np_strengths(matrix))]


def np_extras(matrix, v):
    eigenvalues = np.linalg.eigvalsh(matrix)
    singular = np.linalg.svd(matrix - matrix.mean(axis=0), compute_uv=False) ** 2
    return [
        *[v.min(), v.max(), v.sum(), 2 * np.abs(v).sum()],
        *[eigenvalues.sum(), eigenvalues.max(), eigenvalues.min(), *np_moments(eigenvalues)],
        *[*(singular[:3] / singular.sum()), np.sqrt(singular[:3].sum() / (3 * len(matrix)))],
    ]


def np_fc_stat(y):
    return np_numbers(np_fc(y))


def np_homotopic(y):
    return [np_corr(y[:, i], y[:, i + 1]) for i in (0, 2, 4)]


def np_spearman(y):
    return np_fc(np.apply_along_axis(scipy.stats.rankdata, 0, y))


def np_partial(y):
    """Correlation of the residuals of least squares on all other nodes."""
    length, n = y.shape
    p = np.eye(n)
    for i in range(n):
        for j in range(n):
            if i != j:
                others = np.column_stack([np.ones(length), np.delete(y, [i, j], axis=1)])
                a, b = (x - others @ np.linalg.lstsq(others, x, rcond=None)[0] for x in (y[:, i], y[:, j]))
                p[i, j] = 0.0 if still(y[:, i]) or still(y[:, j]) else a @ b / np.sqrt(a @ a * (b @ b))
        p[i, i] = 0.0 if still(y[:, i]) else 1.0
    return p


def np_phases(y):
    return np.angle(scipy.signal.hilbert(y - y.mean(axis=0), axis=0)), [not still(x) for x in y.T]


def np_plv(y):
    phase, moving = np_phases(y)
    n = len(moving)
    return np.array(
        [
            [abs(np.mean(np.exp(1j * (phase[:, i] - phase[:, j])))) * moving[i] * moving[j] for j in range(n)]
            for i in range(n)
        ]
    )


def np_lagged(y, k=1):
    cross = np.array([[np_corr(a[:-k], b[k:]) for b in y.T] for a in y.T])
    off = cross[~np.eye(len(cross), dtype=bool)]
    skewed = np_above(cross) - np_above(cross.T)
    return [off.mean(), off.std(), np.diag(cross).mean(), np.sqrt((skewed**2).mean())]


def np_fcd(y, w, s):
    starts = range(0, len(y) - w + 1, s)
    vectors = [np_above(np_fc(y[start : start + w])) for start in starts]
    return np_fc(np.array(vectors).T)


def np_apart(fcd, w, s):
    return np.array([fcd[a, b] for a in range(len(fcd)) for b in range(a, len(fcd)) if b * s >= a * s + w])


def np_fcd_stat(y, w, s):
    v = np_apart(np_fcd(y, w, s), w, s)
    return [v.mean(), v.std(), v.var(), *np_quantiles(v)]


def np_fcd_extras(y, w, s):
    fcd = np_fcd(y, w, s)
    v = np_apart(fcd, w, s)
    zeroed = np.concatenate([v, np.zeros(fcd.size - v.size)])
    return [*np_moments(v)[2:], *np_extras(fcd, v), np_above(fcd).var(), zeroed.var()]


def np_networks(y):
    fc = np_fc(y)
    groups = [[0, 2, 5], [1, 4], [3]]
    within = [np.mean([fc[i, j] for i in g for j in g if i != j]) for g in groups[:2]]
    across = [fc[np.ix_(groups[a], groups[b])].mean() for a, b in ((0, 1), (0, 2), (1, 2))]
    return [within[0], across[0], across[1], within[1], across[2]]


# ---- one node at a time


def per_node(numbers, pool="mean"):
    """An oracle for a whole recording from one for a single node."""

    def pooled(y):
        table = np.array([numbers(x) for x in y.T]).T
        if pool == "nodes":
            return table.ravel()
        if pool == "quantiles":
            return np.array([np_quantiles(row) for row in table]).ravel()
        return table.mean(axis=1) if pool == "mean" else np.stack([table.mean(axis=1), table.std(axis=1)], 1).ravel()

    return pooled


def np_all_moments(y):
    mean, std, skew, kurtosis = np.array([np_moments(node) for node in y.T]).T
    return [mean.mean(), mean.std(), std.mean(), std.std(), skew.mean(), kurtosis.mean()]


def np_amplitude(y):
    s = y.std(axis=0) * [not still(x) for x in y.T]
    relative = s / s.mean() if s.any() else s
    return [relative.std(), *np_quantiles(relative)]


def np_autocorrelation(y, k):
    d = y - y.mean(axis=0)
    ss = (d**2).sum(axis=0)
    r = np.divide((d[k:] * d[:-k]).sum(axis=0), ss, out=np.zeros(len(ss)), where=np.ptp(y, axis=0) > 0)
    return [r.mean(), r.std()]


def np_statistics(x):
    mean, std, skew, kurtosis = np_moments(x)
    moments = [0.0 if still(x) else scipy.stats.moment(x, k) for k in (2, 3, 4, 5, 6)]
    t = np.arange(len(x)) * PERIOD
    return [
        *[mean, std, std**2, std**2 * len(x) / (len(x) - 1), np.sqrt(np.mean(x**2)), skew, kurtosis, *moments],
        *[x.max(), x.min(), np.median(x), np.subtract(*np.quantile(x, [0.75, 0.25])), *np_quantiles(x)],
        *[np.abs(x - mean).mean(), np.median(np.abs(x - np.median(x))), (std - abs(mean)) / (std + abs(mean))],
        *[np.trapezoid(x, t), x @ x, x @ x / (t[-1] / 1000), t @ x**2 / (x @ x)],
        *[np_changes(x), 0.0 if still(x) else np_changes(x - mean)],
    ]


def np_changes(x):
    return float(sum(a * b < 0 for a, b in zip(x[1:], x[:-1], strict=True)))


def np_acf(x, lags):
    if still(x):
        return [0.0 for _ in lags]
    d = x - x.mean()
    return [d[: len(d) - k] @ d[k:] / (d @ d) for k in lags]


def np_timescales(x):
    if still(x):
        return [0.0] * 4
    r = np_acf(x, range(len(x)))
    fold = next(k for k, value in enumerate(r) if value < np.exp(-1))
    zero = next(k for k, value in enumerate(r) if value < 0)
    crossing = fold - 1 + (r[fold - 1] - np.exp(-1)) / (r[fold - 1] - r[fold])
    return [PERIOD * value for value in (fold, crossing, 1 + 2 * sum(r[1:zero]), zero)]


def np_envelope(x):
    a = np.abs(scipy.signal.hilbert(x - x.mean())) * (not still(x))
    return [a.mean(), a.std(), np.median(a), a.max(), a.min()]


def np_welch(x, w=50):
    f, p = scipy.signal.welch(x, fs=1000 / PERIOD, nperseg=w)
    return f, p * (not still(x))


def np_spectrum(x):
    if still(x):
        return [0.0] * 17
    f, p = np_welch(x)
    q = p / p.sum()
    centroid = f @ q
    spread = np.sqrt((f - centroid) ** 2 @ q)
    a = np.abs(np.fft.rfft(x - x.mean()))
    peaks = [k for k in range(1, len(a) - 1) if a[k] > max(a[k - 1], a[k + 1]) and a[k] > 0.3 * a.max()]
    share = np.cumsum(p) / p.sum()
    return [
        *[p.sum() * f[1], centroid, spread, (f - centroid) ** 4 @ q / spread**4, f[p.argmax()], p.max()],
        *[f[np.argmax(share > 0.5)], f[np.argmax(share > 0.95)], scipy.stats.entropy(q) / np.log(len(f))],
        *[np.fft.rfftfreq(len(x), PERIOD / 1000)[peaks[0]]],
        *[1 - p[1:] @ p[:-1] / np.linalg.norm(p[1:]) / np.linalg.norm(p[:-1])],
        *[np.mean(np.linspace(0, 1, len(f)) - share), *[scipy.stats.moment(p, k) for k in (2, 3, 4, 5, 6)]],
    ]


def np_bands(x, relative=False):
    f, p = np_welch(x)
    kept = [(f >= low) & (f < high) for low, high in BANDS]
    if relative:
        return [0.0 if still(x) else p[k].sum() / p.sum() for k in kept]
    return [np.trapezoid(p[k], f[k]) for k in kept]


def np_coherence(y):
    numbers = []
    for low, high in BANDS:
        pairs = []
        for i in range(6):
            for j in range(i + 1, 6):
                f, c = scipy.signal.coherence(y[:, i], y[:, j], fs=1000 / PERIOD, nperseg=50)
                flat = still(y[:, i]) or still(y[:, j])
                pairs.append(0.0 if flat else c[(f >= low) & (f < high)].mean())
        numbers += [np.mean(pairs), np.std(pairs)]
    return numbers


def np_wavelet(x):
    """The convolution written out as a sum over frequencies of the continuous formula."""
    numbers = []
    t = np.arange(len(x)) * PERIOD / 1000
    c = np.array([(x - x.mean()) @ np.exp(-2j * np.pi * k * np.arange(len(x)) / len(x)) for k in range(len(x) // 2)])
    g = np.arange(len(x) // 2) / (len(x) * PERIOD / 1000)
    for f in (0.03, 0.11):
        width = 5.0 / (2 * np.pi * f)  # standard deviation of the envelope, s
        gain = 2 * np.exp(-2 * (np.pi * (g - f) * width) ** 2) * (g > 0)
        w = np.abs([np.sum(c * gain * np.exp(2j * np.pi * g * s)) for s in t]) / len(x) * (not still(x))
        numbers += [w.mean(), w.std(), (w**2).sum()]
    return numbers


# ---- the network, information, events


def np_order(y):
    phase, moving = np_phases(y)
    r = np.abs(np.exp(1j * phase[:, moving]).mean(axis=1)) if any(moving) else np.zeros(len(y))
    return [r.mean(), r.std()]


def np_z(y):
    return np.stack([np.zeros(len(x)) if still(x) else scipy.stats.zscore(x) for x in y.T], axis=1)


def np_coactivation(y):
    z = np_z(y)
    phase, moving = np_phases(z)
    whole = np_phases(z.mean(axis=1, keepdims=True))[0][:, 0]
    rows = []
    for i in range(6):
        product = z[:, i] * np.delete(z, i, axis=1).mean(axis=1)
        turn = np.angle(np.exp(1j * (whole - phase[:, i])).sum()) * moving[i]
        rows.append([product.mean(), product.std(), turn])
    return np.array(rows).T.ravel()


def np_entropies(x):
    counts = np.histogram(x, bins=10)[0]
    return [0.0 if still(x) else scipy.stats.norm(scale=x.std()).entropy(), scipy.stats.entropy(counts)]


def np_information(y):
    gaussian, binned = [], []
    for i in range(6):
        for j in range(i + 1, 6):
            gaussian.append(-0.5 * np.log(1 - np_corr(y[:, i], y[:, j]) ** 2))
            joint = np.histogram2d(y[:, i], y[:, j], bins=8)[0] / len(y)
            alone = np.outer(joint.sum(axis=1), joint.sum(axis=0))
            binned.append(np.sum(joint[joint > 0] * np.log(joint[joint > 0] / alone[joint > 0])))
    return [np.mean(gaussian), np.std(gaussian), np.mean(binned), np.std(binned)]


def np_transfer(y):
    """From the residual variances of two least-squares fits."""

    def residual(x, *sources):
        design = np.column_stack([np.ones(len(x)), *sources])
        return np.var(x - design @ np.linalg.lstsq(design, x, rcond=None)[0])

    te = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            x, source = y[:, i], y[:, j]
            if i != j and not still(x) and not still(source):
                own = residual(x[1:], x[:-1])
                te[i, j] = 0.5 * np.log(own / residual(x[1:], x[:-1], source[:-1]))
    off = te[~np.eye(6, dtype=bool)]
    return [off.mean(), off.std(), off.max(), np.abs(np_above(te) - np_above(te.T)).mean()]


def np_onset(x, threshold=5.0):
    high = [k for k in range(len(x)) if x[k] > threshold]
    time = len(x)
    if high:
        k = high[0]
        time = 0 if k == 0 else k - 1 + (threshold - x[k - 1]) / (x[k] - x[k - 1])
    rise = np.diff(x)
    jump = rise.argmax() if rise.max() > threshold else len(x)
    return [PERIOD * time, float(bool(high)), PERIOD * len(high), PERIOD * jump]


def np_bursts(x):
    z = np.zeros(len(x)) if still(x) else scipy.stats.zscore(x)
    runs = {True: [], False: []}
    previous = None
    for value in z > 1.0:
        if value != previous:
            runs[bool(value)].append(0)
        runs[bool(value)][-1] += 1
        previous = value
    seconds = len(x) * PERIOD / 1000
    lengths = [PERIOD * np.mean(runs[state]) if runs[state] else 0.0 for state in (True, False)]
    return [len(runs[True]) / seconds, sum(runs[True]) / len(x), *lengths]


def np_avalanches(y):
    active = np.abs(np_z(y)) > 2.0
    sizes, frames, going = [], 0, False
    for row in active:
        if row.any():
            sizes = [*sizes[:-1], sizes[-1] + row.sum()] if going else [*sizes, row.sum()]
            frames += 1
        going = row.any()
    if not sizes:
        return [0.0] * 4
    return [len(sizes) / (len(y) * PERIOD / 1000), np.mean(sizes), PERIOD * frames / len(sizes), frames / len(y)]


def np_area(x):
    t = np.arange(len(x)) * PERIOD
    return [np.trapezoid(x[:11], t[:11]), np.trapezoid(x[4:150], t[4:150])]  # 7 s is 3.5 samples, rounded to even


def np_masked(y):
    fc = np_fc(y)
    return [fc[i, j] for i in range(6) for j in range(i + 1, 6) if MASK[i, j] or MASK[j, i]]


def np_extra_stat(y):
    fc = np_fc(y)
    return [*np_extras(fc, np_above(fc)), np.mean(np_homotopic(y)), np.mean(np.maximum(np_homotopic(y), 0.0))]


def np_histogram(y):
    fcd = np_above(np_fcd(y, 25, 4))
    return np.histogram(fcd, bins=7, range=(-1, 1))[0] / len(fcd)


def _peaks(x, threshold):
    """Upward crossings, peaks and the number of samples above threshold, in loops."""
    up = [k for k in range(1, len(x)) if x[k - 1] < threshold <= x[k]]
    ends = [*up[1:], len(x)][: len(up)]
    peaks = [a + int(np.argmax(x[a:b])) for a, b in zip(up, ends, strict=True)]
    return peaks, [sum(x[a:b] >= threshold) for a, b in zip(up, ends, strict=True)]


def np_spikes(x, threshold=4.0, onset=20_000.0, duration=200_000.0, burst=6_500.0):
    peaks, _ = _peaks(x, threshold)
    t = [(k + 1) * PERIOD - onset for k in peaks]
    n, during = len(t), [v for v in t if 0 < v <= duration]
    isi = np.diff(t)
    later = isi[1:]
    pairs = [(b - a) / (b + a) for a, b in itertools.pairwise(later)]
    return [
        n,
        1e3 * len(during) / during[-1] if during else 0.0,
        t[0] if n else 0.0,
        t[-1] if n else 0.0,
        np.mean(later) if n > 2 else 0.0,
        np.std(later, ddof=1) / np.mean(later) if n > 3 else 0.0,
        min(later, default=0.0),
        max(later, default=0.0),
        isi[0] if n > 1 else 0.0,
        np.mean(pairs) if n > 3 else 0.0,
        np.mean(later < burst) if n > 2 else 0.0,
        *(float(n >= k) for k in (1, 2, 3, 4)),
    ]


def np_action_potential(x, threshold=4.0, onset=20_000.0, duration=200_000.0):
    begin_of, end_of = round(onset / PERIOD), round((onset + duration) / PERIOD)
    peaks, above = _peaks(x, threshold)
    n, slope = len(peaks), np.gradient(x, PERIOD)
    ends = [*peaks[1:], end_of if n and peaks[-1] < end_of else len(x)][:n]
    low = [a + int(np.argmin(x[a:b])) for a, b in zip(peaks, ends, strict=True)]
    since = [min(k, p) for k, p in zip([begin_of - 1, *low[:-1]], peaks, strict=False)]
    # no slope of this recording reaches 10 mV/ms: every spike begins where its search does, and none ends
    width, steepest = [], []
    for k, p in enumerate(peaks):
        level = (x[p] + x[low[k]]) / 2
        start, stop = (peaks[k - 1] if k else 0), (peaks[k + 1] if k + 1 < n else len(x))
        a = [j for j in range(start, p) if x[j] <= level]
        b = [j for j in range(p, stop) if x[j] <= level]
        width.append(
            (b[0] - 1 + (level - x[b[0] - 1]) / (x[b[0]] - x[b[0] - 1]))
            - (a[-1] + (level - x[a[-1]]) / (x[a[-1] + 1] - x[a[-1]]))
            if a and b
            else 0.0
        )
        steepest.append(max((slope[j] for j in range(since[k], p)), default=0.0))
    height = x[peaks]

    def mean(values):
        return float(np.mean(values)) if len(values) else 0.0

    rise = [(x[p] - x[a]) / ((p - a) * PERIOD) if p > a else 0.0 for p, a in zip(peaks, since, strict=True)]
    slow = [a + 1 + int(np.argmin(x[a + 1 : b])) for a, b in itertools.pairwise(peaks[1:])]
    return [
        mean(height),
        height[-1] - height[0] if n else 0.0,
        mean(height - x[since]),
        mean(above) * PERIOD,
        mean(width) * PERIOD,
        mean(rise),
        0.0,
        mean(steepest),
        mean(x[low]),
        mean(x[slow]),
        mean([(k - a) / (b - a) for k, a, b in zip(slow, peaks[1:-1], peaks[2:], strict=True)]),
        float(n >= 1),
        float(n >= 3),
    ]


def np_subthreshold(x):
    """Onset at 60 s, end at 260 s, 0.5 nA: samples 30 to 130."""
    base, end, on = x[27:30].mean(), x[119:129].mean(), x[30:130]
    low = on.min()
    sag = (end - low) / (base - low) if end < base and base > low else 0.0
    left, tau = (on - end) / (base - end) if abs(base - end) > 1e-6 else np.zeros(100), 0.0
    n = int(np.argmax(left < 0.1)) if (left < 0.1).any() else len(left)
    if n > 1 and abs(base - end) > 1e-6:
        slope = np.polyfit(np.arange(n), np.log(left[:n]), 1)[0]
        tau = -PERIOD / slope if slope < 0 else 0.0
    mean, std, skew, kurtosis = np_moments(x)
    return [base, end, sag, (end - base) / 0.5, tau, low, on.max(), mean, std, skew, kurtosis, max(np.diff(x)) / PERIOD]
