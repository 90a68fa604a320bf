"""The noise generator: its distribution, and that a variate belongs to (key, step, variable, node) and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vbinfer as vb
from vbinfer._random import key_words, normals, threefry_2x32_13
from vbinfer import noise


def standard_normals(words, step, variable, n_variables, like):
    """The normals of one state variable in one step, `[N, ...]`."""
    x = {f"x{k}": like for k in range(n_variables)}
    generator = noise.Generator(words, (f"x{variable}",), x)
    return generator.split(generator.pairs(step, 1)[0])[f"x{variable}"]


def sample(n_steps, n_nodes, seed=0):
    words = key_words(jax.random.key(seed))
    steps = jnp.arange(n_steps, dtype=jnp.uint32)[:, None]
    return np.stack([np.asarray(z, float) for z in normals(*words, steps, jnp.arange(n_nodes, dtype=jnp.uint32)[None])])


def scalar_threefry(k0, k1, c0, c1, rounds=13):
    """Threefry-2x32 as the paper writes it, with Python integers."""
    mask, rot = 0xFFFFFFFF, (13, 15, 26, 6, 17, 29, 16, 24)
    ks = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    x, y = (c0 + ks[0]) & mask, (c1 + ks[1]) & mask
    for i in range(rounds):
        x = (x + y) & mask
        y = ((y << rot[i % 8]) | (y >> (32 - rot[i % 8]))) & mask
        y ^= x
        if (i + 1) % 4 == 0:
            j = (i + 1) // 4
            x = (x + ks[j % 3]) & mask
            y = (y + ks[(j + 1) % 3] + j) & mask
    return x, y


def test_threefry_equals_a_scalar_transcription_and_the_20_round_test_vectors():
    # known answers of Threefry-2x32-20 (Random123 distribution) check the transcription, which then checks 13 rounds
    assert scalar_threefry(0, 0, 0, 0, 20) == (0x6B200159, 0x99BA4EFE)
    assert scalar_threefry(0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3, 20) == (0xC4923A9C, 0x483DF7A0)
    for words in ((0, 0, 0, 0), (1, 2, 3, 4), (0xDEADBEEF, 7, 0xFFFFFFFF, 0x80000000)):
        ours = threefry_2x32_13(*(jnp.uint32(w) for w in words))
        assert tuple(int(w) for w in ours) == scalar_threefry(*words)


def test_box_muller_equals_the_textbook_in_float64():
    from vbinfer._random import box_muller

    rng = np.random.default_rng(0)
    b0, b1 = rng.integers(0, 2**32, (2, 20_000), dtype=np.uint64)
    z = np.stack([np.asarray(v, float) for v in box_muller(jnp.asarray(b0, jnp.uint32), jnp.asarray(b1, jnp.uint32))])
    radius = np.sqrt(-2 * np.log((b0 // 2 + 0.5) / 2**31))
    low = ((b1 << np.uint64(2)) & np.uint64(0xFFFFFFFF)).astype(np.int64)
    low = np.where(low >= 2**31, low - 2**32, low)
    angle = (b1 >> np.uint64(30)) * np.pi / 2 + low * np.pi / 2**33
    np.testing.assert_allclose(z, radius * np.stack([np.cos(angle), np.sin(angle)]), atol=1e-5)


def test_moments_to_order_six_and_distribution():
    z = sample(2_000, 500).reshape(-1)
    for order, moment in enumerate((0.0, 1.0, 0.0, 3.0, 0.0, 15.0), start=1):
        standard_error = np.sqrt(scipy.stats.norm.moment(2 * order) - moment**2) / np.sqrt(z.size)
        assert abs((z**order).mean() - moment) < 4 * standard_error, order
    assert scipy.stats.kstest(z, "norm").pvalue > 1e-3
    assert z.max() > 4.5
    assert z.min() < -4.5


def test_no_correlation_across_steps_nodes_variables_and_keys():
    a, b = sample(1_000, 200), sample(1_000, 200, seed=1)
    pairs = {
        "variable": (a[0], a[1]),
        "step": (a[0][1:], a[0][:-1]),
        "node": (a[0][:, 1:], a[0][:, :-1]),
        "key": (a[0], b[0]),
        "magnitude across variables": (a[0] ** 2, a[1] ** 2),
        "magnitude across steps": (a[0][1:] ** 2, a[0][:-1] ** 2),
    }
    for name, (x, y) in pairs.items():
        assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 4 / np.sqrt(x.size), name


def test_flipping_one_bit_of_key_or_counter_flips_half_of_the_output():
    rng = np.random.default_rng(1)
    words = rng.integers(0, 2**32, (4, 2_000), dtype=np.uint64).astype(np.uint32)
    out = np.stack(threefry_2x32_13(*map(jnp.asarray, words)))
    for which in range(4):
        for bit in (0, 13, 31):
            flipped = words.copy()
            flipped[which] ^= np.uint32(1 << bit)
            change = np.stack(threefry_2x32_13(*map(jnp.asarray, flipped))) ^ out
            share = np.unpackbits(change.view(np.uint8)).mean()
            assert share == pytest.approx(0.5, abs=0.01), (which, bit)


def test_a_variate_does_not_depend_on_which_others_are_asked_for():
    words, step = key_words(jax.random.key(5)), jnp.asarray(17)
    like = jnp.zeros(7)
    all_three = [standard_normals(words, step, v, 3, like) for v in range(3)]
    assert len({float(z) for row in all_three for z in row}) == 21  # no variate is used twice
    batch = key_words(jax.random.split(jax.random.key(9), 4))
    wide = standard_normals(tuple(w[None] for w in batch), step, 1, 3, jnp.zeros((7, 4)))
    for b in range(4):
        narrow = standard_normals(tuple(w[b] for w in batch), step, 1, 3, like)
        np.testing.assert_array_equal(wide[:, b], narrow)


def ornstein_uhlenbeck(sigma, n=4_000, **monitor):
    model = vb.models.Linear(gamma=-0.5)
    monitors = {"x": vb.monitors.Subsample(1.0, var="x")}
    return vb.Simulator(model, integrator=vb.Heun(dt=0.1), noise=vb.noise.Additive(**sigma), nodes=n, monitors=monitors)


def test_sigma_is_the_diffusion_coefficient_and_D_half_its_square():
    """Stationary variance of dx = -x/2 dt + sigma dW under Heun: sigma^2 dt (1 - dt/4)^2 / (1 - a^2), a the step."""
    dt, gamma, sigma = 0.1, -0.5, 0.6
    a = 1 + dt * gamma + (dt * gamma) ** 2 / 2
    expected = sigma**2 * dt * (1 + dt * gamma / 2) ** 2 / (1 - a**2)
    assert expected == pytest.approx(sigma**2 / (2 * 0.5), rel=2e-3)
    x = vb.simulate(ornstein_uhlenbeck(dict(sigma=sigma)), t1=40.0, key=jax.random.key(2)).ys["x"][20:]
    independent = 4_000 * 20 * (1 - np.exp(-1)) / (1 + np.exp(-1))
    assert float(jnp.var(x)) == pytest.approx(expected, rel=5 * np.sqrt(2 / independent))
    y = vb.simulate(ornstein_uhlenbeck(dict(D=sigma**2 / 2)), t1=40.0, key=jax.random.key(2)).ys["x"][20:]
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_sigma_by_variable_and_node():
    model = vb.models.MontbrioPazoRoxin()
    noise = vb.noise.Additive({"V": [0.0, 0.1, 0.2]})
    sim = vb.Simulator(model, integrator=vb.Euler(dt=0.01), noise=noise, nodes=3)
    quiet = vb.Simulator(model, integrator=vb.Euler(dt=0.01), nodes=3)
    one, zero = (vb.simulate(s, t1=0.01, key=jax.random.key(0)).ys["raw"] for s in (sim, quiet))
    np.testing.assert_array_equal(one["r"], zero["r"])
    z = standard_normals(key_words(jax.random.key(0)), jnp.asarray(0), 1, 2, jnp.zeros(3))
    np.testing.assert_allclose(one["V"][0] - zero["V"][0], np.array([0.0, 0.1, 0.2]) * 0.1 * z, atol=2e-6)


def test_a_legacy_key_is_refused():
    sim = ornstein_uhlenbeck(dict(sigma=0.1), n=2)
    with pytest.raises(TypeError, match=r"jax\.random\.key\(0\)"):
        vb.simulate(sim, t1=1.0, key=jax.random.PRNGKey(0))


@pytest.mark.parametrize(("args", "message"), [((), "sigma or D"), ((0.1,), "sigma or D")])
def test_sigma_and_D_are_alternatives(args, message):
    with pytest.raises(ValueError, match=message):
        vb.noise.Additive(*args, **({"D": 0.1} if args else {}))
