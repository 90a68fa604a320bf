"""The generator of standard normals: its distribution, its independence in every direction, and whose a variate is.

Seeds are fixed: a test that passes goes on passing. Bounds are 4.5 standard errors or a p-value of 1e-4, few enough
false alarms for the few hundred figures that are looked at here. `pytest -s` prints them.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vbinfer import _random, noise
from vbinfer._random import box_muller, key_words

normals, threefry_2x32_13 = jax.jit(_random.normals), jax.jit(_random.threefry_2x32_13)
BOUND = 4.5
LEAST_P = 1e-4


def standard_normals(words, step, variable, n_variables, like):
    """The normals of one state variable in one step, `[N, ...]`."""
    x = {f"x{k}": like for k in range(n_variables)}

    @jax.jit
    def draw(words, step):
        generator = noise.Generator(words, (f"x{variable}",), x)
        return generator.unpack(generator.draw(step, 1)[0])[f"x{variable}"]

    return draw(words, step)


def sample(n_steps, n_nodes, seed=0, first=0):
    """Normals `[pair, step, node]`; the pair is two variables in a model of two."""
    words = key_words(jax.random.key(seed))
    steps = first + jnp.arange(n_steps, dtype=jnp.uint32)[:, None]
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


@pytest.mark.smoke
def test_threefry_equals_a_scalar_transcription_and_the_20_round_test_vectors():
    # known answers of Threefry-2x32-20 (Random123 distribution) check the transcription, which then checks 13 rounds
    assert scalar_threefry(0, 0, 0, 0, 20) == (0x6B200159, 0x99BA4EFE)
    assert scalar_threefry(0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3, 20) == (0xC4923A9C, 0x483DF7A0)
    for words in ((0, 0, 0, 0), (1, 2, 3, 4), (0xDEADBEEF, 7, 0xFFFFFFFF, 0x80000000)):
        ours = threefry_2x32_13(*(jnp.uint32(w) for w in words))
        assert tuple(int(w) for w in ours) == scalar_threefry(*words)


@pytest.mark.smoke
def test_box_muller_equals_the_textbook_in_float64():
    rng = np.random.default_rng(0)
    b0, b1 = rng.integers(0, 2**32, (2, 20_000), dtype=np.uint64)
    b0[:4], b1[:4] = (0, 1, 2**32 - 1, 2**31), (0, 2**30, 2**31, 2**32 - 1)  # both ends of both words
    z = np.stack([np.asarray(v, float) for v in box_muller(jnp.asarray(b0, jnp.uint32), jnp.asarray(b1, jnp.uint32))])
    radius = np.sqrt(-2 * np.log((b0 // 2 + 0.5) / 2**31))
    low = ((b1 << np.uint64(2)) & np.uint64(0xFFFFFFFF)).astype(np.int64)
    low = np.where(low >= 2**31, low - 2**32, low)
    angle = (b1 >> np.uint64(30)) * np.pi / 2 + low * np.pi / 2**33
    error = np.abs(z - radius * np.stack([np.cos(angle), np.sin(angle)]))
    # u is rounded to 24 bits, a grid of 2^-24 below 1: radii near zero move by 2^-25 / radius, the least ones to zero
    assert (error < 2e-6 + 2.0**-24 / np.maximum(radius, 2.0**-12)).all()
    assert error[:, radius > 0.1].max() < 3e-6
    assert z[0, 0] == pytest.approx(np.sqrt(2 * 32 * np.log(2)), rel=1e-6)  # the largest there is: 6.66


def assert_normal(z):
    """Moments to order six, Kolmogorov-Smirnov, a thousand bins of equal probability, both tails."""
    z = z.reshape(-1)
    for order, moment in enumerate((0.0, 1.0, 0.0, 3.0, 0.0, 15.0), start=1):
        standard_error = np.sqrt(scipy.stats.norm.moment(2 * order) - moment**2) / np.sqrt(z.size)
        off = ((z**order).mean() - moment) / standard_error
        print(f"{z.size:,} variates: moment {order} is {moment + off * standard_error:.5f}, {off:+.2f} standard errors")
        assert abs(off) < BOUND, order
    ks = scipy.stats.kstest(z, "norm")
    edges = scipy.stats.norm.ppf(np.arange(1, 1000) / 1000)
    bins = scipy.stats.chisquare(np.bincount(np.searchsorted(edges, z), minlength=1000)).pvalue
    print(f"Kolmogorov-Smirnov D = {ks.statistic:.2e}, p = {ks.pvalue:.2f}; 1000 bins, p = {bins:.2f}")
    assert ks.pvalue > LEAST_P
    assert bins > LEAST_P
    for side in (z, -z):
        for threshold in (3.0, 4.0, 5.0):
            expected = z.size * scipy.stats.norm.sf(threshold)
            count = int((side > threshold).sum())
            print(f"beyond {threshold:g}: {count}, expected {expected:.1f}")
            assert scipy.stats.poisson.sf(count - 1, expected) > LEAST_P, (threshold, count, expected)
            assert scipy.stats.poisson.cdf(count, expected) > LEAST_P, (threshold, count, expected)


def test_a_million_variates_are_standard_normal():
    assert_normal(sample(1_000, 500))


def assert_uncorrelated(pairs):
    """z with z, z^2 with z^2 and z with z^2; correlations in standard errors."""
    found = {}
    for name, (x, y) in pairs.items():
        x, y = x.ravel(), y.ravel()
        for what, a, b in (("z, z", x, y), ("z^2, z^2", x**2, y**2), ("z, z^2", x, y**2)):
            found[name, what] = np.corrcoef(a, b)[0, 1] * np.sqrt(x.size)
    worst = max(found, key=lambda k: abs(found[k]))
    print(f"{len(found)} correlations, the largest {found[worst]:+.2f} standard errors: {', '.join(worst)}")
    assert abs(found[worst]) < BOUND, worst


def test_no_correlation_of_values_or_squares_with_earlier_ones():
    """Serial, lags 1 to 20, along steps, nodes and both at once."""
    z = sample(1_000, 200)[0]
    along_steps = {f"{k} steps": (z[k:], z[:-k]) for k in range(1, 21)}
    along_nodes = {f"{k} nodes": (z[:, k:], z[:, :-k]) for k in range(1, 21)}
    both = {f"{k} steps and nodes": (z[k:, k:], z[:-k, :-k]) for k in (1, 2, 7)}
    assert_uncorrelated(along_steps | along_nodes | both)


def test_no_correlation_across_variables_and_between_steps_and_variables():
    z = sample(1_000, 300)
    assert_uncorrelated({"one step": (z[0], z[1]), "the next step": (z[0][1:], z[1][:-1])})
    # two variables that sit in one pair, and two that do not, as a model gets them
    like, words = jnp.zeros(301), key_words(jax.random.key(11))
    generator = noise.Generator(words, ("a", "b", "c"), dict.fromkeys("abc", like))
    by_name = jax.jit(lambda: jax.vmap(generator.unpack)(generator.draw(jnp.asarray(0), 600)))()
    a, b, c = (np.asarray(by_name[name], float) for name in "abc")
    assert_uncorrelated({"a, b": (a, b), "a, c": (a, c), "b, c": (b, c)})


def keys_of(kind):
    parent = jax.random.key(3)
    return {
        "split": lambda n: jax.random.split(parent, n),
        # elements of `split` are those of `fold_in` under some settings of JAX: another parent, higher numbers
        "fold_in": lambda n: jax.vmap(lambda i: jax.random.fold_in(jax.random.key(4), i))(1_000 + jnp.arange(n)),
        "seeds in a row": lambda n: jax.vmap(jax.random.key)(jnp.arange(n)),
        "split of split": lambda n: jax.random.split(jax.random.split(parent)[0], n),
        "split, rbg": lambda n: jax.random.split(jax.random.key(5, impl="rbg"), n),
    }[kind]


@pytest.mark.parametrize("kind", ["split", "fold_in", "seeds in a row", "split of split", "split, rbg"])
def test_draws_are_independent_of_each_other(kind):
    """Across keys the largest of all correlations, and the sum of their squares, are those of independent draws."""
    n, size = 64, 3_000
    k0, k1 = key_words(keys_of(kind)(n))
    steps, index = jnp.arange(50, dtype=jnp.uint32), jnp.arange(60, dtype=jnp.uint32)
    z = normals(k0[:, None, None], k1[:, None, None], steps[None, :, None], index[None, None, :])[0]
    z = np.asarray(z, float).reshape(n, size)
    for values in (z, z**2):
        r = np.corrcoef(values)[np.triu_indices(n, 1)] * np.sqrt(size)
        share = scipy.stats.chi2.sf((r**2).sum(), r.size)
        print(f"{kind}: {r.size} correlations, largest {np.abs(r).max():.2f}, sum of squares p = {share:.2f}")
        assert np.abs(r).max() < 5.0  # of 2016: P = 1e-3
        assert LEAST_P < share < 1 - LEAST_P
    assert_uncorrelated({"neighbours": (z[1:], z[:-1])})


def test_the_same_key_given_to_jax_random_gives_something_else():
    """A user's own `jax.random` draw with the key of a simulation is independent of its noise."""
    key = jax.random.key(3)
    z = np.asarray(normals(*key_words(key), jnp.zeros(1, jnp.uint32), jnp.arange(200_000, dtype=jnp.uint32)))
    other = np.asarray(jax.random.normal(key, (200_000,)))
    assert_uncorrelated({"first": (z[0], other), "second": (z[1], other)})


