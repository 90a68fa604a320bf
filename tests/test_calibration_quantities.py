"""Test quantities of the user's in SBC: a posterior that is wrong in what no margin and no correlation shows."""

import jax
import numpy as np
import pytest

import vbinfer as vb

KEY = jax.random.key(3)


def tied(n, rng):
    """b is a or -a: margins are normal and uncorrelated, and far from independent."""
    a = rng.normal(size=n)
    return a, a * rng.choice([-1.0, 1.0], n)


def independent(n, rng):
    return rng.normal(size=n), rng.normal(size=n)


def source(joint):
    def sample(x_o, n, key):
        a, b = joint(n, np.random.default_rng(np.asarray(jax.random.key_data(key))))
        return vb.Posterior({"a": a[None], "b": b[None]})

    return sample


def held_out(n=300, seed=0):
    """Features that say nothing: the posterior is the prior."""
    rng = np.random.default_rng(seed)
    a, b = tied(n, rng)
    return vb.Draws.from_arrays({"a": a, "b": b}, rng.normal(size=(n, 2)))


QUANTITIES = {"product of squares": lambda theta, x: theta["a"] ** 2 * theta["b"] ** 2}


def asked(joint, quantities=None):
    return vb.diagnostics.sbc(source(joint), held_out(), num_posterior_samples=60, key=KEY, quantities=quantities)


def test_only_a_test_quantity_sees_that_parameters_are_tied():
    assert asked(independent).passed
    wrong = asked(independent, QUANTITIES)
    assert wrong.verdict == "fail"
    bad = {row.parameter for row in wrong.tests if row.status != "pass"}
    assert bad == {"product of squares"}
    assert any(finding.startswith("product of squares: ") for finding in wrong.findings)
    assert asked(tied, QUANTITIES).passed


def test_quantities_share_the_false_alarm_rate():
    """Holm: the smallest p times the number of all tests."""
    plain, more = asked(independent), asked(independent, QUANTITIES)
    assert len(more.tests) == len(plain.tests) + 3
    assert [row.p for row in more.tests[: len(plain.tests)]] == [row.p for row in plain.tests]  # nothing else moves
    least = min(more.tests, key=lambda row: row.p)
    assert least.p_adjusted == pytest.approx(least.p * len(more.tests))
    assert all(two.p_adjusted >= one.p_adjusted for one, two in zip(plain.tests, more.tests, strict=False))


def test_a_quantity_may_use_the_data():
    """x tells a; a posterior that ignores it has uniform ranks of a, but not of a x."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=150)
    draws = vb.Draws.from_arrays({"a": a}, (a + 0.3 * rng.normal(size=150))[:, None])

    def prior(x_o, n, key):
        return vb.Posterior({"a": np.random.default_rng(np.asarray(jax.random.key_data(key))).normal(size=(1, n))})

    found = vb.calibrate(
        prior, draws, key=KEY, num_posterior_samples=60, quantities={"a x": lambda theta, x: theta["a"] * x[0]}
    )
    assert next(row for row in found.tests if (row.parameter, row.quantity) == ("a x", "location")).status == "fail"
    assert next(row for row in found.tests if (row.parameter, row.quantity) == ("a", "location")).status == "pass"


BAD = {
    "vector": ({"v": lambda theta, x: x}, ValueError, r"quantities\['v'\] returned \[2\] for one draw; .*value\.mean"),
    "nan": ({"v": lambda theta, x: theta["a"] / 0.0}, ValueError, "is NaN or infinite for held-out data set 0; give a"),
    "numpy": ({"v": lambda theta, x: np.sin(np.asarray(theta["a"]))}, TypeError, "write it with jnp, not np"),
    "name": ({"a": lambda theta, x: theta["a"]}, ValueError, r"names \['a'\], which are tested already; give other"),
    "no function": ({"v": 1.0}, TypeError, r"write quantities=\{'energy': f\} with f\(theta, x\) -> number"),
}


@pytest.mark.parametrize(("quantities", "error", "message"), BAD.values(), ids=BAD)
def test_mistakes(quantities, error, message):
    with pytest.raises(error, match=message):
        asked(tied, quantities)
