"""Right-hand sides and integrators written a second time: float64 NumPy, scalar loops over nodes, no code in common.

A field is `field(x, c, p, i)`: state variables and coupling inputs of node i as lists of numbers, parameters by name as
arrays over nodes. Equations come from the papers named in the model files.
"""

import functools
import math

import numpy as np
import scipy.integrate
import scipy.stats


def linear(x, c, p, i):
    return [p["gamma"][i] * x[0] + c[0]]


def montbrio(x, c, p, i):
    r, v = x
    tau = p["tau"][i]
    pi_tau_r = math.pi * tau * r
    dr = p["Delta"][i] / (math.pi * tau * tau) + 2.0 * v * r / tau
    dv = (v * v + p["eta"][i] + p["I"][i] + p["J"][i] * tau * r - pi_tau_r * pi_tau_r + p["cr"][i] * c[0]) / tau
    return [dr, dv]


def wong_wang(x, c, p, i):
    s = x[0]
    current = p["J_N"][i] * (p["w"][i] * s + c[0]) + p["I_o"][i]
    u = p["a"][i] * current - p["b"][i]
    h = 1.0 / p["d"][i] if u == 0.0 else u / (1.0 - math.exp(-p["d"][i] * u))
    return [-s / p["tau_s"][i] + p["gamma"][i] * h * (1.0 - s)]


def kuramoto(x, c, p, i):
    return [c[0] + p["omega"][i]]


def jansen_rit(x, c, p, i):
    """Second-order form of the paper, z'' + 2 k z' + k^2 z = H k f, taken apart."""

    def fired(v):
        return 2.0 * p["nu_max"][i] / (1.0 + math.exp(p["r"][i] * (p["v0"][i] - v)))

    def synapse(gain, k, f, z, dz):
        return gain * k * f - 2.0 * k * dz - k * k * z

    c_1, c_2, c_3, c_4 = (p[name][i] * p["J"][i] for name in ("a_1", "a_2", "a_3", "a_4"))
    A, B, a, b = (p[name][i] for name in "ABab")
    pyramidal = synapse(A, a, fired(x[1] - x[2]), x[0], x[3])
    excitatory = synapse(A, a, p["mu"][i] + c[0] + c_2 * fired(c_1 * x[0]), x[1], x[4])
    inhibitory = synapse(B, b, c_4 * fired(c_3 * x[0]), x[2], x[5])
    return [x[3], x[4], x[5], pyramidal, excitatory, inhibitory]


def wilson_cowan(x, c, p, i):
    q = {name: values[i] for name, values in p.items()}
    out = []
    for own, s, drive in (
        ("e", x[0], q["c_ee"] * x[0] - q["c_ei"] * x[1] + q["P"] + c[0]),
        ("i", x[1], q["c_ie"] * x[0] - q["c_ii"] * x[1] + q["Q"]),
    ):
        a, b = q["a_" + own], q["b_" + own]
        active = 1.0 / (1.0 + math.exp(-a * (q["alpha_" + own] * (drive - q["theta_" + own]) - b)))
        at_zero = math.exp(-a * b) / (1.0 + math.exp(-a * b))
        response = q["c_" + own] * (active - at_zero)
        out.append((response * (q["k_" + own] - q["r_" + own] * s) - s) / q["tau_" + own])
    return out


def hopf(x, c, p, i):
    """z' = z (a + i omega - |z|^2) in complex numbers."""
    z = complex(x[0], x[1])
    dz = z * complex(p["a"][i] - abs(z) ** 2, p["omega"][i]) + complex(c[0], c[1])
    return [dz.real, dz.imag]


def generic_2d(x, c, p, i):
    v, w = x
    q = {name: values[i] for name, values in p.items()}
    cubic = ((-q["f"] * v + q["e"]) * v + q["g"]) * v
    parabola = (q["c"] * v + q["b"]) * v + q["a"]
    return [
        q["tau"] * q["d"] * (cubic + q["alpha"] * w + q["gamma"] * (q["I"] + c[0])),
        (parabola - q["beta"] * w) * q["d"] / q["tau"],
    ]


def damped(x, c, p, i):
    prey, predator = x
    return [prey * (1.0 - predator - p["a"][i] * prey) + c[0], predator * (prey - 1.0 - p["b"][i] * predator)]


def coombes_byrne(x, c, p, i):
    r, v = x
    conductance = p["k"][i] * math.pi * r
    dr = p["Delta"][i] / math.pi + r * (2.0 * v - conductance)
    dv = v * v + p["eta"][i] - (math.pi * r) ** 2 + conductance * (p["v_syn"][i] - v) + c[0]
    return [dr, dv]