def avalanche(n, rounds_of=threefry_2x32_13):
    """Share of `n` random words in which each of 64 output bits flips with each of 128 input bits, `[128, 64]`."""
    rng = np.random.default_rng(1)
    words = jnp.asarray(rng.integers(0, 2**32, (4, n), dtype=np.uint64).astype(np.uint32))

    def shares(which, bit):
        flipped = words.at[which].set(words[which] ^ (jnp.uint32(1) << bit))
        change = jnp.stack(rounds_of(*flipped)) ^ jnp.stack(rounds_of(*words))  # [2, n]
        bits = (change[:, None] >> jnp.arange(32, dtype=jnp.uint32)[None, :, None]) & 1
        return bits.astype(jnp.float32).mean(axis=-1).reshape(-1)

    which, bit = jnp.divmod(jnp.arange(128), 32)
    return np.asarray(jax.lax.map(lambda wb: shares(wb[0], wb[1].astype(jnp.uint32)), (which, bit)), float)


def test_every_input_bit_flips_every_output_bit_half_of_the_time():
    """Strict avalanche: 128 bits of key and counter by 64 bits of output; the largest of 8192 within 5.5 errors."""
    n = 4_000
    share = avalanche(n)
    z = (share - 0.5) * 2 * np.sqrt(n)
    print(f"shares of flips from {share.min():.3f} to {share.max():.3f}, largest {np.abs(z).max():.2f} standard errors")
    assert np.abs(z).max() < 5.5
    assert np.abs(share.mean(axis=1) - 0.5).max() < 0.5 * BOUND / np.sqrt(64 * n) * 1.1
    assert scipy.stats.chi2.sf((z**2).sum(), z.size) > LEAST_P


