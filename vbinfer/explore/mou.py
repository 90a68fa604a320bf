"""Multivariate Ornstein-Uhlenbeck processes of recordings."""

import dataclasses
from typing import Any

import numpy as np
import scipy.linalg as la
from scipy.linalg.lapack import dtrsyl  # pyright: ignore[reportAttributeAccessIssue]
from scipy.optimize import minimize

from vbinfer import _check
from vbinfer.explore.recordings import checked_recording

_STEPS = 24_000
"""Steps of the search, shared by the channels: 300 for 80, some seconds."""
_WALL = 1.0
"""Scale of the border, nats."""


@dataclasses.dataclass(frozen=True, eq=False)
class Mou:
    """A fitted Ornstein-Uhlenbeck process.

    dx = J (x - mean) dt + dW,   cov(dW) = Sigma dt

    Attributes:
        J: `[i, j]`, from j to i, 1/ms.
        Sigma: `[N, N]`, diagonal, squared units of the recording per ms.
        mean: `[N]`, of the recording.
        loglik: log-likelihood of the recording, all constants included.
        covariance: `[N, N]`, stationary.
        converged: whether the likelihood had ceased to rise.
    """

    J: np.ndarray
    Sigma: np.ndarray
    mean: np.ndarray
    loglik: float
    covariance: np.ndarray
    converged: bool


def fit_mou(y: Any, period: float, mask: Any = None) -> Mou:
    """Fit an Ornstein-Uhlenbeck process by maximum likelihood.

    Effective connectivity of a whole brain (Gilson et al. 2016, doi:10.1371/journal.pcbi.1004762), with the exact
    likelihood of the sampled process in place of a fit of two covariances:

    x_{k+1} | x_k ~ N(Phi x_k, P - Phi P Phi^T),   x_0 ~ N(0, P),   Phi = exp(J period),   J P + P J^T + Sigma = 0

    It depends on the recording through moments at lags 0 and 1 alone, so that the time of a step does not depend on T.
    Samples cannot tell rhythms beyond Nyquist from slower ones, nor what has decayed within a sixth of a period: J is
    sought among those with eigenvalues of |Im| < pi / period and Re > -2 pi / period. Recordings whose channels share
    noise, as BOLD does, come close to it, since the noise of the model is independent.

    Args:
        y: recording `[T, N]`, without gaps; its mean is removed.
        period: ms between samples.
        mask: `[N, N]`, True where J may differ from 0, from j to i; the diagonal always may. None is everywhere.

    Raises:
        ValueError: gaps, a singular covariance, too few samples, a mask of another shape.

    Example:
        >>> import jax, numpy as np, vbinfer as vb
        >>> pair = vb.Connectome([[0.0, 0.0], [1.0, 0.0]])                       # from the first to the second
        >>> sim = vb.Simulator(vb.models.Linear(gamma=-0.5), pair, coupling=vb.coupling.Linear(G=0.3),
        ...                    integrator=vb.Heun(dt=0.1), noise=vb.noise.Additive(1.0))
        >>> y = vb.simulate(sim, t1=20_000.0, key=jax.random.key(0)).ys["raw"]["x"][::20]
        >>> fit = vb.explore.fit_mou(y, period=2.0, mask=[[True, False], [True, True]])
        >>> bool(abs(fit.J - [[-0.5, 0.0], [0.3, -0.5]]).max() < 0.05), float(fit.J[0, 1])
        (True, 0.0)
    """
    period = _check.positive(period, "period", 2.0, "ms")
    N = np.shape(y)[1] if np.ndim(y) == 2 else 1
    y = checked_recording(y, N + 2)
    free = _free(mask, N)
    mean, sd = y.mean(axis=0), y.std(axis=0)
    # in units of the standard deviations and of the period: all numbers of order 1
    problem = _Likelihood((y - mean) / sd, free)
    J, s, value, converged = _maximum(problem)
    scale = np.outer(sd, 1.0 / sd) / period
    J, Sigma = np.where(free, J * scale, 0.0), np.diag(s * sd**2 / period)
    P = la.solve_continuous_lyapunov(J, -Sigma)
    return Mou(J, Sigma, mean, float(-value - len(y) * np.log(sd).sum()), P, converged)


def _free(mask: Any, n: int) -> np.ndarray:
    """Entries of J that may differ from 0."""
    if mask is None:
        return np.ones((n, n), bool)
    mask = np.asarray(mask)
    if mask.shape != (n, n):
        raise ValueError(
            f"mask has shape {list(mask.shape)}; expected {[n, n]}, from column to row, as y has {n} channels"
        )
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise ValueError("mask holds other numbers than 0 and 1; write weights > 0")
    return mask.astype(bool) | np.eye(n, dtype=bool)