def slow_target(x1, z, x0):
    """The linear form of the Epileptor's permittivity, with its steep wall below z = 0."""
    wall = 0.1 * abs(z) ** 7 if z < 0.0 else 0.0
    return 4.0 * x1 - 4.0 * x0 + wall


def epileptor(x, c, p, i):
    x1, y1, z, x2, y2, g = x
    q = {name: values[i] for name, values in p.items()}
    f1 = q["a"] * x1**3 - q["b"] * x1**2
    if x1 >= 0.0:
        f1 = (x2 - 0.6 * (z - 4.0) ** 2 - q["slope"]) * x1
    f2 = 0.0 if x2 < -0.25 else q["aa"] * (x2 + 0.25)
    return [
        q["tt"] * (y1 - f1 - z + q["Iext"] + q["Kvf"] * c[0]),
        q["tt"] * (q["c"] - q["d"] * x1 * x1 - y1),
        q["tt"] * q["r"] * (slow_target(x1, z, q["x0"]) + q["Ks"] * c[0] - z),
        q["tt"] * (x2 * (1.0 - x2 * x2) - y2 + q["Iext2"] + q["bb"] * g - 0.3 * z + 1.05 + q["Kf"] * c[1]),
        q["tt"] / q["tau"] * (f2 - y2),
        q["tt"] * (0.001 * x1 - 0.01 * g),
    ]


def epileptor_2d(x, c, p, i):
    x1, z = x
    q = {name: values[i] for name, values in p.items()}
    if x1 < 0.0:
        f1 = q["a"] * x1**3 + (q["d"] - q["b"]) * x1**2
    else:
        f1 = q["d"] * x1**2 - x1 * (q["slope"] + 0.6 * (z - 4.0) ** 2)
    dx = q["Kvf"] * c[0] + q["c"] + q["Iext"] - z - f1
    return [q["tt"] * dx, q["tt"] * q["r"] * (slow_target(x1, z, q["x0"]) + q["Ks"] * c[0] - z)]


def vep(x, c, p, i):
    x1, z = x
    q = {name: values[i] for name, values in p.items()}
    dx = q["c"] + q["Iext"] - z - q["a"] * x1**3 - q["d"] * x1**2 + q["b"] * x1**2
    return [q["tt"] * dx, q["tt"] * (4.0 * x1 - 4.0 * q["x0"] - c[0] - z) / q["tau"]]


def wong_wang_exc_inh(x, c, p, i):
    s_e, s_i = x
    q = {name: values[i] for name, values in p.items()}

    def fires(current, which):
        y = q["a_" + which] * current - q["b_" + which]
        return y / (1.0 - math.exp(-q["d_" + which] * y))

    far = q["G"] * q["J_N"] * c[0]
    to_e = q["I_o"] * q["W_e"] + q["I_ext"] + q["w_p"] * q["J_N"] * s_e + far - q["J_i"] * s_i
    to_i = q["I_o"] * q["W_i"] + q["J_N"] * s_e - s_i + q["lamda"] * far
    return [
        q["gamma_e"] * (1.0 - s_e) * fires(to_e, "e") - s_e / q["tau_e"],
        q["gamma_i"] * fires(to_i, "i") - s_i / q["tau_i"],
    ]


def larter_breakspear(x, c, p, i):
    v, w, z = x
    q = {name: values[i] for name, values in p.items()}

    def half(y):
        return 1.0 / (1.0 + math.exp(-2.0 * y))  # (1 + tanh y) / 2

    m_ca, m_na, m_k = (half((v - q["T" + ion]) / q["d_" + ion]) for ion in ("Ca", "Na", "K"))
    q_v = q["QV_max"] * half((v - q["VT"]) / q["d_V"])
    q_z = q["QZ_max"] * half((z - q["ZT"]) / q["d_Z"])
    near, far = (1.0 - q["C"]) * q["aee"] * q_v, q["C"] * q["aee"] * c[0]
    dv = q["ane"] * q["Iext"] - q["aie"] * z * q_z
    dv -= (q["gCa"] + q["rNMDA"] * near + q["rNMDA"] * far) * m_ca * (v - q["VCa"])
    dv -= (q["gNa"] * m_na + near + far) * (v - q["VNa"])
    dv -= q["gK"] * w * (v - q["VK"]) + q["gL"] * (v - q["VL"])
    dz = q["b"] * q["ani"] * q["Iext"] + q["b"] * q["aei"] * v * q_v
    return [q["t_scale"] * dv, q["t_scale"] * q["phi"] / q["tau_K"] * (m_k - w), q["t_scale"] * dz]