def test_pairs_of_words_fill_the_square_evenly():
    """Chi-square of 64 x 64 cells: the two words of a counter, high and low bits; words of neighbouring counters."""
    n = 400_000
    k0, k1 = key_words(jax.random.key(8))
    steps, index = jnp.divmod(jnp.arange(n, dtype=jnp.uint32), jnp.uint32(500))
    a, b = (np.asarray(w).astype(np.int64) for w in threefry_2x32_13(k0, k1, steps, index))
    cells = {
        "words of a counter": (a >> 26, b >> 26),
        "their low bits": (a & 63, b & 63),
        "high and low": (a >> 26, a & 63),
        "next counter": (a[1:] >> 26, a[:-1] >> 26),
        "next counter, crossed": (a[1:] >> 26, b[:-1] >> 26),
        "next step": (a[500:] >> 26, a[:-500] >> 26),
        "top 12 bits": (a >> 26, (a >> 20) & 63),
    }
    for name, (x, y) in cells.items():
        p = scipy.stats.chisquare(np.bincount(64 * x + y, minlength=4096)).pvalue
        print(f"{name}: p = {p:.2f}")
        assert p > LEAST_P, name


def test_the_two_variates_of_a_pair_fill_the_square_evenly():
    """Dependence that no correlation shows, such as that of radius and angle."""
    u = scipy.stats.norm.cdf(sample(1_000, 400, seed=4))
    x, y = np.minimum((u * 32).astype(int), 31)
    assert scipy.stats.chisquare(np.bincount((32 * x + y).ravel(), minlength=1024)).pvalue > LEAST_P


