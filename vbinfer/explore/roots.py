"""Characteristic roots of a network with delays."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eig, get_lapack_funcs
from scipy.sparse.csgraph import connected_components

from vbinfer.explore.drift import Jacobian

Complex = NDArray[np.complexfloating[Any, Any]]

TURN = 0.6
"""Change of log det between neighbours on a line, above which the line is refined."""
FEWEST, MOST = 48, 6000
"""Points on a line, before and after refinement."""
DIPS = 8
"""Most places on a line where roots are looked for."""
REPEATED = 16
"""Rightmost roots whose multiplicity is counted."""
LINES = 40
"""Lines that are tried until none has a root to its right."""


class Blocks(NamedTuple):
    """The instantaneous part, in blocks of linked states.

    Mostly nodes. `[K, m]` states of each block, the smaller ones filled up.
    """

    local: np.ndarray
    """`[K, m, m]`"""
    receive: np.ndarray
    """`[K, m, q]`"""
    send: np.ndarray
    """`[K, q, m]`"""
    into: np.ndarray
    """Columns of `receive`, `[K, q]`, of p * S."""
    out: np.ndarray
    """Rows of `send`, `[K, q]`."""


def rightmost(jacobian: Jacobian, near: float = 0.0) -> tuple[Complex, int]:
    """Characteristic roots, rightmost first, and number of unstable ones.

    Without delays, all eigenvalues. With delays s - A(s) has infinitely many roots, of which finitely many lie right of
    any vertical line. They are counted on the line by the argument of

        d(s) = det(s - A(s)) / det(s - local) = det(1 - M(s)),   M = weights exp(-s lags) send (s - local)^-1 receive

    which needs a matrix of the coupled nodes alone, and d = 1 far away: (roots - poles) right of it = -(turns of d).
    Roots are found by Muller's method where |g| is least on the line, g = d(s) / det of the bordered matrix, and the
    line is moved to the rightmost root until the count says that nothing lies further right by 2 % of it. Any number of
    lags will do.

    Args:
        jacobian: the linear part.
        near: about where the real part of the rightmost root is, if that is known.

    Returns:
        Roots, 1/ms: with delays those that were found, the rightmost to 2 % among them. A root of multiplicity k
        stands k times.
    """
    if jacobian.lags is None or not np.any(jacobian.lags):
        values = np.linalg.eigvals(jacobian.whole()).astype(complex)
        return _sorted(values), int((values.real > 0.0).sum())
    return _Network(jacobian).rightmost(near)


def _sorted(roots: Complex) -> Complex:
    """By descending real part, then ascending imaginary part."""
    return roots[np.lexsort((roots.imag, -np.round(roots.real, 12)))]


def _components(linked: np.ndarray) -> list[np.ndarray]:
    n, label = connected_components(linked, directed=False)
    return [np.flatnonzero(label == k) for k in range(n)]


def _blocks(jacobian: Jacobian, receive: np.ndarray, send: np.ndarray) -> Blocks:
    """The local part taken apart."""
    groups = _components(jacobian.local != 0.0)
    columns = [np.flatnonzero(receive[g].any(axis=0)) for g in groups]
    rows = [np.flatnonzero(send[:, g].any(axis=1)) for g in groups]
    k, m = len(groups), max(map(len, groups))
    q = max(1, *(len(c) for c in columns), *(len(r) for r in rows))
    local = np.zeros((k, m, m))
    # a state that fills up decays, sends nothing and receives nothing
    local[:, range(m), range(m)] = -1.0
    into, out = np.zeros((k, q), int), np.zeros((k, q), int)
    r, s = np.zeros((k, m, q)), np.zeros((k, q, m))
    for i, (g, c, t) in enumerate(zip(groups, columns, rows, strict=True)):
        local[i, : len(g), : len(g)] = jacobian.local[np.ix_(g, g)]
        into[i, : len(c)], out[i, : len(t)] = c, t
        r[i, : len(g), : len(c)], s[i, : len(t), : len(g)] = receive[np.ix_(g, c)], send[np.ix_(t, g)]
    return Blocks(local, r, s, into, out)


class _Network:
    """The functions of s that are evaluated many times."""

    def __init__(self, jacobian: Jacobian):
        p, size, n = jacobian.send.shape
        self.jacobian, self.weights, self.lags, self.size = jacobian, jacobian.weights, jacobian.lags, p * size
        receive = np.moveaxis(jacobian.receive, 0, 1).reshape(n, -1)
        # a node that nobody hears sends nothing, one that hears nobody receives nothing
        receive = receive * jacobian.weights.any(axis=2).ravel()
        send = jacobian.send.reshape(-1, n) * jacobian.weights.any(axis=1).ravel()[:, None]
        self.blocks = _blocks(jacobian, receive, send)
        self.longest = float(np.where(jacobian.weights != 0.0, jacobian.lags, 0.0).max())
        self.poles, self.fixed = self._eigenvalues(jacobian.local, receive, send)
        self.scale = max(1e-3, float(np.abs(self.poles).max()))
        draw = np.random.default_rng(0)
        border = lambda: draw.normal(size=self.size) + 1j * draw.normal(size=self.size)  # noqa: E731
        self.row, self.column = border(), border()

    def _eigenvalues(self, local: np.ndarray, receive: np.ndarray, send: np.ndarray) -> tuple[Complex, Complex]:
        """Eigenvalues of the local part, and those coupling leaves.

        These have an eigenvector that is not sent, or one on the left that receives nothing.
        """
        tiny = lambda a, axis, of: np.abs(a).max(axis=axis, initial=0.0) <= 1e-9 * np.abs(of).max(initial=0.0)  # noqa: E731
        values, unmoved = [], []
        for g in _components(local != 0.0):
            taken: Any = eig(local[np.ix_(g, g)], left=True)
            of, left, right = taken
            values.append(of)
            unmoved.append(tiny(send[:, g] @ right, 0, send) | tiny(left.conj().T @ receive[g], 1, receive))
        every = np.concatenate(values)
        return every, every[np.concatenate(unmoved)]

    def loops(self, s: Complex) -> Complex:
        """M(s) for s `[F]`, `[F, p S, p S]`."""
        b, m = self.blocks, self.blocks.local.shape[-1]
        inside = np.linalg.inv(s[:, None, None, None] * np.eye(m) - b.local)
        small = b.send @ inside @ b.receive
        through = np.zeros((len(s), self.size, self.size), complex)
        q = b.out.shape[1]
        rows, columns = np.repeat(b.out[:, :, None], q, 2).ravel(), np.repeat(b.into[:, None, :], q, 1).ravel()
        places: Any = (slice(None), rows, columns)
        np.add.at(through, places, small.reshape(len(s), -1))
        p, size = self.weights.shape[:2]
        carried = self.weights * np.exp(-s[:, None, None, None] * self.lags)
        return (carried @ through.reshape(len(s), p, size, -1)).reshape(len(s), self.size, self.size)

    def evaluate(self, s: Complex) -> tuple[Complex, Complex]:
        """log d(s) in any sheet, and g(s)."""
        log, g = np.empty(len(s), complex), np.empty(len(s), complex)
        n = self.size
        target = np.zeros(n + 1, complex)
        target[n] = 1.0
        getrf, getrs = get_lapack_funcs(("getrf", "getrs"), (target,))
        for first in range(0, len(s), 64):
            part = s[first : first + 64]
            bordered = np.zeros((len(part), n + 1, n + 1), complex)
            bordered[:, :n, :n] = np.eye(n) - self.loops(part)
            bordered[:, n, :n], bordered[:, :n, n] = self.row, self.column
            for i, matrix in enumerate(bordered, start=first):
                # one decomposition: the last number of the solution is det(1 - M) over the bordered determinant
                lu, pivots, _ = getrf(matrix)
                g[i] = getrs(lu, pivots, target)[0][n]
                flips = np.count_nonzero(pivots != np.arange(n + 1))
                with np.errstate(divide="ignore"):  # at a root to the last digit
                    log[i] = np.log(np.diag(lu)).sum() + 1j * np.pi * flips + np.log(g[i])
        return log, g

    def reach(self, sigma: float) -> float:
        """Frequency above which no loop gains, 1/ms."""
        w = np.concatenate([[0.0], np.geomspace(1e-3, 1e3, 61) * self.scale])
        p, size = self.weights.shape[:2]
        carried = np.abs(self.weights) * np.exp(np.minimum(-sigma * self.lags, 700.0))
        b, m = self.blocks, self.blocks.local.shape[-1]
        inside = np.abs(np.linalg.inv((sigma + 1j * w)[:, None, None, None] * np.eye(m) - b.local))
        small = np.abs(b.send) @ inside @ np.abs(b.receive)
        gains = np.zeros((len(w), self.size))
        for column in range(b.into.shape[1]):
            places: Any = (slice(None), b.out[:, column])
            np.maximum.at(gains, places, small[:, :, column].max(axis=-1, initial=0.0))
        per_row = (
            (
                carried.reshape(p * size, size)[None]
                * gains.reshape(len(w), p, 1, size).repeat(size, 2).reshape(len(w), p * size, size)
            )
            .sum(axis=(2,))
            .max(axis=1)
        )
        over = np.flatnonzero(per_row >= 0.9)
        return 0.0 if not len(over) else float(w[min(over[-1] + 1, len(w) - 1)])

    def line(self, sigma: float) -> tuple[Complex, Complex, Complex]:
        """Points of a line, continuous log d, and g."""
        if np.abs(self.poles.real - sigma).min() <= 1e-9 * self.scale:
            sigma += 1e-7 * self.scale  # no pole of d on the line
        end = self.reach(sigma)
        most = max(end, 1.2 * float(np.abs(self.poles.imag).max()), 1e-3 * self.scale, 3.0 / self.longest)
        count = int(np.clip(most * self.longest / 0.5, FEWEST, MOST // 3))
        w = np.concatenate([np.linspace(0.0, most, count), most * np.geomspace(1.05, 1e3, 12)])
        log, g = self.evaluate(sigma + 1j * w)
        while len(w) < MOST:
            turn = np.diff(log)
            turn = turn.real + 1j * (turn.imag - 2.0 * np.pi * np.round(turn.imag / (2.0 * np.pi)))
            wide = (np.abs(turn) > TURN) & (np.diff(w) > 1e-10 * self.scale)
            if not wide.any():
                break
            new = 0.5 * (w[:-1] + w[1:])[wide]
            log_new, g_new = self.evaluate(sigma + 1j * new)
            order = np.argsort(np.concatenate([w, new]))
            w, log, g = (np.concatenate(pair)[order] for pair in ((w, new), (log, log_new), (g, g_new)))
        return sigma + 1j * w, log.real + 1j * np.unwrap(log.imag), np.asarray(g, complex)

    def count(self, sigma: float, log: Complex) -> int:
        """Roots right of a line, from log d."""
        # d is 1 at infinity, and real at frequency 0
        turns = (log[-1].imag - np.angle(np.exp(1j * log[-1].imag))) - log[0].imag
        return int((self.poles.real > sigma).sum()) + round(-turns / np.pi)

    def rightmost(self, near: float) -> tuple[Complex, int]:
        """Roots, and how many lie right of 0."""
        roots, step, clear, sigma, poles = self.fixed, 0.1 / self.longest, np.inf, near, self.poles.real.max()
        for _ in range(LINES):
            s, log, g = self.line(sigma)
            sigma, beyond = s[0].real, self.count(s[0].real, log)
            roots = self._gathered(np.concatenate([roots, self._dips(s, g)]))
            if (lead := roots.real.max(initial=-np.inf)) < poles:
                # where coupling is weak a root and a pole all but cancel: no line sees a dip
                roots, poles = self._gathered(np.concatenate([roots, self._beside_poles()])), -np.inf
                lead = roots.real.max(initial=-np.inf)
            close = lead + 0.02 * max(abs(lead), 0.05 / self.longest) if len(roots) else lead
            if beyond == 0:
                clear = min(clear, sigma)
                if len(roots) and sigma <= close + 1e-9 * abs(close):
                    return self._described(roots)
            if beyond == 0 and not len(roots):
                sigma, step = sigma - step, 2.0 * step
            elif beyond == 0:
                sigma = close
            elif clear < np.inf:  # what lies to the right may be too far from this line to be seen
                sigma = max(close, 0.5 * (sigma + clear)) if close < clear else close
            else:
                sigma, step = max(close, sigma + step), 2.0 * step
        raise RuntimeError(
            f"the rightmost characteristic root was not found on {LINES} lines, the last at Re s = {sigma:.4g} per ms; "
            "please report the network"
        )

    def _described(self, roots: Complex) -> tuple[Complex, int]:
        """Roots with multiplicity, in order; number of unstable ones."""
        roots = _sorted(roots)
        times = [self._multiplicity(root) for root in roots[:REPEATED]]
        roots = np.concatenate([np.repeat(roots[:REPEATED], times), roots[REPEATED:]])
        if roots[0].real <= 0.0:
            return roots, 0
        s, log, _ = self.line(0.0)
        return roots, self.count(s[0].real, log)

    def _dips(self, s: Complex, g: Complex) -> Complex:
        """Roots near a line's points of least |g|."""
        size = np.abs(g)
        inner = np.flatnonzero((size[1:-1] <= size[:-2]) & (size[1:-1] <= size[2:])) + 1
        starts = [(s[k - 1 : k + 2], g[k - 1 : k + 2]) for k in inner[np.argsort(size[inner])][:DIPS]]
        if size[0] <= size[1]:  # the line goes on to the conjugate
            starts.append((np.array([s[1].conjugate(), s[1], s[0]]), np.array([np.nan, g[1], g[0]])))
        found = [self._muller(*start) for start in starts]
        return np.array([root for root in found if root is not None], complex)

    def _beside_poles(self) -> Complex:
        """Roots near the eigenvalues of A(s) at the rightmost pole.

        By Muller's method, or, where they lie too close to the pole for it, as the eigenvalue nearest to s again and
        again, which contracts by (lag x coupling).
        """
        pole = self.poles[np.argmax(self.poles.real)]
        values = self._eigenvalues_at(pole)
        starts = values[values.imag >= 0.0][np.argsort(-values[values.imag >= 0.0].real)][:DIPS]
        apart = 1e-3 * np.abs(starts - pole) + 1e-9 * self.scale
        points = starts[:, None] + apart[:, None] * np.array([1.0, 1j, 0.0])
        found = [root for near in points if (root := self._muller(near, np.full(3, np.nan))) is not None]
        for start in starts[: 0 if found else 1]:
            old, new = complex(np.inf), complex(start)
            for _ in range(DIPS):
                if not len(values := self._eigenvalues_at(new)):
                    break
                old, new = new, complex(values[np.abs(values - new).argmin()])
            found += [new] if abs(new - old) <= 1e-12 * self.scale else []
        return np.array(found, complex)

    def _eigenvalues_at(self, s: complex) -> Complex:
        """Eigenvalues of A(s); none where what is delayed is not weak."""
        of = self.jacobian
        with np.errstate(over="ignore", invalid="ignore"):  # of exp(-s lag), far left
            delayed = (of.receive @ (self.weights * np.exp(-s * self.lags)) @ of.send).sum(axis=0)
        weak = np.abs(delayed).max() <= self.scale  # and not NaN
        return np.linalg.eigvals(of.local + delayed) if weak else np.zeros(0, complex)

    def _value(self, s: complex) -> complex:
        try:
            return self.evaluate(np.array([s]))[1][0]
        except np.linalg.LinAlgError:  # s is an eigenvalue of the local part to the last digit
            return self.evaluate(np.array([s + 1e-12 * self.scale]))[1][0]

    def _muller(self, s: Complex, g: Complex) -> complex | None:
        """The root near three points, by Muller's method."""
        points, values = list(s), [v if np.isfinite(v) else self._value(at) for at, v in zip(s, g, strict=True)]
        for _ in range(25):
            a, b, c = points[-3:]
            slope_ab, slope_bc = (values[-2] - values[-3]) / (b - a), (values[-1] - values[-2]) / (c - b)
            bend = (slope_bc - slope_ab) / (c - a)
            slope = slope_bc + bend * (c - b)
            root = np.sqrt(slope * slope - 4.0 * bend * values[-1])
            below = slope + root if abs(slope + root) >= abs(slope - root) else slope - root
            if below == 0.0 or not np.isfinite(below):
                return None
            move = -2.0 * values[-1] / below
            if (c + move).real < points[0].real - 10.0 / self.longest or abs(c + move) > 1e4 * self.scale:
                return None  # far left, where there are always more
            points.append(c + move)
            values.append(self._value(points[-1]))
            if abs(move) <= 1e-13 * max(abs(points[-1]), 1e-3 * self.scale) or points[-1] in points[-4:-1]:
                return points[-1] if abs(values[-1]) <= 1e-9 * max(map(abs, values[:3])) else None
        return None

    def _gathered(self, roots: Complex) -> Complex:
        """Distinct roots, with their conjugates."""
        kept: list[complex] = []
        tol = 1e-7 * self.scale
        for root in roots:
            root = complex(root.real, 0.0 if abs(root.imag) < tol else abs(root.imag))
            if not any(abs(root - other) < tol for other in kept):
                kept.append(root)
        return np.array([each for r in kept for each in ((r, r.conjugate()) if r.imag else (r,))], complex)

    def _multiplicity(self, root: complex) -> int:
        own = int((np.abs(self.fixed - root) < 1e-7 * self.scale).sum())
        if own:
            return own
        sizes = np.linalg.svd(np.eye(self.size) - self.loops(np.array([root]))[0], compute_uv=False)
        return max(1, int((sizes < 1e-7 * max(1.0, sizes[0])).sum()))