class _Likelihood:
    """Negative log-likelihood and its gradient, with period 1."""

    def __init__(self, x: np.ndarray, free: np.ndarray):
        past, present = x[:-1], x[1:]
        self.free, self.n, self.x0 = free, len(x), x[0]
        self.lag0, self.lag1, self.now = past.T @ past, present.T @ past, present.T @ present
        self.constant = 0.5 * x.size * np.log(2.0 * np.pi)

    def __call__(self, J: np.ndarray, s: np.ndarray) -> tuple[float, np.ndarray, np.ndarray] | None:
        """Value with the border's, and its gradients.

        The gradient in J is full, whatever is free. None beyond the border.
        """
        T, Q = la.schur(J)[:2]
        within = _border(J, np.linalg.eigvals(T))
        if within is None:
            return None
        P, Phi = _lyapunov(T, Q, np.diag(s), "N"), la.expm(J)
        V = P - Phi @ P @ Phi.T
        try:
            roots = [la.cho_factor(0.5 * (M + M.T), lower=True) for M in (V, P)]
        except la.LinAlgError:
            return None
        iV, iP = (la.cho_solve(root, np.eye(len(J))) for root in roots)
        log_V, log_P = (2.0 * np.log(np.diag(root)).sum() for root, _ in roots)
        R = self.now - Phi @ self.lag1.T - self.lag1 @ Phi.T + Phi @ self.lag0 @ Phi.T
        value = 0.5 * ((self.n - 1) * log_V + (iV * R).sum() + log_P + self.x0 @ iP @ self.x0) + self.constant
        # backwards through V, Phi and P; the adjoint of the Lyapunov equation is that of J^T
        g_V = 0.5 * ((self.n - 1) * iV - iV @ R @ iV)
        g_Phi = iV @ (Phi @ self.lag0 - self.lag1) - 2.0 * g_V @ Phi @ P
        start = iP @ self.x0
        g_P = g_V - Phi.T @ g_V @ Phi + 0.5 * (iP - np.outer(start, start))
        adjoint = _lyapunov(T, Q, g_P, "T")
        g_J = 2.0 * adjoint @ P + la.expm_frechet(J.T, g_Phi, compute_expm=False)
        return float(value) + within[0], g_J + within[1], np.diag(adjoint)


def _border(J: np.ndarray, eigenvalues: Any) -> tuple[float, np.ndarray] | None:
    """A wall around what samples can tell; its gradient.

    Rhythms beyond Nyquist look like slower ones, and of what decays within a sixth of a period nothing is left: there J
    would run away. The wall stands at |Im| = pi and Re = -2 pi, and is felt from 3/4 of the way on.
    """
    way = np.stack([np.abs(eigenvalues.imag) / np.pi, -eigenvalues.real / (2.0 * np.pi)])
    if way.max() >= 1.0 or way[1].min() <= 0.0:
        return None
    if way.max() <= 0.75:
        return 0.0, np.zeros_like(J)
    eigen: Any = la.eig(J, left=True)
    values, left, right = eigen
    way = np.stack([np.abs(values.imag) / np.pi, -values.real / (2.0 * np.pi)])
    over = np.maximum(4.0 * way - 3.0, 0.0)
    slope = _WALL * 8.0 * over / (1.0 - over**2)
    # d lambda = l^H dJ r / (l^H r), of which d Im and d Re are the parts
    parts = -slope[1] / (2.0 * np.pi) - 1j * slope[0] * np.sign(values.imag) / np.pi
    gradient = (left.conj() * (parts / (left.conj() * right).sum(axis=0))) @ right.T
    return float(-_WALL * np.log1p(-(over**2)).sum()), gradient.real


def _lyapunov(T: np.ndarray, Q: np.ndarray, C: np.ndarray, how: str) -> np.ndarray:
    """Solution of the Lyapunov equation from a Schur form.

    X of A X + X A^T + C = 0 for A = Q T Q^T, or of A^T ("T").
    """
    Y, scale, _ = dtrsyl(T, T, -Q.T @ C @ Q, trana=how, tranb="T" if how == "N" else "N")
    return Q @ (Y / scale) @ Q.T


def _maximum(problem: _Likelihood) -> tuple[np.ndarray, np.ndarray, float, bool]:
    """J, diagonal of Sigma, value, and whether it converged.

    L-BFGS in coordinates in which the Hessian is near 1: for short periods that of row i of J is T cov(x) / Sigma_ii
    between its free entries, and that of log Sigma T / 2.
    """
    free, N = problem.free, len(problem.free)
    cov = problem.lag0 / (problem.n - 1)
    J, s = _start(problem, cov)
    rows = [np.flatnonzero(row) for row in free]
    roots = [la.inv(la.cholesky(problem.n / s[i] * cov[np.ix_(m, m)], lower=True)).T for i, m in enumerate(rows)]
    ends, level = np.cumsum([len(m) for m in rows]), np.sqrt(2.0 / problem.n)

    def unpacked(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        step = np.zeros((N, N))
        for i, (m, root, part) in enumerate(zip(rows, roots, np.split(z[: ends[-1]], ends[:-1]), strict=True)):
            step[i, m] = root @ part
        return J + step, s * np.exp(level * z[ends[-1] :])

    last: list[Any] = []

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        at, noise = unpacked(z)
        found = problem(at, noise)
        if found is None:  # as high as before, and rising again: a line search then halves its step
            return last[0], -last[1]
        value, g_J, g_s = found
        parts = [root.T @ g_J[i, m] for i, (m, root) in enumerate(zip(rows, roots, strict=True))]
        last[:] = value, np.concatenate([*parts, level * noise * g_s])
        return last[0], last[1]

    options = {"maxiter": _STEPS // N, "maxcor": 40, "ftol": 1e-10, "gtol": 1e-4}
    found = minimize(objective, np.zeros(ends[-1] + N), jac=True, method="L-BFGS-B", options=options)
    J, s = unpacked(found.x)
    border = _border(J, np.linalg.eigvals(J))
    return J, s, float(found.fun) - (border[0] if border else 0.0), bool(found.success)


def _start(problem: _Likelihood, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Regressions of the rows, as for a short period."""
    N = len(cov)
    J = np.zeros((N, N))
    for i, row in enumerate(problem.free):
        m = np.flatnonzero(row)
        J[i, m] = la.solve(problem.lag0[np.ix_(m, m)], problem.lag1[i, m], assume_a="pos") - (m == i)
    own = np.diag(np.minimum(np.diag(J), -0.05))
    while _border(J, np.linalg.eigvals(J)) is None:  # the mask may have made it unstable
        J = 0.7 * J + 0.3 * own
    s = -2.0 * (J * cov).sum(axis=1)
    return J, np.maximum(s, 0.05 * np.diag(cov) * -np.diag(own))