def test_sums_over_a_path_and_its_maximum_are_those_of_a_random_walk():
    """W_T / sqrt(T) is normal; the number of steps spent above zero follows the arcsine law (Feller 1968, III.4)."""
    n = 1_000
    z = sample(n, 4_000, seed=5)[0]
    path = np.cumsum(z, axis=0)
    assert scipy.stats.kstest(path[-1] / np.sqrt(n), "norm").pvalue > LEAST_P
    assert scipy.stats.kstest((path[-1] - path[n // 2 - 1]) / np.sqrt(n / 2), "norm").pvalue > LEAST_P
    above = (path > 0).sum(axis=0)
    # exactly, for any symmetric continuous step (Sparre Andersen): P(k above) = C(2k, k) C(2n-2k, n-k) / 4^n
    k = np.arange(n + 1)
    return_to_zero = np.exp([_log_central(m) for m in k])
    edges = np.array([0, 20, 100, 300, 500, 700, 900, 980, n + 1])
    p = return_to_zero * return_to_zero[::-1]
    expected = np.array([p[a:b].sum() for a, b in itertools.pairwise(edges)])
    counts = np.histogram(above, edges - 0.5)[0]
    assert expected.sum() == pytest.approx(1.0, rel=1e-9)
    assert scipy.stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > LEAST_P


def _log_central(m):
    """ln(C(2m, m) / 4^m)."""
    return scipy.special.gammaln(2 * m + 1) - 2 * scipy.special.gammaln(m + 1) - m * np.log(4.0)


def test_late_steps_are_as_good_as_early_ones():
    """Counters with their high bits set: steps near the last one that there is, 2^31 - 1."""
    assert_normal(sample(200, 500, first=2**31 - 200))


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


@pytest.mark.parametrize(("n_variables", "nodes"), [(1, 1), (1, 5), (2, 3), (3, 7), (6, 4)])
def test_the_variates_of_a_step_are_those_of_their_counters(n_variables, nodes):
    """j = variable N + node: the first of pair j below H = ceil(V N / 2), then the second of pair j - H."""
    words, step = key_words(jax.random.key(5)), jnp.asarray(17)
    half = -(-n_variables * nodes // 2)
    first, second = normals(*words, jnp.uint32(17), jnp.arange(half, dtype=jnp.uint32))
    expected = np.concatenate([first, second])[: n_variables * nodes].reshape(n_variables, nodes)
    for v in range(n_variables):
        np.testing.assert_array_equal(standard_normals(words, step, v, n_variables, jnp.zeros(nodes)), expected[v])


def test_float64_runs_have_the_noise_of_float32_runs():
    words, step = key_words(jax.random.key(5)), jnp.asarray(17)
    single = standard_normals(words, step, 1, 2, jnp.zeros(9, jnp.float32))
    with jax.enable_x64(True):
        double = standard_normals(words, step, 1, 2, jnp.zeros(9, jnp.float64))
    assert double.dtype == np.float64
    np.testing.assert_array_equal(np.asarray(double), np.asarray(single).astype(np.float64))


@pytest.mark.slow
def test_ten_million_variates_are_standard_normal():
    assert_normal(sample(10_000, 500, seed=2))


@pytest.mark.slow
def test_ten_million_variates_have_no_serial_correlation():
    z = sample(5_000, 1_000, seed=6)
    pairs = {f"{k} steps": (z[0][k:], z[0][:-k]) for k in (1, 2, 3, 5, 10, 20)}
    pairs |= {f"{k} nodes": (z[1][:, k:], z[1][:, :-k]) for k in (1, 2, 3, 5, 10, 20)}
    assert_uncorrelated(pairs | {"pair": (z[0], z[1])})


@pytest.mark.slow
def test_avalanche_of_a_hundred_thousand_words():
    n = 100_000
    share = avalanche(n)
    print(f"shares of flips from {share.min():.4f} to {share.max():.4f}")
    assert np.abs((share - 0.5) * 2 * np.sqrt(n)).max() < 5.5