def zerlaut(polynomials):
    """Transfer-function mean field with threshold coefficients "P_e", "P_i" (V) of excitatory and inhibitory cells."""

    def potential(q, rates, leak, w):
        """Mean, standard deviation and correlation time of the potential, by the formulas of shot noise."""
        conductance = {s: q["Q_" + s] * q["tau_" + s] * rates[s] for s in "ei"}
        total = q["g_L"] + conductance["e"] + conductance["i"]
        membrane = q["C_m"] / total
        mean = (q["g_L"] * leak - w + sum(conductance[s] * q["E_" + s] for s in "ei")) / total
        area = {s: q["Q_" + s] / total * (q["E_" + s] - mean) * q["tau_" + s] for s in "ei"}
        power = {s: rates[s] * area[s] ** 2 for s in "ei"}
        variance = sum(power[s] / (2.0 * (membrane + q["tau_" + s])) for s in "ei")
        return mean, math.sqrt(variance), (power["e"] + power["i"]) / (2.0 * variance)

    def fires(q, p, mean, sd, time):
        y = [1.0, (mean + 60.0) / 10.0, (sd - 4.0) / 6.0, time / (q["C_m"] / q["g_L"]) - 0.5]
        terms = [*y, y[1] * y[1], y[2] * y[2], y[3] * y[3], y[1] * y[2], y[1] * y[3], y[2] * y[3]]
        threshold = 1000.0 * sum(k * term for k, term in zip(p, terms, strict=True))
        return math.erfc((threshold - mean) / sd / math.sqrt(2.0)) / time / 2.0

    def field(x, c, p, i):
        q = {name: values[i] for name, values in p.items()}
        outside = max(0.0, c[0] + q["weight_noise"] * x[4])
        cells = {"e": q["N_tot"] * (1.0 - q["g"]), "i": q["N_tot"] * q["g"]}
        rate, w, out = {"e": x[0], "i": x[1]}, {"e": x[2], "i": x[3]}, {}
        for own, name in (("e", "ex"), ("i", "in")):
            drives = {"e": outside + q[f"external_input_{name}_ex"], "i": q[f"external_input_{name}_in"]}
            arriving = {
                s: (rate[s] + 1e-6) * cells[s] * q["p_connect_" + s] + drives[s] * q["K_ext_" + s] for s in "ei"
            }
            mean, sd, time = potential(q, arriving, q["E_L_" + own], w[own])
            fired = fires(q, polynomials["P_" + own], mean, sd, time)
            steady = q["tau_w_" + own] * q["b_" + own] * rate[own] + q["a_" + own] * (mean - q["E_L_" + own])
            out[own] = (fired - rate[own]) / q["T"], (steady - w[own]) / q["tau_w_" + own]
        return [out["e"][0], out["i"][0], out["e"][1], out["i"][1], -x[4] / q["tau_OU"]]

    return field


def dopa(x, c, p, i):
    r, v, u, s_a, s_g, dp = x
    q = {name: values[i] for name, values in p.items()}
    a = q["a"]
    open_a, open_g = q["ga"] * s_a, q["gg"] * s_g
    currents = open_g * (q["Eg"] - v) + open_a * (q["Ea"] - v) * (q["Bd"] + q["Ad"] * dp)
    quadratic = (a * v + q["b"]) * v + q["c"] + q["Eta"] + q["Iext"]
    uptake = q["Vmax"] / (1.0 + q["Km"] / dp) if dp > 0.0 else 0.0
    return [
        a * q["Delta"] / math.pi + r * (q["b"] + 2.0 * a * v) - r * (open_a + open_g),
        quadratic - u + currents - math.pi * math.pi * r * r / a,
        q["alpha"] * q["beta"] * v - q["alpha"] * u + q["ud"] * r,
        q["Sja"] * q["we"] * c[0] - s_a / q["tauSa"],
        q["Sjg"] * q["wi"] * c[0] - s_g / q["tauSg"],
        (q["k"] * q["wd"] * c[0] - uptake) / q["tau_Dp"],
    ]


