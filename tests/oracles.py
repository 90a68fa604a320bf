"""Right-hand sides and integrators written a second time: float64 NumPy, scalar loops over nodes, no code in common.

Equations and parameter values come from the papers named in the model files.
"""

import math

import numpy as np


def linear(x, c, p, i):
    return [p["gamma"][i] * x[0] + c]


def montbrio(x, c, p, i):
    r, v = x
    tau = p["tau"][i]
    pi_tau_r = math.pi * tau * r
    dr = p["Delta"][i] / (math.pi * tau * tau) + 2.0 * v * r / tau
    dv = (v * v + p["eta"][i] + p["I"][i] + p["J"][i] * tau * r - pi_tau_r * pi_tau_r + p["cr"][i] * c) / tau
    return [dr, dv]


def wong_wang(x, c, p, i):
    s = x[0]
    current = p["J_N"][i] * (p["w"][i] * s + c) + p["I_o"][i]
    u = p["a"][i] * current - p["b"][i]
    h = 1.0 / p["d"][i] if u == 0.0 else u / (1.0 - math.exp(-p["d"][i] * u))
    return [-s / p["tau_s"][i] + p["gamma"][i] * h * (1.0 - s)]


BOUNDS = {
    "Linear": lambda x: x,
    "MontbrioPazoRoxin": lambda x: [max(x[0], 0.0), x[1]],
    "ReducedWongWang": lambda x: [min(max(x[0], 0.0), 1.0)],
}
FIELDS = {"Linear": linear, "MontbrioPazoRoxin": montbrio, "ReducedWongWang": wong_wang}


def drift(name, x, weights, G, p):
    """dx/dt, `[V][N]`, of a network whose first state variable is coupled linearly."""
    n = len(x[0])
    columns = []
    for i in range(n):
        c = 0.0
        for j in range(n):
            c += G * weights[i][j] * x[0][j]
        columns.append(FIELDS[name]([row[i] for row in x], c, p, i))
    return np.array(columns).T


def heun(name, x, weights, G, p, dt, steps, noise=None):
    """States after each of `steps` Heun steps, `[steps, V, N]`; noise is `[steps, V, N]` increments."""
    x, out = np.array(x, float), []
    bound = lambda y: np.array([BOUNDS[name](list(column)) for column in y.T]).T  # noqa: E731
    for k in range(steps):
        dw = 0.0 if noise is None else noise[k]
        k1 = drift(name, x, weights, G, p)
        k2 = drift(name, bound(x + dt * k1 + dw), weights, G, p)
        x = bound(x + 0.5 * dt * (k1 + k2) + dw)
        out.append(x)
    return np.array(out)
