"""Each coupling against scalar loops over the network, at rest points that are known, and far from its midpoint."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb

WEIGHTS = np.array([[0.1, 0.9, 0.4], [0.3, 0.0, 0.0], [0.5, 0.2, 0.7]])  # asymmetric, with self-connections
X = np.array([[0.7, -1.3, 2.1], [0.2, 0.5, -0.4]])


def logistic(v):
    return 1.0 / (1.0 + math.exp(-v))


def sigmoid_jr(v, p):
    return p["cmin"] + (p["cmax"] - p["cmin"]) * logistic(p["r"] * (v - p["midpoint"]))


JR = {"cmin": 0.1, "cmax": 0.7, "midpoint": 0.4, "r": 1.7, "a": 1.3}
SIGMOIDAL = {"cmin": -0.3, "cmax": 0.8, "midpoint": 0.6, "a": 1.4, "sigma": 0.9}
TANH = {"a": 0.6, "b": 1.2, "midpoint": 0.3, "sigma": 0.8}


def over_sources(term, x):
    """sum_j w_ij term(x_j, x_i) by loops."""
    return [sum(WEIGHTS[i, j] * term(x[j], x[i]) for j in range(3)) for i in range(3)]


# constructor, input [V, N] and the c_i expected, [C, N]
EXPECTED = {
    "Linear": (
        partial(vb.coupling.Linear, G=0.7, offset=0.2),
        X,
        [[0.7 * s + 0.2 for s in over_sources(lambda j, i: j, row)] for row in X],
    ),
    "Difference": (
        partial(vb.coupling.Difference, G=0.7),
        X,
        [[0.7 * s for s in over_sources(lambda j, i: j - i, row)] for row in X],
    ),
    "Sigmoidal": (
        partial(vb.coupling.Sigmoidal, **SIGMOIDAL),
        X,
        [[-0.3 + 1.1 * logistic(1.4 * (s - 0.6) / 0.9) for s in over_sources(lambda j, i: j, row)] for row in X],
    ),
    "sum_of_sigmoids": (
        partial(vb.coupling.SigmoidalJansenRit, **JR),
        X,
        [[1.3 * s for s in over_sources(lambda j, i: sigmoid_jr(j, JR), X[0] - X[1])]],
    ),
    "sigmoid_of_sum": (
        partial(vb.coupling.SigmoidalJansenRit, **JR, form="sigmoid_of_sum"),
        X,
        [[1.3 * sigmoid_jr(s, JR) for s in over_sources(lambda j, i: j, X[0] - X[1])]],
    ),
    "HyperbolicTangent": (
        partial(vb.coupling.HyperbolicTangent, **TANH),
        X,
        [over_sources(lambda j, i: 0.6 * (1 + math.tanh((1.2 * j - 0.3) / 0.8)), row) for row in X],
    ),
    "Kuramoto": (
        partial(vb.coupling.Kuramoto, G=0.7),
        X[:1],
        [[0.7 * s for s in over_sources(lambda j, i: math.sin(j - i), X[0])]],
    ),
}


def couple(coupling, x, keep=None):
    """c as the loop forms it: what is sent, summed over sources, received; only the first `keep` rows arrive."""
    rows = tuple(jnp.asarray(row) for row in x)
    gx = tuple(jnp.asarray(WEIGHTS) @ sent for sent in coupling.pre(rows)[:keep])
    strength = jnp.asarray(WEIGHTS.sum(axis=1)).reshape((3,) + (1,) * (rows[0].ndim - 1))
    return jnp.stack(coupling.post(gx, rows, strength))


@pytest.mark.parametrize("name", EXPECTED)
def test_equals_a_sum_over_sources_by_loops(name):
    build, x, expected = EXPECTED[name]
    with jax.enable_x64(True):
        np.testing.assert_allclose(couple(build(), x), expected, rtol=1e-13)


@pytest.mark.parametrize("name", ["Linear", "Difference", "Sigmoidal", "HyperbolicTangent"])
def test_rows_that_the_model_does_not_read_may_be_dropped(name):
    build, x, expected = EXPECTED[name]
    np.testing.assert_allclose(couple(build(), x, keep=1), expected[:1], rtol=1e-5)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_batch_is_its_columns(name):
    """Rows [N, B] with parameters that are scalars or one value per draw [1, B]."""
    build, x, _ = EXPECTED[name]
    scale = jnp.array([[0.9, 1.2]])
    leaves, tree = jax.tree.flatten(build())
    batched = jax.tree.unflatten(tree, [leaf if k % 2 else leaf * scale for k, leaf in enumerate(leaves)])
    both = couple(batched, x[:, :, None] * np.array([1.0, -0.7]))
    for b in range(2):
        draw = jax.tree.unflatten(tree, [leaf if k % 2 else leaf * scale[0, b] for k, leaf in enumerate(leaves)])
        np.testing.assert_allclose(both[:, :, b], couple(draw, x * [1.0, -0.7][b]), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", EXPECTED)
def test_input_and_gradient_stay_finite_far_from_the_midpoint(name):
    build, x, _ = EXPECTED[name]
    far = jnp.asarray(1e4 * np.sign(x) * np.arange(1, 4))

    def total(coupling, x):
        return sum(row.sum() for row in couple(coupling, x))

    value, slopes = jax.value_and_grad(total, argnums=(0, 1))(build(), far)
    assert np.isfinite(float(value))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_saturation():
    ends = lambda c, x: np.asarray(c.post((jnp.array([-x, 0.0, x]),), (jnp.zeros(3),), jnp.zeros(3))[0])  # noqa: E731
    np.testing.assert_allclose(ends(vb.coupling.Sigmoidal(cmin=-0.5, cmax=2.0), 1e5), [-0.5, 0.75, 2.0], rtol=1e-6)
    tvb = vb.coupling.Sigmoidal()  # the defaults are TVB's: from -1 to 1, at x = sigma 2 / (1 + 1/e) - 1
    np.testing.assert_allclose(ends(tvb, 1e5), [-1.0, 0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(ends(tvb, 230.0), [-0.46211716, 0.0, 0.46211716], atol=1e-6)
    sent = vb.coupling.HyperbolicTangent(a=0.4).pre((jnp.array([-50.0, 0.0, 50.0]),))[0]
    np.testing.assert_allclose(sent, [0.0, 0.4, 0.8], atol=1e-7)
    rate = vb.coupling.SigmoidalJansenRit().pre((jnp.array([-900.0, 6.0, 900.0]), jnp.zeros(3)))[0]
    np.testing.assert_allclose(rate, [0.0, 0.0025, 0.005], atol=1e-9)


def test_the_two_forms_agree_for_one_source_of_unit_weight_and_differ_for_two():
    """With w = 1 from a single source the sigmoid of the sum is the sum of sigmoids."""
    x = tuple(jnp.asarray(row) for row in X)

    def both(weights):
        forms = ("sum_of_sigmoids", "sigmoid_of_sum")
        for c in (vb.coupling.SigmoidalJansenRit(**JR, form=form) for form in forms):
            yield np.asarray(c.post(tuple(weights @ sent for sent in c.pre(x)), x, weights.sum(axis=1))[0])

    np.testing.assert_allclose(*both(jnp.eye(3)[jnp.array([1, 2, 0])]), rtol=1e-6)
    a, b = both(jnp.asarray(WEIGHTS))
    assert np.abs(a - b).min() > 1e-2


def test_two_kuramoto_oscillators_lock_at_the_phase_difference_of_theory():
    """Delta = theta_1 - theta_0 obeys Delta' = d_omega - G (w_01 + w_10) sin Delta, at rest where the sine is 0.5."""
    weights = np.array([[0.0, 0.75], [0.25, 0.0]])
    sim = vb.Simulator(
        vb.models.Kuramoto(omega=[0.3, 0.4]),
        vb.Connectome(weights, np.zeros((2, 2))),
        coupling=vb.coupling.Kuramoto(G=0.2),
        integrator=vb.Heun(dt=0.5),
        monitors={"end": vb.monitors.Subsample(100.0)},
    )
    theta = vb.simulate(sim, t1=200.0, key=None).ys["end"]["theta"]
    np.testing.assert_allclose(theta[1, 1] - theta[1, 0], math.asin(0.1 / 0.2), atol=1e-4)
    # both then turn at omega_0 + G w_01 sin Delta
    np.testing.assert_allclose((theta[1] - theta[0]) / 100.0, 0.3 + 0.2 * 0.75 * 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("coupling", "rows", "message"),
    [
        (
            vb.coupling.SigmoidalJansenRit(),
            1,
            "reads two coupled variables, y1 and y2 of JansenRit; the model couples 1",
        ),
        (vb.coupling.Kuramoto(), 2, "couples one phase; the model couples 2 variables"),
    ],
)
def test_a_model_with_another_number_of_coupled_variables_is_refused(coupling, rows, message):
    with pytest.raises(ValueError, match=message):
        coupling.pre((jnp.zeros(3),) * rows)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match=r'"sum_of_sigmoids" or "sigmoid_of_sum"'):
        vb.coupling.SigmoidalJansenRit(form="sum")