def gast(depression):
    """The adaptation is integrated as the paper's equation of second order, with B = tau_A dA/dt."""

    def field(x, c, p, i):
        r, v, a, b = x
        q = {name: values[i] for name, values in p.items()}
        tau, slow = q["tau"], q["tau_A"]
        synaptic = q["J"] * tau * r * (1.0 - a) if depression else q["J"] * tau * r - a
        acceleration = q["alpha"] * r / slow**2 - 2.0 / slow * (b / slow) - a / slow**2
        return [
            (q["Delta"] / math.pi / tau + 2.0 * v * r) / tau,
            (v * v + q["eta"] + q["I"] + synaptic + q["cr"] * c[0] - (math.pi * tau * r) ** 2) / tau,
            b / slow,
            slow * acceleration,
        ]

    return field


def jansen_rit_populations(x, c, p, i):
    """Subpopulations one by one; the potentials that cells feel are weighted sums of theirs."""
    of_node = {name: values[i] for name, values in p.items() if name not in ("A", "B", "a", "b", "w")}
    felt = [sum(w * v for w, v in zip(p["w"], x[k], strict=True)) for k in range(3)]

    def fired(v):
        return 2.0 * of_node["nu_max"] / (1.0 + math.exp(of_node["r"] * (of_node["v0"] - v)))

    c_1, c_2, c_3, c_4 = (of_node[name] * of_node["J"] for name in ("a_1", "a_2", "a_3", "a_4"))
    arriving = [
        fired(felt[1] - felt[2]),
        of_node["mu"] + c[0] + c_2 * fired(c_1 * felt[0]),
        c_4 * fired(c_3 * felt[0]),
    ]
    out = [list(x[3]), list(x[4]), list(x[5]), [], [], []]
    for k in range(len(p["w"])):
        for z, (gain, rate) in enumerate((("A", "a"), ("A", "a"), ("B", "b"))):
            h, s = p[gain][k], p[rate][k]
            out[3 + z].append(h * s * arriving[z] - 2.0 * s * x[3 + z][k] - s * s * x[z][k])
    return out


def plastic(field, weight, activity):
    """`field` with a last variable in place of the parameter `weight`; `activity(x, q)` are those of I and of E."""

    def with_plasticity(x, c, p, i):
        local = {name.removeprefix("local."): values for name, values in p.items()}
        local[weight] = {i: x[-1]}
        inhibitory, excitatory = activity(x, {name: local[name][i] for name in local if name not in ("eta", "target")})
        change = p["eta"][i] * inhibitory * (excitatory - p["target"][i])
        return [*field(x[:-1], c, {k: v for k, v in local.items() if k not in ("eta", "target")}, i), change]

    return with_plasticity


def column_rates(x, q):
    """Firing of the inhibitory and of the pyramidal cells of a column."""
    fired = lambda v: 2.0 * q["nu_max"] / (1.0 + math.exp(q["r"] * (q["v0"] - v)))  # noqa: E731
    return fired(q["a_3"] * q["J"] * x[0]), fired(x[1] - x[2])


@functools.cache
def quantiles(mu, sigma):
    """TVB's grid of inputs, its three modes on it, normalised by the trapezoidal rule, and the density there."""
    n = 1500
    z = scipy.stats.norm(mu, sigma).ppf(np.linspace(1.0 / (n + 1), n / (n + 1), n))
    modes = np.zeros((3, n))
    for k in range(3):
        modes[k, k * n // 3 : (k + 1) * n // 3] = 1.0
        modes[k] /= math.sqrt(scipy.integrate.trapezoid(modes[k] ** 2, z))
    return z, modes, scipy.stats.norm(mu, sigma).pdf(z)


def reduced_set(neuron, size):
    """Three modes of two kinds of neurons, by quadrature over the distribution of inputs; `neuron` is one of them.

    `neuron(v, others, powers, drive, q)` is its drift for a mode; `powers` are the integrals of the mode and of its
    powers 1 to 3 times itself that occur: of V, V^3 and V^4.
    """

    def field(x, c, p, i):
        q = {name: values[i] for name, values in p.items()}
        z, modes, density = quantiles(q["mu"], q["sigma"])
        total = lambda y: scipy.integrate.trapezoid(y, z)  # noqa: E731
        mean_e = sum(total(density * modes[k]) * x[0][k] for k in range(3))
        mean_i = sum(total(density * modes[k]) * x[size][k] for k in range(3))
        out = [[] for _ in x]
        for k in range(3):
            v = modes[k]
            powers = [total(v), total(v**3), total(v**4)]
            drive = total(z * v) + c[0]
            own = neuron(*(x[j][k] for j in range(size)), powers, drive, q)
            other = neuron(*(x[size + j][k] for j in range(size)), powers, drive, q)
            own[0] += q["K11"] * (mean_e * powers[0] - x[0][k]) - q["K12"] * (mean_i * powers[0] - x[0][k])
            other[0] += q["K21"] * (mean_e * powers[0] - x[size][k])
            for j, value in enumerate([*own, *other]):
                out[j].append(value)
        return out

    return field


def fitzhugh_nagumo(v, w, powers, drive, q):
    fast = q["tau"] * (v - powers[2] * v**3 / 3.0 - w + drive)
    return [fast, (v - q["b"] * w + q["a"] * powers[0]) / q["tau"]]


def hindmarsh_rose(v, w, slow, powers, drive, q):
    fast = w - q["a"] * powers[2] * v**3 + q["b"] * powers[1] * v**2 - slow + drive
    target = q["s"] * v - q["s"] * q["xo"] * powers[0]
    return [fast, q["c"] * powers[0] - q["d"] * powers[1] * v**2 - w, q["r"] * target - q["r"] * slow]


def robinson(x, c, p, i):
    phi, dphi, v_e, dv_e, v_r, dv_r, v_s, dv_s = x
    q = {name: values[i] for name, values in p.items()}

    def fires(v):
        return q["Q_max"] / (1.0 + math.exp(math.pi * (q["theta"] - v) / q["sigma"] / math.sqrt(3.0)))

    def response(v, dv, drive):
        """(1 / (a b) d2 + (1/a + 1/b) d + 1) v = drive, solved for the second derivative."""
        a, b = q["alpha"], q["beta"]
        return [dv, (drive - v - (1.0 / a + 1.0 / b) * dv) * a * b]

    wave = (fires(v_e) - phi - 2.0 / q["gamma"] * dphi) * q["gamma"] ** 2
    cortex = q["nu_ee"] * phi + q["nu_ei"] * fires(v_e) + q["nu_es"] * fires(c[1]) + q["nu_ee"] * sum(c[2:3])
    reticular = q["nu_re"] * c[0] + q["nu_rs"] * fires(v_s)
    relay = q["nu_se"] * c[0] + q["nu_sr"] * fires(v_r) + q["P"]
    return [dphi, wave, *response(v_e, dv_e, cortex), *response(v_r, dv_r, reticular), *response(v_s, dv_s, relay)]


def dcm(x, c, p, i):
    return [p["a"][i] * x[0] + c[0]]


def free(x):
    return x


def rate_above_zero(x):
    return [max(x[0], 0.0), *x[1:]]


def fractions(x):
    return [min(max(v, 0.0), 1.0) for v in x]


def rates_above_zero(*positions):
    """These variables are rates or concentrations."""
    return lambda x: [max(v, 0.0) if k in positions else v for k, v in enumerate(x)]


def as_is(x, p):
    return x


def summed(x, p):
    """Of modes, their sums."""
    return x.sum(axis=-1)


def weighted(x, p):
    """Of subpopulations, the mean by their shares."""
    return x @ np.asarray(p["w"])


def drift(field, coupled, x, weights, G, p, seen=as_is, sent=None):
    """dx/dt, `[V][N]` (or `[V][N][mode]`), of a network coupled linearly.

    `coupled` are the positions of the variables that are sent, as `seen` at a node. The coupling reads the state
    `sent`, which is x unless given.
    """
    sent = x if sent is None else sent
    n = len(x[0])
    columns = []
    for i in range(n):
        c = []
        for v in coupled:
            total = 0.0
            for j in range(n):
                total += G * weights[i][j] * seen(sent[v][j], p)
            c.append(total)
        columns.append(field([row[i] for row in x], c, p, i))
    return np.array(columns).swapaxes(0, 1)


def heun(f, bound, x, dt, steps, frozen=False):
    """States after each of `steps` Heun steps of dx/dt = f(x, sent), `[steps, V, N]`.

    `bound` acts on a node's variables; `frozen` lets both stages see what was sent at the start of the step.
    """
    x, out = np.array(x, float), []
    inside = lambda y: np.array([bound(list(node)) for node in y.swapaxes(0, 1)]).swapaxes(0, 1)  # noqa: E731
    for _ in range(steps):
        k1 = f(x, None)
        k2 = f(inside(x + dt * k1), x if frozen else None)
        x = inside(x + 0.5 * dt * (k1 + k2))
        out.append(x)
    return np.array(out)
